//! Quirks: workarounds for controllers that differ from the specification, by PCI ID.
//!
//! The identifiers and delays are those that Linux and SPDK document for the same controllers. Many
//! differences need no entry, because the driver notices them: a missing list of namespaces, a
//! refused number of queues, refused shadow doorbells.

use std::str::FromStr;
use std::time::Duration;

/// A workaround for a controller that differs from the specification.
///
/// # Examples
/// ```
/// use nvio_driver::{Options, PciId, Quirk, Quirks};
///
/// // By name, for a controller that is not in the table.
/// let quirk: Quirk = "no-sgl".parse()?;
/// assert_eq!((quirk, quirk.name()), (Quirk::NoSgl, "no-sgl"));
/// assert!("no-such-quirk".parse::<Quirk>().is_err());
/// println!("{}: {}", quirk.name(), quirk.about());
/// let options = Options { quirks: Quirks::NONE.with(quirk), ..Options::default() };
/// assert!(options.quirks.has(Quirk::NoSgl) && Quirk::ALL.len() > 5);
///
/// // By PCI ID: Samsung's PM1725.
/// let quirks = Quirks::of(PciId { vendor: 0x144d, device: 0xa821, subsystem: (0, 0) });
/// assert_eq!(quirks.iter().collect::<Vec<_>>(), [Quirk::DelayBeforeReady]);
/// assert_eq!(quirks.and(options.quirks).to_string(), "delay-before-ready, no-sgl");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Quirk {
    /// Wait for 2 s before the first access to a register, because the controller is not ready for
    /// it.
    DelayBeforeInit,
    /// Wait for 2.5 s after CC.EN was cleared before CSTS.RDY is read.
    DelayBeforeReady,
    /// Wait for 1 ms after an I/O queue was created before its first command.
    DelayAfterQueue,
    /// Wait for CSTS.RDY for up to 127.5 s, because CAP.TO is too small.
    SlowReady,
    /// Send Identify with CNS 00h and 01h only; namespaces are found one by one.
    IdentifyCns,
    /// Create I/O queues with room for one command.
    OneCommand,
    /// Poll all queues, because interrupts do not work.
    NoInterrupts,
    /// Describe data by PRPs, because SGLs do not work.
    NoSgl,
    /// Use doorbell registers, because shadow doorbells do not work.
    NoShadowDoorbells,
    /// Reject Write Zeroes, which does not work.
    NoWriteZeroes,
    /// Refuse the controller, because its submission queue entries have 128 bytes.
    WideEntries,
}

/// The error of text that is not the name of a [`Quirk`].
///
/// See the [example](Quirk#examples).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quirk")]
pub struct ParseQuirkError(String);

impl Quirk {
    /// All quirks.
    ///
    /// See the [example](Self#examples).
    pub const ALL: [Self; 11] = [
        Self::DelayBeforeInit,
        Self::DelayBeforeReady,
        Self::DelayAfterQueue,
        Self::SlowReady,
        Self::IdentifyCns,
        Self::OneCommand,
        Self::NoInterrupts,
        Self::NoSgl,
        Self::NoShadowDoorbells,
        Self::NoWriteZeroes,
        Self::WideEntries,
    ];

    /// Returns the name, such as `delay-before-ready`.
    ///
    /// See the [example](Self#examples).
    pub const fn name(self) -> &'static str {
        match self {
            Self::DelayBeforeInit => "delay-before-init",
            Self::DelayBeforeReady => "delay-before-ready",
            Self::DelayAfterQueue => "delay-after-queue",
            Self::SlowReady => "slow-ready",
            Self::IdentifyCns => "identify-cns",
            Self::OneCommand => "one-command",
            Self::NoInterrupts => "no-interrupts",
            Self::NoSgl => "no-sgl",
            Self::NoShadowDoorbells => "no-shadow-doorbells",
            Self::NoWriteZeroes => "no-write-zeroes",
            Self::WideEntries => "wide-entries",
        }
    }

    /// Returns the effect in one line.
    ///
    /// See the [example](Self#examples).
    pub const fn about(self) -> &'static str {
        match self {
            Self::DelayBeforeInit => "wait 2 s before the first access to a register",
            Self::DelayBeforeReady => "wait 2.5 s after a reset before reading CSTS.RDY",
            Self::DelayAfterQueue => "wait 1 ms after creating an I/O queue",
            Self::SlowReady => "wait up to 127.5 s for CSTS.RDY, whatever CAP.TO says",
            Self::IdentifyCns => "find namespaces one by one, with Identify CNS 00h and 01h only",
            Self::OneCommand => "one command in flight for each queue",
            Self::NoInterrupts => "poll, without interrupts",
            Self::NoSgl => "PRPs only, without SGLs",
            Self::NoShadowDoorbells => "doorbell registers only, without shadow doorbells",
            Self::NoWriteZeroes => "reject Write Zeroes",
            Self::WideEntries => "refuse the controller: its queue entries have 128 bytes",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl FromStr for Quirk {
    type Err = ParseQuirkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|quirk| quirk.name() == text);
        named.ok_or_else(|| ParseQuirkError(text.to_owned()))
    }
}

