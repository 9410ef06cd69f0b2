//! Bring-up: from a function that was just reset to a controller that accepts I/O (Base 3.5.1).

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};

use crossbeam_queue::ArrayQueue;
use nvio_spec::register::{CAP, CSTS, Cap, DOORBELLS, GONE, VS, Version, cq_head_doorbell};
use nvio_spec::{HostBehaviorSupport, IdentifyController, QueueCount, Sqe, cns, feature_id};
use parking_lot::Mutex;
use zerocopy::{FromZeros, IntoBytes};

use super::controller_memory::ControllerMemory;
use super::enable::{disable, enable, pause_for};
use super::health::{Health, Managed};
use super::inner::Inner;
use super::options::{Options, Wait};
use super::registered::{Registered, map};
use super::resets::Resets;
use crate::admin::{ADMIN_DEPTH, ADMIN_ENTRIES, Admin, Answer, Command};
use crate::aer::AsyncEvent;
use crate::dma::{Arena, DmaMemory, PAGE_SIZE};
use crate::error::{Error, Result};
use crate::interrupts::Interrupts;
use crate::mmio::DoorbellMemory;
use crate::queue::raw::Layout;
use crate::queue::retry::RetryPolicy;
use crate::quirks::{Quirk, Quirks};
use crate::transport::Transport;

/// Most asynchronous events that are stored until the caller polls for them.
const EVENTS_MAX: usize = 64;

/// Resets and enables the controller behind `transport`.
pub(super) fn bring_up(transport: Box<dyn Transport>, options: Options) -> Result<Inner> {
    let quirks = quirks(&*transport, &options)?;
    let cap = capabilities(&*transport)?;
    let version = Version(transport.read32_present(VS)?);
    disable(&*transport, (cap, quirks))?;
    let arena =
        map(&*transport, Arc::new(DmaMemory::near(options.arena_bytes, transport.memory_node())?))?;
    // After an error, closing the transport unmaps the memory from the device, before the arena is
    // unmapped from this process.
    let result = first(transport, (cap, quirks), version, arena.clone(), options);
    drop(arena);
    result
}

/// Enables the controller for the first time.
fn first(
    transport: Box<dyn Transport>,
    (cap, quirks): (Cap, Quirks),
    version: Version,
    arena: Arena,
    options: Options,
) -> Result<Inner> {
    let events = Arc::new(ArrayQueue::new(EVENTS_MAX));
    let device = Device { transport: &*transport, cap, quirks, arena: &arena, options: &options };
    let controller_memory = device.controller_memory()?;
    let mut admin = device.admin_queue(&events)?;
    enable(&*transport, (cap, quirks), &admin)?;
    let identify = device.identify(&mut admin)?;
    let doorbell_memory = device.doorbell_memory(&identify)?;
    let mdts = identify.max_transfer(cap.min_page_shift()).unwrap_or(u64::MAX);
    let most = options.max_transfer.max(1 << cap.min_page_shift());
    let inner = Inner {
        doorbell_memory,
        controller_memory,
        resets: Resets::default(),
        interrupts: OnceLock::new(),
        managed: Mutex::new(Managed {
            admin,
            health: Health::Live,
            epoch: 0,
            requested: 0,
            granted: 0,
            shadow: false,
            mapped: true,
            stranded: Vec::new(),
        }),
        epoch: AtomicU32::new(0),
        events,
        transport,
        registered: Registered::default(),
        arena,
        cap,
        quirks,
        version,
        identify,
        max_transfer: usize::try_from(mdts).unwrap_or(usize::MAX).min(most),
        free_queues: Mutex::default(),
        handles: Mutex::default(),
        options,
    };
    let granted = {
        let mut managed = inner.managed.lock();
        configure(&inner, &mut managed)?;
        managed.granted
    };
    *inner.free_queues.lock() = (1..=granted).collect();
    if inner.options.wait != Wait::Poll && !quirks.has(Quirk::NoInterrupts) {
        match Interrupts::new(&*inner.transport, granted.saturating_add(1))? {
            Some(interrupts) => drop(inner.interrupts.set(interrupts)),
            None => log::warn!("the device has no interrupts: queues are polled"),
        }
    }
    Ok(inner)
}

/// Enables a controller that was stopped after an earlier bring-up.
pub(super) fn restart(inner: &Inner, managed: &mut Managed) -> Result<()> {
    if let Some(memory) = &inner.controller_memory {
        memory.enable(&*inner.transport)?;
    }
    enable(&*inner.transport, (inner.cap, inner.quirks), &managed.admin)?;
    configure(inner, managed)?;
    // A reset of the function disconnects its interrupts.
    if let Some(interrupts) = inner.interrupts.get() {
        interrupts.connect(&*inner.transport);
    }
    Ok(())
}

