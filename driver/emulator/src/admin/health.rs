//! Counters and logs: SMART / Health and the error log (Base 5.16.1.2, 5.16.1.3).

use std::collections::VecDeque;

use nvio_spec::{Cqe, ErrorLogEntry, HealthLog, Sqe, Status};
use zerocopy::FromZeros;
use zerocopy::little_endian::{U16, U64, U128};

use crate::admin::features::TEMPERATURE;

/// Entries of the error log; ELPE of Identify is this number, 0's based.
pub(crate) const ERROR_LOG_ENTRIES: u8 = 64;

/// Counters and the log of failed commands. They survive controller resets, like those of a drive,
/// and end with the emulator.
#[derive(Debug, Default)]
pub(crate) struct Health {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
    pub(crate) media_errors: u64,
    pub(crate) unsafe_shutdowns: u64,
    pub(crate) power_cuts: u64,
    errors: VecDeque<ErrorLogEntry>,
    error_count: u64,
}

impl Health {
    /// Logs a command that failed.
    pub(crate) fn failed(&mut self, sqid: u16, sqe: &Sqe, status: Status) {
        self.error_count += 1;
        if status.kind() == Status::media(0).kind() {
            self.media_errors += 1;
        }
        let mut entry = ErrorLogEntry::new_zeroed();
        entry.error_count = U64::new(self.error_count);
        entry.sqid = U16::new(sqid);
        entry.cid = sqe.cid;
        entry.status = Cqe::pack_status(status, false);
        entry.parameter_error_location = U16::new(0xffff);
        entry.nsid = sqe.nsid;
        entry.lba = U64::new(if sqid == 0 { 0 } else { sqe.slba() });
        self.errors.truncate(usize::from(ERROR_LOG_ENTRIES) - 1);
        self.errors.push_front(entry);
    }

    /// Returns the error log, newest first.
    pub(crate) fn errors(&self) -> impl Iterator<Item = &ErrorLogEntry> {
        self.errors.iter()
    }

    /// Returns the SMART / Health page, with these bits of Critical Warning.
    pub(crate) fn log(&self, critical_warning: u8) -> HealthLog {
        let mut log = HealthLog::new_zeroed();
        log.critical_warning = critical_warning;
        let number = |value: u64| U128::new(u128::from(value));
        log.composite_temperature = TEMPERATURE.to_le_bytes();
        log.available_spare = 100;
        log.available_spare_threshold = 10;
        log.data_units_read = data_units(self.bytes_read);
        log.data_units_written = data_units(self.bytes_written);
        log.host_reads = number(self.reads);
        log.host_writes = number(self.writes);
        log.power_cycles = number(1 + self.power_cuts);
        log.unsafe_shutdowns = number(self.unsafe_shutdowns);
        log.media_errors = number(self.media_errors);
        log.error_log_entries = number(self.error_count);
        log
    }
}

/// Converts bytes to thousands of 512 bytes, rounded up.
fn data_units(bytes: u64) -> U128 {
    U128::new(u128::from(bytes.div_ceil(512_000)))
}
