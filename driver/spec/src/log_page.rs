//! Log pages (Base 5.16.1) and the asynchronous events that point at them (Base 5.2.1).

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::identify::text;
use crate::opcode::admin;
use crate::{Sqe, Status};

/// Log page identifiers (Base 5.16.1, figure 202).
///
/// See the [example](crate::Sqe#examples).
pub mod log_id {
    /// Supported Log Pages (Base 5.16.1.1).
    pub const SUPPORTED_LOG_PAGES: u8 = 0x00;
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
    /// Feature Identifiers Supported and Effects (Base 5.16.1.18).
    pub const FEATURE_EFFECTS: u8 = 0x12;
    /// NVMe-MI Commands Supported and Effects (Base 5.16.1.19).
    pub const MANAGEMENT_EFFECTS: u8 = 0x13;
}

/// Log Page Attributes: bits of LPA in Identify Controller (Base 5.17.2.1, figure 275).
///
/// See the [example](crate::SupportedLogPages#examples).
pub mod lpa {
    /// SMART / Health Information is kept for each namespace.
    pub const HEALTH_PER_NAMESPACE: u8 = 1;
    /// Commands Supported and Effects can be read.
    pub const COMMAND_EFFECTS: u8 = 1 << 1;
    /// Extended data for Get Log Page: 32-bit lengths, and offsets.
    pub const EXTENDED_DATA: u8 = 1 << 2;
    /// Supported Log Pages and the effects of features and of NVMe-MI commands can be read, and the
    /// effects have a scope.
    pub const SUPPORTED_LOG_PAGES: u8 = 1 << 5;
}

impl Sqe {
    /// Creates a Get Log Page command (Base 5.16) of `dwords` dwords, at least 1, from byte
    /// `offset`. With `retain`, the events of the page stay masked (RAE). Lengths above 4096 dwords
    /// and offsets need [`lpa::EXTENDED_DATA`].
    ///
    /// See the [example](Self#examples).
    pub fn get_log_page(id: u8, nsid: u32, offset: u64, dwords: u32, retain: bool) -> Self {
        // NUMD is a 0's based value.
        let numd = dwords.saturating_sub(1);
        let rae = u32::from(retain) << 15;
        Self {
            cdw10: U32::new((numd & 0xffff) << 16 | rae | u32::from(id)),
            cdw11: U32::new(numd >> 16),
            cdw12: U32::new((offset & 0xffff_ffff) as u32),
            cdw13: U32::new((offset >> 32) as u32),
            ..Self::new(admin::GET_LOG_PAGE, nsid)
        }
    }
}

/// Supported Log Pages, 1024 bytes (Base 5.16.1.1, figure 204).
///
/// # Examples
/// ```
/// use nvio_spec::{SupportedLogPages, log_id};
/// use zerocopy::FromZeros;
///
/// let mut log = SupportedLogPages::new_zeroed();
/// log.page[usize::from(log_id::HEALTH)].set(1);
/// assert_eq!(log.ids().collect::<Vec<_>>(), [log_id::HEALTH]);
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SupportedLogPages {
    /// LID Supported and Effects of each log page: bit 0 supported, bit 1 index offsets.
    pub page: [U32; 256],
}

const _: () = assert!(size_of::<SupportedLogPages>() == 1024);

impl SupportedLogPages {
    /// Returns the identifiers of the supported log pages, ascending.
    ///
    /// See the [example](Self#examples).
    pub fn ids(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|&id| self.page[usize::from(id)].get() & 1 != 0)
    }
}

/// One entry of the Error Information log, 64 bytes (Base 5.16.1.2, figure 206).
///
/// # Examples
/// ```
/// use nvio_spec::{ErrorLogEntry, Status};
/// use zerocopy::FromZeros;
///
/// let entry = ErrorLogEntry::new_zeroed();
/// assert_eq!(entry.status(), Status::SUCCESS);
/// println!("byte and bit of the parameter: {:?}", entry.parameter());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ErrorLogEntry {
    /// Number of the error since manufacture, from 1; 0 is an unused entry.
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
    /// Vendor specific log page with details; 0 is none.
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
const _: () = assert!(std::mem::offset_of!(ErrorLogEntry, command_specific) == 32);

impl ErrorLogEntry {
    /// Returns the status of the completion.
    ///
    /// See the [example](Self#examples).
    pub fn status(&self) -> Status {
        Status(self.status.get() >> 1)
    }

