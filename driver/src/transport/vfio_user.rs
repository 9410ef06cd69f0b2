//! The vfio-user transport: a controller that is served by another process, or by a thread of
//! this one, over a socket. Registers are messages; doorbells and data are shared memory.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nvio_spec::register::DOORBELLS;
use vfio_bindings::bindings::vfio::{VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX};
use vfio_user::Client;

use super::iova::{self, IovaRange};
use super::irq::{self, Vectors};
use super::{Transport, doorbell_window, mappable, pci_bar, pci_command};
use crate::dma::Arena;
use crate::mmio::Mmio;
use crate::{Error, Result};

/// How long a server may take to answer a message. The specification sets no bound; a live server
/// answers in microseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Most ranges of memory that a server is given: what the embedded controller takes. The library
/// does not tell a server's own limit, nor that it refused.
const MOST_MAPPINGS: usize = 1024;

type Job = Box<dyn FnOnce(&mut Client) + Send>;

/// A connection to a vfio-user server.
///
/// The client library blocks without a bound, so it lives on a thread of its own, and every
/// message is waited for with [`ANSWER_TIMEOUT`].
pub(crate) struct VfioUser {
    socket: PathBuf,
    jobs: SyncSender<Job>,
    /// Held by who has a message under way: one at a time, so that only a server that is late is
    /// taken for silent, and not one that others ask.
    turn: Mutex<()>,
    doorbells: Arc<Mmio>,
    vectors: Vectors,
    /// I/O virtual addresses that the server was given memory for.
    mapped: Mutex<Vec<Range<u64>>>,
}

impl VfioUser {
    fn mapped(&self) -> MutexGuard<'_, Vec<Range<u64>>> {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let (jobs, work) = sync_channel::<Job>(1);
        let (report, connected) = sync_channel(1);
        let path = socket.to_owned();
        thread::Builder::new()
            .name("vfio-user client".to_owned())
            .spawn(move || serve(&path, &report, &work))
            .map_err(|source| Error::System { call: "thread for vfio-user", source })?;
        let failed = |step| {
            let socket = socket.to_owned();
            move |source| Error::VfioUser { socket, step, source }
        };
        connected
            .recv_timeout(ANSWER_TIMEOUT)
            .map_err(|_| silent(socket))?
            .map_err(failed("connect"))?;
        ask(socket, &jobs, Client::reset)?.map_err(failed("reset"))?;
        let command = ask(socket, &jobs, set_command)?;
        pci_command::check(command.map_err(failed("set the PCI Command register"))?)?;
        let doorbells = ask(socket, &jobs, map_doorbells)?.map(Arc::new)?;
        let vectors = ask(socket, &jobs, count_vectors)?;
        let socket = socket.to_owned();
        let (turn, mapped) = (Mutex::default(), Mutex::default());
        Ok(Self { socket, jobs, turn, doorbells, vectors, mapped })
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn message<T: Send + 'static>(
        &self,
        step: &'static str,
        message: impl FnOnce(&mut Client) -> Result<T, vfio_user::Error> + Send + 'static,
    ) -> Result<T> {
        let _turn = self.turn();
        ask(&self.socket, &self.jobs, message)?.map_err(|source| Error::VfioUser {
            socket: self.socket.clone(),
            step,
            source,
        })
    }
}

/// The connection's thread: ends when the transport is dropped.
fn serve(socket: &Path, report: &SyncSender<Result<(), vfio_user::Error>>, work: &Receiver<Job>) {
    let mut client = match Client::new(socket) {
        Ok(client) => client,
        Err(error) => return report.send(Err(error)).unwrap_or(()),
    };
    if report.send(Ok(())).is_err() {
        return;
    }
    while let Ok(job) = work.recv() {
        job(&mut client);
    }
    // The server may be gone already, which is what is wanted.
    client.shutdown().unwrap_or(());
}

fn silent(socket: &Path) -> Error {
    Error::VfioUserSilent { socket: socket.to_owned(), after: ANSWER_TIMEOUT }
}

/// Runs `job` on the connection's thread. A server that is silent, and a thread that ended over
/// what a server sent, both look like silence.
fn ask<T: Send + 'static>(
    socket: &Path,
    jobs: &SyncSender<Job>,
    job: impl FnOnce(&mut Client) -> T + Send + 'static,
) -> Result<T> {
    let (reply, answer) = sync_channel(1);
    // Nobody waits for the reply any more once the bound has passed.
    let job: Job = Box::new(move |client| reply.send(job(client)).unwrap_or(()));
    jobs.try_send(job).map_err(|_| silent(socket))?;
    answer.recv_timeout(ANSWER_TIMEOUT).map_err(|_| silent(socket))
}

