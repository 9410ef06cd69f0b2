//! The memory of a request: pages of its own, whose address the kernel knows.

use std::ptr::NonNull;

use nvio_perf::target::{Buffer, Error};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The memory of a request.
#[derive(Debug)]
pub struct Pages {
    base: NonNull<u8>,
    /// Bytes of the mapping.
    mapped: usize,
    /// Bytes of the request.
    len: usize,
    /// Index among the registered buffers.
    pub(crate) index: u16,
}

// SAFETY: the pages belong to this value alone.
unsafe impl Send for Pages {}

impl Pages {
    /// Maps `bytes` zeroed bytes.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn new(bytes: usize, index: u16) -> Result<Self, Error> {
        let mapped = bytes.max(1).next_multiple_of(4096);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address that the kernel chooses overlaps no Rust object.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), mapped, protection, flags) };
        let base = base.ok().and_then(|base| NonNull::new(base.cast()));
        let base = base.ok_or_else(|| Error(format!("no memory for a buffer of {bytes} bytes")))?;
        Ok(Self { base, mapped, len: bytes, index })
    }

    /// Returns the address.
    pub(crate) fn address(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Returns the length of the request in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the whole mapping, for its registration.
    pub(crate) fn whole(&self) -> libc::iovec {
        libc::iovec { iov_base: self.base.as_ptr().cast(), iov_len: self.mapped }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: `new` made the mapping, no reference to it is left, and a request in flight owns
        // its pages.
        unsafe { munmap(self.base.as_ptr().cast(), self.mapped) }.unwrap_or(());
    }
}

impl Buffer for Pages {
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `len` is at most the length of the mapping, which is initialised and belongs to
        // this value.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }

    fn set_len(&mut self, bytes: usize) {
        self.len = bytes.min(self.mapped);
    }
}