    /// Returns byte and bit of the command's parameter in error, if the controller reports them.
    ///
    /// See the [example](Self#examples).
    pub fn parameter(&self) -> Option<(u8, u8)> {
        let [byte, bit] = self.parameter_error_location.get().to_le_bytes();
        (self.parameter_error_location.get() != 0xffff).then_some((byte, bit & 7))
    }
}

/// Critical Warning: bits of the first byte of [`HealthLog`] (Base 5.16.1.3, figure 207).
pub mod critical_warning {
    /// The spare capacity is below its threshold.
    pub const SPARE: u8 = 1;
    /// A temperature is at or beyond a threshold.
    pub const TEMPERATURE: u8 = 1 << 1;
    /// The reliability is degraded by media or internal errors.
    pub const RELIABILITY: u8 = 1 << 2;
    /// All media are read-only.
    pub const READ_ONLY: u8 = 1 << 3;
    /// The backup of volatile memory has failed.
    pub const VOLATILE_BACKUP: u8 = 1 << 4;
    /// The Persistent Memory Region is read-only or unreliable.
    pub const PERSISTENT_MEMORY: u8 = 1 << 5;
}

/// SMART / Health Information, 512 bytes (Base 5.16.1.3, figure 207).
///
/// # Examples
/// ```
/// use nvio_spec::{HealthLog, critical_warning};
/// use zerocopy::FromZeros;
///
/// let mut log = HealthLog::new_zeroed();
/// log.composite_temperature = 300_u16.to_le_bytes();
/// assert_eq!(log.temperature(), 300, "kelvins");
/// log.data_units_read.set(2);
/// assert_eq!(HealthLog::data_unit_bytes(log.data_units_read), 1_024_000);
/// assert_eq!(log.critical_warning & critical_warning::SPARE, 0);
/// ```
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
    /// Minutes at or above the warning composite temperature threshold (WCTEMP).
    pub warning_temperature_minutes: U32,
    /// Minutes at or above the critical composite temperature threshold (CCTEMP).
    pub critical_temperature_minutes: U32,
    /// Temperature sensors 1 to 8, kelvin; 0 is an absent sensor.
    pub temperature_sensors: [U16; 8],
    /// Changes to lower power states by host-controlled thermal management, temperatures 1 and 2.
    pub thermal_transitions: [U32; 2],
    /// Seconds in those states, temperatures 1 and 2.
    pub thermal_seconds: [U32; 2],
    /// Reserved.
    pub reserved_232: [u8; 280],
}

const _: () = assert!(size_of::<HealthLog>() == 512);
const _: () = assert!(std::mem::offset_of!(HealthLog, data_units_read) == 32);
const _: () = assert!(std::mem::offset_of!(HealthLog, error_log_entries) == 176);
const _: () = assert!(std::mem::offset_of!(HealthLog, temperature_sensors) == 200);
const _: () = assert!(std::mem::offset_of!(HealthLog, reserved_232) == 232);

impl HealthLog {
    /// Returns the composite temperature in kelvin.
    ///
    /// See the [example](Self#examples).
    pub fn temperature(&self) -> u16 {
        u16::from_le_bytes(self.composite_temperature)
    }

    /// Converts data units to bytes, saturating at 128 bits. Controllers round the units, and
    /// report 0 if they do not count them.
    ///
    /// See the [example](Self#examples).
    pub fn data_unit_bytes(units: U128) -> u128 {
        units.get().saturating_mul(512_000)
    }
}

/// Firmware Slot Information, 512 bytes (Base 5.16.1.4, figure 208).
///
/// # Examples
/// ```
/// use nvio_spec::FirmwareSlotLog;
/// use zerocopy::FromZeros;
///
/// let mut log = FirmwareSlotLog::new_zeroed();
/// log.active = 0x21;
/// log.revision[0] = *b"1.0     ";
/// assert_eq!((log.active_slot(), log.next_slot()), (1, Some(2)));
/// assert_eq!(log.slots().next(), Some((1, "1.0".to_owned())));
/// ```
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

impl FirmwareSlotLog {
    /// Returns the slot of the running firmware, 1 to 7 for a conforming controller.
    ///
    /// See the [example](Self#examples).
    pub fn active_slot(&self) -> u8 {
        self.active & 7
    }

    /// Returns the slot that the next controller level reset activates, if the controller reports
    /// it.
    ///
    /// See the [example](Self#examples).
    pub fn next_slot(&self) -> Option<u8> {
        Some(self.active >> 4 & 7).filter(|&slot| slot != 0)
    }

