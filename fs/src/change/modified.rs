//! The time of the last write to cached data, which the inode gets later.
//!
//! A write only notes that there was one. It gets a time when somebody asks for the time, or when the inode
//! is changed for the data, so that a write needs no clock.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::change::time::now;
use crate::format::time::Timestamp;

const NONE: i64 = i64::MIN;
const WRITTEN: i64 = i64::MIN + 1;
const SECOND: i64 = 1_000_000_000;

/// The time of the last write to cached data that the inode does not have, in nanoseconds since 1970.
#[derive(Debug)]
pub(crate) struct Modified(AtomicI64);

impl Default for Modified {
    fn default() -> Self {
        Self(AtomicI64::new(NONE))
    }
}

impl Modified {
    /// Notes a write.
    #[inline]
    pub(crate) fn note(&self) {
        self.0.store(WRITTEN, Ordering::Release);
    }

    /// Returns the time of the last write, if there was one.
    pub(crate) fn time(&self) -> Option<Timestamp> {
        if self.0.load(Ordering::Acquire) == WRITTEN {
            // Another write meanwhile is as old.
            let time = nanoseconds(now());
            let _ = self.0.compare_exchange(WRITTEN, time, Ordering::AcqRel, Ordering::Acquire);
        }
        timestamp(self.0.load(Ordering::Acquire))
    }

    /// Returns the time of the last write, which the inode gets now.
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
        WRITTEN => return Some(now()),
        time => (time.div_euclid(SECOND), time.rem_euclid(SECOND)),
    };
    Some(Timestamp { seconds, nanoseconds: u32::try_from(rest).unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_gets_one_time() {
        let modified = Modified::default();
        assert_eq!((modified.time(), modified.take()), (None, None));
        let before = now();
        modified.note();
        let time = modified.time();
        assert!(time >= Some(before) && time <= Some(now()));
        assert_eq!((modified.time(), modified.take(), modified.take()), (time, time, None));
        modified.note();
        assert!(modified.take() >= time);
    }
}
