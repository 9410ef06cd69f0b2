//! Accesses of the controller to host memory, and their observer.

use std::fmt;

/// The accesses that a mapping allows the controller.
///
/// See the [example](crate::HostMemory#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The controller may read: submission queues, PRP lists, the data of Write.
    pub read: bool,
    /// The controller may write: completion queues, the data of Read.
    pub write: bool,
}

impl Access {
    /// Reading only.
    ///
    /// See the [example](crate::HostMemory#examples).
    pub const READ: Self = Self { read: true, write: false };
    /// Writing only.
    ///
    /// See the [example](crate::HostMemory#examples).
    pub const WRITE: Self = Self { read: false, write: true };
    /// Reading and writing.
    ///
    /// See the [example](crate::HostMemory#examples).
    pub const READ_WRITE: Self = Self { read: true, write: true };

    /// Returns true if every access of `needed` is allowed.
    pub(crate) fn allows(self, needed: Self) -> bool {
        (self.read || !needed.read) && (self.write || !needed.write)
    }
}

/// An access of the controller to host memory; see
/// [`HostMemory::observe`](crate::HostMemory::observe).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dma {
    /// First byte, an I/O virtual address.
    pub iova: u64,
    /// Number of bytes, at least 1, in one mapping.
    pub len: u64,
    /// [`Access::READ`] or [`Access::WRITE`].
    pub access: Access,
}

/// The observer, if there is one.
#[derive(Default)]
pub(crate) struct Observer(Option<Box<dyn Fn(Dma) + Send>>);

impl Observer {
    pub(crate) fn set(&mut self, observer: impl Fn(Dma) + Send + 'static) {
        self.0 = Some(Box::new(observer));
    }

    /// Notifies the observer of an access. The address is computed only if there is an observer.
    #[inline]
    pub(crate) fn tell(&self, iova: impl FnOnce() -> Option<u64>, len: u64, access: Access) {
        if let Some(observer) = &self.0 {
            Self::tell_one(observer, iova(), len, access);
        }
    }

    #[cold]
    fn tell_one(observer: &dyn Fn(Dma), iova: Option<u64>, len: u64, access: Access) {
        if let Some(iova) = iova.filter(|_| len > 0) {
            observer(Dma { iova, len, access });
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Observer(set)" } else { "Observer(none)" })
    }
}
