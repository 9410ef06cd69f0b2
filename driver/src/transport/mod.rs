//! Transports: access to a controller's registers, its doorbells and its view of host memory.

mod bar;
mod info_chain;
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
use crate::quirks::PciId;

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
///
/// # Examples
/// ```
/// use std::ops::Range;
/// use std::os::fd::BorrowedFd;
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use nvio_driver::{Arena, Controller, Mmio, Options, PciId, Result, Transport};
///
/// /// Prints each access to a register.
/// struct Traced<T>(T);
///
/// // SAFETY: the calls that buffers depend on (`map`, `unmap`, `reset`) are those of `T`.
/// unsafe impl<T: Transport> Transport for Traced<T> {
///     fn read32(&self, offset: u64) -> Result<u32> {
///         let value = self.0.read32(offset)?;
///         println!("{offset:#x}: read {value:#x}");
///         Ok(value)
///     }
///     fn write32(&self, offset: u64, value: u32) -> Result<()> {
///         println!("{offset:#x}: write {value:#x}");
///         self.0.write32(offset, value)
///     }
///     fn read64(&self, offset: u64) -> Result<u64> {
///         self.0.read64(offset)
///     }
///     fn write64(&self, offset: u64, value: u64) -> Result<()> {
///         self.0.write64(offset, value)
///     }
///     fn csts_within(&self, within: Duration) -> Result<u32> {
///         self.0.csts_within(within)
///     }
///     fn read32_present(&self, offset: u64) -> Result<u32> {
///         self.0.read32_present(offset)
///     }
///     fn doorbells(&self) -> &Arc<Mmio> {
///         self.0.doorbells()
///     }
///     fn map_bar(&self, bar: u8, offset: u64, bytes_max: u64) -> Result<Mmio> {
///         self.0.map_bar(bar, offset, bytes_max)
///     }
///     fn bar_address(&self, bar: u8) -> Result<u64> {
///         self.0.bar_address(bar)
///     }
///     fn choose_iova(&self, bytes: u64, used: &[Range<u64>]) -> Result<u64> {
///         self.0.choose_iova(bytes, used)
///     }
///     fn map(&self, arena: &Arena) -> Result<()> {
///         self.0.map(arena)
///     }
///     fn unmap(&self, arena: &Arena) -> Result<()> {
///         self.0.unmap(arena)
///     }
///     fn reset(&self) -> Result<()> {
///         self.0.reset()
///     }
///     fn pci_id(&self) -> Option<PciId> {
///         self.0.pci_id()
///     }
///     fn memory_node(&self) -> Option<u32> {
///         self.0.memory_node()
///     }
///     fn interrupts(&self) -> u16 {
///         self.0.interrupts()
///     }
///     fn connect_interrupts(&self, events: &[BorrowedFd<'_>]) -> Result<usize> {
///         self.0.connect_interrupts(events)
///     }
///     fn now(&self) -> Duration {
///         self.0.now()
///     }
///     fn pause(&self, time: Duration) {
///         self.0.pause(time);
///     }
///     fn run_device(&self) -> bool {
///         self.0.run_device()
///     }
/// }
///
/// fn open<T: Transport + 'static>(transport: T) -> Result<Controller> {
///     Controller::open_on(Box::new(Traced(transport)), Options::default())
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub unsafe trait Transport: Send + Sync {
    /// Reads the register at `offset` of BAR0, a multiple of 4. A device that is gone reads as all
    /// ones.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the register cannot be read.
    fn read32(&self, offset: u64) -> Result<u32>;

    /// Writes the register at `offset` of BAR0, a multiple of 4.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the register cannot be written.
    fn write32(&self, offset: u64, value: u32) -> Result<()>;

    /// Returns the window of BAR0 that starts at the doorbells.
    ///
    /// See the [example](Self#examples).
    fn doorbells(&self) -> &Arc<Mmio>;

    /// Chooses a range of I/O virtual addresses, `bytes` long and 2 MiB aligned, that the device
    /// can access and that overlaps none of the ranges in `used`, which are in ascending order.
    /// Returns its first address.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If there is no such range.
    fn choose_iova(&self, bytes: u64, used: &[Range<u64>]) -> Result<u64>;

    /// Makes the arena visible to the device at its I/O virtual address.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If mapping fails, or a part of the range is mapped already. Nothing is mapped then.
    fn map(&self, arena: &Arena) -> Result<()>;

    /// Hides the arena from the device, which may fault on the range afterwards.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If unmapping fails. The device may still access the arena then.
    fn unmap(&self, arena: &Arena) -> Result<()>;

    /// Resets the function, and enables bus mastering again.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the reset fails. The device may still access the arena then.
    fn reset(&self) -> Result<()>;

    /// Maps at most `bytes_max` bytes of BAR `bar`, 0 to 5, at `offset`, a multiple of 4096. The
    /// window is a multiple of 4096 bytes, and shorter if the BAR ends before.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If there is no such BAR, or no page at `offset` that can be mapped.
    fn map_bar(&self, bar: u8, offset: u64, bytes_max: u64) -> Result<Mmio> {
        let detail = format!("BAR {bar}, {offset:#x} + {bytes_max:#x}");
        Err(Error::unsupported("a transport that maps no BAR", detail))
    }

    /// Returns the address of BAR `bar` on the device's bus.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If the address is not known.
    fn bar_address(&self, bar: u8) -> Result<u64> {
        let what = "a transport that does not know where BARs are";
        Err(Error::unsupported(what, format!("BAR {bar}")))
    }

    /// Returns the identifiers of the PCI function, by which the driver knows its quirks. By default
    /// there are none.
    ///
    /// See the [example](Self#examples).
    fn pci_id(&self) -> Option<PciId> {
        None
    }

    /// Returns the memory node that is nearest to the device, if the machine has several. By default
    /// it is not known.
    ///
    /// See the [example](Self#examples).
    fn memory_node(&self) -> Option<u32> {
        None
    }

    /// Returns the number of interrupt vectors of the device; 0 if the transport delivers none.
    ///
    /// See the [example](Self#examples).
    fn interrupts(&self) -> u16 {
        0
    }

    /// Connects vectors 0 to `events.len() - 1` to their eventfds, after disconnecting all vectors.
    /// Returns the number of connected vectors, counted from vector 0: the system may have fewer.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If no vector can be connected. There are no interrupts then.
    fn connect_interrupts(&self, events: &[BorrowedFd<'_>]) -> Result<usize> {
        let detail = format!("{} vectors asked for", events.len());
        Err(Error::unsupported("a transport without interrupts", detail))
    }

    /// Returns the time of a monotonic clock with which timeouts are measured.
    ///
    /// See the [example](Self#examples).
    fn now(&self) -> Duration {
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        ORIGIN.elapsed()
    }

    /// Sleeps for `time` between two reads of a register or polls of a queue.
    ///
    /// See the [example](Self#examples).
    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Lets a device of this process execute its commands in the thread of the caller, which waits for
    /// them. Returns true if the caller should look for completions and call again. By default the
    /// device works by itself.
    ///
    /// See the [example](Self#examples).
    fn run_device(&self) -> bool {
        false
    }

    /// Reads a 64-bit register as two halves, low first (Base 3.1.3 allows it).
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read32`](Self::read32).
    fn read64(&self, offset: u64) -> Result<u64> {
        let low = self.read32(offset)?;
        Ok(u64::from(self.read32(offset + 4)?) << 32 | u64::from(low))
    }

    /// Writes a 64-bit register as two halves, low first.
    ///
    /// See the [example](Self#examples).
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
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`read32_present`](Self::read32_present).
    fn csts_within(&self, within: Duration) -> Result<u32> {
        let _ = within;
        self.read32_present(CSTS)
    }

    /// Reads a register whose value is never all ones on a device that is present.
    ///
    /// See the [example](Self#examples).
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
