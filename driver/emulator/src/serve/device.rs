//! The device that a vfio-user client sees: the controller in its PCI function.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_BAR2_REGION_INDEX, VFIO_PCI_BAR4_REGION_INDEX,
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_NUM_REGIONS, VFIO_REGION_INFO_FLAG_MMAP,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE, vfio_region_info,
    vfio_region_sparse_mmap_area,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, ServerRegion, SparseArea};

use nvio_spec::register;
use vm_memory::{Bytes, VolatileMemory, VolatileSlice};

use crate::controller::controller_memory::ControllerMemory;
use crate::controller::state::Controller;
use crate::faults::FaultCounts;
use crate::faults::plan::DeviceFault;
use crate::host::access::Access;
use crate::host::memory::HostMemory;
use crate::media::backing::volatile_error;
use crate::serve::interrupts::Interrupts;
use crate::serve::pci_config::{CONFIG_SIZE, ConfigSpace, Effect, msix_bar_size};

/// A controller with its PCI function, its interrupts and the client's memory.
#[derive(Debug)]
pub(crate) struct Device {
    controller: Controller,
    memory: HostMemory,
    config: ConfigSpace,
    interrupts: Interrupts,
    /// BAR4: the MSI-X table and pending bits. Clients mask vectors through messages, so it is only
    /// stored.
    msix: Vec<u8>,
    /// Interrupts obey configuration space, and a missing eventfd fails the controller.
    requires_interrupts: bool,
    /// Start of the controller's clock.
    started: Instant,
}

impl Device {
    pub(crate) fn new(controller: Controller, requires_interrupts: bool) -> Self {
        let vectors = controller.vectors();
        let msix_size = usize::try_from(msix_bar_size(vectors)).unwrap_or(0);
        Self {
            memory: HostMemory::new(),
            config: ConfigSpace::new(
                controller.doorbells().bar_size(),
                controller.controller_memory().map(ControllerMemory::bar_size),
                vectors,
            ),
            interrupts: Interrupts::new(vectors),
            msix: vec![0; msix_size],
            controller,
            requires_interrupts,
            started: Instant::now(),
        }
    }

