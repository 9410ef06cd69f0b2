//! Numbers for people.

/// Formats a number with three or four digits and k, M or G.
pub fn count(value: f64) -> String {
    let (scaled, unit) = match value {
        _ if value >= 1e9 => (value / 1e9, "G"),
        _ if value >= 1e6 => (value / 1e6, "M"),
        _ if value >= 1e4 => (value / 1e3, "k"),
        _ => return format!("{value:.0}"),
    };
    match scaled {
        _ if scaled >= 100.0 => format!("{scaled:.0}{unit}"),
        _ if scaled >= 10.0 => format!("{scaled:.1}{unit}"),
        _ => format!("{scaled:.2}{unit}"),
    }
}

/// Formats bytes a second in MiB/s.
pub fn bandwidth(bytes: f64) -> String {
    let mib = bytes / f64::from(1 << 20);
    match mib {
        _ if mib >= 100.0 => format!("{mib:.0} MiB/s"),
        _ => format!("{mib:.1} MiB/s"),
    }
}

/// Formats nanoseconds in ns, us, ms or s.
pub fn nanos(nanos: f64) -> String {
    let (scaled, unit) = match nanos {
        _ if nanos >= 1e9 => (nanos / 1e9, "s"),
        _ if nanos >= 1e6 => (nanos / 1e6, "ms"),
        _ if nanos >= 1e4 => (nanos / 1e3, "us"),
        _ => return format!("{nanos:.0}ns"),
    };
    match scaled {
        _ if scaled >= 100.0 => format!("{scaled:.0}{unit}"),
        _ => format!("{scaled:.1}{unit}"),
    }
}

/// Formats round nanoseconds, such as those of a tick, in the largest unit of which there is one.
pub fn round_nanos(nanos: f64) -> String {
    match nanos {
        _ if nanos >= 1e9 => format!("{}s", nanos / 1e9),
        _ if nanos >= 1e6 => format!("{}ms", nanos / 1e6),
        _ if nanos >= 1e3 => format!("{}us", nanos / 1e3),
        _ => format!("{nanos}ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let shown = [0.0, 999.4, 9_999.0, 12_345.0, 812_345.0, 1_234_567.0, 37.5e6].map(count);
        assert_eq!(shown, ["0", "999", "9999", "12.3k", "812k", "1.23M", "37.5M"]);
        let shown = [0.0, 812.0, 81_234.0, 123_456.0, 1.5e6, 2.25e9].map(nanos);
        assert_eq!(shown, ["0ns", "812ns", "81.2us", "123us", "1.5ms", "2.2s"]);
        let shown = [0.5, 200.0, 5e3, 2e6, 1e9].map(round_nanos);
        assert_eq!(shown, ["0.5ns", "200ns", "5us", "2ms", "1s"]);
        assert_eq!([1e6, 4.2e9].map(bandwidth), ["1.0 MiB/s", "4005 MiB/s"]);
    }
}
