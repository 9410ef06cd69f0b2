//! How a controller is reached: its registers, its doorbells and its view of our memory.

mod iova;
mod kernel;
mod limit;
mod removal;
mod vfio;
mod vfio_irq;
mod vfio_user;

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::dma::Arena;
use crate::mmio::Mmio;
use crate::{Error, Result};
use nvio_spec::register::{CSTS, DOORBELLS, GONE};

pub(crate) use vfio::Vfio;
pub(crate) use vfio_user::VfioUser;

/// A way to a controller. None of this is on the I/O path: queues hold their doorbells, which are
/// plain stores in every transport.
///
/// # Safety
/// The driver hands buffers back when the implementation says that the device cannot write to
/// them any more. After [`reset`](Self::reset) has returned `Ok`, and while CSTS.RDY, read as such
/// through [`read32`](Self::read32), is clear, the device must not access any arena; after
/// [`unmap`](Self::unmap) has, not the one that it was called with.
pub unsafe trait Transport: Send + Sync {
    /// Reads the register at `offset` of BAR0, a multiple of 4. All ones when the device is gone.
    ///
    /// # Errors
    /// When there is no answer.
    fn read32(&self, offset: u64) -> Result<u32>;

    /// Writes the register at `offset` of BAR0, a multiple of 4.
    ///
    /// # Errors
    /// When there is no answer.
    fn write32(&self, offset: u64, value: u32) -> Result<()>;

    /// The window of BAR0 that begins with the doorbells.
    fn doorbells(&self) -> &Arc<Mmio>;

    /// A range of I/O virtual addresses, `bytes` long and 2 MiB aligned, that the device can use
    /// and that overlaps none of those that are `used`, which are in ascending order.
    ///
    /// # Errors
    /// When there is none.
    fn choose_iova(&self, bytes: u64, used: &[Range<u64>]) -> Result<u64>;

    /// Makes the arena visible to the device at its I/O virtual address.
    ///
    /// # Errors
    /// When that fails, with nothing mapped; also when a part of the range is mapped already.
    fn map(&self, arena: &Arena) -> Result<()>;

    /// Ends what [`Transport::map`] began. The device may fault on the range afterwards.
    ///
    /// # Errors
    /// When that fails; the device may still access the arena then.
    fn unmap(&self, arena: &Arena) -> Result<()>;

    /// Resets the function, and turns bus mastering on again.
    ///
    /// # Errors
    /// When that fails; the device may still access the arena then.
    fn reset(&self) -> Result<()>;

    /// Maps `most` bytes of BAR `bar`, 0 to 5, from `offset` on, a multiple of 4096; fewer if the
    /// BAR ends before, but whole pages.
    ///
    /// # Errors
    /// When there is no such BAR, or nothing of it that can be mapped there.
    fn map_bar(&self, bar: u8, offset: u64, most: u64) -> Result<Mmio> {
        let detail = format!("BAR {bar}, {offset:#x} + {most:#x}");
        Err(Error::Unsupported { what: "a transport that maps no BAR", detail })
    }

    /// The address that BAR `bar` has for its device.
    ///
    /// # Errors
    /// When that is not known.
    fn bar_address(&self, bar: u8) -> Result<u64> {
        let detail = format!("BAR {bar}");
        Err(Error::Unsupported { what: "a transport that does not know where BARs are", detail })
    }

    /// Interrupt vectors that the device has; 0 when this transport delivers none.
    fn interrupts(&self) -> u16 {
        0
    }

