//! The state of an open file that requests in flight share.

use std::sync::{Arc, Weak};

use crate::error::FileError;

/// The state of an open file, shared by its handles and the requests in flight.
///
/// A filesystem without cache and hooks implements only the type: the methods have defaults that
/// cost nothing.
pub trait OpenFile {
    /// The filesystem's error; this layer's own errors convert into it.
    type Error: FileError;

    /// Writes dirty cached data of a range to the device, before a direct read of the range.
    ///
    /// # Errors
    /// The error of the write; with `nowait`, an error that is "again" instead of waiting.
    #[inline]
    fn write_back(&self, pos: u64, length: u64, nowait: bool) -> Result<(), Self::Error> {
        let _ = (pos, length, nowait);
        Ok(())
    }

    /// Writes back and drops cached data of a range: before a direct write of the range, and after
    /// it, for data that was cached meanwhile. Returns false if some of it stays cached.
    #[inline]
    fn invalidate(&self, pos: u64, length: u64) -> bool {
        let _ = (pos, length);
        true
    }

    /// Returns true if the file has cached data. A write then completes after the second
    /// [`invalidate`](Self::invalidate), and a write that must not wait is rejected.
    #[inline]
    fn is_cached(&self) -> bool {
        false
    }

    /// Called before each command of a request with [`IoFlags::HOOKS`](crate::IoFlags::HOOKS) is
    /// submitted: for the `bytes` at `pos` of the file, at byte `addr` of the device.
    ///
    /// # Errors
    /// The error fails the request.
    fn submit_io(&self, pos: u64, addr: u64, bytes: usize) -> Result<(), Self::Error> {
        let _ = (pos, addr, bytes);
        Ok(())
    }

    /// Called after the last command of a request with [`IoFlags::HOOKS`](crate::IoFlags::HOOKS),
    /// before its result is returned, to convert unwritten extents and to increase the size of the
    /// file. Also called without the flag for a write to unwritten blocks or past the end of the
    /// file. It is never called inside the poll that found the completion.
    ///
    /// # Errors
    /// The error fails the request, unless it failed before.
    fn end_io(&self, end: &EndIo) -> Result<(), Self::Error> {
        let _ = end;
        Ok(())
    }

    /// Called once for each request that failed, except with an error after which a retry or
    /// buffered I/O may succeed.
    fn report(&self, report: &Report<'_, Self::Error>) {
        let _ = report;
    }
}

/// The end of a request, for [`OpenFile::end_io`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndIo {
    /// Position in the file, in bytes.
    pub pos: u64,
    /// Bytes transferred. After an error it is not known which of them are valid.
    pub bytes: u64,
    /// True for a write.
    pub write: bool,
    /// True if part of the request went to unwritten blocks.
    pub unwritten: bool,
    /// True if the request failed.
    pub failed: bool,
}

/// A failure, for [`OpenFile::report`].
#[derive(Debug)]
pub struct Report<'a, E> {
    /// Position in the file, in bytes.
    pub pos: u64,
    /// Length of the request in bytes.
    pub bytes: u64,
    /// True for a write.
    pub write: bool,
    /// The error.
    pub error: &'a E,
}

/// A handle of an [`OpenFile`]. Cheap to clone.
#[derive(Debug)]
// Only requests hold the inner reference, so their number is the number of references, and no way out
// of a function can forget to decrement it.
#[expect(clippy::redundant_allocation, reason = "two counts")]
pub struct FileRef<I>(Arc<Arc<I>>);

impl<I> FileRef<I> {
    /// Returns the first handle of a file.
    pub fn new(inode: I) -> Self {
        Self(Arc::new(Arc::new(inode)))
    }

    /// Returns the state that handles and requests share.
    #[inline]
    pub fn state(&self) -> &I {
        &self.0
    }

    /// Returns true if both are handles of one open file.
    #[inline]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns the number of requests in flight.
    pub fn in_flight(&self) -> usize {
        Arc::strong_count(&*self.0) - 1
    }

    /// Returns a reference that does not keep the file open.
    pub fn downgrade(&self) -> WeakFileRef<I> {
        WeakFileRef { handles: Arc::downgrade(&self.0), requests: Arc::downgrade(&*self.0) }
    }

    /// Increments the number of requests in flight, until the returned value is dropped.
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

/// A reference that finds the [`FileRef`] of a file while it has handles or requests.
#[derive(Debug)]
pub struct WeakFileRef<I> {
    handles: Weak<Arc<I>>,
    requests: Weak<I>,
}

impl<I> WeakFileRef<I> {
    /// Returns a handle, if the file has a handle or a request in flight. After a time without
    /// handles, downgrade the new handle again: this reference does not find it.
    pub fn upgrade(&self) -> Option<FileRef<I>> {
        let handle = || self.requests.upgrade().map(Arc::new);
        self.handles.upgrade().or_else(handle).map(FileRef)
    }

    /// Returns true if the file has neither handles nor requests.
    pub fn is_gone(&self) -> bool {
        self.requests.strong_count() == 0
    }
}

/// A file's state, as a request in flight holds it.
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
