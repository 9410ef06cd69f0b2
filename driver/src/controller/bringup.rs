//! From a function that was just reset to a controller that takes I/O (Base 3.5.1).

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use nvio_spec::register::{
    ACQ, AQA, ASQ, CAP, CC, CSTS, Cap, Cc, Csts, DOORBELLS, GONE, VS, Version, cq_head_doorbell,
};
use nvio_spec::{IDENTIFY_SIZE, IdentifyController, QueueCount, Sqe, cns, feature_id};
use zerocopy::FromBytes;

use super::{Health, Inner, Managed, Options, Registered, Resets, Wait};
use crate::admin::{ADMIN_DEPTH, ADMIN_ENTRIES, Admin};
use crate::aer::AsyncEvent;
use crate::controller::controller_memory::ControllerMemory;
use crate::dma::{Arena, Claim, DmaMemory, PAGE_SIZE};
use crate::interrupts::Interrupts;
use crate::mmio::DoorbellMemory;
use crate::queue::Layout;
use crate::transport::Transport;
use crate::{Error, Result};

/// CAP.TO of 0 would leave a device no time at all.
const LEAST_READY_TIMEOUT: Duration = Duration::from_millis(500);

/// Asynchronous events that are kept until somebody takes them.
const MOST_EVENTS: usize = 64;

pub(super) fn bring_up(transport: Box<dyn Transport>, options: Options) -> Result<Inner> {
    let cap = capabilities(&*transport)?;
    let version = Version(transport.read32_present(VS)?);
    disable(&*transport, cap)?;
    let memory = Arc::new(DmaMemory::new(options.arena_bytes)?);
    let bytes = memory.size();
    let claim = Claim::new(bytes, |used| transport.choose_iova(bytes as u64, used))?;
    let arena = Arena::over(memory, Arc::new(claim));
    transport.map(&arena)?;
    // From here on, an error must not leave the device with our memory: closing the transport
    // ends the mapping, and happens before the arena is unmapped from this process.
    let result = first(transport, cap, version, arena.clone(), options);
    drop(arena);
    result
}

/// Enables the controller for the first time.
fn first(
    transport: Box<dyn Transport>,
    cap: Cap,
    version: Version,
    arena: Arena,
    options: Options,
) -> Result<Inner> {
    let events = Arc::new(ArrayQueue::new(MOST_EVENTS));
    let controller_memory = controller_memory(&*transport, cap, &arena, &options)?;
    let mut admin = admin_queue(&*transport, &arena, cap, options.admin_timeout, &events)?;
    enable(&*transport, cap, &admin)?;
    let identify = identify(&*transport, &arena, &mut admin)?;
    let mdts = identify.max_transfer(cap.min_page_shift()).unwrap_or(u64::MAX);
    let most = options.max_transfer.max(1 << cap.min_page_shift());
    let inner = Inner {
        doorbell_memory: doorbell_memory(&arena, cap, &identify, &options)?,
        controller_memory,
        resets: Resets::default(),
        interrupts: OnceLock::new(),
        managed: Mutex::new(Managed {
            admin,
            health: Health::Live,
            epoch: 0,
            granted: 0,
            mapped: true,
            stranded: Vec::new(),
        }),
        epoch: AtomicU32::new(0),
        events,
        transport,
        registered: Registered::default(),
        arena,
        cap,
        version,
        identify,
        max_transfer: usize::try_from(mdts).unwrap_or(usize::MAX).min(most),
        free_queues: Mutex::default(),
        handles: Mutex::default(),
        options,
    };
    let granted = {
        let mut managed = inner.managed();
        configure(&inner, &mut managed)?;
        managed.granted
    };
    *inner.free_queues() = (1..=granted).rev().collect();
    if inner.options.wait != Wait::Poll {
        match Interrupts::new(&*inner.transport, granted.saturating_add(1))? {
            Some(interrupts) => drop(inner.interrupts.set(interrupts)),
            None => log::warn!("there are no interrupts: queues are polled"),
        }
    }
    Ok(inner)
}

/// Enables a controller that was disabled, and that this driver has brought up before.
pub(super) fn restart(inner: &Inner, managed: &mut Managed) -> Result<()> {
    if let Some(memory) = &inner.controller_memory {
        memory.enable(&*inner.transport)?;
    }
    enable(&*inner.transport, inner.cap, &managed.admin)?;
    configure(inner, managed)?;
    // If the function was reset, so were its interrupts.
    if let Some(interrupts) = inner.interrupts.get() {
        interrupts.connect(&*inner.transport);
    }
    Ok(())
}

