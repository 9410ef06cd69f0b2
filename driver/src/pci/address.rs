//! PCI addresses.

use std::fmt;
use std::str::FromStr;

use super::Error;

/// Where a function is on the PCI buses, as `lspci -D` writes it: `domain:bus:device.function`.
///
/// ```
/// use nvio_driver::pci::PciAddress;
///
/// let address: PciAddress = "01:00.0".parse()?;
/// assert_eq!(address.to_string(), "0000:01:00.0");
/// # Ok::<(), nvio_driver::pci::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl PciAddress {
    /// An address out of its parts; `None` if `device` is above 31 or `function` above 7.
    pub fn new(domain: u32, bus: u8, device: u8, function: u8) -> Option<Self> {
        (device < 32 && function < 8).then_some(Self { domain, bus, device, function })
    }

    /// PCI domain (segment). Domains that a driver makes up (VMD) lie above 0xffff.
    pub fn domain(self) -> u32 {
        self.domain
    }

    /// Bus, 0 to 255.
    pub fn bus(self) -> u8 {
        self.bus
    }

    /// Device on the bus, 0 to 31.
    pub fn device(self) -> u8 {
        self.device
    }

    /// Function of the device, 0 to 7.
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
    type Err = Error;

    /// Accepts `0000:01:00.0` and, for domain 0, `01:00.0`.
    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| Error::BadAddress { text: text.to_owned() })
    }
}

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

/// `from_str_radix` alone would let a sign through.
fn hex(digits: &str, most: usize) -> Option<u32> {
    let fits = (1..=most).contains(&digits.len());
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
    fn what_is_no_address_is_refused() {
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
