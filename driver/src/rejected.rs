//! Requests that are handed back.

use std::error::Error as StdError;
use std::fmt;

use crate::error::Error;

/// A request that was not submitted. `payload` is everything that the caller passed by value.
///
/// The `Debug` form of the payloads in this crate prints the length of a buffer, never its
/// contents.
#[derive(Debug)]
pub struct Rejected<E, P> {
    /// Reason of the rejection.
    pub error: E,
    /// Memory and context of the request, unchanged.
    pub payload: P,
}

/// A request that waited and failed.
///
/// It differs from [`Rejected`] in two ways: the device may have executed a part of the request,
/// and `memory` is missing if the device could not be stopped and may still write to it.
#[derive(Debug)]
pub struct Failed<E, M> {
    /// First error of the request.
    pub error: E,
    /// Memory of the request. Its contents are undefined after a failed read. `None` if the device
    /// may still access it; that memory is never used again.
    pub memory: Option<M>,
}

impl<E: fmt::Display, P> fmt::Display for Rejected<E, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<E: StdError, P: fmt::Debug> StdError for Rejected<E, P> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl<E: fmt::Display, M> fmt::Display for Failed<E, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<E: StdError, M: fmt::Debug> StdError for Failed<E, M> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl<E, M> From<Rejected<E, M>> for Failed<E, M> {
    fn from(rejected: Rejected<E, M>) -> Self {
        Self { error: rejected.error, memory: Some(rejected.payload) }
    }
}

impl<M> From<Failed<Self, M>> for Error {
    fn from(failed: Failed<Self, M>) -> Self {
        failed.error
    }
}

#[cfg(test)]
mod tests {
    use super::{Failed, Rejected};
    use crate::dma::Arena;
    use crate::error::Error;

    #[test]
    fn debug_prints_the_length_of_a_buffer_and_no_contents() {
        let arena = Arena::detached(1).unwrap();
        let mut buf = arena.alloc(4096).unwrap();
        buf.fill(0xab);
        let rejected = Rejected { error: Error::Gone, payload: (buf, "context") };
        let text = format!("{rejected:?}");
        assert!(text.contains("4096 bytes") && !text.contains("171"), "{text}");
        assert_eq!(rejected.to_string(), Error::Gone.to_string());
        let failed = Failed { error: Error::Gone, memory: Some(rejected.payload.0) };
        assert!(format!("{failed:?}").contains("4096 bytes"));
    }
}