    /// Has vectors 0 to `events.len() - 1` each signal its eventfd, and takes away what was set up
    /// before. Gives how many of them do, the first ones: the system may have fewer to give.
    ///
    /// # Errors
    /// When that fails; there are no interrupts then.
    fn connect_interrupts(&self, events: &[BorrowedFd<'_>]) -> Result<usize> {
        let detail = format!("{} vectors asked for", events.len());
        Err(Error::Unsupported { what: "a transport without interrupts", detail })
    }

    /// Time since some moment, monotonic. Timeouts are measured with it.
    fn now(&self) -> Duration {
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        ORIGIN.elapsed()
    }

    /// Lets time pass while something is waited for.
    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Reads a 64-bit register as two halves, low first (Base 3.1.3 allows it).
    ///
    /// # Errors
    /// As [`read32`](Self::read32).
    fn read64(&self, offset: u64) -> Result<u64> {
        let low = self.read32(offset)?;
        Ok(u64::from(self.read32(offset + 4)?) << 32 | u64::from(low))
    }

    /// Writes a 64-bit register as two halves, low first.
    ///
    /// # Errors
    /// As [`write32`](Self::write32).
    fn write64(&self, offset: u64, value: u64) -> Result<()> {
        self.write32(offset, (value & 0xffff_ffff) as u32)?;
        self.write32(offset + 4, (value >> 32) as u32)
    }

    /// Reads CSTS. A transport that waits for the value of a register waits at most `within`, or a
    /// minimum of its own.
    ///
    /// # Errors
    /// As [`read32_present`](Self::read32_present).
    fn csts_within(&self, within: Duration) -> Result<u32> {
        let _ = within;
        self.read32_present(CSTS)
    }

    /// Reads a register whose value can never be all ones, so that a removed device is noticed.
    ///
    /// # Errors
    /// [`Error::Gone`]; as [`read32`](Self::read32).
    fn read32_present(&self, offset: u64) -> Result<u32> {
        match self.read32(offset)? {
            GONE => Err(Error::Gone),
            value => Ok(value),
        }
    }
}

/// The part of a BAR of `size` bytes that [`Transport::map_bar`] maps, given the parts that can be
/// mapped.
fn mappable(
    areas: impl IntoIterator<Item = (u64, u64)>,
    size: u64,
    offset: u64,
    most: u64,
) -> Result<usize> {
    let outside = Error::OutsideBar { offset, length: size };
    let mut ends = areas.into_iter().filter(|(start, _)| *start <= offset);
    let end = ends.find_map(|(start, length)| {
        Some(start.checked_add(length)?.min(size)).filter(|&end| end > offset)
    });
    let length = end.map(|end| (end - offset).min(most) & !4095).filter(|&length| length > 0);
    match length.and_then(|length| usize::try_from(length).ok()) {
        Some(length) if offset.is_multiple_of(4096) => Ok(length),
        _ => Err(outside),
    }
}

/// Base address registers of configuration space (PCI Local Bus 3.0, 6.2.5.1).
mod pci_bar {
    use crate::{Error, Result};

    /// The VFIO region of a BAR.
    pub(super) fn region(bar: u8) -> Result<u32> {
        match bar {
            0..=5 => Ok(u32::from(bar)),
            _ => Err(Error::Invalid { structure: "CMBLOC", field: "BIR", value: u64::from(bar) }),
        }
    }

    /// An error for a BAR without an address.
    pub(super) fn unplaced(bar: u8) -> Error {
        let detail = format!("BAR {bar}");
        Error::Unsupported { what: "a BAR without an address", detail }
    }

    /// Where the register of a BAR is.
    pub(super) fn offset(bar: u8) -> u64 {
        0x10 + 4 * u64::from(bar)
    }

    /// Whether it is 64 bits wide, so that the next one is its upper half.
    pub(super) fn is_wide(low: u32) -> bool {
        low & 0b110 == 0b100
    }

    /// The address in it, without the bits that say what it is.
    pub(super) fn address(low: u32, high: u32) -> u64 {
        let high = if is_wide(low) { u64::from(high) << 32 } else { 0 };
        high | u64::from(low & !0xf)
    }
}

/// The Command register of configuration space (PCI Local Bus 3.0, 6.2.2). A function does DMA only
/// while it is bus master.
mod pci_command {
    use vfio_bindings::bindings::vfio::VFIO_PCI_CONFIG_REGION_INDEX as CONFIG;
    use vfio_ioctls::VfioDevice;

