//! A controller: bring-up, identification, queues, shutdown (Base 3.5, 3.6).

mod bringup;
pub(crate) mod controller_memory;
mod dma_registration;
mod handles;
mod identify;
mod log_page;
mod management;
mod queues;
mod recovery;
mod resets;
mod writable;

use dma_registration::Registered;
use handles::Handles;
pub use log_page::LogPage;
pub use management::NewNamespace;
pub(crate) use recovery::{Failure, Health, Managed};
pub use resets::Resets;
pub use writable::WritableController;

use std::fmt;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use nvio_spec::register::{CC, Cap, Cc, Csts, Version};
use nvio_spec::{
    IDENTIFY_SIZE, IdentifyController, IdentifyNvmNamespace, NamespaceList, Sqe, cns, status,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::address::Address;
use crate::admin::Answer;
use crate::aer::AsyncEvent;
use crate::controller::controller_memory::ControllerMemory;
use crate::dma::{Arena, DmaBuf};
use crate::interrupts::Interrupts;
use crate::mmio::DoorbellMemory;
use crate::namespace::Namespace;
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
    /// How long an admin command may take, until the controller is reset.
    pub admin_timeout: Duration,
    /// How long an I/O command may take, until it is aborted. One that does not end then either,
    /// within the same time or the time of an admin command if that is less, makes for a reset.
    pub io_timeout: Duration,
    /// Most bytes of one command; the controller's own limit (MDTS) may be lower. Above 2 MiB, each
    /// command of a queue takes more than a page of the arena for its PRP lists.
    pub max_transfer: usize,
    /// Whether commands that change what is stored can be given; see
    /// [`Controller::writable`].
    pub writable: bool,
    /// Whether doorbells are kept in memory, where the controller offers that (Base 5.8): of use
    /// for virtual controllers, to which a doorbell is an exit.
    pub shadow_doorbells: bool,
    /// Whether submission queues are put into the Controller Memory Buffer (Base 8.5), if there is
    /// one for them, and as long as there is room: the controller need not fetch commands from the
    /// host then, and storing one takes longer.
    pub controller_memory_queues: bool,
    /// How [`QueuePair::wait`](crate::QueuePair::wait) waits.
    pub wait: Wait,
}

/// How completions are waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// By polling: least latency, and all of a processor.
    #[default]
    Poll,
    /// By polling for a while, and then sleeping until an interrupt (PCIe 3.5). Queue pairs for
    /// which the device has no vector of MSI-X, or of MSI, are polled.
    Interrupt {
        /// How long is polled before each sleep. What is faster is not slowed down by a sleep,
        /// which costs two system calls and waking up.
        spin: Duration,
    },
}

impl Default for Options {
    /// An arena of 64 MiB, 64 queue pairs, 10 s for admin commands, 30 s for I/O, transfers of at
    /// most 2 MiB, reading only, shadow doorbells where they are offered, queues in host memory, polling.
    fn default() -> Self {
        Self {
            arena_bytes: 64 << 20,
            queues: 64,
            admin_timeout: Duration::from_secs(10),
            io_timeout: Duration::from_secs(30),
            max_transfer: 2 << 20,
            writable: false,
            shadow_doorbells: true,
            controller_memory_queues: false,
            wait: Wait::Poll,
        }
    }
}

/// An NVMe controller that this process drives. Cheap to clone; shared between threads.
///
/// A controller that fails, or does not end a command in time, is reset; its queue pairs go on
/// afterwards, and commands that were in flight end with the status that says so.
///
/// When the last clone and the last queue pair are dropped, the controller is shut down
/// (CC.SHN), disabled and reset, and its view of this process's memory ends.
#[derive(Clone)]
pub struct Controller(Arc<Inner>);

