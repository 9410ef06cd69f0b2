//! When a controller fails: it is stopped, so that it writes to no memory any more, and brought up
//! again. Queue pairs find out by the epoch, and rebuild their queues themselves.

use std::sync::atomic::Ordering;
use std::time::Duration;

use nvio_spec::{Sqe, Status, status};

use super::{Inner, bringup};
use crate::admin::{Admin, Answer};
use crate::dma::DmaBuf;
use crate::{Error, Result, controller};

/// Whether the controller works, and what is known of the one that does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It takes commands.
    Live,
    /// It does not. With `stopped`, it is certain that it does not write to memory either.
    Failed { failure: Failure, stopped: bool },
}

/// Why a controller takes no commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Gone,
    Fatal { csts: u32 },
    Reset,
}

impl Failure {
    pub(crate) fn error(self) -> Error {
        match self {
            Self::Gone => Error::Gone,
            Self::Fatal { csts } => Error::Fatal { csts },
            Self::Reset => Error::ResetFailed,
        }
    }

    /// The status of commands that were in flight (Base figure 101).
    pub(crate) fn status(self) -> Status {
        match self {
            Self::Gone => status::HOST_PATHING_ERROR,
            _ => status::ABORTED_BY_HOST,
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        match error {
            Error::Gone => Self::Gone,
            Error::Fatal { csts } => Self::Fatal { csts: *csts },
            _ => Self::Reset,
        }
    }
}

/// What the admin mutex protects.
pub(crate) struct Managed {
    pub(crate) admin: Admin,
    pub(crate) health: Health,
    /// How often the controller was stopped.
    pub(crate) epoch: u32,
    /// I/O queue pairs granted.
    pub(crate) granted: u16,
    /// Whether the controller sees the arena.
    pub(crate) mapped: bool,
    /// Identifiers of queues that nobody uses, and that the controller may know until it is reset:
    /// shadow doorbells of a new queue would be those of the old one.
    pub(crate) stranded: Vec<u16>,
}

impl Managed {
    pub(crate) fn check(&self) -> Result<()> {
        match self.health {
            Health::Live => Ok(()),
            Health::Failed { failure, .. } => Err(failure.error()),
        }
    }
}

impl Inner {
    /// How often the controller was stopped: queues of an earlier epoch do not exist any more.
    #[inline]
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Runs one admin command. A controller that does not answer is reset, and the error returned.
    pub(super) fn execute_in(
        &self,
        managed: &mut Managed,
        name: &'static str,
        sqe: Sqe,
        buf: Option<DmaBuf>,
    ) -> Result<Answer> {
        managed.check()?;
        let result = managed.admin.execute(&*self.transport, name, sqe, buf);
        match &result {
            Ok(_) | Err(Error::Command { .. } | Error::QueueFull { .. }) => {}
            Err(error) => self.recover_in(managed, error),
        }
        result
    }

    /// Resets the controller because of `why`, unless that was done since `epoch`.
    pub(crate) fn recover(&self, epoch: u32, why: &Error) {
        let mut managed = self.managed();
        if managed.epoch == epoch {
            self.recover_in(&mut managed, why);
        }
    }

    /// Resets the controller on request.
    pub(super) fn reset(&self) -> Result<()> {
        let mut managed = self.managed();
        self.recover_in(&mut managed, &Error::ResetRequested);
        managed.check()
    }

    /// Resets the controller because of `why`.
    pub(super) fn recover_in(&self, managed: &mut Managed, why: &Error) {
        self.resets.note(why);
        let stopped = self.stop(managed, matches!(why, Error::Gone));
        managed.admin.restart(stopped.is_err());
        managed.epoch = managed.epoch.wrapping_add(1);
        let restarted = match &stopped {
            Ok(()) if managed.mapped => bringup::restart(self, managed),
            // What it was given up for first is what there is to know.
            _ => managed.check().and(Err(Failure::from(why).error())),
        };
        managed.health = match restarted {
            Ok(()) => {
                self.free_queues().append(&mut managed.stranded);
                Health::Live
            }
            Err(error) => {
                log::error!("the controller is given up: {error}");
                // What fails on the way up may be halfway there.
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

    /// Makes certain that the controller does not access memory: by disabling it, else by a
    /// reset of the function, else by ending its view of the memory.
    fn stop(&self, managed: &mut Managed, gone: bool) -> Result<()> {
        let transport = &*self.transport;
        if !managed.mapped {
            return self.registered.revoke(transport);
        }
        if !gone {
            match bringup::disable(transport, self.cap) {
                Ok(()) => return Ok(()),
                Err(error) => log::warn!("the controller cannot be disabled: {error}"),
            }
            match transport.reset().and_then(|()| bringup::disable(transport, self.cap)) {
                Ok(()) => return Ok(()),
                Err(error) => log::warn!("the function cannot be reset: {error}"),
            }
        }
        // A device that was pulled out is not there; but one whose registers alone cannot be read
        // is, and goes on with what it was told.
        transport.unmap(&self.arena).inspect_err(|error| {
            log::error!("the controller may still write to memory, which is given up: {error}");
        })?;
        managed.mapped = false;
        self.registered.revoke(transport)
    }

    /// Tells the controller to end a command (Base 5.1). A controller that does not answer is
    /// reset.
    pub(crate) fn abort(&self, epoch: u32, qid: u16, cid: u16) {
        let mut managed = self.managed();
        if managed.epoch != epoch {
            return;
        }
        log::warn!("aborting command {cid:#06x} of queue {qid}: no completion in time");
        let aborted = self.execute_in(&mut managed, "Abort", Sqe::abort(qid, cid), None);
        if let Err(error) = aborted {
            log::warn!("{error}");
        }
    }

    /// Whether the controller is there and has not failed.
    pub(crate) fn check_alive(&self) -> Result<()> {
        controller::check_alive(&*self.transport, Duration::MAX)
    }

    /// Takes the events that the controller has posted, if nobody else uses the admin queue.
    pub(crate) fn note_events(&self) {
        if let Ok(mut managed) = self.managed.try_lock()
            && managed.health == Health::Live
        {
            managed.admin.note_events();
        }
    }

    /// The clock of timeouts.
    pub(crate) fn now(&self) -> Duration {
        self.transport.now()
    }

    /// The same in milliseconds; it wraps.
    pub(crate) fn millis(&self) -> u32 {
        u32::try_from(self.now().as_millis() & u128::from(u32::MAX)).unwrap_or(0)
    }

    /// The epoch, and whether the controller works.
    pub(crate) fn lifecycle(&self) -> (u32, Health) {
        let managed = self.managed();
        (managed.epoch, managed.health)
    }

    pub(crate) fn io_timeout(&self) -> Duration {
        self.options.io_timeout
    }

    /// How long a command may take until it is aborted, and an aborted one until the controller
    /// is reset, in milliseconds.
    pub(crate) fn io_bounds_ms(&self) -> (u32, u32) {
        let millis =
            |time: Duration| u32::try_from(time.as_millis()).unwrap_or(1 << 29).min(1 << 29);
        let command = millis(self.options.io_timeout);
        (command, command.min(millis(self.options.admin_timeout)))
    }
}
