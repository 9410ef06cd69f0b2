//! A controller: bring-up, identification, queues, shutdown (Base 3.5, 3.6).

mod bringup;
mod identify;
mod log_page;

pub use log_page::LogPage;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nvio_spec::register::{CC, CSTS, Cap, Cc, Csts, Version};
use nvio_spec::{IDENTIFY_SIZE, IdentifyController, NamespaceList, Sqe, cns, status};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::address::Address;
use crate::admin::{Admin, Answer};
use crate::dma::{Arena, DmaBuf};
use crate::namespace::Namespace;
use crate::queue::{Core, Layout, QueuePair};
use crate::transport::{self, Transport};
use crate::{Error, Result};

/// Most namespaces that a controller is believed to have.
const MOST_NAMESPACES: usize = 1 << 16;

/// How a controller is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the DMA arena, which queues and buffers come from. It is locked in memory.
    pub arena_bytes: usize,
    /// I/O queue pairs to ask for, 1 to 65,535. The controller may grant fewer.
    pub queues: u16,
    /// How long an admin command may take.
    pub admin_timeout: Duration,
    /// How long [`QueuePair::wait`] waits for a completion.
    pub io_timeout: Duration,
}

impl Default for Options {
    /// An arena of 64 MiB, 64 queue pairs, 10 s for admin commands, 30 s for I/O.
    fn default() -> Self {
        Self {
            arena_bytes: 64 << 20,
            queues: 64,
            admin_timeout: Duration::from_secs(10),
            io_timeout: Duration::from_secs(30),
        }
    }
}

/// An NVMe controller that this process drives. Cheap to clone; shared between threads.
///
/// When the last clone and the last queue pair are dropped, the controller is shut down
/// (CC.SHN), disabled and reset, and its view of this process's memory ends.
#[derive(Clone)]
pub struct Controller(Arc<Inner>);

pub(crate) struct Inner {
    // Fields drop in order: the admin queue's doorbells are part of the transport's windows, and
    // the transport ends the device's view of the arena.
    admin: Mutex<Admin>,
    transport: Box<dyn Transport>,
    arena: Arena,
    cap: Cap,
    version: Version,
    identify: Box<IdentifyController>,
    /// Most bytes of one command.
    max_transfer: usize,
    /// I/O queue pairs granted.
    granted: u16,
    /// Identifiers of I/O queues that are not in use.
    free_queues: Mutex<Vec<u16>>,
    options: Options,
}

impl Controller {
    /// Opens the controller at `address` with the default [`Options`].
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open(address: &Address) -> Result<Self> {
        Self::open_with(address, Options::default())
    }

    /// Opens the controller at `address`: reset, bring-up (Base 3.5.1), Identify, queues asked for.
    ///
    /// # Errors
    /// When the device cannot be reached, is no NVMe controller, fails, or does not become ready
    /// within CAP.TO.
    pub fn open_with(address: &Address, options: Options) -> Result<Self> {
        let inner = bringup::bring_up(transport::open(address)?, options)?;
        Ok(Self(Arc::new(inner)))
    }

    /// Controller capabilities (Base 3.1.3.1).
    pub fn capabilities(&self) -> Cap {
        self.0.cap
    }

    /// The version of the specification that the controller follows.
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// What the controller says of itself (Base 5.17.2.1).
    pub fn identify(&self) -> &IdentifyController {
        &self.0.identify
    }

    /// I/O queue pairs that the controller granted.
    pub fn granted_queues(&self) -> u16 {
        self.0.granted
    }

    /// Most bytes that one command can transfer: what MDTS and a PRP list allow.
    pub fn max_transfer(&self) -> usize {
        self.0.max_transfer
    }

    /// The memory that buffers come from.
    pub fn arena(&self) -> &Arena {
        &self.0.arena
    }

