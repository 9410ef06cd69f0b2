//! PCI addresses.

use std::fmt;
use std::str::FromStr;

/// The address of a function on the PCI buses, as `lspci -D` writes it:
/// `domain:bus:device.function`.
///
/// # Examples
/// ```
/// use nvio_driver::pci::PciAddress;
///
/// let address: PciAddress = "01:00.0".parse()?;
/// assert_eq!(address.to_string(), "0000:01:00.0");
/// assert_eq!((address.domain(), address.bus()), (0, 1));
/// assert_eq!((address.device(), address.function()), (0, 0));
/// assert_eq!(PciAddress::new(0, 1, 0, 0), Some(address));
/// assert!("01:00.9".parse::<PciAddress>().is_err(), "functions are 0 to 7");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl PciAddress {
    /// Returns the address with these parts; `None` if `device` is above 31 or `function` above 7.
    ///
    /// See the [example](Self#examples).
    pub fn new(domain: u32, bus: u8, device: u8, function: u8) -> Option<Self> {
        (device < 32 && function < 8).then_some(Self { domain, bus, device, function })
    }

    /// Returns the PCI domain (segment). Domains of a VMD driver are above 0xffff.
    ///
    /// See the [example](Self#examples).
    pub fn domain(self) -> u32 {
        self.domain
    }

    /// Returns the bus, 0 to 255.
    ///
    /// See the [example](Self#examples).
    pub fn bus(self) -> u8 {
        self.bus
    }

    /// Returns the device on the bus, 0 to 31.
    ///
    /// See the [example](Self#examples).
    pub fn device(self) -> u8 {
        self.device
    }

    /// Returns the function of the device, 0 to 7.
    ///
    /// See the [example](Self#examples).
    pub fn function(self) -> u8 {
        self.function
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text =
            format!("{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function);
        f.pad(&text)
    }
}

impl FromStr for PciAddress {
    type Err = ParsePciAddressError;

    /// Accepts `0000:01:00.0` and, for domain 0, `01:00.0`.
    fn from_str(text: &str) -> Result<Self, ParsePciAddressError> {
        parse(text).ok_or_else(|| ParsePciAddressError(text.to_owned()))
    }
}

/// The error of text that is not a [`PciAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a PCI address; write it as 0000:01:00.0")]
pub struct ParsePciAddressError(String);

fn parse(text: &str) -> Option<PciAddress> {
    let (front, function) = text.split_once('.')?;
    let parts: Vec<&str> = front.splitn(4, ':').collect();
    let (domain, bus, device) = match parts[..] {
        [bus, device] => ("0", bus, device),
        [domain, bus, device] => (domain, bus, device),
        _ => return None,
    };
    PciAddress::new(
        hex(domain, 8)?,
        u8::try_from(hex(bus, 2)?).ok()?,
        u8::try_from(hex(device, 2)?).ok()?,
        u8::try_from(hex(function, 1)?).ok()?,
    )
}

/// Parses up to `digits_max` hexadecimal digits. `from_str_radix` alone would accept a sign.
fn hex(digits: &str, digits_max: usize) -> Option<u32> {
    let fits = (1..=digits_max).contains(&digits.len());
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    if fits && plain { u32::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_the_long_one_written() {
        for (text, shown) in [
            ("0000:01:00.0", "0000:01:00.0"),
            ("01:00.0", "0000:01:00.0"),
            ("10000:E1:1f.7", "10000:e1:1f.7"),
            ("0:1:2.3", "0000:01:02.3"),
        ] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn text_that_is_not_an_address_is_rejected() {
        for text in [
            "",
            "0",
            "01:00",
            "01:00.",
            ":01:00.0",
            "01:20.0",
            "01:00.8",
            "100:00:00",
            "1:2:3:4.0",
            "+1:00.0",
            "01:00.0 ",
            "0000:01:00.0/",
            "../01:00.0",
            "100000000:01:00.0",
            "１:00.0",
        ] {
            assert!(text.parse::<PciAddress>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn addresses_sort_as_the_buses_do() {
        let mut all: Vec<PciAddress> =
            ["0001:00:00.0", "02:00.1", "0a:00.0", "02:00.0"].map(|t| t.parse().unwrap()).to_vec();
        all.sort();
        let shown: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["0000:02:00.0", "0000:02:00.1", "0000:0a:00.0", "0001:00:00.0"]);
    }
}