    use crate::{Error, Result};

    pub(super) const OFFSET: u64 = 4;
    const MEMORY: u16 = 1 << 1;
    const BUS_MASTER: u16 = 1 << 2;
    /// Interrupt Disable: the function must not assert INTx. The driver polls or uses MSI-X, and
    /// a vfio-user server that found INTx enabled and no eventfd for it would fail.
    const INTX_DISABLE: u16 = 1 << 10;
    /// The bits of a function in use.
    pub(super) const IN_USE: u16 = MEMORY | BUS_MASTER | INTX_DISABLE;
    /// The bits of a function that must not access host memory.
    pub(super) const NO_DMA: u16 = MEMORY | INTX_DISABLE;

    /// Sets `bits`, clears the other bits of [`IN_USE`], and returns the register read back.
    pub(super) fn set(device: &VfioDevice, bits: u16) -> u16 {
        let read = || {
            let mut command = [0; 2];
            device.region_read(CONFIG, &mut command, OFFSET);
            u16::from_le_bytes(command)
        };
        let command = read() & !IN_USE | bits;
        device.region_write(CONFIG, &command.to_le_bytes(), OFFSET);
        read()
    }

    /// Checks the register, read back after [`IN_USE`] was written. Interrupt Disable is not
    /// checked, because a function without INTx may hardwire it to zero.
    pub(super) fn check(now: u16) -> Result<()> {
        const NEEDED: u16 = MEMORY | BUS_MASTER;
        match now {
            0xffff => Err(Error::Gone),
            now if now & NEEDED == NEEDED => Ok(()),
            now => Err(Error::Invalid {
                structure: "PCI configuration space",
                field: "Command, after bus mastering was enabled,",
                value: u64::from(now),
            }),
        }
    }
}

/// Opens the way to `address`. A server's reply is waited for at most `reply_timeout`.
pub(crate) fn open(address: &Address, reply_timeout: Duration) -> Result<Box<dyn Transport>> {
    Ok(match address {
        Address::Pci(pci) => Box::new(Vfio::open(*pci)?),
        Address::VfioUser(socket) => Box::new(VfioUser::connect(socket, reply_timeout)?),
    })
}

/// Bytes of BAR0 to map for doorbells: whole pages, as many as the BAR has up to what the largest
/// queue numbers at the largest sensible stride need.
fn doorbell_window(bar_size: u64) -> Result<usize> {
    const MOST: u64 = 1 << 20;
    let outside = Error::OutsideBar { offset: DOORBELLS, length: bar_size };
    let available = bar_size.checked_sub(DOORBELLS).filter(|&n| n >= 4096).ok_or(outside)?;
    Ok((available.min(MOST) & !4095) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_pages_are_mapped_of_what_may_be() {
        let all = |offset, most| mappable([(0, 10_000)], 10_000, offset, most).ok();
        assert_eq!(all(0, u64::MAX), Some(8192));
        assert_eq!(all(4096, 8192), Some(4096));
        assert_eq!(all(0, 4096), Some(4096));
        assert_eq!((all(8192, 4096), all(12_288, 4096), all(100, 4096)), (None, None, None));
        // All but a page in the middle; an area that lies.
        let areas = [(0, 8192), (12_288, 8192), (u64::MAX, 2)];
        let some = |offset| mappable(areas, 16_384, offset, u64::MAX).ok();
        assert_eq!([0, 4096, 8192, 12_288].map(some), [Some(8192), Some(4096), None, Some(4096)]);
        assert_eq!(some(!4095), None);
    }

    #[test]
    fn addresses_of_bars_are_without_their_bits() {
        assert_eq!(pci_bar::address(0xfe00_000c, 0x12), 0x12_fe00_0000);
        assert_eq!(pci_bar::address(0xfe00_0000, 0x12), 0xfe00_0000);
        assert!(pci_bar::region(6).is_err() && pci_bar::region(7).is_err());
        assert_eq!(pci_bar::offset(2), 0x18);
    }
}