pub(crate) struct Inner {
    // Fields drop in order: the admin queue's doorbells are part of the transport's windows, and
    // the transport ends the device's view of memory.
    managed: Mutex<Managed>,
    /// [`Managed::epoch`], for those who only look.
    epoch: AtomicU32,
    events: Arc<ArrayQueue<AsyncEvent>>,
    doorbell_memory: Option<Arc<DoorbellMemory>>,
    /// Where submission queues are to be, if not in host memory.
    controller_memory: Option<Arc<ControllerMemory>>,
    resets: Resets,
    /// Set once, if there are any and they are wanted.
    interrupts: OnceLock<Arc<Interrupts>>,
    transport: Box<dyn Transport>,
    /// What else the device sees.
    registered: Registered,
    arena: Arena,
    cap: Cap,
    version: Version,
    identify: Box<IdentifyController>,
    /// Most bytes of one command.
    max_transfer: usize,
    /// Identifiers of I/O queues that are not in use.
    free_queues: Mutex<Vec<u16>>,
    /// Locked before `managed`, if both are.
    handles: Mutex<Handles>,
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
        let reply_timeout = options.admin_timeout.min(options.io_timeout);
        Self::open_on(transport::open::open(address, reply_timeout)?, options)
    }

    /// Opens the controller that `transport` leads to.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open_on(transport: Box<dyn Transport>, options: Options) -> Result<Self> {
        Ok(Self(Arc::new(bringup::bring_up(transport, options)?)))
    }

    /// Resets the controller and brings it up again. Commands in flight end with
    /// [`ABORTED_BY_HOST`](status::ABORTED_BY_HOST), and queue pairs go on afterwards.
    ///
    /// # Errors
    /// When it does not come up again; it takes no commands then.
    pub fn reset(&self) -> Result<()> {
        self.0.reset()
    }

    /// Returns the numbers of resets since the controller was opened.
    pub fn resets(&self) -> Resets {
        self.0.resets.clone()
    }

    /// Takes an asynchronous event that came, if there is one: the oldest. Events are noticed
    /// while admin commands run, while queue pairs are polled, and by
    /// [`poll_events`](Self::poll_events).
    pub fn next_event(&self) -> Option<AsyncEvent> {
        self.0.events.pop()
    }

    /// Hands the asynchronous events that have come to `handler`, and gives their number. Never
    /// waits.
    pub fn poll_events(&self, mut handler: impl FnMut(AsyncEvent)) -> usize {
        self.0.note_events();
        let mut count = 0;
        // No more than there is room for, however fast they come.
        while let Some(event) = self.next_event().filter(|_| count < self.0.events.capacity()) {
            count += 1;
            handler(event);
        }
        count
    }

    /// Whether data may be described by SGLs (SGLS of Identify Controller, Base 5.17.2.1).
    pub fn has_sgl(&self) -> bool {
        self.0.has_sgl()
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
        self.0.managed().granted
    }

    /// Most bytes that one command can transfer: what MDTS and [`Options::max_transfer`] allow.
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
        self.0.alloc(bytes)
    }

    /// IDs of the active namespaces, ascending (Base 5.17.2.2).
    ///
    /// # Errors
    /// When the command fails, or the list is not ascending.
    pub fn namespace_ids(&self) -> Result<Vec<u32>> {
        self.0.list_namespaces(cns::ACTIVE_NAMESPACES)
    }

    /// An active namespace (NVM 4.1.5.1).
    ///
    /// # Errors
    /// [`Error::NoNamespace`] if it is not active; [`Error::Unsupported`] if its format is not
    /// supported, by name.
    pub fn namespace(&self, nsid: u32) -> Result<Namespace> {
        // To the end, so that it is not formatted before its handle is known of.
        let mut handles = self.0.handles();
        let namespace = self.0.identify_active(nsid)?;
        handles.add(&namespace);
        Ok(namespace)
    }
}

impl Inner {
    fn managed(&self) -> MutexGuard<'_, Managed> {
        self.managed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn alloc(&self, bytes: usize) -> Result<DmaBuf> {
        self.arena.alloc(bytes)
    }

    fn free_queues(&self) -> MutexGuard<'_, Vec<u16>> {
        self.free_queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn execute(&self, name: &'static str, sqe: Sqe, buf: Option<DmaBuf>) -> Result<Answer> {
        self.execute_in(&mut self.managed(), name, sqe, buf)
    }

    /// SGLs without a demand for alignment (Base figure 275, SGLS bits 1:0).
    fn has_sgl(&self) -> bool {
        self.identify.sgls.get() & 0b11 == 0b01
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

    /// An active namespace.
    fn identify_active(&self, nsid: u32) -> Result<Namespace> {
        let identify = match self.identify_as(cns::NAMESPACE, nsid) {
            Err(Error::Command { status, .. }) if status.bare() == status::INVALID_NAMESPACE => {
                return Err(Error::NoNamespace { nsid });
            }
            other => other?,
        };
        let namespace = Namespace::new(nsid, identify, self.max_transfer)?;
        // Without protection, nothing that is used depends on more.
        if namespace.protection_type() == 0 || !self.identify.has_extended_formats() {
            return Ok(namespace);
        }
        let more: IdentifyNvmNamespace = self.identify_as(cns::COMMAND_SET_NAMESPACE, nsid)?;
        namespace.extended(&more)
    }

    /// A list of namespace IDs, ascending, in as many commands as it takes.
    fn list_namespaces(&self, cns: u8) -> Result<Vec<u32>> {
        let mut ids: Vec<u32> = Vec::new();
        loop {
            let after = ids.last().copied().unwrap_or(0);
            let list: NamespaceList = self.identify_as(cns, after)?;
            let before = ids.len();
            for id in list.ids() {
                if id <= ids.last().copied().unwrap_or(0) || ids.len() >= MOST_NAMESPACES {
                    return Err(Error::Invalid {
                        structure: "Namespace ID list",
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

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Controller");
        debug.field("version", &self.0.version).field("resets", &self.0.resets);
        debug.finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.resets.log();
        let (mapped, health) = {
            let managed = self.managed();
            (managed.mapped, managed.health)
        };
        if health == Health::Live {
            self.shut_down().unwrap_or_else(|error| match error {
                Error::Gone => log::warn!("the controller was removed"),
                error => log::warn!("orderly shutdown failed: {error}"),
            });
        }
        // All, whatever the first says: either way ends the device's access to memory.
        let transport = &*self.transport;
        let reset = transport.reset();
        let unmapped = if mapped { transport.unmap(&self.arena) } else { Ok(()) };
        let revoked = self.registered.revoke(transport);
        for error in [reset, unmapped, revoked].into_iter().filter_map(Result::err) {
            log::debug!("while closing: {error}");
        }
    }
}

/// Reads CSTS, which is waited for at most `within`.
///
/// # Errors
/// [`Error::Gone`] and [`Error::Fatal`].
pub(crate) fn check_alive(transport: &dyn Transport, within: Duration) -> Result<()> {
    let csts = Csts(transport.csts_within(within)?);
    if csts.fatal() { Err(Error::Fatal { csts: csts.0 }) } else { Ok(()) }
}