/// A set of [`Quirk`]s.
///
/// See the [example](Quirk#examples).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks(u32);

impl Quirks {
    /// The empty set.
    ///
    /// See the [example](Quirk#examples).
    pub const NONE: Self = Self(0);

    /// Returns the quirks that are known of a PCI function.
    ///
    /// See the [example](Quirk#examples).
    pub fn of(id: PciId) -> Self {
        let known = KNOWN.iter().filter(|(vendor, device, _)| id.is(*vendor, *device));
        known.flat_map(|(.., quirks)| *quirks).copied().fold(Self::NONE, Self::with)
    }

    /// Returns the set with `quirk` added.
    ///
    /// See the [example](Quirk#examples).
    #[must_use]
    pub const fn with(self, quirk: Quirk) -> Self {
        Self(self.0 | quirk.bit())
    }

    /// Returns the quirks that are in one of the two sets.
    ///
    /// See the [example](Quirk#examples).
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns true if `quirk` is in the set.
    ///
    /// See the [example](Quirk#examples).
    pub const fn has(self, quirk: Quirk) -> bool {
        self.0 & quirk.bit() != 0
    }

    /// Returns the quirks in the set.
    ///
    /// See the [example](Quirk#examples).
    pub fn iter(self) -> impl Iterator<Item = Quirk> {
        Quirk::ALL.into_iter().filter(move |quirk| self.has(*quirk))
    }

    /// Returns the time to wait because of `quirk`; `None` if it is not in the set.
    pub(crate) const fn delay(self, quirk: Quirk) -> Option<Duration> {
        match quirk {
            _ if !self.has(quirk) => None,
            Quirk::DelayBeforeInit => Some(Duration::from_secs(2)),
            // Linux waits for 2.3 s, SPDK for 2.5 s.
            Quirk::DelayBeforeReady => Some(Duration::from_millis(2500)),
            // SPDK waits for 0.1 ms.
            Quirk::DelayAfterQueue => Some(Duration::from_millis(1)),
            _ => None,
        }
    }
}

impl std::fmt::Display for Quirks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, quirk) in self.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            f.write_str(quirk.name())?;
        }
        Ok(())
    }
}

/// The identifiers of a PCI function (PCI Local Bus 3.0, 6.2.1 and 6.2.4).
///
/// See the [example](Quirk#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq, derive_more::Display)]
#[display("{vendor:04x}:{device:04x}")]
pub struct PciId {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor ID and subsystem ID.
    pub subsystem: (u16, u16),
}

impl PciId {
    /// Parses the first dword and the dword at 2Ch of configuration space.
    pub(crate) fn of_config(id: [u8; 4], subsystem: [u8; 4]) -> Self {
        let half = |low, high| u16::from_le_bytes([low, high]);
        let [a, b, c, d] = id;
        let [e, f, g, h] = subsystem;
        Self { vendor: half(a, b), device: half(c, d), subsystem: (half(e, f), half(g, h)) }
    }

    const fn is(self, vendor: u16, device: u16) -> bool {
        self.vendor == vendor && self.device == device
    }
}

