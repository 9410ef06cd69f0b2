//! The time of the last read of a file, or of the last write to its cached data, which the inode gets later.
//!
//! A read or a write only notes that there was one. The time is taken from the clock when a caller asks for
//! it, or when the inode is changed for it, so that the I/O needs no clock.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::change::time::now;
use crate::format::time::Timestamp;

const NONE: i64 = i64::MIN;
const NOTED: i64 = i64::MIN + 1;
const SECOND: i64 = 1_000_000_000;

/// The time of the last read or write that the inode does not have, in nanoseconds since 1970.
#[derive(Debug)]
pub(crate) struct Noted(AtomicI64);

impl Default for Noted {
    fn default() -> Self {
        Self(AtomicI64::new(NONE))
    }
}

impl Noted {
    /// Notes a write.
    #[inline]
    pub(crate) fn note(&self) {
        self.0.store(NOTED, Ordering::Release);
    }

    /// Notes a read. Threads that read one file do not take the cache line from each other.
    #[inline]
    pub(crate) fn note_once(&self) {
        if self.0.load(Ordering::Relaxed) != NOTED {
            self.note();
        }
    }

    /// Returns the time of the last read or write, if there was one.
    pub(crate) fn time(&self) -> Option<Timestamp> {
        if self.0.load(Ordering::Acquire) == NOTED {
            // A read or write that is noted meanwhile gets this time, too.
            let time = nanoseconds(now());
            let _ = self.0.compare_exchange(NOTED, time, Ordering::AcqRel, Ordering::Acquire);
        }
        timestamp(self.0.load(Ordering::Acquire))
    }

    /// Returns the time of the last read or write, which the inode gets now.
    pub(crate) fn take(&self) -> Option<Timestamp> {
        timestamp(self.0.swap(NONE, Ordering::AcqRel))
    }
}

fn nanoseconds(time: Timestamp) -> i64 {
    time.seconds.saturating_mul(SECOND).saturating_add(time.nanoseconds.into())
}

fn timestamp(value: i64) -> Option<Timestamp> {
    let (seconds, rest) = match value {
        NONE => return None,
        NOTED => return Some(now()),
        time => (time.div_euclid(SECOND), time.rem_euclid(SECOND)),
    };
    Some(Timestamp { seconds, nanoseconds: u32::try_from(rest).unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_gets_one_time() {
        let noted = Noted::default();
        assert_eq!((noted.time(), noted.take()), (None, None));
        let before = now();
        noted.note();
        let time = noted.time();
        assert!(time >= Some(before) && time <= Some(now()));
        assert_eq!((noted.time(), noted.take(), noted.take()), (time, time, None));
        noted.note();
        assert!(noted.take() >= time);
    }
}
