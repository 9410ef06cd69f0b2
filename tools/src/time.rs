//! Points in time as text.

use jiff::tz::TimeZone;
use nvio_ext4::Timestamp;
use serde::Serialize;

/// A point in time, for JSON.
#[derive(Serialize)]
pub struct Time {
    seconds: i64,
    nanoseconds: u32,
}

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Self { seconds: time.seconds, nanoseconds: time.nanoseconds }
    }
}

/// Formats a time as `2024-02-29 12:34:56.000000001 UTC`.
pub fn utc(time: Timestamp) -> String {
    formatted(time, TimeZone::UTC, "%Y-%m-%d %H:%M:%S.%9f UTC")
}

/// Formats a time to the minute, for listings.
pub fn utc_short(time: Timestamp) -> String {
    formatted(time, TimeZone::UTC, "%Y-%m-%d %H:%M")
}

/// Formats a time in the time zone of the machine or of TZ, as ctime(3) does:
/// `Thu Feb 29 12:34:56 2024`.
pub fn local(time: Timestamp) -> String {
    formatted(time, TimeZone::system(), "%a %b %e %H:%M:%S %Y")
}

fn formatted(time: Timestamp, zone: TimeZone, form: &str) -> String {
    let nanoseconds = i32::try_from(time.nanoseconds).unwrap_or(0);
    match jiff::Timestamp::new(time.seconds, nanoseconds) {
        Ok(instant) => instant.to_zoned(zone).strftime(form).to_string(),
        // Past the year 9999. No inode and no superblock can store such a time.
        Err(_) => format!("{} s after 1970", time.seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (seconds, shown) in [
            (0, "1970-01-01 00:00:00"),
            (-1, "1969-12-31 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_800, "2000-03-01 00:00:00"),
            (4_107_542_399, "2100-02-28 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (-2_147_483_648, "1901-12-13 20:45:52"),
            (15_032_385_535, "2446-05-10 22:38:55"),
        ] {
            let text = utc(Timestamp { seconds, nanoseconds: 7 });
            assert_eq!(text, format!("{shown}.000000007 UTC"));
        }
        let time = Timestamp { seconds: 1_709_210_096, nanoseconds: 0 };
        assert_eq!(utc_short(time), "2024-02-29 12:34");
    }
}