/// Vendor, device, and the quirks that are known of them. No entry depends on the subsystem.
const KNOWN: [(u16, u16, &[Quirk]); 29] = [
    // Intel P3500 to P3700 and 750, P3520.
    (0x8086, 0x0953, &[Quirk::DelayBeforeInit]),
    (0x8086, 0x0a53, &[Quirk::DelayBeforeInit]),
    // Intel 600p and P3100. They also enable weighted arbitration by themselves if a queue is
    // urgent; no queue of this driver is.
    (0x8086, 0xf1a5, &[Quirk::NoWriteZeroes]),
    // QEMU before it used the vendor ID of Red Hat.
    (0x8086, 0x5845, &[Quirk::IdentifyCns, Quirk::NoWriteZeroes]),
    // CNEX Labs.
    (0x1d1d, 0x1f1f, &[Quirk::IdentifyCns]),
    // VirtualBox.
    (0x80ee, 0x4e56, &[Quirk::DelayAfterQueue]),
    // Seagate Nytro.
    (0x1bb1, 0x0100, &[Quirk::DelayBeforeReady]),
    // HGST SN100 and WDC SN200.
    (0x1c58, 0x0003, &[Quirk::DelayBeforeReady]),
    (0x1c58, 0x0023, &[Quirk::DelayBeforeReady]),
    // Memblaze PBlaze4.
    (0x1c5f, 0x0540, &[Quirk::DelayBeforeReady]),
    // Samsung PM1725, PM1725a, MZALQ256HBJD, PM9B1.
    (0x144d, 0xa821, &[Quirk::DelayBeforeReady]),
    (0x144d, 0xa822, &[Quirk::DelayBeforeReady, Quirk::NoWriteZeroes]),
    (0x144d, 0xa809, &[Quirk::NoWriteZeroes]),
    (0x144d, 0xa80b, &[Quirk::NoWriteZeroes]),
    // Phison E19, E21.
    (0x1987, 0x5019, &[Quirk::NoWriteZeroes]),
    (0x1987, 0x5021, &[Quirk::NoWriteZeroes]),
    // SK Hynix PC400, BC901.
    (0x1c5c, 0x1504, &[Quirk::NoWriteZeroes]),
    (0x1c5c, 0x1d59, &[Quirk::NoWriteZeroes]),
    // SanDisk Skyhawk.
    (0x15b7, 0x2001, &[Quirk::NoWriteZeroes]),
    // SPCC, Lexar NM610.
    (0x1d97, 0x2263, &[Quirk::NoWriteZeroes]),
    // UMIS RPJTJ512MGE1QDY, RPJTJ256MGE1QDY.
    (0x1cc4, 0x6303, &[Quirk::NoWriteZeroes]),
    (0x1cc4, 0x6302, &[Quirk::NoWriteZeroes]),
    // Kingston OM8SFP4, OM3PGP4, OM8PGP4.
    (0x2646, 0x5018, &[Quirk::NoWriteZeroes]),
    (0x2646, 0x5016, &[Quirk::NoWriteZeroes]),
    (0x2646, 0x501a, &[Quirk::NoWriteZeroes]),
    (0x2646, 0x501b, &[Quirk::NoWriteZeroes]),
    (0x2646, 0x501e, &[Quirk::NoWriteZeroes]),
    // Apple: MacBook8,1; T2, with entries of 128 bytes.
    (0x106b, 0x2001, &[Quirk::OneCommand, Quirk::NoInterrupts]),
    (0x106b, 0x2005, &[Quirk::WideEntries, Quirk::NoInterrupts, Quirk::IdentifyCns]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_that_of_one_quirk() {
        for (index, quirk) in Quirk::ALL.into_iter().enumerate() {
            assert_eq!(quirk as usize, index);
            assert_eq!(quirk.name().parse(), Ok(quirk));
            assert!(Quirks::NONE.with(quirk).iter().eq([quirk]));
        }
    }

    #[test]
    fn a_function_has_the_quirks_of_its_id_only() {
        let of = |vendor, device| Quirks::of(PciId { vendor, device, subsystem: (1, 2) });
        assert_eq!(of(0x144d, 0xa822).to_string(), "delay-before-ready, no-write-zeroes");
        assert_eq!(of(0x144d, 0xa823), Quirks::NONE);
        assert_eq!(of(0xa822, 0x144d), Quirks::NONE);
        for (index, (vendor, device, quirks)) in KNOWN.into_iter().enumerate() {
            assert!(of(vendor, device).iter().count() == quirks.len(), "{vendor:x}:{device:x}");
            let twice = KNOWN[..index].iter().any(|known| (known.0, known.1) == (vendor, device));
            assert!(!twice, "{vendor:x}:{device:x} is listed twice");
        }
        let id = PciId::of_config([0x4d, 0x14, 0x21, 0xa8], [1, 0, 2, 0]);
        assert_eq!((id.to_string(), id.subsystem), ("144d:a821".to_owned(), (1, 2)));
    }
}
