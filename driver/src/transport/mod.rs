//! Transports: access to a controller's registers, its doorbells and its view of host memory.

mod bar;
mod iova;
mod kernel;
mod limit;
pub(crate) mod open;
mod pci_capability;
mod pci_command;
mod removal;
mod vfio;
mod vfio_irq;
pub(crate) mod vfio_user;

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use nvio_spec::register::{CSTS, GONE};

use crate::dma::Arena;
use crate::error::{Error, Result};
use crate::mmio::Mmio;

/// Access to a controller. The I/O path does not call it: queues hold their doorbells, which are
/// plain stores in every transport.
///
/// [`Controller::open`](crate::Controller::open) chooses VFIO or vfio-user by the address.
/// [`Controller::open_on`](crate::Controller::open_on) accepts any implementation, such as a
/// simulated device.
///
/// # Safety
/// The driver returns buffers to their owner when the implementation reports that the device no
/// longer writes to them. After [`reset`](Self::reset) has returned `Ok`, and while CSTS.RDY, as
/// [`read32`](Self::read32) returns it, is clear, the device must not access any arena. After
/// [`unmap`](Self::unmap) has returned `Ok`, the device must not access that arena.
pub unsafe trait Transport: Send + Sync {
    /// Reads the register at `offset` of BAR0, a multiple of 4. A device that is gone reads as all
    /// ones.
    ///
    /// # Errors
    /// If the register cannot be read.
    fn read32(&self, offset: u64) -> Result<u32>;

    /// Writes the register at `offset` of BAR0, a multiple of 4.
    ///
    /// # Errors
    /// If the register cannot be written.
    fn write32(&self, offset: u64, value: u32) -> Result<()>;

    /// Returns the window of BAR0 that starts at the doorbells.
    fn doorbells(&self) -> &Arc<Mmio>;

    /// Chooses a range of I/O virtual addresses, `bytes` long and 2 MiB aligned, that the device can
    /// access and that overlaps none of the ranges in `used`, which are in ascending order. Returns
    /// its first address.
    ///
    /// # Errors
    /// If there is no such range.
    fn choose_iova(&self, bytes: u64, used: &[Range<u64>]) -> Result<u64>;

    /// Makes the arena visible to the device at its I/O virtual address.
    ///
    /// # Errors
    /// If mapping fails, or a part of the range is mapped already. Nothing is mapped then.
    fn map(&self, arena: &Arena) -> Result<()>;

    /// Hides the arena from the device, which may fault on the range afterwards.
    ///
    /// # Errors
    /// If unmapping fails. The device may still access the arena then.
    fn unmap(&self, arena: &Arena) -> Result<()>;

    /// Resets the function, and enables bus mastering again.
    ///
    /// # Errors
    /// If the reset fails. The device may still access the arena then.
    fn reset(&self) -> Result<()>;

    /// Maps at most `bytes_max` bytes of BAR `bar`, 0 to 5, at `offset`, a multiple of 4096. The
    /// window is a multiple of 4096 bytes, and shorter if the BAR ends before.
    ///
    /// # Errors
    /// If there is no such BAR, or no page at `offset` that can be mapped.
    fn map_bar(&self, bar: u8, offset: u64, bytes_max: u64) -> Result<Mmio> {
        let detail = format!("BAR {bar}, {offset:#x} + {bytes_max:#x}");
        Err(Error::Unsupported { what: "a transport that maps no BAR", detail })
    }

    /// Returns the address of BAR `bar` on the device's bus.
    ///
    /// # Errors
    /// If the address is not known.
    fn bar_address(&self, bar: u8) -> Result<u64> {
        let detail = format!("BAR {bar}");
        Err(Error::Unsupported { what: "a transport that does not know where BARs are", detail })
    }

    /// Returns the number of interrupt vectors of the device; 0 if the transport delivers none.
    fn interrupts(&self) -> u16 {
        0
    }

    /// Connects vectors 0 to `events.len() - 1` to their eventfds, after disconnecting all vectors.
    /// Returns the number of connected vectors, counted from vector 0: the system may have fewer.
    ///
    /// # Errors
    /// If no vector can be connected. There are no interrupts then.
    fn connect_interrupts(&self, events: &[BorrowedFd<'_>]) -> Result<usize> {
        let detail = format!("{} vectors asked for", events.len());
        Err(Error::Unsupported { what: "a transport without interrupts", detail })
    }

    /// Returns the time of a monotonic clock with which timeouts are measured.
    fn now(&self) -> Duration {
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        ORIGIN.elapsed()
    }

    /// Sleeps for `time` between two looks at a register or a queue.
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

    /// Reads a register whose value is never all ones on a device that is present.
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
