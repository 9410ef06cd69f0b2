//! Numbers of headers and records.

use nvio_ext4::Timestamp;

/// Decodes a numeric field: octal digits between spaces, or a two's complement number in big-endian order
/// whose first bit is replaced by a mark (base-256). An empty field is 0.
pub fn field(bytes: &[u8]) -> Option<i128> {
    let (&first, rest) = bytes.split_first()?;
    if first & 0x80 != 0 {
        // The second bit is the sign. A field has at most 12 bytes.
        let first = i128::from(first & 0x7f) - i128::from(first & 0x40) * 2;
        let shift = |number: i128, &byte: &u8| number.checked_mul(256)?.checked_add(byte.into());
        return rest.iter().try_fold(first, shift);
    }
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let digits = bytes.get(..end)?.trim_ascii();
    let digit = |number: i128, &byte: &u8| {
        let digit = char::from(byte).to_digit(8)?;
        number.checked_mul(8)?.checked_add(digit.into())
    };
    digits.iter().try_fold(0, digit)
}

/// Decodes a decimal number of a record.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, &byte| {
        let digit = char::from(byte).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// Decodes a decimal number of seconds since 1970. Parts of a nanosecond are dropped: the time becomes an
/// earlier one.
pub fn time(text: &[u8]) -> Option<Timestamp> {
    let (is_negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        text => (false, text),
    };
    let dot = text.iter().position(|&byte| byte == b'.');
    let (whole, part) = match dot {
        Some(dot) => (text.get(..dot)?, text.get(dot + 1..)?),
        None => (text, &b""[..]),
    };
    let whole = i64::try_from(decimal(whole)?).ok()?;
    if !part.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (kept, dropped) = part.split_at(part.len().min(9));
    let digits = kept.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    let nanoseconds = match is_negative {
        true => -nanoseconds - i64::from(dropped.iter().any(|&digit| digit != b'0')),
        false => nanoseconds,
    };
    let whole = if is_negative { -whole } else { whole };
    let seconds = whole.checked_add(nanoseconds.div_euclid(1_000_000_000))?;
    let nanoseconds = u32::try_from(nanoseconds.rem_euclid(1_000_000_000)).ok()?;
    Some(Timestamp { seconds, nanoseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_octal_or_binary() {
        for (bytes, number) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"777777777777", (1 << 36) - 1),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"        ", 0),
            (b"7\0garbage", 7),
            (&[0x80, 0, 0, 0, 0, 0, 1, 0], 256),
            (&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], u64::MAX.into()),
            (&[0xff; 12], -1),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0], -256),
        ] {
            assert_eq!(field(bytes), Some(number), "{bytes:?}");
        }
        for bytes in [&b"0000648\0"[..], b"-1\0", b"1 1", b"", b"0x10", b"\x7f"] {
            assert_eq!(field(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn decimal_numbers_have_digits_alone() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for text in [&b""[..], b"-1", b"+1", b" 1", b"1.", b"18446744073709551616", b"1\n"] {
            assert_eq!(decimal(text), None, "{text:?}");
        }
    }

    #[test]
    fn times_before_1970_count_backwards() {
        for (text, seconds, nanoseconds) in [
            ("0", 0, 0),
            ("1350244992.023960108", 1_350_244_992, 23_960_108),
            ("5.5", 5, 500_000_000),
            ("5.", 5, 0),
            ("-1", -1, 0),
            ("-0.5", -1, 500_000_000),
            ("-1.999999999", -2, 1),
            ("1.0000000009", 1, 0),
            ("-1.0000000001", -2, 999_999_999),
        ] {
            let time = time(text.as_bytes());
            assert_eq!(time, Some(Timestamp { seconds, nanoseconds }), "{text}");
        }
        for text in ["", "-", ".5", "1.-5", "1e3", "9223372036854775808", "--1", "1.2.3"] {
            assert_eq!(time(text.as_bytes()), None, "{text}");
        }
    }
}