    /// Returns the slots of 1 to 7 that hold firmware, each with its revision.
    ///
    /// See the [example](Self#examples).
    pub fn slots(&self) -> impl Iterator<Item = (u8, String)> + '_ {
        let used = (1..).zip(&self.revision).filter(|(_, bytes)| bytes.iter().any(|&b| b != 0));
        used.map(|(slot, bytes)| (slot, text(bytes)))
    }
}

/// Changed Namespace List, 4096 bytes (Base 5.16.1.5).
///
/// # Examples
/// ```
/// use nvio_spec::ChangedNamespaces;
/// use zerocopy::FromZeros;
///
/// let mut log = ChangedNamespaces::new_zeroed();
/// log.nsid[0].set(3);
/// assert!(!log.is_overflowed());
/// assert_eq!(log.ids().collect::<Vec<_>>(), [3]);
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ChangedNamespaces {
    /// The namespaces, ascending, ended by 0; FFFFFFFFh as the first when they do not fit.
    pub nsid: [U32; 1024],
}

const _: () = assert!(size_of::<ChangedNamespaces>() == 4096);

impl ChangedNamespaces {
    /// Returns true if more namespaces changed than the list has room for: any may have changed.
    ///
    /// See the [example](Self#examples).
    pub fn is_overflowed(&self) -> bool {
        self.nsid[0].get() == crate::NSID_ALL
    }

    /// Returns the namespaces of the list; none if it overflowed.
    ///
    /// See the [example](Self#examples).
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        let ids = self.nsid.iter().map(|id| id.get());
        ids.take_while(|&id| id != 0 && id != crate::NSID_ALL)
    }
}

/// Commands Supported and Effects, 4096 bytes (Base 5.16.1.6, figure 210).
///
/// # Examples
/// ```
/// use nvio_spec::{CommandEffects, opcode};
/// use zerocopy::FromZeros;
///
/// let mut log = CommandEffects::new_zeroed();
/// let effects = CommandEffects::SUPPORTED | CommandEffects::CHANGES_CONTENT;
/// log.io[usize::from(opcode::nvm::WRITE)].set(effects);
/// assert_eq!(CommandEffects::submission(effects), 0, "may be submitted with any other command");
/// ```
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
    /// The command may change the capabilities of a namespace (NCC).
    pub const CHANGES_NAMESPACE: u32 = 1 << 2;
    /// The command may change the inventory of namespaces (NIC).
    pub const CHANGES_INVENTORY: u32 = 1 << 3;
    /// The command may change the capabilities of the controller (CCC).
    pub const CHANGES_CONTROLLER: u32 = 1 << 4;
    /// UUID selection is supported.
    pub const UUID_SELECTION: u32 = 1 << 19;

    /// Returns Command Submission and Execution (CSE) of an entry: 0 no restriction, 1 one command
    /// at a time for the namespace, 2 one for the controller; other values are reserved.
    ///
    /// See the [example](Self#examples).
    pub fn submission(entry: u32) -> u8 {
        (entry >> 16 & 7) as u8
    }
}

/// Asynchronous event types: bits 2:0 of DW0 of the completion (Base 5.2.1, figure 145).
///
/// # Examples
/// ```
/// use nvio_spec::{EventType, error_event, health_event};
///
/// // DW0 of a completion of Asynchronous Event Request.
/// let dw0: u32 = 0x0002_0101;
/// assert_eq!(EventType((dw0 & 7) as u8), EventType::HEALTH);
/// assert_eq!((dw0 >> 8) as u8, health_event::TEMPERATURE);
/// assert_eq!(error_event::INVALID_DOORBELL_REGISTER, 0);
/// ```
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
///
/// See the [example](crate::EventType#examples).
pub mod error_event {
    /// A doorbell of a queue that does not exist was written.
    pub const INVALID_DOORBELL_REGISTER: u8 = 0x00;
    /// A value that is not allowed was written to a doorbell.
    pub const INVALID_DOORBELL_VALUE: u8 = 0x01;
    /// A diagnostic failure.
    pub const DIAGNOSTIC_FAILURE: u8 = 0x02;
}

/// Asynchronous event information of type SMART / Health: bits 15:8 of DW0 (Base 5.2.1, figure
/// 147).
///
/// See the [example](crate::EventType#examples).
pub mod health_event {
    /// The reliability of the NVM subsystem is degraded.
    pub const RELIABILITY: u8 = 0x00;
    /// A temperature is at or beyond a threshold.
    pub const TEMPERATURE: u8 = 0x01;
    /// The available spare is below its threshold.
    pub const SPARE: u8 = 0x02;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status;
    use zerocopy::FromZeros;

