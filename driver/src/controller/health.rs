//! The health of a controller, and the state that the admin mutex protects.

use nvio_spec::{Status, status};

use crate::admin::Admin;
use crate::error::{Error, Result};

/// The health of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// The controller accepts commands.
    Live,
    /// The controller does not accept commands. With `stopped`, it was seen to be stopped, so it
    /// does not write to memory either.
    Failed { failure: Failure, stopped: bool },
}

/// The reason why a controller does not accept commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The device was removed, or its server has ended.
    Gone,
    /// CSTS.CFS is set.
    Fatal { csts: u32 },
    /// The controller did not come back from a reset.
    Reset,
    /// This process has shut the controller down.
    ShutDown,
}

impl Failure {
    /// Returns the error of commands that are submitted to a failed controller.
    pub(crate) fn error(self) -> Error {
        match self {
            Self::Gone => Error::Gone,
            Self::Fatal { csts } => Error::Fatal { csts },
            Self::Reset => Error::ResetFailed,
            Self::ShutDown => Error::ShutDown,
        }
    }

    /// Returns the status of commands that were in flight (Base figure 101).
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
            Error::ShutDown => Self::ShutDown,
            Error::Fatal { csts } => Self::Fatal { csts: *csts },
            _ => Self::Reset,
        }
    }
}

/// The state that the admin mutex protects.
pub(crate) struct Managed {
    pub(crate) admin: Admin,
    pub(crate) health: Health,
    /// Number of times the controller was stopped.
    pub(crate) epoch: u32,
    /// Last epoch that began with a reset on request. No command from before it is repeated.
    pub(crate) requested: u32,
    /// I/O queue pairs granted.
    pub(crate) granted: u16,
    /// The controller accepted Doorbell Buffer Config since it was enabled.
    pub(crate) shadow: bool,
    /// The controller sees the arena.
    pub(crate) mapped: bool,
    /// Identifiers of deleted queues that the controller may know until it is reset. They are not
    /// used before, because a new queue would share the shadow doorbells of the old one.
    pub(crate) stranded: Vec<u16>,
}

impl Managed {
    /// Fails if the controller does not accept commands.
    pub(crate) fn check(&self) -> Result<()> {
        match self.health {
            Health::Live => Ok(()),
            Health::Failed { failure, .. } => Err(failure.error()),
        }
    }

    /// Returns true if the controller was stopped after `epoch`, so that it uses no memory of that
    /// time.
    pub(crate) fn is_stopped_since(&self, epoch: u32) -> bool {
        match self.health {
            Health::Live => self.epoch != epoch,
            Health::Failed { stopped, .. } => stopped,
        }
    }
}