/// Asks for what there is; a server that does not answer such a question has none.
fn count_vectors(client: &mut Client) -> Vectors {
    Vectors::choose(|index| client.get_irq_info(index).ok().map(|info| (info.flags, info.count)))
}

/// Sets eventfds, a message's worth at a time, and has the server signal each.
fn connect(client: &mut Client, index: u32, events: &[OwnedFd]) -> Result<(), vfio_user::Error> {
    /// Descriptors in one message: what the library's server takes.
    const MOST_EVENTS: usize = 16;
    client.set_irqs(index, irq::TRIGGER, 0, 0, &[])?;
    let mut start = 0;
    for events in events.chunks(MOST_EVENTS) {
        let events: Vec<_> = events.iter().map(AsRawFd::as_raw_fd).collect();
        let count = u32::try_from(events.len()).unwrap_or(0);
        client.set_irqs(index, irq::SET_EVENTS, start, count, &events)?;
        start += count;
    }
    client.set_irqs(index, irq::TRIGGER, 0, start, &[])
}

/// Whether an eventfd was signalled; clears it.
fn took_signal(event: BorrowedFd<'_>) -> bool {
    let event = event.try_clone_to_owned().map(File::from);
    event.and_then(|mut event| event.read_exact(&mut [0; 8])).is_ok()
}

/// Gives the Command register as it is afterwards.
fn set_command(client: &mut Client) -> Result<u16, vfio_user::Error> {
    let mut command = [0; 2];
    client.region_read(VFIO_PCI_CONFIG_REGION_INDEX, pci_command::OFFSET, &mut command)?;
    let wanted = (u16::from_le_bytes(command) | pci_command::IN_USE).to_le_bytes();
    client.region_write(VFIO_PCI_CONFIG_REGION_INDEX, pci_command::OFFSET, &wanted)?;
    client.region_read(VFIO_PCI_CONFIG_REGION_INDEX, pci_command::OFFSET, &mut command)?;
    Ok(u16::from_le_bytes(command))
}

/// Maps the doorbells that the server offers as shared memory.
fn map_doorbells(client: &mut Client) -> Result<Mmio> {
    let region = client.region(VFIO_PCI_BAR0_REGION_INDEX);
    let size = region.map_or(0, |region| region.size);
    let not_shared = || Error::Unsupported {
        what: "a vfio-user server that does not share its doorbells",
        detail: format!("BAR0 has {size:#x} bytes, none of them to be mapped"),
    };
    let region = region.ok_or_else(not_shared)?;
    let backing = region.file_offset.as_ref().ok_or_else(not_shared)?;
    let window = doorbell_window(region.size)?;
    let shared = match &region.sparse_areas[..] {
        [] => Some(region.size - DOORBELLS),
        areas => areas
            .iter()
            .find(|area| area.offset <= DOORBELLS)
            .and_then(|area| area.offset.checked_add(area.size)?.checked_sub(DOORBELLS)),
    };
    let shared = shared.and_then(|n| usize::try_from(n).ok()).filter(|&n| n >= 4096);
    let len = shared.ok_or_else(not_shared)?.min(window) & !4095;
    let start = backing.start().checked_add(DOORBELLS).ok_or_else(not_shared)?;
    check_backed(backing.file(), start, len as u64)?;
    Mmio::map(backing.file().as_fd(), start, DOORBELLS, len)
}

/// Maps a BAR that the server offers as shared memory; see [`Transport::map_bar`].
fn map_bar(client: &mut Client, index: u32, offset: u64, most: u64) -> Result<Mmio> {
    let region = client.region(index);
    let outside = || Error::OutsideBar { offset, length: region.map_or(0, |region| region.size) };
    let region = region.ok_or_else(outside)?;
    let backing = region.file_offset.as_ref().ok_or_else(outside)?;
    let areas = match &region.sparse_areas[..] {
        [] => vec![(0, region.size)],
        areas => areas.iter().map(|area| (area.offset, area.size)).collect(),
    };
    let len = mappable(areas, region.size, offset, most)?;
    let start = backing.start().checked_add(offset).ok_or_else(outside)?;
    check_backed(backing.file(), start, len as u64)?;
    Mmio::map(backing.file().as_fd(), start, offset, len)
}

