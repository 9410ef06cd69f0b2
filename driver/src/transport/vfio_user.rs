//! The vfio-user transport: a controller that another process, or a thread of this one, serves over
//! a socket. Registers are accessed by messages; doorbells and data are shared memory.

mod channel;
mod client;
mod message_interrupts;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nvio_spec::register::{CSTS, DOORBELLS, GONE};
use parking_lot::Mutex;
use vfio_bindings::bindings::vfio::{VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX};

use self::channel::{Channel, Fault};
use self::client::{Client, Region};
use self::message_interrupts::MessageInterrupts;
use super::iova::{self, IovaRange};
use super::{Transport, bar, pci_command};
use crate::dma::Arena;
use crate::error::{Error, Result};
use crate::mmio::Mmio;
use crate::quirks::PciId;

/// Shortest wait for a reply, whatever the options are: a server replies in microseconds, but has
/// to be scheduled first.
const REPLY_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// Lets a server of this process work in the thread of the caller; see [`Transport::run_device`].
pub(crate) type RunDevice = Box<dyn Fn() -> bool + Send + Sync>;

/// A connection to a vfio-user server.
///
/// The wait for a reply is bounded. While a reply is late, every command fails at once, so that a
/// server that has stopped is waited for only once.
pub(crate) struct VfioUser {
    socket: PathBuf,
    client: Mutex<Client>,
    /// Longest wait for a reply.
    reply_timeout: Duration,
    doorbells: Arc<Mmio>,
    interrupts: MessageInterrupts,
    /// I/O virtual addresses mapped at the server.
    mapped: Mutex<Vec<Range<u64>>>,
    /// Lets the server work, if it is in this process.
    run: Option<RunDevice>,
}

impl VfioUser {
    /// Connects to the server at `socket`. No reply is waited for longer than `reply_timeout`,
    /// or [`REPLY_TIMEOUT_MIN`] if that is longer.
    pub(crate) fn connect(socket: &Path, reply_timeout: Duration) -> Result<Self> {
        let reply_timeout = reply_timeout.max(REPLY_TIMEOUT_MIN);
        Self::set_up(Channel::connect(socket, reply_timeout), socket, reply_timeout)
    }

    /// Uses the server at the other end of `stream`; see [`connect`](Self::connect).
    pub(crate) fn on_stream(
        stream: UnixStream,
        reply_timeout: Duration,
        run: Option<RunDevice>,
    ) -> Result<Self> {
        let reply_timeout = reply_timeout.max(REPLY_TIMEOUT_MIN);
        let channel = stream.set_nonblocking(true).map(|()| Channel::over(stream.into()));
        let channel = channel.map_err(Fault::Io);
        let mut served = Self::set_up(channel, Path::new("(connected)"), reply_timeout)?;
        served.run = run;
        Ok(served)
    }

    /// Prepares the device at the end of a connection. `socket` is for errors.
    fn set_up(
        channel: Result<Channel, Fault>,
        socket: &Path,
        reply_timeout: Duration,
    ) -> Result<Self> {
        let failed = |step| {
            move |fault| match fault {
                // Without a controller yet, there is none that could be gone.
                Fault::Closed => {
                    let source = io::ErrorKind::UnexpectedEof.into();
                    Error::VfioUser { socket: socket.to_owned(), step, source }
                }
                other => error(socket, reply_timeout, step, other),
            }
        };
        let client = channel.and_then(|channel| Client::new(channel, reply_timeout));
        let mut client = client.map_err(failed("connect"))?;
        if client.can_reset {
            client.reset().map_err(failed("reset the device"))?;
        }
        let step = "set the PCI Command register";
        pci_command::check(set_command(&mut client).map_err(failed(step))?)?;
        let bar0 = client.region(VFIO_PCI_BAR0_REGION_INDEX);
        let doorbells = Arc::new(map_doorbells(bar0.map_err(failed("describe BAR0"))?)?);
        let interrupts = MessageInterrupts::find(&mut client).map_err(failed("find interrupts"))?;
        let (socket, mapped) = (socket.to_owned(), Mutex::default());
        let client = Mutex::new(client);
        Ok(Self { socket, client, reply_timeout, doorbells, interrupts, mapped, run: None })
    }