/// Sends the settings that a controller loses by a reset: number of queues, shadow doorbells,
/// events.
fn configure(inner: &Inner, managed: &mut Managed) -> Result<()> {
    let transport = &*inner.transport;
    let admin = &mut managed.admin;
    managed.granted = queues(transport, admin, inner.options.queues)?;
    if let Some(memory) = &inner.doorbell_memory {
        let sqe = Sqe::doorbell_buffer_config(memory.values.iova(), memory.events.iova());
        let command = Command::new("Doorbell Buffer Config", sqe);
        managed.shadow = accepted(admin.execute(transport, command))?;
    }
    if inner.identify.has_extended_formats() {
        let mut buf = inner.arena.alloc(size_of::<HostBehaviorSupport>())?;
        let behaviour = HostBehaviorSupport { lbafee: 1, ..HostBehaviorSupport::new_zeroed() };
        buf.copy_from_slice(behaviour.as_bytes());
        let sqe = Sqe::set_features(feature_id::HOST_BEHAVIOR_SUPPORT, 0);
        let name = "Set Features (Host Behavior Support)";
        accepted(admin.execute(transport, Command::new(name, sqe).with(buf)))?;
    }
    let wanted = EVENTS | inner.identify.oaes.get() & NOTICES;
    let sqe = Sqe::set_features(feature_id::ASYNC_EVENT_CONFIGURATION, wanted);
    let name = "Set Features (Asynchronous Event Configuration)";
    accepted(admin.execute(transport, Command::new(name, sqe)))?;
    enable_retry_delays(inner, admin)?;
    admin.request_first_events(inner.identify.aerl);
    Ok(())
}

/// Returns true if a controller accepted a command that the driver can do without.
fn accepted(answer: Result<Answer>) -> Result<bool> {
    match answer {
        Err(error @ Error::Command { .. }) => {
            log::debug!("{error}");
            Ok(false)
        }
        other => other.map(|_| true),
    }
}

/// Lets the controller send Command Retry Delays, if it has any (Base 5.27.1.18).
fn enable_retry_delays(inner: &Inner, admin: &mut Admin) -> Result<()> {
    let has_delays = inner.identify.crdt.iter().any(|delay| delay.get() != 0);
    if inner.options.retries == 0 || !has_delays {
        return Ok(());
    }
    let mut behavior = HostBehaviorSupport::new_zeroed();
    behavior.acre = 1;
    let mut buf = inner.arena.alloc(size_of::<HostBehaviorSupport>())?;
    buf.copy_from_slice(behavior.as_bytes());
    let sqe = Sqe::set_features(feature_id::HOST_BEHAVIOR_SUPPORT, 0);
    let command = Command::new("Set Features (Host Behavior Support)", sqe).with(buf);
    accepted(admin.execute(&*inner.transport, command)).map(drop)
}

/// Doorbell Buffer Config, in OACS (Base figure 275).
const OACS_DOORBELL_BUFFER_CONFIG: u16 = 1 << 8;
/// All defined SMART / Health critical warnings (Base 5.27.1.9).
const EVENTS: u32 = 0x1f;
/// Namespace attribute and firmware activation notices, if OAES has them.
const NOTICES: u32 = 1 << 8 | 1 << 9;

/// A controller before its first use.
struct Device<'a> {
    transport: &'a dyn Transport,
    cap: Cap,
    quirks: Quirks,
    arena: &'a Arena,
    options: &'a Options,
}

