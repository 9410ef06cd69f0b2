//! The Controller Memory Buffer: memory of the controller in BAR 2, for submission queues (Base
//! 8.5, registers 3.1.3.11 to 3.1.3.17).

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nvio_spec::register::{CMB_ADDRESS_INVALID, CMBLOC, CMBMSC, CMBSTS, CMBSZ, Cmbmsc, Cmbsz};
use rustix::fs::FallocateFlags;
use vm_memory::mmap::MmapRegion;

use crate::config::BufferConfig;
use crate::error::Error;
use crate::host::memfd;

/// The BAR of the buffer, which starts at offset 0.
const BAR: u32 = 2;
/// Upper half of CMBMSC.
const CMBMSC_HIGH: u64 = CMBMSC + 4;
/// Writable bits of CMBMSC: CRE, CMSE and CBA.
const CMBMSC_WRITABLE: u64 = !0xffc;

/// The Controller Memory Buffer, in a memfd of the size of BAR 2.
///
/// The memory is shared with the client, like [`Doorbells`](crate::Doorbells). Its content belongs
/// to the client; a reset of the function clears it.
///
/// # Examples
/// ```
/// use nvio_emulator::{Backing, Config, Controller, NamespaceConfig};
///
/// let config = Config::new().namespace(NamespaceConfig::new(Backing::memory(1 << 20)));
/// let controller = Controller::new(&config.controller_memory(1 << 20))?;
/// let memory = controller.controller_memory().expect("it was configured");
/// assert_eq!(memory.bar_size(), 1 << 20);
/// println!("a client maps {:?}", memory.file());
/// # Ok::<(), nvio_emulator::Error>(())
/// ```
#[derive(Debug)]
pub struct ControllerMemory {
    region: Arc<MmapRegion>,
    file: File,
    config: BufferConfig,
    control: Cmbmsc,
    /// Address of BAR 2, if the host has assigned one.
    bar: Option<u64>,
}

impl ControllerMemory {
    /// Creates the buffer.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn new(config: BufferConfig) -> Result<Self, Error> {
        let bytes = config.bytes.next_power_of_two();
        let purpose = "the controller memory buffer";
        let (region, file) = memfd::new("nvio-controller-memory", bytes)
            .map_err(|source| Error::Memory { purpose, bytes, source })?;
        Ok(Self { region: Arc::new(region), file, config, control: Cmbmsc(0), bar: None })
    }

    /// Returns the size of BAR 2 in bytes, a power of two. The buffer is at its start. Memory
    /// beyond the size in CMBSZ is unused.
    ///
    /// See the [example](Self#examples).
    pub fn bar_size(&self) -> u64 {
        self.region.size() as u64
    }

    /// Returns the memfd to share with a client. Its offsets are offsets in BAR 2.
    ///
    /// See the [example](Self#examples).
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Sets the address of BAR 2; `None` for none.
    pub(crate) fn place(&mut self, address: Option<u64>) {
        self.bar = address;
    }

    /// Returns the memory for a queue that outlives a borrow of the buffer.
    pub(crate) fn shared_region(&self) -> Arc<MmapRegion> {
        Arc::clone(&self.region)
    }

    /// Returns the mapping of the buffer in this process.
    pub(crate) fn region(&self) -> &MmapRegion {
        &self.region
    }

    /// Returns true if CAP.CMBS is set.
    pub(crate) fn is_announced(&self) -> bool {
        !self.config.legacy
    }

    /// Reads the 32 bits at an offset of BAR 0; 0 for other registers.
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

    /// Writes 32 bits. Read-only bits and other registers do not change.
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

    /// Returns the addresses with which commands refer to the buffer, if they may. They do not
    /// wrap.
    pub(crate) fn window(&self) -> Option<Range<u64>> {
        let base = match self.bar {
            bar if self.config.legacy => bar?,
            _ if self.is_enabled() => self.control.base(),
            _ => return None,
        };
        Some(base..base.checked_add(self.config.bytes)?)
    }

    /// Restores the state of power on.
    pub(crate) fn reset(&mut self) {
        self.control = Cmbmsc(0);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = rustix::fs::fallocate(&self.file, flags, 0, self.bar_size()) {
            log::warn!("clearing the controller memory buffer: {error}");
        }
    }
}