    /// A zeroed buffer of `bytes`; see [`Arena::alloc`].
    ///
    /// # Errors
    /// [`Error::ArenaFull`].
    pub fn alloc(&self, bytes: usize) -> Result<DmaBuf> {
        self.0.arena.alloc(bytes)
    }

    /// IDs of the active namespaces, ascending (Base 5.17.2.2).
    ///
    /// # Errors
    /// When the command fails, or the list is not ascending.
    pub fn namespace_ids(&self) -> Result<Vec<u32>> {
        let mut ids: Vec<u32> = Vec::new();
        loop {
            let after = ids.last().copied().unwrap_or(0);
            let list: NamespaceList = self.0.identify_as(cns::ACTIVE_NAMESPACES, after)?;
            let before = ids.len();
            for id in list.ids() {
                if id <= ids.last().copied().unwrap_or(0) || ids.len() >= MOST_NAMESPACES {
                    return Err(Error::Invalid {
                        structure: "Active Namespace ID list",
                        field: "an ID out of order, or one too many,",
                        value: u64::from(id),
                    });
                }
                ids.push(id);
            }
            // IDs at and above fffffffeh cannot be asked about (Base 5.17.2.2).
            let more = ids.len() - before == list.nsid.len();
            if !more || ids.last().is_some_and(|&id| id >= 0xffff_fffe) {
                return Ok(ids);
            }
        }
    }

    /// An active namespace (NVM 4.1.5.1).
    ///
    /// # Errors
    /// [`Error::NoNamespace`] if it is not active; [`Error::Unsupported`] if its format is not
    /// supported, by name.
    pub fn namespace(&self, nsid: u32) -> Result<Namespace> {
        let identify = match self.0.identify_as(cns::NAMESPACE, nsid) {
            Err(Error::Command { status, .. }) if status.bare() == status::INVALID_NAMESPACE => {
                return Err(Error::NoNamespace { nsid });
            }
            other => other?,
        };
        Namespace::new(nsid, identify, self.0.max_transfer)
    }

    /// A queue pair with room for `depth` commands in flight: 1 to 4,095, less if the controller
    /// has shorter queues (see [`QueuePair::capacity`]). Its rings have a power of two of entries.
    ///
    /// # Errors
    /// [`Error::NoQueue`] when all granted ones are in use; [`Error::Command`] when the controller
    /// refuses; [`Error::ArenaFull`].
    pub fn queue_pair<T>(&self, depth: u16) -> Result<QueuePair<T>> {
        let inner = &self.0;
        let qid = inner.free_queues().pop().ok_or(Error::NoQueue { granted: inner.granted })?;
        match inner.create_queues(qid, depth) {
            Ok(core) => Ok(QueuePair::new(core, Arc::clone(inner), qid)),
            Err(error) => {
                // An identifier whose queues may half exist is not used again.
                if matches!(error, Error::ArenaFull { .. } | Error::Command { .. }) {
                    inner.free_queues().push(qid);
                }
                Err(error)
            }
        }
    }
}

impl Inner {
    fn admin(&self) -> MutexGuard<'_, Admin> {
        self.admin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free_queues(&self) -> MutexGuard<'_, Vec<u16>> {
        self.free_queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn execute(&self, name: &'static str, sqe: Sqe, buf: Option<DmaBuf>) -> Result<Answer> {
        self.admin().execute(&*self.transport, name, sqe, buf)
    }

    fn identify_as<D: FromBytes + KnownLayout + Immutable>(&self, cns: u8, nsid: u32) -> Result<D> {
        let buf = self.arena.alloc(IDENTIFY_SIZE)?;
        let answer = self.execute("Identify", Sqe::identify(cns, nsid), Some(buf))?;
        let bytes = answer.buf.as_deref().unwrap_or(&[]);
        D::read_from_bytes(bytes).map_err(|_| Error::Invalid {
            structure: "Identify",
            field: "length",
            value: bytes.len() as u64,
        })
    }

