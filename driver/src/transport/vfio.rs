//! The kernel's VFIO: a PCI function bound to vfio-pci, behind an IOMMU.

use std::io::{self, ErrorKind};
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nvio_spec::register::{DOORBELLS, GONE};
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_REGION_INFO_FLAG_MMAP,
    vfio_irq_set,
};
use vfio_ioctls::{VfioDevice, VfioOps, VfioRegionInfoCap};

use super::iova::{self, IovaRange};
use super::kernel::{self, Opened};
use super::removal::Removal;
use super::vfio_irq::{self, Vectors};
use super::{Transport, bar, limit, pci_command};
use crate::dma::Arena;
use crate::error::{Error, Result};
use crate::mmio::Mmio;
use crate::pci::address::PciAddress;
use crate::pci::sysfs::{Sysfs, VFIO_PCI};
use crate::quirks::PciId;

/// Bytes of BAR0 before the doorbells.
const REGISTER_BYTES: usize = 4096;
const _: () = assert!(REGISTER_BYTES as u64 == DOORBELLS);

/// An NVMe function opened through VFIO.
pub(crate) struct Vfio {
    // Fields drop in order. The windows come before the device, because they keep its file open,
    // and VFIO releases a group only after all files of its devices are closed.
    registers: Mmio,
    doorbells: Arc<Mmio>,
    device: Device,
    iommu: Arc<dyn VfioOps>,
    ranges: Vec<IovaRange>,
    vectors: Vectors,
    memory_node: Option<u32>,
}

/// The device of vfio-ioctls, which panics if it is dropped while its function is being removed.
#[derive(derive_more::Deref)]
struct Device {
    #[deref(forward)]
    device: ManuallyDrop<VfioDevice>,
    sysfs: PathBuf,
    removal: Removal,
}

impl Drop for Device {
    fn drop(&mut self) {
        if !self.removal.has_begun(&self.device) && self.sysfs.join("iommu_group").exists() {
            // SAFETY: `device` is dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.device) };
            return;
        }
        // Dropping the device would read the link to its group, which disappears as soon as the
        // device's file is closed. Only that file is closed here; the descriptors of group and
        // container stay open.
        // SAFETY: the device is neither dropped nor used after this, so its descriptor is closed
        // once.
        unsafe { libc::close(self.device.as_raw_fd()) };
    }
}

impl Vfio {
    pub(crate) fn open(address: PciAddress) -> Result<Self> {
        let sysfs = Path::new("/sys/bus/pci/devices").join(address.to_string());
        check_bound(address)?;
        let Opened { device, iommu, ranges } = kernel::open(&sysfs)?;
        let removal = Removal::watch(&device);
        let device = Device { device: ManuallyDrop::new(device), sysfs, removal };
        device.reset();
        set_command(&device)?;
        let registers = map_bar0(&device, 0, REGISTER_BYTES)?;
        let window = bar::doorbell_window(device.get_region_size(VFIO_PCI_BAR0_REGION_INDEX))?;
        let doorbells = Arc::new(map_bar0(&device, DOORBELLS, window)?);
        let irq = |index| device.get_irq_info(index).map(|irq| (irq.flags, irq.count));
        let vectors = Vectors::choose(irq);
        let memory_node = Sysfs::new().memory_node(address);
        Ok(Self { registers, doorbells, device, iommu, ranges, vectors, memory_node })
    }
}

/// Checks that the function is bound to vfio-pci and its group can be used, because VFIO itself
/// would fail with an error number only.
fn check_bound(address: PciAddress) -> Result<()> {
    let sysfs = Sysfs::new();
    match sysfs.nvme_device(address)?.driver {
        Some(driver) if driver == VFIO_PCI => {}
        other => {
            let driver = other.unwrap_or_else(|| "no driver".to_owned());
            return Err(Error::NotBound { address, driver });
        }
    }
    sysfs.usable_group(address)?;
    Ok(())
}

