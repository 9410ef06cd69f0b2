//! Completions and their visitor.

use nvio_spec::Status;

use crate::dma::DmaBuf;

/// A command that ended.
///
/// See the [example](crate::QueuePair#examples).
#[derive(Debug)]
pub struct Completion<T> {
    /// Context that was submitted with the command.
    pub context: T,
    /// Buffer of the command.
    ///
    /// It is empty for a command without data, and for a command with a
    /// [`ScatterList`](crate::ScatterList), which
    /// [`from_completed`](crate::ScatterList::from_completed) extracts. It is also empty if the
    /// controller failed and could not be stopped: the controller may still write to the memory,
    /// so that it is never used again.
    pub buf: DmaBuf,
    /// Status of the command. The data of a failed read is undefined.
    pub status: Status,
    /// Command specific result (DW0).
    pub result: u32,
}

/// A visitor of the records of ended commands, bios or requests.
///
/// Every closure that accepts a record is a handler. A type of its own can mark the method
/// `#[inline(always)]`, where the compiler would not inline a closure.
///
/// # Examples
/// ```
/// # let served = nvio_testkit::controller::Served::memory(16 << 20);
/// # let controller = &served.controller;
/// use nvio_driver::{Completion, Handler};
///
/// /// Counts commands that failed.
/// struct Failures(usize);
///
/// impl Handler<Completion<u64>> for Failures {
///     #[inline(always)]
///     fn completed(&mut self, done: Completion<u64>) {
///         self.0 += usize::from(!done.status.is_success());
///     }
/// }
///
/// let mut queue = controller.queue_pair(8)?;
/// queue.read(&controller.namespace(1)?, 0, controller.alloc(4096)?, 1)?;
/// let mut failures = Failures(0);
/// queue.ring();
/// while queue.poll_with(8, &mut failures) == 0 {}
/// assert_eq!(failures.0, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Handler<R> {
    /// Accepts the record of one ended command, bio or request.
    ///
    /// See the [example](Self#examples).
    fn completed(&mut self, record: R);
}

impl<R, F: FnMut(R)> Handler<R> for F {
    #[inline]
    fn completed(&mut self, record: R) {
        self(record);
    }
}
