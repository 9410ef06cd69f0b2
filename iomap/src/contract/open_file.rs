//! The state of an open file that requests in flight share.

use std::sync::{Arc, Weak};

use crate::error::FileError;

/// The state of an open file, shared by its handles and the requests in flight.
///
/// A filesystem without cache and hooks implements only the type: the methods have defaults that
/// cost nothing.
///
/// # Examples
/// ```
/// use std::cell::RefCell;
///
/// use nvio_iomap::{Cursor, EndIo, FileQueue, ImageQueue, IoArgs, IoFlags, Report};
/// # use nvio_iomap::{Error, FileRef, Mapper, Mapping, Op, OpenFile};
///
/// /// Records the calls.
/// #[derive(Default)]
/// struct Calls(RefCell<Vec<&'static str>>);
///
/// impl OpenFile for Calls {
///     type Error = Error;
///
///     fn is_cached(&self) -> bool {
///         false
///     }
///     fn write_back(&self, _pos: u64, _length: u64, _nowait: bool) -> Result<(), Error> {
///         self.0.borrow_mut().push("write_back");
///         Ok(())
///     }
///     fn invalidate(&self, _pos: u64, _length: u64) -> bool {
///         self.0.borrow_mut().push("invalidate");
///         true
///     }
///     fn submit_io(&self, _pos: u64, _addr: u64, _bytes: usize) -> Result<(), Error> {
///         self.0.borrow_mut().push("submit_io");
///         Ok(())
///     }
///     fn sync(&self, _data: bool, flush: bool) -> Result<bool, Error> {
///         Ok(flush) // A filesystem with a journal commits it here.
///     }
///     fn written_past(&self) -> Option<u64> {
///         Some(0) // There is no direct I/O.
///     }
///     fn left_volatile(&self) {
///         self.0.borrow_mut().push("left_volatile");
///     }
///     fn end_io(&self, end: &EndIo) -> Result<(), Error> {
///         self.0.borrow_mut().push(if end.failed { "failed" } else { "end_io" });
///         Ok(())
///     }
///     fn report(&self, report: &Report<'_, Error>) {
///         eprintln!("at byte {}: {}", report.pos, report.error);
///     }
/// }
/// # struct OneExtent(FileRef<Calls>);
/// # impl Mapper for OneExtent {
/// #     type OpenFile = Calls;
/// #     fn open_file(&self) -> &FileRef<Calls> {
/// #         &self.0
/// #     }
/// #     fn size(&self) -> u64 {
/// #         1 << 20
/// #     }
/// #     fn block_size(&self) -> u32 {
/// #         4096
/// #     }
/// #     fn begin(&mut self, _pos: u64, _length: u64, _op: Op) -> Result<Mapping, Error> {
/// #         Ok(Mapping::mapped(0, 1 << 20, 0))
/// #     }
/// # }
///
/// let mut queue = FileQueue::new(ImageQueue::new(vec![0; 1 << 20], 32)?);
/// let mut file = OneExtent(FileRef::new(Calls::default()));
/// let mut page = [0; 4096];
/// let args = IoArgs::at(0).flags(IoFlags::HOOKS);
/// queue.read_into(&mut file, args, &mut Cursor::new(&mut page[..]))?;
/// let calls = file.0.state().0.borrow();
/// assert!(calls.contains(&"submit_io") && calls.contains(&"end_io"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait OpenFile {
    /// The filesystem's error; this layer's own errors convert into it.
    ///
    /// See the [example](Self#examples).
    type Error: FileError;

    /// Writes dirty cached data of a range to the device, before a direct read of the range. Called
    /// if the file is not [plain](crate::Mapper::is_plain).
    ///
    /// See the [example](Self#examples).
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
    ///
    /// See the [example](Self#examples).
    #[inline]
    fn invalidate(&self, pos: u64, length: u64) -> bool {
        let _ = (pos, length);
        true
    }

    /// Returns true if the file has cached data. A write then completes after the second
    /// [`invalidate`](Self::invalidate), and a write that must not wait is rejected.
    ///
    /// See the [example](Self#examples).
    #[inline]
    fn is_cached(&self) -> bool {
        false
    }

    /// Called before each command of a request with [`IoFlags::HOOKS`](crate::IoFlags::HOOKS) is
    /// submitted: for the `bytes` at `pos` of the file, at byte `addr` of the device.
    ///
    /// See the [example](Self#examples).
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
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The error fails the request, unless it failed before.
    fn end_io(&self, end: &EndIo) -> Result<(), Self::Error> {
        let _ = end;
        Ok(())
    }

    /// Makes changes of the filesystem durable that belong to the file, after its data was written. With
    /// `data`, only those without which the data cannot be read (fdatasync). With `flush`, data may be
    /// in the device's volatile cache. Returns true if that must still be flushed.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The error of the filesystem, with which the sync fails.
    fn sync(&self, data: bool, flush: bool) -> Result<bool, Self::Error> {
        let _ = data;
        Ok(flush)
    }

    /// Returns a number that each write past the [cached file](crate::CachedFile) increases, at its begin
    /// and at its end: a sync of the cached file flushes the device if there was one. `None` if that is
    /// not known.
    ///
    /// See the [example](Self#examples).
    fn written_past(&self) -> Option<u64> {
        None
    }

    /// Called when the [cached file](crate::CachedFile) has lost its last handle, if data that it wrote may
    /// be in the device's volatile cache. The next sync of the file, or of the filesystem, has to flush it.
    ///
    /// See the [example](Self#examples).
    fn left_volatile(&self) {}

    /// Called once for each request that failed, except with an error after which a retry or
    /// buffered I/O may succeed.
    ///
    /// See the [example](Self#examples).
    fn report(&self, report: &Report<'_, Self::Error>) {
        let _ = report;
    }
}

