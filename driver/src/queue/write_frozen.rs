//! Writes of memory that the host reads meanwhile.

use nvio_spec::Sqe;
use zerocopy::little_endian::U32;

use super::pair::QueuePair;
use super::raw::NotSubmitted;
use crate::dma::{FrozenBuf, ScatterList};
use crate::error::Error;
use crate::namespace::WritableNamespace;
use crate::rejected::{Rejected, SubmitResult};

impl<T> QueuePair<T> {
    /// Submits a write of memory that the host may read meanwhile: all of `parts`, in order. With
    /// `fua`, the data is durable when the write completes (Force Unit Access). The command keeps
    /// the memory, and completes with an empty buffer.
    ///
    /// # Examples
    /// ```
    /// # let served = nvio_testkit::controller::Served::memory(16 << 20);
    /// # let controller = &served.controller;
    /// let mut queue = controller.queue_pair(8)?;
    /// let namespace = controller.writable()?.writable_namespace(1)?;
    /// let frozen = controller.alloc(4096)?.freeze();
    /// let parts = std::slice::from_ref(&frozen);
    /// queue.write_frozen(&namespace, 0, parts, true, ()).map_err(|rejected| rejected.error)?;
    /// assert_eq!(frozen[..], [0; 4096]);
    /// queue.wait(|done| assert!(done.status.is_success() && done.buf.is_empty()))?;
    /// frozen.thaw().map_err(|_| "the command has ended")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`write`](Self::write); [`Error::Scattered`] if a part begins or ends inside a memory page
    /// in the middle of the transfer, and the controller has no SGLs.
    pub fn write_frozen(
        &mut self,
        namespace: &WritableNamespace,
        lba: u64,
        parts: &[FrozenBuf],
        fua: bool,
        context: T,
    ) -> SubmitResult<(), T> {
        let bytes = parts.iter().map(|part| part.len()).sum();
        let aligned = parts.iter().try_for_each(|part| part.as_buf().check_alignment());
        let command =
            aligned.and_then(|()| Self::head(namespace.write_head(), namespace, lba, bytes));
        let sqe = match command {
            Ok(sqe) => sqe,
            Err(error) => return Err(Rejected { error, payload: ((), context) }),
        };
        let flags = if fua { Sqe::FUA } else { 0 };
        let sqe = Sqe { cdw12: U32::new(sqe.cdw12.get() | flags), ..sqe };
        let refused = match parts {
            [only] => {
                self.core.submit_frozen(sqe, only, context).map_err(|context| (false, context))
            }
            parts => {
                let list = ScatterList::of_frozen(parts);
                self.core.submit_scattered(sqe, list, context).map_err(|(reason, _, context)| {
                    (matches!(reason, NotSubmitted::Scattered), context)
                })
            }
        };
        refused.map_err(|(is_scattered, context)| match is_scattered {
            true => Rejected { error: Error::Scattered, payload: ((), context) },
            false => self.full(((), context)),
        })
    }
}
