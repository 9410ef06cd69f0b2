//! Points in time as text.

use nvio_ext4::Timestamp;

const DAY: i64 = 86_400;

/// Formats a time as `2024-02-29 12:34:56.000000001 UTC`.
pub fn utc(time: Timestamp) -> String {
    let (days, second) = (time.seconds.div_euclid(DAY), time.seconds.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let nanoseconds = time.nanoseconds;
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{nanoseconds:09} UTC")
}

/// Formats a time to the minute, for listings.
pub fn utc_short(time: Timestamp) -> String {
    utc(time).chars().take("2024-02-29 12:34".len()).collect()
}

/// Formats a time in the time zone of the machine or of TZ, as ctime(3) does:
/// `Thu Feb 29 12:34:56 2024`.
pub fn local(time: Timestamp) -> String {
    let Ok(instant) = jiff::Timestamp::from_second(time.seconds) else {
        // Past the year 9999, which the time zone library does not represent.
        return utc(time);
    };
    let local = instant.to_zoned(jiff::tz::TimeZone::system());
    local.strftime("%a %b %e %H:%M:%S %Y").to_string()
}

/// Converts days since 1970-01-01 to year, month and day of the Gregorian calendar.
///
/// It counts from 1 March of year 0, so that a leap day is the last day of its year. 400 years have
/// 146,097 days, and five months from March on have 153.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
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
