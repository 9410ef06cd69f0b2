//! Faults, and the plan of the faults of one command.

use std::time::Duration;

use nvio_spec::{EventType, Status};

/// A fault of one command, or caused by it.
///
/// See the [example](crate::Rule#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The command is not executed and completes with this status, all bits included. With
    /// [`Status::SUCCESS`] the controller lies: it did nothing.
    Status(Status),
    /// The command is executed and completed later by this time. Its data is not accessed before.
    /// Until then Abort can end it.
    Late(Duration),
    /// The command is executed and never completed, unless Abort ends it.
    Lost,
    /// Abort does not find the command. If it is lost as well, only a reset or the deletion of its
    /// queue ends it.
    NotAbortable,
    /// The completion is posted twice.
    Duplicate,
    /// Before the command's completion, a completion is posted with the identifier of the command
    /// of this queue that completed last. With [`Fault::Lost`] it replaces the completion. It is
    /// omitted if no command has completed yet, or if a command in progress has this identifier.
    StaleId,
    /// Before the command's completion, a completion is posted with this identifier. It is omitted
    /// if a command in progress has this identifier.
    UnknownId(u16),
    /// A Write is executed, and the next Read of its first block returns the block as it was before: an
    /// old version. At most 1,024 blocks are kept for that, and none across a reset. Other commands have
    /// no such fault.
    OldVersion,
    /// The controller has a fault when it fetches the command.
    Device(DeviceFault),
}

/// A fault of the controller.
///
/// See the [example](crate::Emulator#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceFault {
    /// CSTS.CFS is set, and no command is processed until a reset. The command that caused it is
    /// not executed.
    Fatal,
    /// The next time CC.EN is cleared, CSTS.RDY stays 1 for this long. The reset happens when it
    /// becomes 0: until then commands in progress may access memory and complete.
    StuckReady(Duration),
    /// The next time CC.EN is set, CSTS.RDY stays 0 for this long.
    StuckNotReady(Duration),
    /// The device is removed: registers read as all ones, writes have no effect, and no memory is
    /// accessed. The command that caused it is not executed.
    Removed,
    /// An asynchronous event (Base 5.2.1) is raised, regardless of Asynchronous Event
    /// Configuration.
    Event {
        /// Type of the event.
        kind: EventType,
        /// Information of the event, whose meaning depends on the type.
        info: u8,
        /// Log page of the event.
        log: u8,
    },
}

/// The planned faults of one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) status: Option<Status>,
    pub(crate) delay: Duration,
    pub(crate) lost: bool,
    pub(crate) not_abortable: bool,
    /// Abort has ended the command.
    pub(crate) aborted: bool,
    pub(crate) duplicate: bool,
    pub(crate) stale_id: bool,
    pub(crate) unknown_id: Option<u16>,
    pub(crate) old_version: bool,
    pub(crate) device: Option<DeviceFault>,
}

impl Plan {
    pub(crate) fn apply(&mut self, fault: Fault) {
        match fault {
            Fault::Status(status) => self.status = Some(status),
            Fault::Late(delay) => self.delay = delay,
            Fault::Lost => self.lost = true,
            Fault::NotAbortable => self.not_abortable = true,
            Fault::Duplicate => self.duplicate = true,
            Fault::StaleId => self.stale_id = true,
            Fault::UnknownId(id) => self.unknown_id = Some(id),
            Fault::OldVersion => self.old_version = true,
            Fault::Device(fault) => self.device = Some(fault),
        }
    }
}
