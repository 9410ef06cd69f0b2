//! Memory-mapped device registers and doorbells.

use std::arch::x86_64::_mm_sfence;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use nvio_spec::register::DOORBELLS;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use volatile::VolatilePtr;

use crate::dma::{PAGE_SIZE, Shared};
use crate::error::{Error, Result};

/// A mapped window of a BAR, unmapped when dropped. Offsets count from the start of the BAR, in
/// bytes.
///
/// A [`Transport`](crate::Transport) maps the window of the doorbells.
///
/// # Examples
/// ```
/// use std::os::fd::AsFd;
///
/// use nvio_driver::Mmio;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let file = tempfile::tempfile()?;
/// file.set_len(4096)?;
/// let doorbells = Mmio::map(file.as_fd(), 0, 0x1000, 4096)?;
/// doorbells.write32(0x1008, 1)?;
/// assert_eq!(doorbells.read32(0x1008)?, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Mmio {
    base: NonNull<u8>,
    /// Offset in the BAR of the first mapped byte.
    start: u64,
    len: usize,
}

// SAFETY: the mapping is valid from any thread, and all access is through volatile operations.
unsafe impl Send for Mmio {}
// SAFETY: as above; registers are made for concurrent access.
unsafe impl Sync for Mmio {}

impl Mmio {
    /// Maps `len` bytes of `fd` at `fd_offset` as a window that starts at offset `start` of its
    /// BAR.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::System`] if the mapping fails.
    pub fn map(fd: BorrowedFd<'_>, fd_offset: u64, start: u64, len: usize) -> Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new shared mapping at an address that the kernel chooses overlaps no Rust object.
        let base =
            unsafe { mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, fd, fd_offset) };
        let base = base.map_err(Error::system("mmap of a BAR"))?;
        let null = || Error::system("mmap of a BAR")(Errno::NOMEM);
        Ok(Self { base: NonNull::new(base.cast()).ok_or_else(null)?, start, len })
    }

    /// Returns the length of the window, bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the byte at offset `at` of the window, which must be inside.
    pub(crate) fn at(&self, at: usize) -> NonNull<u8> {
        debug_assert!(at < self.len);
        // SAFETY: the byte is inside the mapping.
        unsafe { self.base.add(at.min(self.len - 1)) }
    }

    /// Returns the register at `offset` of the BAR, which must be a multiple of 4.
    fn register(&self, offset: u64) -> Result<NonNull<u32>> {
        let outside = Error::OutsideBar { offset, length: self.start + self.len as u64 };
        let Some(at) = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok())
        else {
            return Err(outside);
        };
        if at % 4 != 0 || at.checked_add(4).is_none_or(|end| end > self.len) {
            return Err(outside);
        }
        // SAFETY: `at` and the four bytes after it are inside the mapping.
        Ok(unsafe { self.base.add(at) }.cast())
    }

    /// Reads the register at `offset`, a multiple of 4.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::OutsideBar`].
    pub fn read32(&self, offset: u64) -> Result<u32> {
        let register = self.register(offset)?;
        // SAFETY: `register` is aligned and mapped for as long as `self` lives.
        Ok(u32::from_le(unsafe { VolatilePtr::new(register) }.read()))
    }

    /// Writes the register at `offset`, a multiple of 4.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::OutsideBar`].
    pub fn write32(&self, offset: u64, value: u32) -> Result<()> {
        let register = self.register(offset)?;
        // SAFETY: `register` is aligned and mapped for as long as `self` lives.
        unsafe { VolatilePtr::new(register) }.write(value.to_le());
        Ok(())
    }
}

impl Drop for Mmio {
    fn drop(&mut self) {
        // SAFETY: `map` made the mapping of `len` bytes at `base`; every `Doorbell` in it holds a
        // reference to `self`, so none is left.
        unsafe { munmap(self.base.as_ptr().cast(), self.len) }.unwrap_or(());
    }
}

/// A doorbell register (PCIe 3.1.2), or its shadow in memory. Ringing it is a single store.
pub(crate) struct Doorbell {
    register: NonNull<u32>,
    before: Option<Before>,
    /// Rings without a write to the register.
    spared: u64,
    _window: Arc<Mmio>,
}

// SAFETY: see `Mmio`, which the doorbell keeps alive.
unsafe impl Send for Doorbell {}

impl Doorbell {
    /// Returns the doorbell at `offset` of the BAR.
    pub(crate) fn new(window: &Arc<Mmio>, offset: u64) -> Result<Self> {
        let register = window.register(offset)?;
        Ok(Self { register, before: None, spared: 0, _window: Arc::clone(window) })
    }

    /// Moves a tail or head from `old` to `new`, which differ. The caller has ordered its stores to
    /// queue entries before this call.
    #[inline(always)]
    pub(crate) fn ring(&mut self, old: u32, new: u32) {
        match self.before {
            None => self.write(new),
            Some(_) => self.ring_after(old, new),
        }
    }