/// The end of a request, for [`OpenFile::end_io`].
///
/// See the [example](OpenFile#examples).
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
    /// True if the data survives a loss of power; else a flush must come before metadata that makes it
    /// reachable is durable.
    pub durable: bool,
    /// [`Mapper::private`](crate::Mapper::private) of the mapping, for a write from the cache; 0 for
    /// direct I/O.
    pub private: u64,
}

/// A failure, for [`OpenFile::report`].
///
/// See the [example](OpenFile#examples).
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
///
/// # Examples
/// ```
/// use nvio_iomap::FileRef;
///
/// let file = FileRef::new("the state of an open file");
/// let clone = file.clone();
/// assert!(file.is_same(&clone));
/// assert_eq!((clone.state().len(), clone.in_flight()), (25, 0));
///
/// // A cache of open files keeps weak references.
/// let weak = file.downgrade();
/// assert!(weak.upgrade().is_some_and(|found| found.is_same(&file)));
/// drop((file, clone));
/// assert!(weak.is_gone() && weak.upgrade().is_none());
/// ```
#[derive(Debug)]
// Only requests hold the inner reference, so their number is the number of references, and no way
// out of a function can forget to decrement it.
#[expect(clippy::redundant_allocation, reason = "two counts")]
pub struct FileRef<I>(Arc<Arc<I>>);

impl<I> FileRef<I> {
    /// Returns the first handle of a file.
    ///
    /// See the [example](Self#examples).
    pub fn new(inode: I) -> Self {
        Self(Arc::new(Arc::new(inode)))
    }

    /// Returns the state that handles and requests share.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn state(&self) -> &I {
        &self.0
    }

    /// Returns true if both are handles of one open file.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns the number of requests in flight.
    ///
    /// See the [example](Self#examples).
    pub fn in_flight(&self) -> usize {
        Arc::strong_count(&*self.0) - 1
    }

    /// Returns a reference that does not keep the file open.
    ///
    /// See the [example](Self#examples).
    pub fn downgrade(&self) -> WeakFileRef<I> {
        WeakFileRef { handles: Arc::downgrade(&self.0), requests: Arc::downgrade(&*self.0) }
    }

    /// Increments the number of requests in flight, until the returned value is dropped.
    #[inline]
    pub(crate) fn begin_io(&self) -> InFlight<I> {
        let request = InFlight(Arc::clone(&*self.0));
        // A filesystem that replaces a map looks for requests afterwards, and a request looks at the map
        // after it was counted. The increment is a full barrier on x86.
        #[cfg(not(target_arch = "x86_64"))]
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        request
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
    ///
    /// See the [example](FileRef#examples).
    pub fn upgrade(&self) -> Option<FileRef<I>> {
        let handle = || self.requests.upgrade().map(Arc::new);
        self.handles.upgrade().or_else(handle).map(FileRef)
    }

    /// Returns true if the file has neither handles nor requests.
    ///
    /// See the [example](FileRef#examples).
    pub fn is_gone(&self) -> bool {
        self.requests.strong_count() == 0
    }
}

/// A file's state, as a request in flight holds it.
#[derive(Debug)]
pub(crate) struct InFlight<I>(Arc<I>);

impl<I> InFlight<I> {
    #[inline]
    pub(crate) fn state(&self) -> &I {
        &self.0
    }

    /// Decrements the number of requests in flight, as a drop does. The value is an argument here; a drop
    /// would need it in memory, and each request would store it there.
    #[inline]
    pub(crate) fn end(self) {
        if let Some(state) = Arc::into_inner(self.0) {
            drop_last(state);
        }
    }
}

#[cold]
#[inline(never)]
fn drop_last<I>(state: I) {
    drop(state);
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