/// Resets the function. vfio-ioctls ignores the error of this call.
fn reset_function(device: &VfioDevice) -> Result<()> {
    /// `_IO(VFIO_TYPE, VFIO_BASE + 11)`: VFIO_DEVICE_RESET.
    const RESET: libc::c_ulong = 0x3b << 8 | (100 + 11);
    // SAFETY: the call takes no argument, and `device` is open.
    match unsafe { libc::ioctl(device.as_raw_fd(), RESET) } {
        0 => Ok(()),
        _ => Err(Error::system("VFIO_DEVICE_RESET")(io::Error::last_os_error())),
    }
}

/// Sets up vectors, starting at 0. Returns 0, or the smaller number of vectors that the kernel
/// could set up, which vfio-ioctls reports as success.
fn set_irqs(device: &VfioDevice, index: u32, flags: u32, events: &[RawFd]) -> io::Result<usize> {
    /// `_IO(VFIO_TYPE, VFIO_BASE + 10)`: VFIO_DEVICE_SET_IRQS.
    const SET_IRQS: libc::c_ulong = 0x3b << 8 | (100 + 10);
    let words = |n: usize| u32::try_from(n).map_err(|_| io::Error::from(ErrorKind::InvalidInput));
    let count = words(events.len())?;
    let argsz = words((SET_HEADER + events.len()) * size_of::<u32>())?;
    // argsz, flags, index, start and count of struct vfio_irq_set, then the descriptors.
    let mut set = vec![argsz, flags, index, 0, count];
    set.extend(events.iter().map(|fd| fd.cast_unsigned()));
    // SAFETY: `set` is a struct vfio_irq_set of `argsz` bytes, and aligned as that; the kernel only
    // reads it.
    match unsafe { libc::ioctl(device.as_raw_fd(), SET_IRQS, set.as_ptr()) } {
        left if left >= 0 => Ok(left.unsigned_abs() as usize),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Words of struct vfio_irq_set before its data.
const SET_HEADER: usize = 5;
const _: () = assert!(SET_HEADER * size_of::<u32>() == size_of::<vfio_irq_set>());

/// Makes the function a bus master, and disables INTx.
fn set_command(device: &VfioDevice) -> Result<()> {
    // vfio-ioctls only logs a failed write, so the register is read back.
    pci_command::check(pci_command::set(device, pci_command::IN_USE))
}

/// Maps a part of a BAR; see [`Transport::map_bar`].
fn map_bar(device: &VfioDevice, bar: u32, offset: u64, bytes_max: u64) -> Result<Mmio> {
    let size = device.get_region_size(bar);
    let outside = Error::OutsideBar { offset, length: size };
    if device.get_region_flags(bar) & VFIO_REGION_INFO_FLAG_MMAP == 0 {
        return Err(outside);
    }
    let sparse = device.get_region_caps(bar).into_iter().find_map(|cap| match cap {
        VfioRegionInfoCap::SparseMmap(sparse) => Some(sparse.areas),
        _ => None,
    });
    let areas = sparse.map_or(vec![(0, size)], |areas| {
        areas.iter().map(|area| (area.offset, area.size)).collect()
    });
    let len = bar::mappable(areas, size, offset, bytes_max)?;
    let at = device.get_region_offset(bar).checked_add(offset).ok_or(outside)?;
    // SAFETY: `device` is open for the whole call.
    let fd = unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) };
    Mmio::map(fd, at, offset, len)
}

/// Maps `len` bytes of BAR0 at `start`, or fails if the window is shorter.
fn map_bar0(device: &VfioDevice, start: u64, len: usize) -> Result<Mmio> {
    let mapped = map_bar(device, VFIO_PCI_BAR0_REGION_INDEX, start, len as u64)?;
    match mapped.len() == len {
        true => Ok(mapped),
        false => Err(Error::OutsideBar { offset: start, length: mapped.len() as u64 }),
    }
}