/// Sets the admin queues and CC.EN, and waits until the controller is ready.
fn enable(transport: &dyn Transport, cap: Cap, admin: &Admin) -> Result<()> {
    let size = ADMIN_ENTRIES - 1;
    transport.write32(AQA, size << 16 | size)?;
    transport.write64(ASQ, admin.sq_iova())?;
    transport.write64(ACQ, admin.cq_iova())?;
    transport.write32(CC, Cc::enabled(cap.min_page_shift()).0)?;
    wait_for(transport, "CSTS.RDY to be set", ready_timeout(cap), Csts::ready)
}

/// Tells a controller that was just enabled what it is to do. A reset has made it forget.
fn configure(inner: &Inner, managed: &mut Managed) -> Result<()> {
    let transport = &*inner.transport;
    let admin = &mut managed.admin;
    managed.granted = queues(transport, admin, inner.options.queues)?;
    if let Some(memory) = &inner.doorbell_memory {
        let sqe = Sqe::doorbell_buffer_config(memory.values.iova(), memory.events.iova());
        admin.execute(transport, "Doorbell Buffer Config", sqe, None)?;
    }
    let wanted = EVENTS | inner.identify.oaes.get() & NOTICES;
    let sqe = Sqe::set_features(feature_id::ASYNC_EVENT_CONFIGURATION, wanted);
    match admin.execute(transport, "Set Features (Asynchronous Event Configuration)", sqe, None) {
        Err(error @ Error::Command { .. }) => log::debug!("{error}"),
        other => drop(other?),
    }
    admin.request_first_events(inner.identify.aerl);
    Ok(())
}

/// Doorbell Buffer Config, in OACS (Base figure 275).
const OACS_DOORBELL_BUFFER_CONFIG: u16 = 1 << 8;
/// SMART / Health critical warnings, all that are defined (Base 5.27.1.9).
const EVENTS: u32 = 0x1f;
/// Namespace attribute and firmware activation notices, where OAES has them.
const NOTICES: u32 = 1 << 8 | 1 << 9;

/// The pages for Doorbell Buffer Config, if the controller has that command and all queues have a
/// place in a page.
fn doorbell_memory(
    arena: &Arena,
    cap: Cap,
    identify: &IdentifyController,
    options: &Options,
) -> Result<Option<Arc<DoorbellMemory>>> {
    let offered = identify.oacs.get() & OACS_DOORBELL_BUFFER_CONFIG != 0;
    let last = cq_head_doorbell(options.queues, cap.doorbell_stride()) - DOORBELLS;
    if !offered || !options.shadow_doorbells || last >= PAGE_SIZE as u64 {
        return Ok(None);
    }
    let page = 1 << cap.min_page_shift();
    let (values, events) = (arena.share(page, page)?, arena.share(page, page)?);
    Ok(Some(Arc::new(DoorbellMemory { values, events })))
}

/// The controller's memory for submission queues, if it is wanted and there is any that can be used.
fn controller_memory(
    transport: &dyn Transport,
    cap: Cap,
    arena: &Arena,
    options: &Options,
) -> Result<Option<Arc<ControllerMemory>>> {
    if !options.controller_memory_queues {
        return Ok(None);
    }
    match ControllerMemory::find(transport, cap, arena) {
        Ok(Some(memory)) => {
            log::debug!("{} bytes of controller memory for submission queues", memory.len());
            Ok(Some(memory))
        }
        Ok(None) => {
            log::warn!("there is no controller memory for queues: they are in host memory");
            Ok(None)
        }
        Err(Error::Gone) => Err(Error::Gone),
        Err(error) => {
            log::warn!("the controller memory cannot be used, queues are in host memory: {error}");
            Ok(None)
        }
    }
}

/// CAP, if this driver can work with such a controller.
fn capabilities(transport: &dyn Transport) -> Result<Cap> {
    let cap = Cap(transport.read64(CAP)?);
    if cap.0 == u64::MAX || transport.read32(CSTS)? == GONE {
        return Err(Error::Gone);
    }
    if !cap.nvm_command_set() {
        let detail = format!("CAP is {:#018x}", cap.0);
        return Err(Error::Unsupported {
            what: "a controller without the NVM command set",
            detail,
        });
    }
    if cap.max_queue_entries() < 2 {
        let value = u64::from(cap.max_queue_entries());
        return Err(Error::Invalid { structure: "CAP", field: "MQES", value });
    }
    // Pages above 2 MiB would not fit the arena's alignment; no device has such.
    if cap.min_page_shift() > 21 || cap.min_page_shift() > cap.max_page_shift() {
        let value = u64::from(cap.min_page_shift());
        return Err(Error::Invalid { structure: "CAP", field: "MPSMIN", value });
    }
    Ok(cap)
}

