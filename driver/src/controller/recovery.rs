//! Recovery of a controller that has failed: it is stopped, so that it no longer writes to memory,
//! and brought up again. Queue pairs notice the new epoch, and create their queues again
//! themselves.

use std::sync::atomic::Ordering;

use nvio_spec::Sqe;

use super::bringup::restart;
use super::enable::disable;
use super::health::{Failure, Health, Managed};
use super::inner::Inner;
use crate::admin::{Answer, Command};
use crate::error::{Error, Result};

impl Inner {
    /// Runs one admin command; see [`execute_in`](Self::execute_in).
    pub(super) fn execute(&self, command: Command) -> Result<Answer> {
        self.execute_in(&mut self.managed.lock(), command)
    }

    /// Resets the controller, and runs one admin command. No I/O command that was submitted before is
    /// executed during or after it.
    pub(super) fn execute_alone(&self, command: Command) -> Result<Answer> {
        let mut managed = self.managed.lock();
        managed.check()?;
        self.recover_in(&mut managed, &Error::ResetRequested);
        self.execute_in(&mut managed, command)
    }

    /// Runs one admin command. A controller that does not complete it is reset, and the error is
    /// returned.
    pub(super) fn execute_in(&self, managed: &mut Managed, command: Command) -> Result<Answer> {
        managed.check()?;
        let result = managed.admin.execute(&*self.transport, command);
        match &result {
            Ok(_) | Err(Error::Command { .. } | Error::QueueFull { .. }) => {}
            Err(error) => self.recover_in(managed, error),
        }
        result
    }

    /// Resets the controller because of `why`, unless it was reset after `epoch`.
    pub(crate) fn recover(&self, epoch: u32, why: &Error) {
        let mut managed = self.managed.lock();
        if managed.epoch == epoch {
            self.recover_in(&mut managed, why);
        }
    }

    /// Resets the controller on request.
    pub(super) fn reset(&self) -> Result<()> {
        let mut managed = self.managed.lock();
        if managed.check().is_err_and(|error| matches!(error, Error::ShutDown)) {
            return Err(Error::ShutDown);
        }
        self.recover_in(&mut managed, &Error::ResetRequested);
        managed.check()
    }

    /// Resets the controller because of `why`.
    pub(super) fn recover_in(&self, managed: &mut Managed, why: &Error) {
        self.resets.note(why);
        let stopped = self.stop(managed, matches!(why, Error::Gone));
        managed.admin.restart(stopped.is_err());
        managed.epoch = managed.epoch.wrapping_add(1);
        if matches!(why, Error::ResetRequested) {
            managed.requested = managed.epoch;
        }
        let restarted = match &stopped {
            Ok(()) if managed.mapped => restart(self, managed),
            // A controller that had failed before keeps its first reason.
            _ => managed.check().and(Err(Failure::from(why).error())),
        };
        managed.health = match restarted {
            Ok(()) => {
                self.free_queues.lock().extend(managed.stranded.drain(..));
                Health::Live
            }
            Err(error) => {
                log::error!("the controller does not come back: {error}");
                // A controller that failed during bring-up may be enabled.
                let gone = matches!(error, Error::Gone);
                let stopped = stopped.is_ok() && self.stop(managed, gone).is_ok();
                Health::Failed { failure: Failure::from(&error), stopped }
            }
        };
        self.epoch.store(managed.epoch, Ordering::Release);
        if let Some(interrupts) = self.interrupts.get() {
            interrupts.wake_all();
        }
    }

    /// Ends the controller's access to memory: by disabling it, else by a reset of the function,
    /// else by unmapping the memory.
    pub(super) fn stop(&self, managed: &mut Managed, gone: bool) -> Result<()> {
        let transport = &*self.transport;
        if !managed.mapped {
            return self.registered.revoke(transport);
        }
        if !gone {
            match disable(transport, (self.cap, self.quirks)) {
                Ok(()) => return Ok(()),
                Err(error) => log::warn!("the controller cannot be disabled: {error}"),
            }
            match transport.reset().and_then(|()| disable(transport, (self.cap, self.quirks))) {
                Ok(()) => return Ok(()),
                Err(error) => log::warn!("the function cannot be reset: {error}"),
            }
        }
        // A device whose registers cannot be read may still be there and execute commands.
        transport.unmap(&self.arena).inspect_err(|error| {
            log::error!(
                "the controller may still write to memory, which is not used again: {error}"
            );
        })?;
        managed.mapped = false;
        self.registered.revoke(transport)
    }

    /// Aborts a command (Base 5.1). A controller that does not complete the Abort is reset.
    pub(crate) fn abort(&self, epoch: u32, qid: u16, cid: u16) {
        let mut managed = self.managed.lock();
        if managed.epoch != epoch {
            return;
        }
        log::warn!("aborting command {cid:#06x} of queue {qid}: no completion in time");
        let abort = Command::new("Abort", Sqe::abort(qid, cid));
        if let Err(error) = self.execute_in(&mut managed, abort) {
            log::warn!("{error}");
        }
    }
}
