//! The device that a vfio-user client sees: the controller in its PCI function.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Instant;

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_BAR2_REGION_INDEX, VFIO_PCI_BAR4_REGION_INDEX,
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_NUM_REGIONS, VFIO_REGION_INFO_FLAG_MMAP,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE, vfio_region_info,
    vfio_region_sparse_mmap_area,
};
use vfio_user::{ServerRegion, SparseArea};

use nvio_spec::register;
use vm_memory::{Bytes, VolatileMemory, VolatileSlice};

use crate::admin::identify::VENDOR_ID;
use crate::controller::controller_memory::ControllerMemory;
use crate::controller::state::Controller;
use crate::host::memory::HostMemory;
use crate::media::backing::volatile_error;
use crate::serve::interrupts::Interrupts;
use crate::serve::pci_config::{CONFIG_SIZE, ConfigSpace, DEVICE_ID, Effect, msix_bar_size};

/// A controller with its PCI function, its interrupts and the client's memory.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) controller: Controller,
    pub(crate) memory: HostMemory,
    config: ConfigSpace,
    pub(crate) interrupts: Interrupts,
    /// BAR4: the MSI-X table and pending bits. Clients mask vectors through messages, so it is only
    /// stored.
    msix: Vec<u8>,
    /// Start of the controller's clock.
    started: Instant,
}

impl Device {
    pub(crate) fn new(controller: Controller) -> Self {
        let vectors = controller.vectors();
        let msix_size = usize::try_from(msix_bar_size(vectors)).unwrap_or(0);
        Self {
            memory: HostMemory::new(),
            config: ConfigSpace::new(
                controller.doorbells().bar_size(),
                controller.controller_memory().map(ControllerMemory::bar_size),
                vectors,
            )
            .identified_by(controller.config.pci_id.unwrap_or((VENDOR_ID, DEVICE_ID))),
            interrupts: Interrupts::new(vectors),
            msix: vec![0; msix_size],
            controller,
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

    /// Signals the vectors with new completions. With [`Config::intx`](crate::Config::intx) they obey
    /// configuration space, and a missing eventfd fails the controller.
    fn raise_interrupts(&mut self) {
        let mask = self.controller.interrupt_mask();
        let required = self.controller.config.intx;
        let enabled = !required || self.config.interrupts_enabled();
        let mut undelivered = None;
        for vector in self.controller.take_interrupts().filter(|_| enabled) {
            if !self.interrupts.raise(vector, mask) {
                undelivered = Some(vector);
            }
        }
        if let Some(vector) = undelivered.filter(|_| required) {
            log::error!("interrupts are enabled, but vector {vector} has no eventfd");
            self.controller.fail();
        }
    }

    /// Advances the controller's clock, if it depends on it.
    #[inline]
    pub(crate) fn set_clock(&mut self) {
        if self.controller.needs_clock() {
            self.controller.advance_to(self.started.elapsed());
        }
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
        let mut share = |index: u32, offset: u64, file: BorrowedFd<'_>| {
            let region = &mut regions[index as usize];
            region.region_info.flags |= VFIO_REGION_INFO_FLAG_MMAP;
            // The server sends the file only with areas.
            let size = region.region_info.size - offset;
            let area = vfio_region_sparse_mmap_area { offset, size };
            region.sparse_areas = vec![SparseArea { area }];
            region.mmap_fd = Some(file.as_raw_fd());
        };
        let doorbells = self.controller.doorbells().file();
        share(VFIO_PCI_BAR0_REGION_INDEX, register::DOORBELLS, doorbells);
        if let Some(memory) = self.controller.controller_memory() {
            share(VFIO_PCI_BAR2_REGION_INDEX, 0, memory.file());
        }
        regions
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

    /// Checks an access to a region. Accesses to registers are aligned, and are 4 or 8 bytes
    /// long.
    fn check_access(&self, region: u32, offset: u64, len: usize) -> io::Result<()> {
        let end = offset.checked_add(len as u64);
        let inside = end.is_some_and(|end| end <= self.region_size(region));
        let aligned = offset.is_multiple_of(4) && len.is_multiple_of(4);
        let good = inside && (aligned || region != VFIO_PCI_BAR0_REGION_INDEX);
        if good { Ok(()) } else { Err(Errno::INVAL.into()) }
    }

    /// Returns a range of BAR2, the Controller Memory Buffer, or of BAR4.
    fn bar_memory(&mut self, bar: u32, offset: u64, len: usize) -> io::Result<VolatileSlice<'_>> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let memory = match self.controller.controller_memory() {
            Some(buffer) if bar == VFIO_PCI_BAR2_REGION_INDEX => {
                buffer.region().as_volatile_slice()
            }
            _ => VolatileSlice::from(&mut self.msix[..]),
        };
        memory.subslice(at, len).map_err(volatile_error)
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
        if self.controller.is_removed() {
            data.fill(0xff);
            return Ok(());
        }
        match region {
            VFIO_PCI_BAR0_REGION_INDEX => {
                for (at, to) in (offset..).step_by(4).zip(data.as_chunks_mut().0) {
                    *to = self.controller.read_register(at).to_le_bytes();
                }
            }
            VFIO_PCI_BAR2_REGION_INDEX | VFIO_PCI_BAR4_REGION_INDEX => {
                let from = self.bar_memory(region, offset, data.len())?;
                from.read_slice(data, 0).map_err(volatile_error)?;
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
        if self.controller.is_removed() {
            return Ok(());
        }
        match region {
            VFIO_PCI_BAR0_REGION_INDEX => {
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
            VFIO_PCI_BAR2_REGION_INDEX | VFIO_PCI_BAR4_REGION_INDEX => {
                let to = self.bar_memory(region, offset, data.len())?;
                to.write_slice(data, 0).map_err(volatile_error)?;
            }
            _ => {
                if self.config.write(offset, data) == Effect::FunctionReset {
                    self.controller.function_reset();
                }
                self.controller.place_controller_memory(self.config.bar2());
            }
        }
        Ok(())
    }
}