    /// Runs commands on the connection; `step` names them in errors.
    fn run<T>(
        &self,
        step: &'static str,
        commands: impl FnOnce(&mut Client) -> Result<T, Fault>,
    ) -> Result<T> {
        commands(&mut self.client.lock())
            .map_err(|fault| error(&self.socket, self.reply_timeout, step, fault))
    }
}

/// Returns the driver's error for a failed command.
fn error(socket: &Path, after: Duration, step: &'static str, fault: Fault) -> Error {
    let socket = socket.to_owned();
    match fault {
        Fault::Silent => Error::VfioUserSilent { socket, after },
        Fault::Closed => Error::Gone,
        Fault::Io(source) => Error::VfioUser { socket, step, source },
    }
}

/// Sets the bits of [`pci_command::IN_USE`], and returns the register read back.
fn set_command(client: &mut Client) -> Result<u16, Fault> {
    let (region, offset) = (VFIO_PCI_CONFIG_REGION_INDEX, pci_command::OFFSET);
    let command = u16::from_le_bytes(client.read(region, offset)?) | pci_command::IN_USE;
    client.write(region, offset, command.to_le_bytes())?;
    Ok(u16::from_le_bytes(client.read(region, offset)?))
}

/// Maps the doorbells, which the server must share as memory.
fn map_doorbells(bar0: Option<Region>) -> Result<Mmio> {
    let size = bar0.as_ref().map_or(0, |region| region.size);
    let not_shared = || {
        let detail = format!("BAR0 has {size:#x} bytes, none of them to be mapped");
        Error::unsupported("a vfio-user server that does not share its doorbells", detail)
    };
    let region = bar0.ok_or_else(not_shared)?;
    let window = bar::doorbell_window(region.size)?;
    let mapped = map_region(&region, DOORBELLS, window as u64);
    mapped.map_err(|_| not_shared())
}

/// Maps a part of a region; see [`Transport::map_bar`].
fn map_region(region: &Region, offset: u64, bytes_max: u64) -> Result<Mmio> {
    let outside = || Error::OutsideBar { offset, length: region.size };
    let file = region.file.as_ref().ok_or_else(outside)?;
    let areas = match &region.areas[..] {
        [] => &[(0, region.size)],
        areas => areas,
    };
    let len = bar::mappable(areas.iter().copied(), region.size, offset, bytes_max)?;
    let start = region.offset.checked_add(offset).ok_or_else(outside)?;
    check_backed(file, start, len as u64)?;
    Mmio::map(file.as_fd(), start, offset, len)
}

/// Returns the address of a BAR. The client assigns one, as firmware does for other devices, if
/// the BAR has none.
fn place_bar(client: &mut Client, bar: u8) -> Result<u64, Fault> {
    /// Below the arena and below 4 GiB. A BAR is aligned to its size.
    const PLACE: u32 = 2 << 30;
    const CONFIG: u32 = VFIO_PCI_CONFIG_REGION_INDEX;
    let address = |client: &mut Client| {
        let low = u32::from_le_bytes(client.read(CONFIG, bar::offset(bar))?);
        let high = u32::from_le_bytes(client.read(CONFIG, bar::offset(bar + 1))?);
        Ok::<_, Fault>((low, bar::address(low, high)))
    };
    let (low, now) = address(client)?;
    if now != 0 {
        return Ok(now);
    }
    client.write(CONFIG, bar::offset(bar), PLACE.to_le_bytes())?;
    if bar::is_wide(low) {
        client.write(CONFIG, bar::offset(bar + 1), [0; 4])?;
    }
    Ok(address(client)?.1)
}

/// Checks that a window is inside the server's file, because a store beyond its end is a SIGBUS.
fn check_backed(file: &File, start: u64, len: u64) -> Result<()> {
    let metadata = file.metadata().map_err(Error::system("fstat of the doorbells"))?;
    match start.checked_add(len) {
        Some(end) if end <= metadata.len() => Ok(()),
        _ => Err(Error::OutsideBar { offset: start, length: metadata.len() }),
    }
}

// SAFETY: a server replies after it has done what the command says; it is trusted like the kernel.
unsafe impl Transport for VfioUser {
    fn read32(&self, offset: u64) -> Result<u32> {
        let read = |client: &mut Client| client.read(VFIO_PCI_BAR0_REGION_INDEX, offset);
        self.run("read a register", read).map(u32::from_le_bytes)
    }

