//! The error of a request that was not submitted, with the memory of the request.

use std::error::Error as StdError;
use std::fmt;

use crate::dma::DmaBuf;
use crate::error::Error;

/// A request that was not submitted, or failed. `payload` is everything that the caller passed by
/// value.
///
/// The `Debug` form of the payloads in this crate prints the length of a buffer, never its
/// contents.
///
/// See the [example](crate::QueuePair#examples).
#[derive(Debug, derive_more::Display)]
#[display("{error}")]
pub struct Rejected<E, P> {
    /// Reason of the rejection.
    pub error: E,
    /// Memory and context of the request.
    pub payload: P,
}

/// A request that was executed and failed. After a failed read the contents of the memory are
/// undefined. The payload is `None` if the device could not be stopped and may still access the
/// memory, which is then never used again.
///
/// See the [example](crate::QueuePair#examples).
pub type Failed<E, M> = Rejected<E, Option<M>>;

/// The result of a call that submits a command: its memory `M` and its context `T` come back if the
/// command is rejected.
///
/// ```
/// use nvio_driver::{DmaBuf, Namespace, QueuePair, SubmitResult};
///
/// fn read_first(queue: &mut QueuePair, disk: &Namespace, buf: DmaBuf) -> SubmitResult<DmaBuf, u64> {
///     queue.read(disk, 0, buf, 7)
/// }
/// ```
pub type SubmitResult<M, T> = Result<(), Rejected<Error, (M, T)>>;

/// The result of a transfer of any size: its buffer, or the error with the buffer.
///
/// ```
/// use nvio_driver::{AsyncQueue, DmaBuf, Namespace, TransferResult};
///
/// async fn read_first(queue: &AsyncQueue, disk: &Namespace, buf: DmaBuf) -> TransferResult {
///     queue.read(disk, 0, buf).await
/// }
/// ```
pub type TransferResult = Result<DmaBuf, Failed<Error, DmaBuf>>;

impl<E: StdError, P: fmt::Debug> StdError for Rejected<E, P> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl<P> From<Rejected<Self, P>> for Error {
    fn from(rejected: Rejected<Self, P>) -> Self {
        rejected.error
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
        let failed = Failed { error: Error::Gone, payload: Some(rejected.payload.0) };
        assert!(format!("{failed:?}").contains("4096 bytes"));
    }
}
