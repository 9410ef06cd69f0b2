//! Parses the sizes and times of the command line.

use std::time::Duration;

use jiff::SignedDuration;

/// Parses a size in bytes: a whole number, alone or with K, M, G or T (powers of 1024; k is K), or
/// with kB, MB, GB or TB (powers of 1000).
///
/// # Errors
/// A message that says which part is wrong.
pub fn size<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let (number, unit) = split(text)?;
    let factor = if unit.is_empty() { Some(1) } else { factor(unit) };
    let factor = factor.ok_or("a size is bytes, or ends in K, M, G, T, kB, MB, GB or TB")?;
    let bytes = number.checked_mul(factor).and_then(|bytes| T::try_from(bytes).ok());
    bytes.ok_or_else(|| format!("it does not fit into {} bits", 8 * size_of::<T>()))
}

/// Returns the bytes of a suffix of sizes.
pub fn factor(suffix: &str) -> Option<u64> {
    Some(match suffix {
        "B" => 1,
        "K" | "k" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    })
}

/// Parses a time: numbers with ns, us, ms, s, m or h; 0 needs no unit.
///
/// # Errors
/// A message that says which part is wrong.
pub fn time(text: &str) -> Result<Duration, &'static str> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let time = text.parse::<SignedDuration>().ok().and_then(|time| time.try_into().ok());
    time.ok_or("a time ends in ns, us, ms or s; m and h are longer units")
}

/// Parses a whole number, in decimal or with 0x in hexadecimal.
///
/// # Errors
/// A message that says which part is wrong.
pub fn number<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let parsed = match text.strip_prefix("0x") {
        // The library would accept a sign.
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
        _ => split(text).ok().and_then(|(value, rest)| rest.is_empty().then_some(value)),
    };
    let fitting = parsed.and_then(|value| T::try_from(value).ok());
    fitting.ok_or_else(|| format!("{text:?} is not a number, or too large"))
}

/// Splits the digits at the start from the rest.
fn split(text: &str) -> Result<(u64, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    match digits.parse() {
        Ok(number) => Ok((number, rest)),
        Err(_) if digits.is_empty() => Err(format!("{text:?} does not begin with a number")),
        Err(_) => Err("it does not fit into 64 bits".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64K", 64 << 10),
            ("1k", 1 << 10),
            ("3MiB", 3 << 20),
            ("7GB", 7_000_000_000),
            ("16777215T", 16_777_215 << 40),
        ] {
            assert_eq!(size::<u64>(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "-1", "+1", "1.5G", "1 K", "1m", "16777216T", "99999999999999999999"]
        {
            assert!(size::<u64>(text).is_err(), "{text}");
        }
        assert_eq!(size::<u32>("4G"), Err("it does not fit into 32 bits".to_owned()));
        assert_eq!(time("80us"), Ok(Duration::from_micros(80)));
        assert_eq!((time("0"), time("2s")), (Ok(Duration::ZERO), Ok(Duration::from_secs(2))));
        assert_eq!(time("5m"), Ok(Duration::from_secs(300)));
        assert!(["", "5", "5q", "us", "-5ms", "00"].iter().all(|text| time(text).is_err()));
        assert_eq!((number::<u8>("0xff"), number::<u16>("10")), (Ok(255), Ok(10)));
        assert!(number::<u8>("256").is_err() && number::<u64>("0x+1").is_err());
    }
}
