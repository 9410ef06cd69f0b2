//! Quirks: controllers that are old, or that differ from the specification as real ones do.

use std::str::FromStr;

/// A difference from the specification, or from a usual controller.
///
/// # Examples
/// ```
/// use nvio_emulator::{Backing, Config, NamespaceConfig, Quirk};
///
/// // A drive of NVMe 1.0 that takes longer to become ready than CAP.TO says.
/// let config = Config::new()
///     .namespace(NamespaceConfig::new(Backing::memory(1 << 20)))
///     .quirk(Quirk::Version10)
///     .quirk("short-timeout".parse()?);
/// for quirk in Quirk::ALL {
///     println!("{}: {}", quirk.name(), quirk.about());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Quirk {
    /// The controller is of NVMe 1.0: Identify has CNS 00h and 01h only.
    Version10,
    /// The controller answers each CNS but 00h with Identify Controller.
    IdentifyController,
    /// The controller refuses Set Features and Get Features (Number of Queues), and has one pair of
    /// I/O queues.
    NoQueueCount,
    /// The controller announces Doorbell Buffer Config and refuses it.
    NoDoorbellBuffer,
    /// CAP.TO is 0, and the controller takes 600 ms to become ready.
    ShortTimeout,
    /// The first 40 reads of registers after CC.EN was cleared return all ones.
    OnesAfterReset,
    /// Arbitration is weighted round robin, whatever CC.AMS says, and leaves nothing for urgent
    /// queues.
    Weighted,
    /// The next four attempts to use the identifier of a deleted queue are refused.
    QueuesRest,
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
    pub const ALL: [Self; 8] = [
        Self::Version10,
        Self::IdentifyController,
        Self::NoQueueCount,
        Self::NoDoorbellBuffer,
        Self::ShortTimeout,
        Self::OnesAfterReset,
        Self::Weighted,
        Self::QueuesRest,
    ];

    /// Returns the name, such as `short-timeout`.
    ///
    /// See the [example](Self#examples).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Version10 => "version-1.0",
            Self::IdentifyController => "identify-controller",
            Self::NoQueueCount => "no-queue-count",
            Self::NoDoorbellBuffer => "no-doorbell-buffer",
            Self::ShortTimeout => "short-timeout",
            Self::OnesAfterReset => "ones-after-reset",
            Self::Weighted => "weighted",
            Self::QueuesRest => "queues-rest",
        }
    }

    /// Returns the behaviour in one line.
    ///
    /// See the [example](Self#examples).
    pub const fn about(self) -> &'static str {
        match self {
            Self::Version10 => "NVMe 1.0: Identify has CNS 00h and 01h only",
            Self::IdentifyController => "each CNS but 00h is answered with Identify Controller",
            Self::NoQueueCount => "Number of Queues is refused; there is one pair of I/O queues",
            Self::NoDoorbellBuffer => "Doorbell Buffer Config is announced and refused",
            Self::ShortTimeout => "CAP.TO is 0, and CSTS.RDY takes 600 ms",
            Self::OnesAfterReset => "40 reads of registers after a reset return all ones",
            Self::Weighted => "weighted arbitration by itself, with nothing for urgent queues",
            Self::QueuesRest => "the identifier of a deleted queue is refused four times",
        }
    }
}

impl FromStr for Quirk {
    type Err = ParseQuirkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|quirk| quirk.name() == text);
        named.ok_or_else(|| ParseQuirkError(text.to_owned()))
    }
}