    fn csts_within(&self, within: Duration) -> Result<u32> {
        let within = within.max(REPLY_TIMEOUT_MIN);
        let read =
            |client: &mut Client| client.read_within(VFIO_PCI_BAR0_REGION_INDEX, CSTS, within);
        match self.run("read CSTS", read).map(u32::from_le_bytes)? {
            GONE => Err(Error::Gone),
            csts => Ok(csts),
        }
    }

    fn write32(&self, offset: u64, value: u32) -> Result<()> {
        let value = value.to_le_bytes();
        self.run("write a register", |client| {
            client.write(VFIO_PCI_BAR0_REGION_INDEX, offset, value)
        })
    }

    fn doorbells(&self) -> &Arc<Mmio> {
        &self.doorbells
    }

    fn choose_iova(&self, bytes: u64, used: &[Range<u64>]) -> Result<u64> {
        iova::choose(&[IovaRange::WHOLE], bytes, used)
    }

    fn map(&self, arena: &Arena) -> Result<()> {
        let (iova, bytes) = (arena.iova(), arena.size());
        let mut mapped = self.mapped.lock();
        let range = iova..iova.saturating_add(bytes as u64);
        // A server may accept an overlap without an error.
        if mapped.iter().any(|other| other.start < range.end && range.start < other.end) {
            return Err(Error::MappingExists { iova, bytes });
        }
        let limit = self.client.lock().limits.mappings;
        if mapped.len() >= limit {
            return Err(Error::MappingLimit { limit });
        }
        let file = (arena.as_fd(), arena.file_offset());
        let sent =
            self.run("map DMA memory", |client| client.dma_map(file.0, file.1, iova, bytes as u64));
        match sent {
            Err(Error::VfioUser { source, .. }) if source.raw_os_error() == Some(libc::ENOSPC) => {
                Err(Error::MappingLimit { limit: mapped.len() })
            }
            other => other.map(|()| mapped.push(range)),
        }
    }

    fn unmap(&self, arena: &Arena) -> Result<()> {
        let (iova, size) = (arena.iova(), arena.size() as u64);
        self.run("unmap DMA memory", |client| client.dma_unmap(iova, size))?;
        self.mapped.lock().retain(|other| other.start != iova);
        Ok(())
    }

    fn reset(&self) -> Result<()> {
        if !self.client.lock().can_reset {
            let detail = self.socket.display().to_string();
            return Err(Error::unsupported("a vfio-user server without a reset", detail));
        }
        self.run("reset the device", Client::reset)?;
        pci_command::check(self.run("set the PCI Command register", set_command)?)?;
        // The server may have disconnected the eventfds without clearing the enable bit.
        self.run("disable interrupts", |client| self.interrupts.disable(client))
    }

    fn map_bar(&self, bar: u8, offset: u64, bytes_max: u64) -> Result<Mmio> {
        let index = bar::region(bar)?;
        match self.run("describe a BAR", |client| client.region(index))? {
            Some(region) => map_region(&region, offset, bytes_max),
            None => Err(Error::OutsideBar { offset, length: 0 }),
        }
    }

    fn bar_address(&self, bar: u8) -> Result<u64> {
        bar::region(bar)?;
        match self.run("place a BAR", |client| place_bar(client, bar))? {
            0 => Err(bar::unplaced(bar)),
            address => Ok(address),
        }
    }

    fn pci_id(&self) -> Option<PciId> {
        let dword = |at| {
            self.run("read the PCI ID", |client| client.read(VFIO_PCI_CONFIG_REGION_INDEX, at)).ok()
        };
        Some(PciId::of_config(dword(pci_command::ID)?, dword(pci_command::SUBSYSTEM_ID)?))
    }

    fn interrupts(&self) -> u16 {
        self.interrupts.count()
    }

    fn run_device(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run())
    }

    fn connect_interrupts(&self, events: &[BorrowedFd<'_>]) -> Result<usize> {
        let count = events.len().min(usize::from(self.interrupts.count()));
        let events = &events[..count];
        self.run("connect interrupts", |client| self.interrupts.connect(client, events))?;
        Ok(count)
    }
}

impl Drop for VfioUser {
    /// Disables interrupts: a server may keep configuration space for its next client, which may
    /// set up no eventfd.
    fn drop(&mut self) {
        let disabled = self.interrupts.disable(&mut self.client.lock());
        disabled.unwrap_or_else(|fault| log::debug!("interrupts stay enabled: {fault:?}"));
    }
}
