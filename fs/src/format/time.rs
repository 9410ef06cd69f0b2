//! Timestamps of inodes.

use std::time::{Duration, SystemTime};

const NANOSECONDS: u32 = 1_000_000_000;

/// A point in time with the range that an inode can store.
///
/// # Examples
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use nvio_ext4::Timestamp;
///
/// let time = Timestamp { seconds: 1_000_000_000, nanoseconds: 500 };
/// let since = time.to_system_time().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
/// assert_eq!(since, Some(Duration::new(1_000_000_000, 500)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00 UTC: -2^31 to 2^34 - 2^31 - 1 on disk.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, 0 to 999,999,999.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// Decodes a timestamp: 32 signed bits of seconds and, if the inode has it, the extra field
    /// with two more bits of seconds (added to the signed value) and 30 bits of nanoseconds.
    ///
    /// Nanoseconds of a second or more, which are invalid, become 999,999,999.
    pub(crate) fn decode(seconds: u32, extra: Option<u32>) -> Self {
        let extra = extra.unwrap_or(0);
        let seconds = i64::from(seconds.cast_signed());
        let epoch = i64::from(extra & 0x3) << 32;
        Self {
            seconds: seconds.saturating_add(epoch),
            nanoseconds: (extra >> 2).min(NANOSECONDS.saturating_sub(1)),
        }
    }

    /// Encodes a timestamp as the fields that [`decode`](Self::decode) reads: seconds and extra.
    /// Times outside the range of an inode become the first or the last one in it.
    pub(crate) fn encode(self) -> (u32, u32) {
        let (first, last) = (i64::from(i32::MIN), i64::from(i32::MAX).saturating_add(3 << 32));
        let seconds = self.seconds.clamp(first, last);
        let [a, b, c, d, ..] = seconds.to_le_bytes();
        let low = u32::from_le_bytes([a, b, c, d]);
        // The signed low half is subtracted, so that a multiple of 2^32 is left.
        let epoch = seconds.saturating_sub(i64::from(low.cast_signed())) >> 32;
        let epoch = u32::try_from(epoch & 0x3).unwrap_or(0);
        (low, epoch | self.nanoseconds.min(NANOSECONDS.saturating_sub(1)) << 2)
    }

    /// Converts to the standard library's type; `None` if the time is outside its range.
    ///
    /// See the [example](Self#examples).
    pub fn to_system_time(self) -> Option<SystemTime> {
        let seconds = Duration::from_secs(self.seconds.unsigned_abs());
        let whole = if self.seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(seconds)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(seconds)
        };
        whole?.checked_add(Duration::from_nanos(u64::from(self.nanoseconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_epochs() {
        // The table in the documentation of the format: the first second of each range.
        let decode = |seconds, extra| Timestamp::decode(seconds, Some(extra)).seconds;
        assert_eq!(decode(0x8000_0000, 0), -0x8000_0000);
        assert_eq!(decode(0, 0), 0);
        assert_eq!(decode(0x8000_0000, 1), 0x8000_0000);
        assert_eq!(decode(0, 1), 0x1_0000_0000);
        assert_eq!(decode(0x8000_0000, 2), 0x1_8000_0000);
        assert_eq!(decode(0x7fff_ffff, 3), 0x3_7fff_ffff);
    }

    #[test]
    fn nanoseconds() {
        let time = Timestamp::decode(5, Some(123_456_789 << 2));
        assert_eq!((time.seconds, time.nanoseconds), (5, 123_456_789));
        assert_eq!(Timestamp::decode(5, Some(!0)).nanoseconds, 999_999_999);
        assert_eq!(Timestamp::decode(5, None), Timestamp { seconds: 5, nanoseconds: 0 });
    }

    #[test]
    fn before_1970() {
        let time = Timestamp { seconds: -2, nanoseconds: 250_000_000 };
        let expected = SystemTime::UNIX_EPOCH - Duration::from_millis(1750);
        assert_eq!(time.to_system_time(), Some(expected));
    }
}
