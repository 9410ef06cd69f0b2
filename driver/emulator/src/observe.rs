//! Watching the controller's accesses to client memory.

use std::fmt;

use crate::memory::Access;

/// An access of the controller to client memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dma {
    /// Its first byte, an I/O virtual address.
    pub iova: u64,
    /// Bytes, at least 1. They are in one mapping.
    pub len: u64,
    /// [`Access::READ`] or [`Access::WRITE`].
    pub access: Access,
}

/// Who is told of accesses, if anybody is.
#[derive(Default)]
pub(crate) struct Observer(Option<Box<dyn Fn(Dma) + Send>>);

impl Observer {
    pub(crate) fn set(&mut self, observer: impl Fn(Dma) + Send + 'static) {
        self.0 = Some(Box::new(observer));
    }

    /// Tells of an access, whose address is computed only if somebody listens; `None` is one to
    /// memory that is not the client's.
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
