//! Features (Base 5.27.1).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Feature identifiers (Base 5.27.1, figure 316).
///
/// See the [example](crate::Sqe#examples).
pub mod feature_id {
    /// Arbitration (Base 5.27.1.1).
    pub const ARBITRATION: u8 = 0x01;
    /// Power Management (Base 5.27.1.2).
    pub const POWER_MANAGEMENT: u8 = 0x02;
    /// Temperature Threshold (Base 5.27.1.3).
    pub const TEMPERATURE_THRESHOLD: u8 = 0x04;
    /// Error Recovery (NVM 4.1.3.2).
    pub const ERROR_RECOVERY: u8 = 0x05;
    /// Volatile Write Cache (Base 5.27.1.4).
    pub const VOLATILE_WRITE_CACHE: u8 = 0x06;
    /// Number of Queues (Base 5.27.1.5).
    pub const NUMBER_OF_QUEUES: u8 = 0x07;
    /// Interrupt Coalescing (Base 5.27.1.6).
    pub const INTERRUPT_COALESCING: u8 = 0x08;
    /// Interrupt Vector Configuration (Base 5.27.1.7).
    pub const INTERRUPT_VECTOR_CONFIGURATION: u8 = 0x09;
    /// Write Atomicity Normal (Base 5.27.1.8).
    pub const WRITE_ATOMICITY_NORMAL: u8 = 0x0a;
    /// Asynchronous Event Configuration (Base 5.27.1.9).
    pub const ASYNC_EVENT_CONFIGURATION: u8 = 0x0b;
    /// Keep Alive Timer (Base 5.27.1.12).
    pub const KEEP_ALIVE_TIMER: u8 = 0x0f;
    /// Host Behavior Support (Base 5.27.1.18).
    pub const HOST_BEHAVIOR_SUPPORT: u8 = 0x16;
}

/// Host Behavior Support, 512 bytes of data (Base 5.27.1.18).
///
/// See the [example](crate::Sqe#examples).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HostBehaviorSupport {
    /// Advanced Command Retry Enable (ACRE), 0 or 1: the host honours Command Retry Delay.
    pub acre: u8,
    /// Extended Telemetry Data Area 4 Supported (ETDAS), 0 or 1.
    pub etdas: u8,
    /// LBA Format Extension Enable (LBAFEE), 0 or 1: the host knows the extended LBA formats.
    pub lbafee: u8,
    /// Reserved.
    pub reserved_3: [u8; 509],
}

const _: () = assert!(size_of::<HostBehaviorSupport>() == 512);

/// Number of Queues: what was asked for, or what was granted (Base 5.27.1.5). Counts are real
/// numbers, 1 to 65,535; the wire has them 0's based.
///
/// # Examples
/// ```
/// use nvio_spec::QueueCount;
///
/// let requested = QueueCount { submission: 4, completion: 4 };
/// assert_eq!(requested.to_dword(), 0x0003_0003, "both numbers are 0's based");
/// assert_eq!(QueueCount::from_dword(0x0003_0003), Some(requested));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueCount {
    /// I/O submission queues.
    pub submission: u16,
    /// I/O completion queues.
    pub completion: u16,
}

impl QueueCount {
    /// Decodes CDW11 of the command, or DW0 of its completion. `None` if a count is 65,536, which
    /// the specification does not allow.
    ///
    /// See the [example](Self#examples).
    pub fn from_dword(dword: u32) -> Option<Self> {
        let count = |half: u32| u16::try_from((half & 0xffff) + 1).ok();
        Some(Self { submission: count(dword)?, completion: count(dword >> 16)? })
    }

    /// Encodes to CDW11 or DW0. A count of 0 is taken as 1.
    ///
    /// See the [example](Self#examples).
    pub fn to_dword(self) -> u32 {
        let half = |count: u16| u32::from(count.saturating_sub(1));
        half(self.completion) << 16 | half(self.submission)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_zeroes_based_on_the_wire() {
        let count = QueueCount { submission: 4, completion: 9 };
        assert_eq!(count.to_dword(), 8 << 16 | 3);
        assert_eq!(QueueCount::from_dword(count.to_dword()), Some(count));
        assert_eq!(QueueCount::from_dword(0xffff), None);
    }
}
