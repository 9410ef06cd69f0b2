//! What went which way, and why.

/// Why a request was not served by the simple path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The path was switched off.
    Off,
    /// A write.
    Write,
    /// The memory is not one DMA buffer.
    Memory,
    /// No byte, or more than the filesystem's block.
    Length,
    /// Flags that the path does not know: FORCE_WAIT, PARTIAL, BOUNCE and others.
    Flags,
    /// The filesystem's hooks are to be called.
    Hooks,
    /// The caller has moved bytes before.
    DoneBefore,
    /// Not wholly inside the file.
    EndOfFile,
    /// The file is encrypted, or to be verified.
    Encoded,
    /// A hole, an unwritten range, inline data: nothing that a command could read.
    NotMapped,
    /// The mapping ends before the request.
    PartlyMapped,
    /// The data is protected by checksums, or the device cannot reach the memory.
    Integrity,
    /// The device needs several commands.
    Split,
}

const REASONS: usize = Reason::Split as usize + 1;

/// What a queue did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that the simple path served.
    pub simple: u64,
    /// Requests that the generic path took.
    pub generic: u64,
    /// Commands whose data was copied through private memory.
    pub bounced: u64,
    /// Commands of the generic path.
    pub commands: u64,
    /// Requests whose end was left to deferred work.
    pub deferred: u64,
    fallbacks: [u64; REASONS],
}

impl Counters {
    /// Requests that the simple path did not serve for `reason`.
    pub fn fell_back(&self, reason: Reason) -> u64 {
        self.fallbacks[reason as usize]
    }

    pub(crate) fn fall_back(&mut self, reason: Reason) {
        self.fallbacks[reason as usize] += 1;
    }
}
