//! The device or file that requests go to, by one queue of one thread.

use std::fmt;
use std::time::Duration;

use nvio_driver::DmaBuf;
use nvio_iomap::Reason;

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// First byte, in the device or in the file.
    pub pos: u64,
    /// Length in bytes.
    pub bytes: usize,
    /// True for a write.
    pub write: bool,
}

/// An error that ends a run, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(pub String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl Error {
    /// Formats an error and its causes.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.ends_with(&next) {
                text = format!("{text}: {next}");
            }
            cause = error.source();
        }
        Self(text)
    }
}

/// Wrong data of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Position of the first wrong sector, in the device or in the file.
    pub pos: u64,
    /// A description.
    pub error: Error,
}

/// A request that was not submitted.
#[derive(Debug)]
pub struct Rejected<B> {
    /// The error.
    pub error: Error,
    /// True if the queue has no room now.
    pub busy: bool,
    /// The buffer of the request, unless it is lost.
    pub buf: Option<B>,
}

/// The memory of a request.
pub trait Buffer: Send {
    /// Returns the bytes.
    fn bytes(&mut self) -> &mut [u8];

    /// Sets the length, which is at most the allocated one.
    fn set_len(&mut self, bytes: usize);
}

impl Buffer for DmaBuf {
    fn bytes(&mut self) -> &mut [u8] {
        self
    }

    fn set_len(&mut self, bytes: usize) {
        if self.len() != bytes && self.reclaim() {
            self.truncate(bytes);
        }
    }
}

/// The receiver of results.
pub trait Sink<B> {
    /// Takes the result of a request that succeeded.
    fn done(&mut self, slot: u64, buf: B);

    /// Takes the result of a request that failed.
    fn failed(&mut self, slot: u64, error: Error, buf: Option<B>);
}

/// A device or file, with one queue of one thread.
pub trait Target {
    /// The memory of a request.
    type Buf: Buffer;

    /// Allocates the memory of a request.
    ///
    /// # Errors
    /// If there is not enough memory.
    fn alloc(&mut self, bytes: usize) -> Result<Self::Buf, Error>;

    /// Submits a request, whose result has the number `slot`.
    ///
    /// # Errors
    /// The request comes back, in a box because that is rare.
    fn submit(
        &mut self,
        request: &Request,
        buf: Self::Buf,
        slot: u64,
    ) -> Result<(), Box<Rejected<Self::Buf>>>;

    /// Shows the device the requests that were submitted since the last call.
    fn ring(&mut self);

    /// Passes at most `limit` results on, and returns their number.
    fn poll(&mut self, limit: usize, sink: &mut impl Sink<Self::Buf>) -> usize;

    /// Waits for results, passes them on, and returns their number. With `within`, waits no longer
    /// than that, also if nothing is in flight, and may return earlier.
    ///
    /// # Errors
    /// If the device fails.
    fn wait(
        &mut self,
        within: Option<Duration>,
        sink: &mut impl Sink<Self::Buf>,
    ) -> Result<usize, Error>;

    /// Returns the largest number of requests in flight.
    fn capacity(&self) -> usize;

    /// Returns the counters since the queue was created.
    fn counters(&self) -> Counters;

    /// Returns the logical block of a position, if it has one.
    fn lba(&mut self, pos: u64) -> Option<u64>;

    /// Makes all written data durable.
    ///
    /// # Errors
    /// If the device fails.
    fn flush(&mut self) -> Result<(), Error>;
}

/// Reasons to leave the simple path, with their names.
pub const REASONS: [(Reason, &str); 13] = [
    (Reason::Off, "off"),
    (Reason::Write, "write"),
    (Reason::Memory, "memory"),
    (Reason::Length, "length"),
    (Reason::Flags, "flags"),
    (Reason::Hooks, "hooks"),
    (Reason::DoneBefore, "done before"),
    (Reason::EndOfFile, "end of file"),
    (Reason::Encoded, "encoded"),
    (Reason::NotMapped, "not mapped"),
    (Reason::PartlyMapped, "partly mapped"),
    (Reason::Integrity, "integrity"),
    (Reason::Split, "split"),
];

/// Counts of a queue. A queue of an engine that has no such thing has zeroes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Doorbell writes, of both queues.
    pub doorbells: u64,
    /// Polls.
    pub polls: u64,
    /// Polls that found nothing.
    pub empty_polls: u64,
    /// Sleeps until an interrupt.
    pub sleeps: u64,
    /// Commands that the driver repeated after an error.
    pub retries: u64,
    /// Resets of the controller.
    pub resets: u64,
    /// Requests on the simple path.
    pub simple: u64,
    /// Requests on the generic path.
    pub generic: u64,
    /// Commands whose data was copied.
    pub bounced: u64,
    /// Requests that left the simple path, in the order of [`REASONS`].
    pub reasons: [u64; REASONS.len()],
}

impl Counters {
    /// Adds the counters of a queue pair.
    #[must_use]
    pub fn with_driver(mut self, of: &nvio_driver::Counters) -> Self {
        self.doorbells = of.doorbells;
        (self.polls, self.empty_polls, self.sleeps) = (of.polls, of.idle_polls, of.sleeps);
        (self.retries, self.resets) = (of.retries, of.resets);
        self
    }

    /// Adds the counters of a queue of files.
    #[must_use]
    pub fn with_iomap(mut self, of: &nvio_iomap::Counters) -> Self {
        (self.simple, self.generic, self.bounced) = (of.simple, of.generic, of.bounced);
        self.reasons = REASONS.map(|(reason, _)| of.fell_back(reason));
        self
    }

    /// Combines two counters field by field.
    #[must_use]
    fn zip(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let mut reasons = self.reasons;
        for (reason, more) in reasons.iter_mut().zip(other.reasons) {
            *reason = combine(*reason, more);
        }
        Self {
            doorbells: combine(self.doorbells, other.doorbells),
            polls: combine(self.polls, other.polls),
            empty_polls: combine(self.empty_polls, other.empty_polls),
            sleeps: combine(self.sleeps, other.sleeps),
            retries: combine(self.retries, other.retries),
            resets: combine(self.resets, other.resets),
            simple: combine(self.simple, other.simple),
            generic: combine(self.generic, other.generic),
            bounced: combine(self.bounced, other.bounced),
            reasons,
        }
    }

    /// Returns the counts since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        self.zip(before, u64::saturating_sub)
    }

    /// Returns the sum of two queues.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }
}
