//! Enabling and disabling a controller by its registers (Base 3.5.1, 3.1.3.5, 3.1.3.6).

use std::time::Duration;

use nvio_spec::register::{ACQ, AQA, ASQ, CC, CSTS, Cap, Cc, Csts, GONE};

use crate::admin::{ADMIN_ENTRIES, Admin};
use crate::error::{Error, Result};
use crate::quirks::{Quirk, Quirks};
use crate::transport::Transport;

/// Shortest bound of a wait for CSTS.RDY, because some controllers report a CAP.TO that is too small.
const READY_TIMEOUT_MIN: Duration = Duration::from_secs(10);
/// Bound of the wait with [`Quirk::SlowReady`]: the largest value of CAP.TO.
const READY_TIMEOUT_MAX: Duration = Duration::from_millis(127_500);

/// Sets the admin queues and CC.EN, and waits until the controller is ready.
pub(super) fn enable(
    transport: &dyn Transport,
    (cap, quirks): (Cap, Quirks),
    admin: &Admin,
) -> Result<()> {
    let size = ADMIN_ENTRIES - 1;
    transport.write32(AQA, size << 16 | size)?;
    let (sq, cq) = admin.ring_iovas();
    transport.write64(ASQ, sq)?;
    transport.write64(ACQ, cq)?;
    transport.write32(CC, Cc::enabled(cap.min_page_shift()).0)?;
    wait_for(transport, "CSTS.RDY to be set", ready_timeout(cap, quirks), Csts::ready)
}

/// Clears CC.EN and waits until CSTS.RDY is clear. During the reset that this begins, the registers
/// of some controllers read as all ones.
pub(super) fn disable(transport: &dyn Transport, (cap, quirks): (Cap, Quirks)) -> Result<()> {
    let bound = ready_timeout(cap, quirks);
    let cc = Cc(transport.read32_present(CC)?);
    if cc.en() {
        // EN must not be cleared while the controller works on a change of EN (Base 3.1.3.5). A
        // controller that failed on the way up never becomes ready, and is disabled all the same.
        match wait_for(transport, "CSTS.RDY to be set", bound, Csts::ready) {
            Err(Error::Gone) => return Err(Error::Gone),
            Err(error) => log::warn!("disabling a controller that is not ready: {error}"),
            Ok(()) => {}
        }
        transport.write32(CC, cc.disabled().0)?;
        pause_for(transport, quirks, Quirk::DelayBeforeReady);
    }
    let cleared = wait_until(transport, "CSTS.RDY to be cleared", bound, |csts| match csts {
        // The transport fails if it knows that the device is gone.
        Err(Error::Gone) => transport.read32(CSTS).map(|_| false),
        csts => csts.map(|csts| !csts.ready()),
    });
    match cleared {
        Err(Error::Timeout { .. }) if transport.read32(CSTS)? == GONE => Err(Error::Gone),
        other => other,
    }
}

/// Waits for the time that `quirk` requires, if it is one of `quirks`.
pub(super) fn pause_for(transport: &dyn Transport, quirks: Quirks, quirk: Quirk) {
    if let Some(delay) = quirks.delay(quirk) {
        transport.pause(delay);
    }
}

fn ready_timeout(cap: Cap, quirks: Quirks) -> Duration {
    match quirks.has(Quirk::SlowReady) {
        true => READY_TIMEOUT_MAX,
        false => cap.timeout().max(READY_TIMEOUT_MIN),
    }
}

/// Waits at most `bound` until `wanted` is true of CSTS. Fails at once if CSTS.CFS is set.
pub(super) fn wait_for(
    transport: &dyn Transport,
    what: &'static str,
    bound: Duration,
    wanted: impl Fn(Csts) -> bool,
) -> Result<()> {
    wait_until(transport, what, bound, |csts| match csts? {
        csts if csts.fatal() => Err(Error::Fatal { csts: csts.0 }),
        csts => Ok(wanted(csts)),
    })
}

fn wait_until(
    transport: &dyn Transport,
    what: &'static str,
    bound: Duration,
    done: impl Fn(Result<Csts>) -> Result<bool>,
) -> Result<()> {
    let begin = transport.now();
    let mut pause = Duration::from_micros(50);
    loop {
        // The clock is read first, so that a thread that was not scheduled looks once more.
        let elapsed = transport.now().saturating_sub(begin);
        if done(transport.csts_within(bound.saturating_sub(elapsed)).map(Csts))? {
            return Ok(());
        }
        if elapsed >= bound {
            return Err(Error::Timeout { what, after: bound });
        }
        transport.pause(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wait_is_shorter_than_real_controllers_need() {
        let timeout = |to: u64, quirks| ready_timeout(Cap(to << 24), quirks).as_millis();
        let slow = Quirks::NONE.with(Quirk::SlowReady);
        assert_eq!(
            [0, 1, 20, 60].map(|to| timeout(to, Quirks::NONE)),
            [10_000, 10_000, 10_000, 30_000]
        );
        assert_eq!([0, 255].map(|to| timeout(to, slow)), [127_500; 2]);
    }
}
