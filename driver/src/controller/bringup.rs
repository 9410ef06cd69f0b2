//! From a function that was just reset to a controller that takes I/O (Base 3.5.1).

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nvio_spec::register::{ACQ, AQA, ASQ, CAP, CC, CSTS, Cap, Cc, Csts, GONE, VS, Version};
use nvio_spec::{IDENTIFY_SIZE, IdentifyController, QueueCount, Sqe, cns, feature_id};
use zerocopy::FromBytes;

use super::{Inner, Options};
use crate::admin::{ADMIN_DEPTH, ADMIN_ENTRIES, Admin};
use crate::dma::Arena;
use crate::queue::{Layout, max_prp_bytes};
use crate::transport::Transport;
use crate::{Error, Result};

/// CAP.TO of 0 would leave a device no time at all.
const LEAST_READY_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) fn bring_up(transport: Box<dyn Transport>, options: Options) -> Result<Inner> {
    let cap = capabilities(&*transport)?;
    let version = Version(transport.read32_present(VS)?);
    disable(&*transport, cap)?;
    let iova = transport.choose_iova(options.arena_bytes as u64 + (2 << 20))?;
    let arena = Arena::new(options.arena_bytes, iova)?;
    transport.map(&arena)?;
    // From here on, an error must not leave the device with our memory: closing the transport
    // ends the mapping, and happens before the arena is unmapped from this process.
    let result = enable(transport, cap, version, arena.clone(), options);
    drop(arena);
    result
}

fn enable(
    transport: Box<dyn Transport>,
    cap: Cap,
    version: Version,
    arena: Arena,
    options: Options,
) -> Result<Inner> {
    let mut admin = admin_queue(&*transport, &arena, cap, options.admin_timeout)?;
    let configuration = Cc::enabled(cap.min_page_shift());
    transport.write32(CC, configuration.0)?;
    wait_for(&*transport, "CSTS.RDY to be set", ready_timeout(cap), Csts::ready)?;
    let identify = identify(&*transport, &arena, &mut admin)?;
    let granted = queues(&*transport, &mut admin, options.queues)?;
    let prp = max_prp_bytes(cap.min_page_shift());
    let mdts = identify.max_transfer(cap.min_page_shift()).unwrap_or(u64::MAX);
    let max_transfer = usize::try_from(mdts).unwrap_or(usize::MAX).min(prp);
    Ok(Inner {
        transport,
        arena,
        admin: Mutex::new(admin),
        cap,
        version,
        identify,
        max_transfer,
        granted,
        free_queues: Mutex::new((1..=granted).rev().collect()),
        options,
    })
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
    let begin = Instant::now();
    let mut pause = Duration::from_micros(50);
    loop {
        // The clock first: a thread that was not scheduled for long must still look once more.
        let late = begin.elapsed() >= bound;
        if done(Csts(transport.read32_present(CSTS)?))? {
            return Ok(());
        }
        if late {
            return Err(Error::Timeout { what, after: bound });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

fn admin_queue(
    transport: &dyn Transport,
    arena: &Arena,
    cap: Cap,
    timeout: Duration,
) -> Result<Admin> {
    let layout = Layout {
        arena,
        doorbells: transport.doorbells(),
        stride: cap.doorbell_stride(),
        page_shift: cap.min_page_shift(),
        qid: 0,
        depth: ADMIN_DEPTH,
        entries: ADMIN_ENTRIES,
    };
    let admin = Admin::new(&layout, timeout)?;
    let size = ADMIN_ENTRIES - 1;
    transport.write32(AQA, size << 16 | size)?;
    transport.write64(ASQ, admin.sq_iova())?;
    transport.write64(ACQ, admin.cq_iova())?;
    Ok(admin)
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
