//! The request of a command in flight.

use crate::dma::DmaBuf;

/// Memory and context of a command in flight.
pub(super) struct Request<T> {
    /// Empty for a command without data; carries the [`ScatterList`](crate::ScatterList) of a
    /// command with several buffers.
    pub(super) buf: DmaBuf,
    pub(super) context: T,
}
