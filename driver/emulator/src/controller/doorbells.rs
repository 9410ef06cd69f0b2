//! The doorbells: memory shared with the client, so that the host rings one with a store (PCIe
//! 3.1.2).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

use nvio_spec::register;
use vm_memory::Bytes;
use vm_memory::mmap::MmapRegion;

use crate::error::Error;
use crate::host::memfd;

/// The doorbell pages of BAR0, in a memfd of the size of the BAR.
///
/// The file is as large as BAR0, so that offsets in it are offsets in the BAR. Its first page, the
/// registers, is unused. It is sealed against resizing, so that a client cannot remove the pages
/// that the controller maps.
///
/// # Examples
/// ```
/// use nvio_emulator::{Backing, Config, Controller, NamespaceConfig};
///
/// let config = Config::new().namespace(NamespaceConfig::new(Backing::memory(1 << 20)));
/// let controller = Controller::new(&config)?;
/// let doorbells = controller.doorbells();
/// doorbells.ring_sq(0, 1);
/// doorbells.ring_cq(0, 2);
/// assert_eq!((doorbells.sq_tail(0), doorbells.cq_head(0)), (1, 2));
/// println!("a client maps {:?}, {} bytes", doorbells.file(), doorbells.bar_size());
/// # Ok::<(), nvio_emulator::Error>(())
/// ```
#[derive(Debug)]
pub struct Doorbells {
    region: MmapRegion,
    file: File,
    stride: u32,
    queues: u32,
}

impl Doorbells {
    /// Creates doorbells for queue identifiers 0 to `max_queues`, `stride` bytes apart.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn new(max_queues: u16, stride: u32) -> Result<Self, Error> {
        let queues = u32::from(max_queues) + 1;
        let end = register::DOORBELLS + 2 * u64::from(queues) * u64::from(stride);
        // The size of a BAR is a power of two; real controllers have 16 KiB.
        let bytes = end.next_power_of_two().max(16 << 10);
        let (region, file) = memfd::new("nvio-doorbells", bytes)
            .map_err(|source| Error::Memory { purpose: "doorbells", bytes, source })?;
        Ok(Self { region, file, stride, queues })
    }

    /// Returns the size of BAR0 in bytes, a power of two.
    ///
    /// See the [example](Self#examples).
    pub fn bar_size(&self) -> u64 {
        self.region.size() as u64
    }

    /// Returns the memfd to share with a client. Its offsets are offsets in BAR0.
    ///
    /// See the [example](Self#examples).
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Returns the tail doorbell of submission queue `qid`; 0 for a queue without one.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn sq_tail(&self, qid: u16) -> u32 {
        self.load(register::sq_tail_doorbell(qid, self.stride))
    }

    /// Returns the head doorbell of completion queue `qid`; 0 for a queue without one.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn cq_head(&self, qid: u16) -> u32 {
        self.load(register::cq_head_doorbell(qid, self.stride))
    }

    /// Rings the tail doorbell of submission queue `qid`, as a host does.
    ///
    /// See the [example](Self#examples).
    pub fn ring_sq(&self, qid: u16, tail: u32) {
        self.store(register::sq_tail_doorbell(qid, self.stride), tail);
    }

    /// Rings the head doorbell of completion queue `qid`, as a host does.
    ///
    /// See the [example](Self#examples).
    pub fn ring_cq(&self, qid: u16, head: u32) {
        self.store(register::cq_head_doorbell(qid, self.stride), head);
    }

    /// Reads the value at an offset of BAR0; 0 beyond its end.
    #[inline]
    pub(crate) fn load(&self, offset: u64) -> u32 {
        // The queue entries of a new tail are read after the tail.
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        u32::from_le(self.region_load(at).unwrap_or(0))
    }

    /// Stores a value at an offset of BAR0. A store beyond its end has no effect.
    pub(crate) fn store(&self, offset: u64, value: u32) {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Ok(slice) = vm_memory::VolatileMemory::get_slice(&self.region, at, 4) {
            // The store refuses an offset that is not a multiple of 4, which is not a doorbell.
            let _ = slice.store(value.to_le(), 0, Ordering::Release);
        }
    }

    #[inline]
    fn region_load(&self, at: usize) -> Option<u32> {
        let slice = vm_memory::VolatileMemory::get_slice(&self.region, at, 4).ok()?;
        slice.load(0, Ordering::Acquire).ok()
    }

    /// Returns the doorbell at an offset of BAR0.
    pub(crate) fn decode(&self, offset: u64) -> Option<Doorbell> {
        let from_start = offset.checked_sub(register::DOORBELLS)?;
        let stride = u64::from(self.stride);
        let index = from_start.is_multiple_of(stride).then_some(from_start / stride)?;
        if index >= 2 * u64::from(self.queues) {
            return None;
        }
        let qid = u16::try_from(index / 2).ok()?;
        Some(if index.is_multiple_of(2) { Doorbell::SqTail(qid) } else { Doorbell::CqHead(qid) })
    }

    /// Sets every doorbell to 0, for a controller reset.
    pub(crate) fn clear(&self) {
        for qid in 0..self.queues {
            let qid = u16::try_from(qid).unwrap_or(u16::MAX);
            self.ring_sq(qid, 0);
            self.ring_cq(qid, 0);
        }
    }
}

/// A doorbell by its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doorbell {
    SqTail(u16),
    CqHead(u16),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_decode_to_queues_and_nothing_else_does() {
        let doorbells = Doorbells::new(2, 8).unwrap();
        assert_eq!(doorbells.bar_size(), 16 << 10);
        assert_eq!(doorbells.decode(0x1000), Some(Doorbell::SqTail(0)));
        assert_eq!(doorbells.decode(0x1008), Some(Doorbell::CqHead(0)));
        assert_eq!(doorbells.decode(0x1028), Some(Doorbell::CqHead(2)));
        for offset in [0, 0xffc, 0x1004, 0x1030, u64::MAX] {
            assert_eq!(doorbells.decode(offset), None);
        }
    }

    #[test]
    fn the_file_is_what_the_controller_reads_and_cannot_be_shortened() {
        use std::os::unix::fs::FileExt;
        let doorbells = Doorbells::new(1, 4).unwrap();
        let client = File::from(doorbells.file().try_clone_to_owned().unwrap());
        client.write_all_at(&77u32.to_le_bytes(), 0x1008).unwrap();
        assert_eq!(doorbells.sq_tail(1), 77);
        assert!(client.set_len(0).is_err());
        doorbells.clear();
        assert_eq!(doorbells.sq_tail(1), 0);
        doorbells.store(u64::MAX, 1);
        assert_eq!(doorbells.load(u64::MAX), 0);
    }
}