// SAFETY: the kernel resets the function and ends the IOMMU's mapping before it answers, and a
// controller that is not ready does no DMA (Base 3.1.3.6).
unsafe impl Transport for Vfio {
    fn read32(&self, offset: u64) -> Result<u32> {
        self.registers.read32(offset)
    }

    fn write32(&self, offset: u64, value: u32) -> Result<()> {
        self.registers.write32(offset, value)
    }

    fn read32_present(&self, offset: u64) -> Result<u32> {
        match self.read32(offset)? {
            _ if self.device.removal.has_begun(&self.device) => Err(Error::Gone),
            GONE => Err(Error::Gone),
            value => Ok(value),
        }
    }

    fn doorbells(&self) -> &Arc<Mmio> {
        &self.doorbells
    }

    fn choose_iova(&self, bytes: u64, used: &[Range<u64>]) -> Result<u64> {
        iova::choose(&self.ranges, bytes, used)
    }

    fn map(&self, arena: &Arena) -> Result<()> {
        // SAFETY: the arena's memory is accessed through raw pointers, and through the slices of a
        // `DmaBuf` only while no command holds it; the range is unmapped, or the IOMMU closed,
        // before the arena is dropped.
        unsafe { self.iommu.vfio_dma_map(arena.iova(), arena.size(), arena.base()) }
            .map_err(|source| limit::map_error(arena, source))
    }

    fn unmap(&self, arena: &Arena) -> Result<()> {
        self.iommu
            .vfio_dma_unmap(arena.iova(), arena.size())
            .map_err(|source| Error::Vfio { step: "unmap DMA memory", source })
    }

    fn reset(&self) -> Result<()> {
        // The kernel would wait a minute for a function that was removed.
        if self.device.removal.has_begun(&self.device) {
            return Err(Error::Gone);
        }
        reset_function(&self.device)?;
        set_command(&self.device)
    }

    fn map_bar(&self, bar: u8, offset: u64, bytes_max: u64) -> Result<Mmio> {
        map_bar(&self.device, bar::region(bar)?, offset, bytes_max)
    }

    fn bar_address(&self, bar: u8) -> Result<u64> {
        bar::region(bar)?;
        let register = |bar| {
            let mut bytes = [0; 4];
            let at = bar::offset(bar);
            self.device.region_read(VFIO_PCI_CONFIG_REGION_INDEX, &mut bytes, at);
            u32::from_le_bytes(bytes)
        };
        // The kernel shows the address on the bus.
        match bar::address(register(bar), register(bar + 1)) {
            0 => Err(bar::unplaced(bar)),
            address => Ok(address),
        }
    }

    fn pci_id(&self) -> Option<PciId> {
        let dword = |at| {
            let mut bytes = [0; 4];
            self.device.region_read(VFIO_PCI_CONFIG_REGION_INDEX, &mut bytes, at);
            bytes
        };
        Some(PciId::of_config(dword(pci_command::ID), dword(pci_command::SUBSYSTEM_ID)))
    }

    fn memory_node(&self) -> Option<u32> {
        self.memory_node
    }

    fn interrupts(&self) -> u16 {
        self.vectors.count
    }

    fn connect_interrupts(&self, events: &[BorrowedFd<'_>]) -> Result<usize> {
        let Vectors { index, count } = self.vectors;
        let mut events: Vec<RawFd> = events.iter().map(AsRawFd::as_raw_fd).collect();
        events.truncate(usize::from(count));
        // After a reset, the former setup may or may not exist, so it is removed first. Removing
        // fails if no vector is set up.
        set_irqs(&self.device, index, vfio_irq::TRIGGER, &[]).unwrap_or_default();
        loop {
            match set_irqs(&self.device, index, vfio_irq::SET_EVENTS, &events) {
                Ok(0) => return Ok(events.len()),
                // The system has only `left` vectors, and has set up none.
                Ok(left) if left < events.len() => events.truncate(left),
                Ok(_) => return Ok(0),
                Err(source) => return Err(Error::System { call: "VFIO_DEVICE_SET_IRQS", source }),
            }
        }
    }
}