fn ready_timeout(cap: Cap) -> Duration {
    cap.timeout().max(LEAST_READY_TIMEOUT)
}

/// Clears CC.EN and waits until CSTS.RDY follows.
pub(super) fn disable(transport: &dyn Transport, cap: Cap) -> Result<()> {
    let cc = Cc(transport.read32_present(CC)?);
    if cc.en() {
        // Base 3.1.3.5: EN must not be cleared while a change of EN is still being worked on.
        // A controller that failed on the way up never becomes ready, and is reset all the same.
        match wait_for(transport, "CSTS.RDY to be set", ready_timeout(cap), Csts::ready) {
            Err(Error::Gone) => return Err(Error::Gone),
            Err(error) => log::warn!("disabling a controller that is not ready: {error}"),
            Ok(()) => {}
        }
        transport.write32(CC, cc.disabled().0)?;
    }
    wait_until(transport, "CSTS.RDY to be cleared", ready_timeout(cap), |csts| Ok(!csts.ready()))
}

/// Waits until CSTS is as wanted; a fatal status ends the wait.
pub(super) fn wait_for(
    transport: &dyn Transport,
    what: &'static str,
    bound: Duration,
    wanted: impl Fn(Csts) -> bool,
) -> Result<()> {
    wait_until(transport, what, bound, |csts| match csts {
        csts if csts.fatal() => Err(Error::Fatal { csts: csts.0 }),
        csts => Ok(wanted(csts)),
    })
}

fn wait_until(
    transport: &dyn Transport,
    what: &'static str,
    bound: Duration,
    done: impl Fn(Csts) -> Result<bool>,
) -> Result<()> {
    let begin = transport.now();
    let mut pause = Duration::from_micros(50);
    loop {
        // The clock first: a thread that was not scheduled for long must still look once more.
        let elapsed = transport.now().saturating_sub(begin);
        let late = elapsed >= bound;
        if done(Csts(transport.csts_within(bound.saturating_sub(elapsed))?))? {
            return Ok(());
        }
        if late {
            return Err(Error::Timeout { what, after: bound });
        }
        transport.pause(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

fn admin_queue(
    transport: &dyn Transport,
    arena: &Arena,
    cap: Cap,
    timeout: Duration,
    events: &Arc<ArrayQueue<AsyncEvent>>,
) -> Result<Admin> {
    let layout = Layout {
        arena,
        controller_memory: None,
        doorbells: transport.doorbells(),
        stride: cap.doorbell_stride(),
        page_shift: cap.min_page_shift(),
        list_pages: 1,
        sgl: false,
        qid: 0,
        depth: ADMIN_DEPTH,
        entries: ADMIN_ENTRIES,
    };
    Admin::new(&layout, timeout, Arc::clone(events))
}

fn identify(
    transport: &dyn Transport,
    arena: &Arena,
    admin: &mut Admin,
) -> Result<Box<IdentifyController>> {
    let buf = Some(arena.alloc(IDENTIFY_SIZE)?);
    let sqe = Sqe::identify(cns::CONTROLLER, 0);
    let answer = admin.execute(transport, "Identify Controller", sqe, buf)?;
    let bytes = answer.buf.as_deref().unwrap_or(&[]);
    let invalid = |field, value| Error::Invalid { structure: "Identify Controller", field, value };
    let identify = IdentifyController::read_from_bytes(bytes)
        .map_err(|_| invalid("length", bytes.len() as u64))?;
    // Bits 3:0 are the size that must be used: 64 and 16 bytes for the NVM command set.
    if identify.sqes & 0xf != 6 {
        return Err(invalid("SQES", u64::from(identify.sqes)));
    }
    if identify.cqes & 0xf != 4 {
        return Err(invalid("CQES", u64::from(identify.cqes)));
    }
    Ok(Box::new(identify))
}

/// Asks for queue pairs; as many as both kinds of queue are granted (Base 5.27.1.5).
fn queues(transport: &dyn Transport, admin: &mut Admin, wanted: u16) -> Result<u16> {
    let ask = QueueCount { submission: wanted, completion: wanted };
    let sqe = Sqe::set_features(feature_id::NUMBER_OF_QUEUES, ask.to_dword());
    let answer = admin.execute(transport, "Set Features (Number of Queues)", sqe, None)?;
    let granted = QueueCount::from_dword(answer.dw0).ok_or(Error::Invalid {
        structure: "Set Features (Number of Queues)",
        field: "DW0",
        value: u64::from(answer.dw0),
    })?;
    // A controller may grant more than was asked for; what was asked for is enough.
    Ok(granted.submission.min(granted.completion).min(wanted.max(1)))
}
