//! The Controller Memory Buffer: memory of the controller in BAR 2, for submission queues (Base
//! 8.5, registers 3.1.3.11 to 3.1.3.17).

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nvio_spec::register::{CMB_ADDRESS_INVALID, CMBLOC, CMBMSC, CMBSTS, CMBSZ, Cmbmsc, Cmbsz};
use nvio_spec::{SQE_SIZE, Status, status};
use rustix::fs::FallocateFlags;
use vm_memory::mmap::MmapRegion;

use crate::controller::Controller;
use crate::error::Error;
use crate::memfd;
use crate::queue::SubmissionQueue;

/// The BAR that holds it, from its start.
const BAR: u32 = 2;
/// Upper half of CMBMSC.
const CMBMSC_HIGH: u64 = CMBMSC + 4;
/// Bits of CMBMSC that can be written: CRE, CMSE and CBA.
const CMBMSC_WRITABLE: u64 = !0xffc;

/// A Controller Memory Buffer to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BufferConfig {
    /// Its size, a multiple of 4096.
    pub(crate) bytes: u64,
    /// It is there without being enabled, at the address of its BAR, as with NVMe 1.2 and 1.3.
    pub(crate) legacy: bool,
}

/// The Controller Memory Buffer, in a memfd of the size of BAR 2.
///
/// Like [`Doorbells`](crate::Doorbells) it is memory shared with the client. Its content is that
/// of the client; a reset of the function clears it.
#[derive(Debug)]
pub struct ControllerMemory {
    region: Arc<MmapRegion>,
    file: File,
    config: BufferConfig,
    control: Cmbmsc,
    /// Where the host has put BAR 2, if it has.
    bar: Option<u64>,
}

impl ControllerMemory {
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn new(config: BufferConfig) -> Result<Self, Error> {
        let bytes = config.bytes.next_power_of_two();
        let purpose = "the controller memory buffer";
        let (region, file) = memfd::new("nvio-controller-memory", bytes)
            .map_err(|source| Error::Memory { purpose, bytes, source })?;
        Ok(Self { region: Arc::new(region), file, config, control: Cmbmsc(0), bar: None })
    }

    /// Size of BAR 2 in bytes, a power of two. The buffer is at its start; what is beyond the
    /// size in CMBSZ is memory that means nothing.
    pub fn bar_size(&self) -> u64 {
        self.region.size() as u64
    }

    /// The memfd to hand to a client; offsets in it are offsets in BAR 2.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The memory itself.
    pub(crate) fn region(&self) -> &MmapRegion {
        &self.region
    }

    /// Whether CAP.CMBS is set.
    pub(crate) fn is_announced(&self) -> bool {
        !self.config.legacy
    }

    /// The 32 bits at an offset of BAR 0; 0 for registers of others.
    pub(crate) fn read(&self, offset: u64) -> u32 {
        let readable = self.config.legacy || self.control.0 & Cmbmsc::CAPABILITIES != 0;
        let pages = u32::try_from(self.config.bytes >> 12).unwrap_or(u32::MAX);
        match offset {
            CMBLOC if readable => BAR,
            CMBSZ if readable => Cmbsz::new(pages, Cmbsz::SUBMISSION_QUEUES).0,
            CMBMSC => (self.control.0 & 0xffff_ffff) as u32,
            CMBMSC_HIGH => (self.control.0 >> 32) as u32,
            CMBSTS if self.is_enabled() && self.window().is_none() => CMB_ADDRESS_INVALID,
            _ => 0,
        }
    }

    /// Writes 32 bits; what is read-only or of others stays as it is.
    pub(crate) fn write(&mut self, offset: u64, value: u32) {
        let old = self.control.0;
        let new = match offset {
            _ if self.config.legacy => return,
            CMBMSC => old & !0xffff_ffff | u64::from(value),
            CMBMSC_HIGH => old & 0xffff_ffff | u64::from(value) << 32,
            _ => return,
        };
        self.control = Cmbmsc(new & CMBMSC_WRITABLE);
    }

    fn is_enabled(&self) -> bool {
        self.control.0 & Cmbmsc::ENABLE != 0
    }

    /// The addresses by which the host refers to it, if it may at all: they do not wrap.
    pub(crate) fn window(&self) -> Option<Range<u64>> {
        let base = match self.bar {
            bar if self.config.legacy => bar?,
            _ if self.is_enabled() => self.control.base(),
            _ => return None,
        };
        Some(base..base.checked_add(self.config.bytes)?)
    }

    /// As at power on.
    pub(crate) fn reset(&mut self) {
        self.control = Cmbmsc(0);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = rustix::fs::fallocate(&self.file, flags, 0, self.bar_size()) {
            log::warn!("clearing the controller memory buffer: {error}");
        }
    }
}

impl Controller {
    /// The Controller Memory Buffer, if there is one: BAR 2.
    pub fn controller_memory(&self) -> Option<&ControllerMemory> {
        self.registers.buffer.as_ref()
    }

    /// Says where the host has put BAR 2 in its address space, or that it has not: the addresses
    /// of a buffer of the legacy kind are those (see
    /// [`Config::legacy_controller_memory`](crate::Config::legacy_controller_memory)).
    pub fn place_controller_memory(&mut self, address: Option<u64>) {
        if let Some(buffer) = &mut self.registers.buffer {
            buffer.bar = address;
        }
        self.controller_memory_changed();
    }

    /// Tells those who resolve data pointers which addresses are of the buffer.
    pub(crate) fn controller_memory_changed(&mut self) {
        let window = self.controller_memory().and_then(ControllerMemory::window);
        let window = window.unwrap_or_default();
        self.segments.set_controller_memory(window.clone());
        self.media.segments.set_controller_memory(window);
    }

    /// A submission queue at `base`, in client memory or in the buffer.
    ///
    /// # Errors
    /// Invalid Use of Controller Memory Buffer if only a part of it is in the buffer.
    pub(crate) fn submission_queue(
        &self,
        base: u64,
        entries: u32,
        cqid: u16,
    ) -> Result<SubmissionQueue, Status> {
        let queue = SubmissionQueue::new(base, entries, cqid);
        let Some((buffer, window)) = self.overlapping(base, u64::from(entries) * SQE_SIZE as u64)
        else {
            return Ok(queue);
        };
        let end = base.checked_add(u64::from(entries) * SQE_SIZE as u64);
        let inside = window.start <= base && end.is_some_and(|end| end <= window.end);
        let offset = usize::try_from(base.wrapping_sub(window.start)).ok().filter(|_| inside);
        let offset = offset.ok_or(status::INVALID_USE_OF_CMB)?;
        Ok(queue.in_controller_memory(Arc::clone(&buffer.region), offset))
    }

    /// Refuses a range of which anything is in the buffer.
    ///
    /// # Errors
    /// Invalid Use of Controller Memory Buffer.
    pub(crate) fn refuse_controller_memory(&self, base: u64, len: u64) -> Result<(), Status> {
        match self.overlapping(base, len) {
            Some(_) => Err(status::INVALID_USE_OF_CMB),
            None => Ok(()),
        }
    }

    /// The buffer and its addresses, if a range has any of them.
    fn overlapping(&self, base: u64, len: u64) -> Option<(&ControllerMemory, Range<u64>)> {
        let buffer = self.controller_memory()?;
        let window = buffer.window()?;
        let overlaps = base < window.end && window.start < base.saturating_add(len);
        overlaps.then_some((buffer, window))
    }
}