    /// Returns true if there may be work: the controller runs and may access memory.
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.controller.is_running() && self.config.bus_master()
    }

    /// Processes commands and signals their interrupts.
    #[inline]
    pub(crate) fn process(&mut self, budget: usize) -> usize {
        if !self.is_active() {
            return 0;
        }
        self.set_clock();
        let done = self.controller.process(&self.memory, budget);
        if done > 0 {
            self.raise_interrupts();
        }
        done
    }

    /// Signals the vectors with new completions.
    fn raise_interrupts(&mut self) {
        let mask = self.controller.interrupt_mask();
        if self.requires_interrupts && !self.config.interrupts_enabled() {
            self.controller.take_interrupts().for_each(drop);
            return;
        }
        let mut undelivered = None;
        for vector in self.controller.take_interrupts() {
            if !self.interrupts.raise(vector, mask) {
                undelivered = Some(vector);
            }
        }
        if let Some(vector) = undelivered.filter(|_| self.requires_interrupts) {
            log::error!("interrupts are enabled, but vector {vector} has no eventfd");
            self.controller.fail();
        }
    }

    /// Advances the controller's clock, if it depends on it.
    #[inline]
    fn set_clock(&mut self) {
        if self.controller.needs_clock() {
            self.controller.advance_to(self.started.elapsed());
        }
    }

    /// Returns the time until a delayed command is due, as of the last [`Self::process`].
    #[inline]
    pub(crate) fn until_due(&self) -> Option<Duration> {
        self.controller.until_due()
    }

    /// Applies a fault to the controller.
    pub(crate) fn inject(&mut self, fault: DeviceFault) {
        self.set_clock();
        self.controller.inject(fault);
    }

    pub(crate) fn power_cut(&mut self, seed: u64) {
        self.controller.power_cut(seed);
    }

    pub(crate) fn fault_counts(&self) -> FaultCounts {
        self.controller.fault_counts()
    }

    /// Makes every write durable.
    pub(crate) fn flush(&mut self) {
        self.controller.flush();
    }

    /// Drops the state of the client that has disconnected.
    pub(crate) fn disconnect(&mut self) {
        self.controller.reinsert();
        self.controller.function_reset();
        self.config.reset();
        self.controller.place_controller_memory(None);
        self.interrupts.clear();
        self.memory.clear();
        self.msix.fill(0);
    }

    /// Returns every VFIO PCI region, in order of index.
    pub(crate) fn regions(&self) -> Vec<ServerRegion> {
        let doorbells = self.controller.doorbells();
        let flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
        let region = |index| {
            let size = self.region_size(index);
            let info = vfio_region_info {
                argsz: u32::try_from(size_of::<vfio_region_info>()).unwrap_or(0),
                flags: if size == 0 { 0 } else { flags },
                index,
                size,
                ..vfio_region_info::default()
            };
            ServerRegion { region_info: info, sparse_areas: Vec::new(), mmap_fd: None }
        };
        let mut regions: Vec<_> = (0..VFIO_PCI_NUM_REGIONS).map(region).collect();
        let bar0 = &mut regions[VFIO_PCI_BAR0_REGION_INDEX as usize];
        bar0.region_info.flags |= VFIO_REGION_INFO_FLAG_MMAP;
        bar0.sparse_areas = vec![SparseArea {
            area: vfio_region_sparse_mmap_area {
                offset: register::DOORBELLS,
                size: doorbells.bar_size() - register::DOORBELLS,
            },
        }];
        bar0.mmap_fd = Some(doorbells.file().as_raw_fd());
        if let Some(memory) = self.controller.controller_memory() {
            let bar2 = &mut regions[VFIO_PCI_BAR2_REGION_INDEX as usize];
            bar2.region_info.flags |= VFIO_REGION_INFO_FLAG_MMAP;
            // All of the buffer can be mapped; the server sends the file only with areas.
            let area = vfio_region_sparse_mmap_area { offset: 0, size: memory.bar_size() };
            bar2.sparse_areas = vec![SparseArea { area }];
            bar2.mmap_fd = Some(memory.file().as_raw_fd());
        }
        regions
    }

    pub(crate) fn irqs(&self) -> Vec<IrqInfo> {
        self.interrupts.describe()
    }

    fn region_size(&self, index: u32) -> u64 {
        match index {
            VFIO_PCI_BAR0_REGION_INDEX => self.controller.doorbells().bar_size(),
            VFIO_PCI_BAR2_REGION_INDEX => {
                self.controller.controller_memory().map_or(0, ControllerMemory::bar_size)
            }
            VFIO_PCI_BAR4_REGION_INDEX => self.msix.len() as u64,
            VFIO_PCI_CONFIG_REGION_INDEX => CONFIG_SIZE,
            _ => 0,
        }
    }

    fn check_access(&self, region: u32, offset: u64, len: usize) -> io::Result<()> {
        let end = offset.checked_add(len as u64);
        let inside = end.is_some_and(|end| end <= self.region_size(region));
        if inside { Ok(()) } else { Err(Errno::INVAL.into()) }
    }

    /// Returns a range of the Controller Memory Buffer.
    fn controller_memory(&self, offset: u64, len: usize) -> io::Result<VolatileSlice<'_>> {
        let memory = self.controller.controller_memory();
        let range = memory.zip(usize::try_from(offset).ok());
        let range = range.and_then(|(memory, at)| memory.region().get_slice(at, len).ok());
        range.ok_or_else(|| Errno::INVAL.into())
    }

    /// Checks an access to registers: aligned units of 32 bits, or of 64, which are two of them.
    fn check_register_access(offset: u64, len: usize) -> io::Result<()> {
        let aligned = offset.is_multiple_of(4) && len.is_multiple_of(4);
        if aligned { Ok(()) } else { Err(Errno::INVAL.into()) }
    }

    /// Reads a region.
    ///
    /// # Errors
    /// `EINVAL` outside of the region, and for registers if the access is not in units of 32 bits.
    pub(crate) fn region_read(
        &mut self,
        region: u32,
        offset: u64,
        data: &mut [u8],
    ) -> io::Result<()> {
        self.check_access(region, offset, data.len())?;
        self.set_clock();
        if self.controller.is_removed() {
            data.fill(0xff);
            return Ok(());
        }
        match region {
            VFIO_PCI_BAR0_REGION_INDEX => {
                Self::check_register_access(offset, data.len())?;
                for (at, to) in (offset..).step_by(4).zip(data.as_chunks_mut().0) {
                    *to = self.controller.read_register(at).to_le_bytes();
                }
            }
            VFIO_PCI_BAR2_REGION_INDEX => {
                let from = self.controller_memory(offset, data.len())?;
                from.read_slice(data, 0).map_err(volatile_error)?;
            }
            VFIO_PCI_BAR4_REGION_INDEX => {
                let from = usize::try_from(offset).ok().and_then(|at| self.msix.get(at..));
                let from = from.and_then(|from| from.get(..data.len()));
                data.copy_from_slice(from.ok_or_else(|| io::Error::from(Errno::INVAL))?);
            }
            _ => self.config.read(offset, data),
        }
        Ok(())
    }

    /// Writes a region.
    ///
    /// # Errors
    /// As [`Self::region_read`].
    pub(crate) fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_access(region, offset, data.len())?;
        self.set_clock();
        if self.controller.is_removed() {
            return Ok(());
        }
        match region {
            VFIO_PCI_BAR0_REGION_INDEX => {
                Self::check_register_access(offset, data.len())?;
                let ran = self.controller.is_running();
                for (at, from) in (offset..).step_by(4).zip(data.as_chunks().0) {
                    self.controller.write_register(at, u32::from_le_bytes(*from));
                }
                if !ran && self.controller.is_running() && !self.config.bus_master() {
                    log::warn!(
                        "enabled without bus mastering: nothing is processed until it is on"
                    );
                }
                self.interrupts.mask_changed(self.controller.interrupt_mask());
            }
            VFIO_PCI_BAR2_REGION_INDEX => {
                let to = self.controller_memory(offset, data.len())?;
                to.write_slice(data, 0).map_err(volatile_error)?;
            }
            VFIO_PCI_BAR4_REGION_INDEX => {
                let to = usize::try_from(offset).ok().and_then(|at| self.msix.get_mut(at..));
                let to = to.and_then(|to| to.get_mut(..data.len()));
                to.ok_or_else(|| io::Error::from(Errno::INVAL))?.copy_from_slice(data);
            }
            _ => {
                if self.config.write(offset, data) == Effect::FunctionReset {
                    self.reset();
                }
                self.controller.place_controller_memory(self.config.bar2());
            }
        }
        Ok(())
    }

    /// Executes a function level reset. Mappings, interrupts and configuration space stay, because
    /// the kernel's VFIO saves and restores them for its clients, too.
    pub(crate) fn reset(&mut self) {
        self.controller.function_reset();
    }

    /// Maps client memory.
    ///
    /// # Errors
    /// As [`HostMemory::map_file`]; `EINVAL` without a file, because the memory is then
    /// unreachable, or if it may be neither read nor written.
    pub(crate) fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        iova: u64,
        size: u64,
        file: Option<File>,
    ) -> io::Result<()> {
        let access = Access {
            read: flags.contains(DmaMapFlags::READ),
            write: flags.contains(DmaMapFlags::WRITE),
        };
        let file = file.filter(|_| access.read || access.write);
        let file = file.ok_or_else(|| io::Error::from(Errno::INVAL))?;
        self.memory.map_file(iova, size, file, offset, access)
    }

    /// Unmaps one mapping of client memory, or all.
    ///
    /// # Errors
    /// `ENOENT` if there is no such mapping; `EOPNOTSUPP` for the bitmap of dirty pages.
    pub(crate) fn dma_unmap(
        &mut self,
        flags: DmaUnmapFlags,
        iova: u64,
        size: u64,
    ) -> io::Result<()> {
        if flags.contains(DmaUnmapFlags::GET_DIRTY_PAGE_INFO) {
            return Err(Errno::OPNOTSUPP.into());
        }
        if flags.contains(DmaUnmapFlags::UNMAP_ALL) {
            self.memory.clear();
            return Ok(());
        }
        self.memory.unmap(iova, size)
    }

    /// Sets up interrupts; see [`Interrupts::set`].
    pub(crate) fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        events: Vec<File>,
    ) -> io::Result<()> {
        self.interrupts.set(index, flags, start, count, events)
    }
}
