//! Conditions on numbers: exact, lower bound, upper bound.

use std::cmp::Ordering;
use std::str::FromStr;

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
        let units = [("c", 1), ("b", 512), ("k", 1 << 10), ("M", 1 << 20), ("G", 1 << 30)];
        let split = |(letter, unit)| Some((text.strip_suffix(letter)?, unit));
        let (digits, unit) = units.into_iter().find_map(split).unwrap_or((text, 512));
        let wrong = "it is a number with c, b, k, M or G, and + for more or - for less";
        Ok(Self { number: digits.parse().map_err(|_| wrong)?, unit })
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

    /// As find(1) rounds: 1 MiB and a byte are 2 MiB.
    #[test]
    fn sizes_are_rounded_up() {
        let matches = |text: &str, bytes| text.parse::<Size>().unwrap().matches(bytes);
        assert!(matches("1M", 1) && matches("1M", 1 << 20) && matches("2M", (1 << 20) + 1));
        assert!(matches("-1M", 0) && !matches("-1M", 1) && matches("+1M", (1 << 20) + 1));
        assert!(matches("3", 1025) && matches("3b", 1536) && matches("5c", 5));
        assert!("5x".parse::<Size>().is_err() && "k".parse::<Size>().is_err());
    }
}
