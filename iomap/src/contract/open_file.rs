//! What requests in flight have of a file.

use std::sync::{Arc, Weak};

use crate::error::FileError;

/// The part of a file that outlives a call: those who have it open share it with the requests that
/// are in flight.
///
/// What has no cache and no hooks needs only the types; the rest has defaults, which cost nothing.
pub trait OpenFile {
    /// The filesystem's error; this layer's own errors convert into it.
    type Error: FileError;

    /// Writes dirty cached data of a range to the device: before it is read from there.
    ///
    /// # Errors
    /// What writing fails with; an error that says "again" with `nowait`, rather than to wait.
    #[inline]
    fn write_back(&self, pos: u64, length: u64, nowait: bool) -> Result<(), Self::Error> {
        let _ = (pos, length, nowait);
        Ok(())
    }

    /// Writes back and drops cached data of a range: before it is overwritten on the device, and
    /// again when that was done, for what was cached in between. False if some of it stays.
    #[inline]
    fn invalidate(&self, pos: u64, length: u64) -> bool {
        let _ = (pos, length);
        true
    }

    /// Whether there is cached data: then a write is not done before it was invalidated again, and
    /// one that must not wait is refused.
    #[inline]
    fn is_cached(&self) -> bool {
        false
    }

    /// Called before each command of a request with [`IoFlags::HOOKS`](crate::IoFlags::HOOKS) goes
    /// to the queue: for the `bytes` at `pos` of the file, at byte `addr` of the device.
    ///
    /// # Errors
    /// Ends the request.
    fn submit_io(&self, pos: u64, addr: u64, bytes: usize) -> Result<(), Self::Error> {
        let _ = (pos, addr, bytes);
        Ok(())
    }

    /// Called when the last command of a request with [`IoFlags::HOOKS`](crate::IoFlags::HOOKS)
    /// has ended, before its result is given: the place to convert unwritten extents and to move
    /// the size of the file. Called without the flag, too, for a write to unwritten blocks or past
    /// the end of the file. Never inside of a poll's completions.
    ///
    /// # Errors
    /// Becomes the request's, if it has none.
    fn end_io(&self, end: &EndIo) -> Result<(), Self::Error> {
        let _ = end;
        Ok(())
    }

    /// Hears of each request that failed, once; not of those that may be tried again, or in
    /// another way.
    fn report(&self, report: &Report<'_, Self::Error>) {
        let _ = report;
    }
}

/// The end of a request, for [`OpenFile::end_io`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndIo {
    /// First byte of the file.
    pub pos: u64,
    /// Bytes that were transferred; what of them is good after an error is not known.
    pub bytes: u64,
    /// Whether it was a write.
    pub write: bool,
    /// Whether some of it went to blocks that are mapped as unwritten.
    pub unwritten: bool,
    /// Whether it failed.
    pub failed: bool,
}

/// A failure, for [`OpenFile::report`].
#[derive(Debug)]
pub struct Report<'a, E> {
    /// First byte of the file.
    pub pos: u64,
    /// Bytes that were to be transferred.
    pub bytes: u64,
    /// Whether it was a write.
    pub write: bool,
    /// Why.
    pub error: &'a E,
}

/// A file's [`OpenFile`], shared by its handles. Cheap to clone.
#[derive(Debug)]
// Requests have the inner reference, and nobody else does: the count of them is that of references,
// so that no way out of a function can forget to lower it.
#[expect(clippy::redundant_allocation, reason = "two counts")]
pub struct FileRef<I>(Arc<Arc<I>>);

impl<I> FileRef<I> {
    /// The first handle of a file.
    pub fn new(inode: I) -> Self {
        Self(Arc::new(Arc::new(inode)))
    }

    /// The state that handles and requests share.
    #[inline]
    pub fn state(&self) -> &I {
        &self.0
    }

    /// Whether both are handles of one inode.
    #[inline]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        Arc::strong_count(&*self.0) - 1
    }

    /// A reference that does not keep the inode open.
    pub fn downgrade(&self) -> WeakFileRef<I> {
        WeakFileRef { handles: Arc::downgrade(&self.0), requests: Arc::downgrade(&*self.0) }
    }

    /// Raises the count of requests in flight until the result is dropped.
    #[inline]
    pub(crate) fn begin_io(&self) -> InFlight<I> {
        InFlight(Arc::clone(&*self.0))
    }
}

impl<I> Clone for FileRef<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Finds the [`FileRef`] of a file for as long as there are handles or requests of it.
#[derive(Debug)]
pub struct WeakFileRef<I> {
    handles: Weak<Arc<I>>,
    requests: Weak<I>,
}

impl<I> WeakFileRef<I> {
    /// A handle, if there is another or a request in flight. Those that are in flight count, also
    /// when all handles were gone meanwhile; then the new handle is to be downgraded again.
    pub fn upgrade(&self) -> Option<FileRef<I>> {
        let handle = || self.requests.upgrade().map(Arc::new);
        self.handles.upgrade().or_else(handle).map(FileRef)
    }

    /// Whether there is neither a handle nor a request any more.
    pub fn is_gone(&self) -> bool {
        self.requests.strong_count() == 0
    }
}

/// A request's hold on a file.
#[derive(Debug)]
pub(crate) struct InFlight<I>(Arc<I>);

impl<I> InFlight<I> {
    pub(crate) fn state(&self) -> &I {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_and_handles_are_not() {
        let file = FileRef::new(());
        let other = file.clone();
        assert_eq!(file.in_flight(), 0);
        let (a, b) = (file.begin_io(), other.begin_io());
        assert_eq!((file.in_flight(), other.in_flight()), (2, 2));
        drop((a, file));
        assert_eq!(other.in_flight(), 1);
        drop(b);
        assert_eq!(other.in_flight(), 0);
        assert!(other.is_same(&other.clone()) && !other.is_same(&FileRef::new(())));
    }

    #[test]
    fn requests_keep_a_file_that_has_no_handles() {
        let file = FileRef::new(());
        let weak = file.downgrade();
        assert_eq!(weak.upgrade().unwrap().in_flight(), 0);
        let request = file.begin_io();
        assert_eq!(weak.upgrade().unwrap().in_flight(), 1);
        drop(file);
        let again = weak.upgrade().unwrap();
        assert_eq!((again.in_flight(), weak.is_gone()), (1, false));
        drop(request);
        assert_eq!((again.in_flight(), again.downgrade().upgrade().unwrap().in_flight()), (0, 0));
        drop(again);
        assert!(weak.is_gone() && weak.upgrade().is_none());
    }
}
