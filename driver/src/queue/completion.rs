//! Completions and their visitor.

use nvio_spec::Status;

use crate::dma::DmaBuf;

/// A command that ended.
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
pub trait Handler<R> {
    /// Accepts the record of one ended command, bio or request.
    fn completed(&mut self, record: R);
}

impl<R, F: FnMut(R)> Handler<R> for F {
    #[inline]
    fn completed(&mut self, record: R) {
        self(record);
    }
}
