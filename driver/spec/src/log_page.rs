//! Log pages (Base 5.16.1) and the asynchronous events that point at them (Base 5.2.1).

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Log page identifiers (Base 5.16.1, figure 202).
pub mod log_id {
    /// Error Information (Base 5.16.1.2).
    pub const ERROR_INFORMATION: u8 = 0x01;
    /// SMART / Health Information (Base 5.16.1.3).
    pub const HEALTH: u8 = 0x02;
    /// Firmware Slot Information (Base 5.16.1.4).
    pub const FIRMWARE_SLOT: u8 = 0x03;
    /// Changed Namespace List (Base 5.16.1.5).
    pub const CHANGED_NAMESPACES: u8 = 0x04;
    /// Commands Supported and Effects (Base 5.16.1.6).
    pub const COMMAND_EFFECTS: u8 = 0x05;
}

/// One entry of the Error Information log, 64 bytes (Base 5.16.1.2, figure 206).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ErrorLogEntry {
    /// Number of this error since manufacture, from 1; 0 is an entry not in use.
    pub error_count: U64,
    /// Submission queue of the command.
    pub sqid: U16,
    /// Identifier of the command.
    pub cid: U16,
    /// Status field with the phase tag, as in the completion.
    pub status: U16,
    /// Byte in bits 7:0 and bit in bits 10:8 of the parameter in error; FFFFh is none.
    pub parameter_error_location: U16,
    /// First LBA in error.
    pub lba: U64,
    /// Namespace.
    pub nsid: U32,
    /// Vendor specific log page that says more; 0 is none.
    pub vendor_log: u8,
    /// Transport type.
    pub trtype: u8,
    /// Reserved.
    pub reserved_30: [u8; 2],
    /// Command specific information.
    pub command_specific: U64,
    /// Transport specific information.
    pub transport_specific: U16,
    /// Reserved.
    pub reserved_42: [u8; 22],
}

const _: () = assert!(size_of::<ErrorLogEntry>() == 64);

/// SMART / Health Information, 512 bytes (Base 5.16.1.3, figure 207).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HealthLog {
    /// Critical warnings, a bit each.
    pub critical_warning: u8,
    /// Composite temperature, kelvin, not aligned.
    pub composite_temperature: [u8; 2],
    /// Spare capacity left, percent.
    pub available_spare: u8,
    /// Threshold of the spare, percent.
    pub available_spare_threshold: u8,
    /// Endurance used, percent; may exceed 100.
    pub percentage_used: u8,
    /// Endurance group critical warnings.
    pub endurance_group_warning: u8,
    /// Reserved.
    pub reserved_7: [u8; 25],
    /// Data read by the host, thousands of 512 bytes, rounded up.
    pub data_units_read: U128,
    /// Data written by the host, thousands of 512 bytes, rounded up.
    pub data_units_written: U128,
    /// Read commands completed.
    pub host_reads: U128,
    /// Write commands completed.
    pub host_writes: U128,
    /// Minutes busy with I/O commands.
    pub busy_minutes: U128,
    /// Power cycles.
    pub power_cycles: U128,
    /// Hours powered on.
    pub power_on_hours: U128,
    /// Power losses without a shutdown notification.
    pub unsafe_shutdowns: U128,
    /// Unrecovered data integrity errors.
    pub media_errors: U128,
    /// Entries ever made in the Error Information log.
    pub error_log_entries: U128,
    /// Temperature statistics, reserved.
    pub reserved_192: [u8; 320],
}

const _: () = assert!(size_of::<HealthLog>() == 512);
const _: () = assert!(std::mem::offset_of!(HealthLog, data_units_read) == 32);
const _: () = assert!(std::mem::offset_of!(HealthLog, error_log_entries) == 176);

impl HealthLog {
    /// Composite temperature in kelvin.
    pub fn temperature(&self) -> u16 {
        u16::from_le_bytes(self.composite_temperature)
    }
}

/// Firmware Slot Information, 512 bytes (Base 5.16.1.4, figure 208).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FirmwareSlotLog {
    /// Slot in use in bits 2:0; slot at the next reset in bits 6:4.
    pub active: u8,
    /// Reserved.
    pub reserved_1: [u8; 7],
    /// Revisions of the slots, ASCII; zeroes for a slot that is empty.
    pub revision: [[u8; 8]; 7],
    /// Reserved.
    pub reserved_64: [u8; 448],
}

const _: () = assert!(size_of::<FirmwareSlotLog>() == 512);

/// Commands Supported and Effects, 4096 bytes (Base 5.16.1.6, figure 210).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CommandEffects {
    /// Admin commands by opcode.
    pub admin: [U32; 256],
    /// I/O commands by opcode.
    pub io: [U32; 256],
    /// Reserved.
    pub reserved_2048: [u8; 2048],
}

const _: () = assert!(size_of::<CommandEffects>() == 4096);

impl CommandEffects {
    /// The command is supported (CSUPP).
    pub const SUPPORTED: u32 = 1;
    /// The command may change the content of logical blocks (LBCC).
    pub const CHANGES_CONTENT: u32 = 1 << 1;
}

/// Asynchronous event types: bits 2:0 of DW0 of the completion (Base 5.2.1, figure 145).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventType(pub u8);

impl EventType {
    /// Error status; the log page is Error Information.
    pub const ERROR: Self = Self(0);
    /// SMART / Health status.
    pub const HEALTH: Self = Self(1);
    /// Notice.
    pub const NOTICE: Self = Self(2);
}

/// Asynchronous event information of type Error: bits 15:8 of DW0 (Base 5.2.1, figure 146).
pub mod error_event {
    /// A doorbell of a queue that does not exist was written.
    pub const INVALID_DOORBELL_REGISTER: u8 = 0x00;
    /// A value that is not allowed was written to a doorbell.
    pub const INVALID_DOORBELL_VALUE: u8 = 0x01;
    /// A diagnostic failure.
    pub const DIAGNOSTIC_FAILURE: u8 = 0x02;
}