    /// Creates the completion queue, then the submission queue; undoes the first if the second
    /// fails.
    fn create_queues<T>(&self, qid: u16, depth: u16) -> Result<Core<T>> {
        // A power of two, so that the rings wrap with a mask; one more than is in flight, so that a
        // full ring is not taken for an empty one.
        let most = self.cap.max_queue_entries().min(Layout::MOST_ENTRIES);
        let most = if most.is_power_of_two() { most } else { most.next_power_of_two() / 2 };
        let entries = (u32::from(depth) + 1).next_power_of_two().clamp(2, most.max(2));
        let depth = depth.clamp(1, u16::try_from(entries - 1).unwrap_or(u16::MAX));
        let core = Core::new(&Layout {
            arena: &self.arena,
            doorbells: self.transport.doorbells(),
            stride: self.cap.doorbell_stride(),
            page_shift: self.cap.min_page_shift(),
            qid,
            depth,
            entries,
        })?;
        let create_cq = Sqe::create_io_cq(qid, entries, core.cq_iova(), None);
        let created = self.execute("Create I/O Completion Queue", create_cq, None).and_then(|_| {
            let create_sq = Sqe::create_io_sq(qid, entries, core.sq_iova(), qid);
            self.execute("Create I/O Submission Queue", create_sq, None).inspect_err(|_| {
                let undo =
                    self.execute("Delete I/O Completion Queue", Sqe::delete_io_cq(qid), None);
                undo.map_or_else(|e| log::warn!("completion queue {qid} stays: {e}"), |_| ());
            })
        });
        match created {
            Ok(_) => Ok(core),
            Err(error @ Error::Command { .. }) => Err(error),
            Err(error) => {
                // Nobody knows whether the queues exist: their memory is never used again.
                std::mem::forget(core);
                Err(error)
            }
        }
    }

    /// Deletes both queues; afterwards the controller uses none of their memory.
    pub(crate) fn delete_queues(&self, qid: u16) -> Result<()> {
        self.execute("Delete I/O Submission Queue", Sqe::delete_io_sq(qid), None)?;
        self.execute("Delete I/O Completion Queue", Sqe::delete_io_cq(qid), None)?;
        self.free_queues().push(qid);
        Ok(())
    }

    pub(crate) fn io_timeout(&self) -> Duration {
        self.options.io_timeout
    }

    /// Whether the controller is there and has not failed.
    pub(crate) fn check_alive(&self) -> Result<()> {
        check_alive(&*self.transport)
    }

    /// Normal shutdown, then disable, then reset (Base 3.6.1).
    fn shut_down(&self) -> Result<()> {
        let transport = &*self.transport;
        let cc = Cc(transport.read32_present(CC)?);
        transport.write32(CC, cc.shutdown().0)?;
        // RTD3E says how long this may take; 0 is no word, and a device may lie.
        let reported = Duration::from_micros(u64::from(self.identify.rtd3e.get()));
        let bound = reported.clamp(Duration::from_secs(5), Duration::from_secs(30));
        let shut = bringup::wait_for(transport, "shutdown", bound, Csts::shutdown_complete);
        bringup::disable(transport, self.cap)?;
        shut
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let unmap = |_| self.transport.reset().and_then(|()| self.transport.unmap(&self.arena));
        match self.shut_down() {
            Err(Error::Gone) => log::warn!("the controller was removed"),
            Err(error) => {
                log::warn!("orderly shutdown failed: {error}");
                unmap(()).unwrap_or_else(|error| log::warn!("{error}"));
            }
            Ok(()) => unmap(()).unwrap_or_else(|error| log::warn!("{error}")),
        }
    }
}

/// Reads CSTS and tells a removed or failed controller from a working one.
pub(crate) fn check_alive(transport: &dyn Transport) -> Result<()> {
    let csts = Csts(transport.read32_present(CSTS)?);
    if csts.fatal() { Err(Error::Fatal { csts: csts.0 }) } else { Ok(()) }
}
