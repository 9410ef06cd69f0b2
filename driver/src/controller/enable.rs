//! Enabling and disabling a controller by its registers (Base 3.5.1, 3.1.3.5, 3.1.3.6).

use std::time::Duration;

use nvio_spec::register::{ACQ, AQA, ASQ, CC, Cap, Cc, Csts};

use crate::admin::{ADMIN_ENTRIES, Admin};
use crate::error::{Error, Result};
use crate::transport::Transport;

/// Shortest bound of a wait for CSTS.RDY: a CAP.TO of 0 would leave the device no time.
const READY_TIMEOUT_MIN: Duration = Duration::from_millis(500);

/// Sets the admin queues and CC.EN, and waits until the controller is ready.
pub(super) fn enable(transport: &dyn Transport, cap: Cap, admin: &Admin) -> Result<()> {
    let size = ADMIN_ENTRIES - 1;
    transport.write32(AQA, size << 16 | size)?;
    let (sq, cq) = admin.ring_iovas();
    transport.write64(ASQ, sq)?;
    transport.write64(ACQ, cq)?;
    transport.write32(CC, Cc::enabled(cap.min_page_shift()).0)?;
    wait_for(transport, "CSTS.RDY to be set", ready_timeout(cap), Csts::ready)
}

/// Clears CC.EN and waits until CSTS.RDY is clear.
pub(super) fn disable(transport: &dyn Transport, cap: Cap) -> Result<()> {
    let cc = Cc(transport.read32_present(CC)?);
    if cc.en() {
        // EN must not be cleared while the controller works on a change of EN (Base 3.1.3.5). A
        // controller that failed on the way up never becomes ready, and is disabled all the same.
        match wait_for(transport, "CSTS.RDY to be set", ready_timeout(cap), Csts::ready) {
            Err(Error::Gone) => return Err(Error::Gone),
            Err(error) => log::warn!("disabling a controller that is not ready: {error}"),
            Ok(()) => {}
        }
        transport.write32(CC, cc.disabled().0)?;
    }
    wait_until(transport, "CSTS.RDY to be cleared", ready_timeout(cap), |csts| Ok(!csts.ready()))
}

fn ready_timeout(cap: Cap) -> Duration {
    cap.timeout().max(READY_TIMEOUT_MIN)
}

/// Waits at most `bound` until `wanted` is true of CSTS. Fails at once if CSTS.CFS is set.
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
        // The clock is read first, so that a thread that was not scheduled looks once more.
        let elapsed = transport.now().saturating_sub(begin);
        if done(Csts(transport.csts_within(bound.saturating_sub(elapsed))?))? {
            return Ok(());
        }
        if elapsed >= bound {
            return Err(Error::Timeout { what, after: bound });
        }
        transport.pause(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}