/// The address of a BAR. What the firmware does for other devices, the client does here: it gives
/// one to a BAR that has none.
fn place_bar(client: &mut Client, bar: u8) -> Result<u64, vfio_user::Error> {
    /// Below the place of the arena, and in reach of 32 bits. A BAR is as aligned as it is large.
    const PLACE: u32 = 2 << 30;
    let config = VFIO_PCI_CONFIG_REGION_INDEX;
    let read = |client: &mut Client, bar| {
        let mut bytes = [0; 4];
        client.region_read(config, pci_bar::offset(bar), &mut bytes)?;
        Ok::<_, vfio_user::Error>(u32::from_le_bytes(bytes))
    };
    let address = |client: &mut Client| {
        let (low, high) = (read(client, bar)?, read(client, bar + 1)?);
        Ok::<_, vfio_user::Error>((low, pci_bar::address(low, high)))
    };
    let (low, now) = address(client)?;
    if now != 0 {
        return Ok(now);
    }
    client.region_write(config, pci_bar::offset(bar), &PLACE.to_le_bytes())?;
    if pci_bar::is_wide(low) {
        client.region_write(config, pci_bar::offset(bar + 1), &[0; 4])?;
    }
    Ok(address(client)?.1)
}

/// A store beyond the end of the server's file would be a SIGBUS.
fn check_backed(file: &File, start: u64, len: u64) -> Result<()> {
    let metadata = file
        .metadata()
        .map_err(|source| Error::System { call: "fstat of the doorbells", source })?;
    match start.checked_add(len) {
        Some(end) if end <= metadata.len() => Ok(()),
        _ => Err(Error::OutsideBar { offset: start, length: metadata.len() }),
    }
}

// SAFETY: a server answers when it has done what it was asked; it is trusted like the kernel is.
unsafe impl Transport for VfioUser {
    fn read32(&self, offset: u64) -> Result<u32> {
        self.message("read a register", move |client| {
            let mut value = [0; 4];
            client.region_read(VFIO_PCI_BAR0_REGION_INDEX, offset, &mut value)?;
            Ok(u32::from_le_bytes(value))
        })
    }

    fn write32(&self, offset: u64, value: u32) -> Result<()> {
        self.message("write a register", move |client| {
            client.region_write(VFIO_PCI_BAR0_REGION_INDEX, offset, &value.to_le_bytes())
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
        // The library does not look whether the server refused.
        let mut mapped = self.mapped();
        let range = iova..iova.saturating_add(bytes as u64);
        if mapped.iter().any(|other| other.start < range.end && range.start < other.end) {
            return Err(Error::MappingExists { iova, bytes });
        }
        if mapped.len() >= MOST_MAPPINGS {
            return Err(Error::MappingLimit { limit: MOST_MAPPINGS });
        }
        let memory = arena.clone();
        self.message("map DMA memory", move |client| {
            let (file, offset) = memory.file();
            client.dma_map(offset, iova, bytes as u64, file)
        })?;
        mapped.push(range);
        Ok(())
    }

    fn unmap(&self, arena: &Arena) -> Result<()> {
        let (iova, size) = (arena.iova(), arena.size() as u64);
        self.message("unmap DMA memory", move |client| client.dma_unmap(iova, size))?;
        self.mapped().retain(|other| other.start != iova);
        Ok(())
    }

    fn reset(&self) -> Result<()> {
        self.message("reset the device", Client::reset)?;
        pci_command::check(self.message("set the PCI Command register", set_command)?)
    }

    fn map_bar(&self, bar: u8, offset: u64, most: u64) -> Result<Mmio> {
        let index = pci_bar::region(bar)?;
        let _turn = self.turn();
        ask(&self.socket, &self.jobs, move |client| map_bar(client, index, offset, most))?
    }

    fn bar_address(&self, bar: u8) -> Result<u64> {
        pci_bar::region(bar)?;
        match self.message("place a BAR", move |client| place_bar(client, bar))? {
            0 => Err(pci_bar::unplaced(bar)),
            address => Ok(address),
        }
    }

    fn interrupts(&self) -> u16 {
        self.vectors.count
    }

    fn connect_interrupts(&self, events: &[BorrowedFd<'_>]) -> Result<usize> {
        let owned: io::Result<Vec<_>> =
            events.iter().map(|event| event.try_clone_to_owned()).collect();
        let owned = owned.map_err(|source| Error::System { call: "dup", source })?;
        let index = self.vectors.index;
        self.message("connect interrupts", move |client| connect(client, index, &owned))?;
        // The library does not tell whether the server has refused; so have each vector signalled.
        let signalled = events.iter().position(|event| !took_signal(*event));
        Ok(signalled.unwrap_or(events.len()))
    }
}
