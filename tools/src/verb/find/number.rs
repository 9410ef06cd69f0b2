//! Conditions on numbers: exact, lower bound, upper bound.

use std::cmp::Ordering;
use std::str::FromStr;

use crate::units::factor;

/// A condition `N`, `+N` or `-N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    order: Ordering,
    value: u64,
}

impl Number {
    /// Returns true if a value meets the condition.
    pub fn matches(self, value: i128) -> bool {
        value.cmp(&i128::from(self.value)) == self.order
    }

    /// Returns true if an age in seconds meets the condition in minutes. As in find, 5 is the fifth
    /// minute, which begins after four, and +5 and -5 compare with five minutes exactly.
    pub fn matches_minutes(self, age: i128) -> bool {
        let bound = i128::from(self.value) * 60;
        match self.order {
            Ordering::Equal => (bound - 60..bound).contains(&age),
            order => age.cmp(&bound) == order,
        }
    }
}

impl FromStr for Number {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (order, digits) = match text.as_bytes() {
            [b'+', ..] => (Ordering::Greater, &text[1..]),
            [b'-', ..] => (Ordering::Less, &text[1..]),
            _ => (Ordering::Equal, text),
        };
        let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
        let value = digits.parse().ok().filter(|_| all_digits);
        let value = value.ok_or("it is a number, with + for more or - for less")?;
        Ok(Self { order, value })
    }
}

/// A condition on a size, which is rounded up to whole units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    number: Number,
    unit: u64,
}

impl Size {
    /// Returns true if a size meets the condition.
    pub fn matches(self, bytes: u64) -> bool {
        self.number.matches(bytes.div_ceil(self.unit.max(1)).into())
    }
}

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let end = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (digits, suffix) = text.split_at(end);
        let unit = match suffix {
            "" | "b" => Some(512),
            "c" => Some(1),
            "w" => Some(2),
            suffix => factor(suffix),
        };
        let wrong = "it is a number with c, b, k, M, G or T, and + for more or - for less";
        Ok(Self { number: digits.parse().map_err(|_| wrong)?, unit: unit.ok_or(wrong)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let matches = |text: &str, value| text.parse::<Number>().unwrap().matches(value);
        assert!(matches("5", 5) && !matches("5", 6));
        assert!(matches("+5", 6) && !matches("+5", 5));
        assert!(matches("-5", 4) && !matches("-5", 5) && matches("-0", -1));
        for wrong in ["", "+", "-", "++1", "+-1", "1k", "18446744073709551616", "\u{663}"] {
            assert!(wrong.parse::<Number>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn minutes_are_counted_as_find_counts_them() {
        let matches = |text: &str, age| text.parse::<Number>().unwrap().matches_minutes(age);
        assert!(matches("5", 240) && matches("5", 299) && !matches("5", 239) && !matches("5", 300));
        assert!(matches("-5", 299) && !matches("-5", 300));
        assert!(matches("+5", 301) && !matches("+5", 300));
    }

    /// As find(1) rounds: 1 MiB and a byte are 2 MiB.
    #[test]
    fn sizes_are_rounded_up() {
        let matches = |text: &str, bytes| text.parse::<Size>().unwrap().matches(bytes);
        assert!(matches("1M", 1) && matches("1M", 1 << 20) && matches("2M", (1 << 20) + 1));
        assert!(matches("-1M", 0) && !matches("-1M", 1) && matches("+1M", (1 << 20) + 1));
        assert!(matches("3", 1025) && matches("3b", 1536) && matches("5c", 5));
        assert!(matches("1T", 1) && matches("2kB", 1001) && matches("3w", 5));
        assert!("5x".parse::<Size>().is_err() && "k".parse::<Size>().is_err());
    }
}
