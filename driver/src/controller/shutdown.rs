//! Shutdown of a controller (Base 3.6).

use std::sync::atomic::Ordering;
use std::time::Duration;

use nvio_spec::register::{CC, Cc, Csts};

use super::enable::{disable, wait_for};
use super::health::{Failure, Health};
use super::inner::Inner;
use crate::error::{Error, Result};

/// Shortest and longest wait for a shutdown, whatever RTD3E reports: a device may report 0, or lie.
const SHUTDOWN_TIMEOUT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

impl Inner {
    /// Shuts the controller down while others may use it. Queue pairs notice the new epoch.
    pub(super) fn shut_down(&self) -> Result<()> {
        let mut managed = self.managed.lock();
        if managed.health != Health::Live {
            return Ok(());
        }
        let notified = self.notify();
        let gone = matches!(notified, Err(Error::Gone));
        let stopped = self.stop(&mut managed, gone).is_ok();
        managed.admin.restart(!stopped);
        managed.epoch = managed.epoch.wrapping_add(1);
        managed.health = Health::Failed { failure: Failure::ShutDown, stopped };
        self.epoch.store(managed.epoch, Ordering::Release);
        if let Some(interrupts) = self.interrupts.get() {
            interrupts.wake_all();
        }
        notified
    }

    /// Notifies the controller of a normal shutdown, and waits until it is complete (Base 3.6.1).
    fn notify(&self) -> Result<()> {
        let transport = &*self.transport;
        let cc = Cc(transport.read32_present(CC)?);
        transport.write32(CC, cc.shutdown().0)?;
        let reported = Duration::from_micros(u64::from(self.identify.rtd3e.get()));
        let bound = reported.clamp(SHUTDOWN_TIMEOUT.0, SHUTDOWN_TIMEOUT.1);
        wait_for(transport, "shutdown", bound, Csts::shutdown_complete)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.resets.log();
        let (mapped, health) = {
            let managed = self.managed.lock();
            (managed.mapped, managed.health)
        };
        if health == Health::Live {
            let notified = self.notify();
            let shut = disable(&*self.transport, (self.cap, self.quirks)).and(notified);
            shut.unwrap_or_else(|error| match error {
                Error::Gone => log::warn!("the controller was removed"),
                error => log::warn!("orderly shutdown failed: {error}"),
            });
        }
        // Each step runs even if another fails, because each ends the device's access to memory.
        let transport = &*self.transport;
        let reset = transport.reset();
        let unmapped = if mapped { transport.unmap(&self.arena) } else { Ok(()) };
        let revoked = self.registered.revoke(transport);
        for error in [reset, unmapped, revoked].into_iter().filter_map(Result::err) {
            log::debug!("while closing: {error}");
        }
    }
}
