//! Conditions on permissions.

use std::str::FromStr;

/// A condition on octal permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permissions {
    /// Exactly these bits.
    Exactly(u16),
    /// At least these bits.
    All(u16),
    /// Any of these bits. 0 matches every mode.
    Any(u16),
}

impl Permissions {
    /// Returns true if the lower twelve bits of a mode meet the condition.
    pub fn matches(self, mode: u16) -> bool {
        match self {
            Self::Exactly(bits) => mode == bits,
            Self::All(bits) => mode & bits == bits,
            Self::Any(bits) => bits == 0 || mode & bits != 0,
        }
    }
}

impl FromStr for Permissions {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, digits): (fn(u16) -> Self, _) = match text.as_bytes() {
            [b'-', ..] => (Self::All, &text[1..]),
            [b'/', ..] => (Self::Any, &text[1..]),
            _ => (Self::Exactly, text),
        };
        let octal = digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let bits = u16::from_str_radix(digits, 8).ok().filter(|&bits| octal && bits <= 0o7777);
        bits.map(kind).ok_or("it is up to 7777 in octal, with - for all or / for any of the bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_ways() {
        let matches = |text: &str, mode| text.parse::<Permissions>().unwrap().matches(mode);
        assert!(matches("644", 0o644) && !matches("644", 0o4644));
        assert!(matches("-4000", 0o4755) && !matches("-6000", 0o4755));
        assert!(matches("/6000", 0o4755) && !matches("/22", 0o4755) && matches("/0", 0));
        for wrong in ["", "-", "8", "17777", "u+x", "+4", "--4"] {
            assert!(wrong.parse::<Permissions>().is_err(), "{wrong}");
        }
    }
}