impl Device<'_> {
    fn admin_queue(&self, events: &Arc<ArrayQueue<AsyncEvent>>) -> Result<Admin> {
        let layout = Layout {
            arena: self.arena,
            controller_memory: None,
            doorbells: self.transport.doorbells(),
            stride: self.cap.doorbell_stride(),
            page_shift: self.cap.min_page_shift(),
            list_pages: 1,
            sgl: false,
            qid: 0,
            depth: ADMIN_DEPTH,
            entries: ADMIN_ENTRIES,
            retry: RetryPolicy::default(),
        };
        Admin::new(&layout, self.options.admin_timeout, Arc::clone(events))
    }

    fn identify(&self, admin: &mut Admin) -> Result<Box<IdentifyController>> {
        let command = Command::identify(self.arena, cns::CONTROLLER, 0)?;
        let identify: IdentifyController = admin.execute(self.transport, command)?.decode()?;
        // Bits 3:0 are the size that must be used: 64 and 16 bytes for the NVM command set.
        for (field, value, size) in [("SQES", identify.sqes, 6), ("CQES", identify.cqes, 4)] {
            if value & 0xf != size {
                return Err(Error::invalid("Identify Controller", field, value));
            }
        }
        Ok(Box::new(identify))
    }

    /// Allocates the pages for Doorbell Buffer Config, if the controller supports that command and a page
    /// has room for the doorbells of all queues.
    fn doorbell_memory(
        &self,
        identify: &IdentifyController,
    ) -> Result<Option<Arc<DoorbellMemory>>> {
        let offered = identify.oacs.get() & OACS_DOORBELL_BUFFER_CONFIG != 0;
        let last = cq_head_doorbell(self.options.queues, self.cap.doorbell_stride()) - DOORBELLS;
        let wanted = self.options.shadow_doorbells && !self.quirks.has(Quirk::NoShadowDoorbells);
        if !offered || !wanted || last >= PAGE_SIZE as u64 {
            return Ok(None);
        }
        let page = 1 << self.cap.min_page_shift();
        let (values, events) = (self.arena.share(page, page)?, self.arena.share(page, page)?);
        Ok(Some(Arc::new(DoorbellMemory { values, events })))
    }

    /// Finds the controller's memory for submission queues, if it is wanted and usable.
    fn controller_memory(&self) -> Result<Option<Arc<ControllerMemory>>> {
        if !self.options.controller_memory_queues {
            return Ok(None);
        }
        match ControllerMemory::find(self.transport, self.cap, self.arena) {
            Ok(Some(memory)) => {
                log::debug!("{} bytes of controller memory for submission queues", memory.len());
                Ok(Some(memory))
            }
            Ok(None) => {
                log::warn!("the controller has no memory for queues: they are in host memory");
                Ok(None)
            }
            Err(Error::Gone) => Err(Error::Gone),
            Err(error) => {
                log::warn!(
                    "the controller memory cannot be used, queues are in host memory: {error}"
                );
                Ok(None)
            }
        }
    }
}

/// Returns the quirks of the controller, after the delay that it needs before its first access.
fn quirks(transport: &dyn Transport, options: &Options) -> Result<Quirks> {
    let id = transport.pci_id();
    let quirks = id.map_or(Quirks::NONE, Quirks::of).and(options.quirks);
    if quirks != Quirks::NONE {
        let id = id.map_or_else(|| "the controller".to_owned(), |id| id.to_string());
        log::info!("quirks of {id}: {quirks}");
    }
    if quirks.has(Quirk::WideEntries) {
        let what = "a controller with submission queue entries of 128 bytes";
        return Err(Error::unsupported(what, "only the kernel's driver can use it"));
    }
    pause_for(transport, quirks, Quirk::DelayBeforeInit);
    Ok(quirks)
}

/// Reads CAP, and checks that the driver supports such a controller.
fn capabilities(transport: &dyn Transport) -> Result<Cap> {
    let cap = Cap(transport.read64(CAP)?);
    if cap.0 == u64::MAX || transport.read32(CSTS)? == GONE {
        return Err(Error::Gone);
    }
    if !cap.nvm_command_set() {
        let detail = format!("CAP is {:#018x}", cap.0);
        return Err(Error::unsupported("a controller without the NVM command set", detail));
    }
    if cap.max_queue_entries() < 2 {
        return Err(Error::invalid("CAP", "MQES", cap.max_queue_entries()));
    }
    // The arena is aligned to 2 MiB. No known device has larger pages.
    if cap.min_page_shift() > 21 || cap.min_page_shift() > cap.max_page_shift() {
        return Err(Error::invalid("CAP", "MPSMIN", cap.min_page_shift()));
    }
    Ok(cap)
}

/// Requests queue pairs, and returns the granted number (Base 5.27.1.5). A controller that refuses
/// the command may have told the number before; otherwise it has one pair, the least that the
/// specification allows.
fn queues(transport: &dyn Transport, admin: &mut Admin, wanted: u16) -> Result<u16> {
    let ask = QueueCount { submission: wanted, completion: wanted };
    let (feature, wanted) = (feature_id::NUMBER_OF_QUEUES, wanted.max(1));
    let set = Command::new(NUMBER_OF_QUEUES, Sqe::set_features(feature, ask.to_dword()));
    let dw0 = match admin.execute(transport, set) {
        Err(error @ Error::Command { .. }) => {
            let get = Command::new("Get Features", Sqe::get_features(feature));
            let dw0 = match admin.execute(transport, get) {
                Err(Error::Command { .. }) => 0,
                other => other?.dw0,
            };
            log::warn!("{error}: the controller has the I/O queues that it says or one pair");
            dw0
        }
        other => other?.dw0,
    };
    let granted =
        QueueCount::from_dword(dw0).ok_or(Error::invalid(NUMBER_OF_QUEUES, "DW0", dw0))?;
    // A controller may grant more than requested.
    Ok(granted.submission.min(granted.completion).min(wanted))
}

const NUMBER_OF_QUEUES: &str = "Set Features (Number of Queues)";