    #[test]
    fn get_log_page_encodes_a_zeroes_based_length_and_a_64_bit_offset() {
        let sqe = Sqe::get_log_page(0x07, 9, 0x1_2345_6788, 0x2_0001, true);
        assert_eq!((sqe.opcode, sqe.nsid.get()), (0x02, 9));
        assert_eq!((sqe.cdw10.get(), sqe.cdw11.get()), (0x8007, 2));
        assert_eq!((sqe.cdw12.get(), sqe.cdw13.get()), (0x2345_6788, 1));
        let sqe = Sqe::get_log_page(log_id::HEALTH, 0, 0, 128, false);
        assert_eq!(sqe.cdw10.get(), 127 << 16 | 2);
    }

    #[test]
    fn health_fields_are_where_the_specification_has_them() {
        let mut bytes = [0u8; 512];
        bytes[0] = critical_warning::READ_ONLY;
        bytes[1..3].copy_from_slice(&300u16.to_le_bytes());
        bytes[32..48].copy_from_slice(&7u128.to_le_bytes());
        bytes[192..196].copy_from_slice(&11u32.to_le_bytes());
        bytes[202..204].copy_from_slice(&301u16.to_le_bytes());
        bytes[220..224].copy_from_slice(&12u32.to_le_bytes());
        bytes[224..228].copy_from_slice(&13u32.to_le_bytes());
        let log = HealthLog::read_from_bytes(&bytes).unwrap();
        assert_eq!((log.critical_warning, log.temperature()), (8, 300));
        assert_eq!(HealthLog::data_unit_bytes(log.data_units_read), 3_584_000);
        assert_eq!(HealthLog::data_unit_bytes(U128::new(u128::MAX)), u128::MAX);
        assert_eq!(log.warning_temperature_minutes.get(), 11);
        assert_eq!(log.temperature_sensors.map(|kelvin| kelvin.get())[..3], [0, 301, 0]);
        assert_eq!((log.thermal_transitions[1].get(), log.thermal_seconds[0].get()), (12, 13));
    }

    #[test]
    fn error_entries_tell_status_and_parameter() {
        let mut entry = ErrorLogEntry::new_zeroed();
        entry.status = U16::new(status::INVALID_FIELD.do_not_retry().0 << 1 | 1);
        entry.parameter_error_location = U16::new(0x0328);
        assert_eq!(entry.status().bare(), status::INVALID_FIELD);
        assert_eq!(entry.parameter(), Some((40, 3)));
        entry.parameter_error_location = U16::new(0xffff);
        assert_eq!(entry.parameter(), None);
    }

    #[test]
    fn firmware_slots_that_are_empty_are_left_out() {
        let mut log = FirmwareSlotLog::new_zeroed();
        log.active = 0x31;
        log.revision[0] = *b"1.0     ";
        log.revision[2] = *b"2\x1b[0m\0\0\0";
        assert_eq!((log.active_slot(), log.next_slot()), (1, Some(3)));
        let slots: Vec<_> = log.slots().collect();
        assert_eq!(slots, [(1, "1.0".to_owned()), (3, "2?[0m".to_owned())]);
    }

    #[test]
    fn changed_namespaces_end_at_zero_and_may_overflow() {
        let mut log = ChangedNamespaces::new_zeroed();
        assert!(log.ids().next().is_none() && !log.is_overflowed());
        log.nsid[0] = U32::new(3);
        log.nsid[1] = U32::new(9);
        log.nsid[3] = U32::new(10);
        assert_eq!(log.ids().collect::<Vec<_>>(), [3, 9]);
        log.nsid.fill(U32::new(1));
        assert_eq!(log.ids().count(), 1024);
        log.nsid[0] = U32::new(0xffff_ffff);
        assert!(log.is_overflowed() && log.ids().next().is_none());
    }

    #[test]
    fn supported_pages_and_effects() {
        let mut log = SupportedLogPages::new_zeroed();
        for id in [0, 2, 255] {
            log.page[id] = U32::new(3);
        }
        log.page[7] = U32::new(2);
        assert_eq!(log.ids().collect::<Vec<_>>(), [0, 2, 255]);
        assert_eq!(CommandEffects::submission(0xfffa_ffff), 2);
    }
}