    #[cold]
    #[inline(never)]
    fn ring_after(&mut self, old: u32, new: u32) {
        match &self.before {
            Some(before) if !before.publish(old, new) => self.spared += 1,
            _ => self.write(new),
        }
    }

    /// Returns the number of rings without a write to the register, which the controller did not
    /// need.
    pub(crate) fn spared(&self) -> u64 {
        self.spared
    }

    #[inline(always)]
    fn write(&self, value: u32) {
        // SAFETY: `register` is aligned and stays mapped through `_window`.
        unsafe { VolatilePtr::new(self.register) }.write(value.to_le());
    }

    /// Sets the shadow doorbell, with which the register is written only when the controller needs
    /// it; or, with `None`, uses the register alone.
    pub(crate) fn set_shadow(&mut self, shadow: Option<Shadow>) {
        let entries_combine = self.before.as_ref().is_some_and(|before| before.entries_combine);
        self.before =
            (entries_combine || shadow.is_some()).then_some(Before { entries_combine, shadow });
    }

    /// Orders each ring after stores to write-combining memory, for a queue in device memory.
    pub(crate) fn set_entries_combine(&mut self) {
        let shadow = self.before.take().and_then(|before| before.shadow);
        self.before = Some(Before { entries_combine: true, shadow });
    }
}

/// The steps before a write to a doorbell register. Most queues have none, and pay one test.
struct Before {
    /// Queue entries are in write-combining memory.
    entries_combine: bool,
    shadow: Option<Shadow>,
}

impl Before {
    /// Runs the steps, and returns true if the register must be written.
    fn publish(&self, old: u32, new: u32) -> bool {
        if self.entries_combine {
            // Without the fence, stores to write-combining memory may pass later stores.
            // SAFETY: every x86-64 processor has the instruction.
            unsafe { _mm_sfence() };
        }
        self.shadow.as_ref().is_none_or(|shadow| shadow.publish(old, new))
    }
}

/// A doorbell in memory that the controller reads (Base 5.8, Annex B.5).
pub(crate) struct Shadow {
    value: NonNull<u32>,
    event: NonNull<u32>,
    /// Number of entries of the queue, a power of two, minus one.
    mask: u32,
    _memory: Arc<DoorbellMemory>,
}

/// The two pages of Doorbell Buffer Config: shadow doorbells, and event indices.
pub(crate) struct DoorbellMemory {
    pub(crate) values: Shared,
    pub(crate) events: Shared,
}

impl Shadow {
    /// Returns the shadow of the doorbell at `offset` of the BAR, for a queue of `entries` entries,
    /// a power of two. `None` if the doorbell is outside of the page.
    pub(crate) fn new(memory: &Arc<DoorbellMemory>, offset: u64, entries: u32) -> Option<Self> {
        let at = usize::try_from(offset.checked_sub(DOORBELLS)?).ok()?;
        if at % 4 != 0 || at.checked_add(4)? > PAGE_SIZE {
            return None;
        }
        // SAFETY: both pages are one page long, and the four bytes at `at` are inside.
        let word = |page: &Shared| unsafe { page.ptr().add(at) }.cast();
        let (value, event) = (word(&memory.values), word(&memory.events));
        let shadow = Self { value, event, mask: entries - 1, _memory: Arc::clone(memory) };
        // SAFETY: as above; the controller does not know the queue yet.
        unsafe {
            shadow.value.write_volatile(0);
            shadow.event.write_volatile(0);
        }
        Some(shadow)
    }

    /// Stores the new value, and returns true if the controller needs a write to the register.
    fn publish(&self, old: u32, new: u32) -> bool {
        // SAFETY: the word is inside a page that `_memory` keeps allocated.
        unsafe { self.value.write_volatile(new.to_le()) };
        // The store must be visible before the event index is read, or both sides could wait.
        fence(Ordering::SeqCst);
        // SAFETY: as above.
        let event = u32::from_le(unsafe { self.event.read_volatile() });
        // True if the event index is in the range that this ring passes.
        event.wrapping_sub(old) & self.mask < new.wrapping_sub(old) & self.mask
    }
}

// SAFETY: as `DoorbellMemory`.
unsafe impl Send for Shadow {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn only_aligned_registers_inside_the_window_can_be_reached() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let window = Arc::new(Mmio::map(file.as_fd(), 0, 0x1000, 4096).unwrap());
        window.write32(0x1ffc, 0x1234_5678).unwrap();
        assert_eq!(window.read32(0x1ffc).unwrap(), 0x1234_5678);
        Doorbell::new(&window, 0x1008).unwrap().ring(6, 7);
        assert_eq!(window.read32(0x1008).unwrap(), 7);
        for offset in [0, 0xffc, 0x1002, 0x1ffe, 0x2000, u64::MAX] {
            assert!(matches!(window.read32(offset), Err(Error::OutsideBar { .. })), "{offset:#x}");
        }
    }
}
