//! Delays and faults: commands are kept until they are due, and completed as their faults plan.

use std::collections::BTreeMap;
use std::time::Duration;

use nvio_spec::Sqe;

use crate::config::Config;
use crate::controller::registers::Transition;
use crate::faults::delayed::DelayedCommands;
use crate::faults::service::Pacer;
use crate::faults::{FaultCounts, Injector};
use crate::nvm::old_blocks::OldBlocks;

/// The delays and faults of a controller.
#[derive(Debug)]
pub(crate) struct FaultSchedule {
    pub(crate) injector: Option<Injector>,
    pub(crate) pacer: Option<Pacer>,
    pub(crate) delayed: DelayedCommands,
    /// Identifier of the command that completed last, by submission queue.
    pub(crate) last: BTreeMap<u16, u16>,
    pub(crate) old_blocks: OldBlocks,
    pub(crate) counts: FaultCounts,
}

impl FaultSchedule {
    /// Creates the state; `None` if the configuration has no delays and no faults.
    pub(crate) fn new(config: &Config) -> Option<Box<Self>> {
        let pacer = (!config.service.is_immediate()).then(|| Pacer::new(config.service));
        let injector = (!config.faults.is_empty()).then(|| Injector::new(&config.faults));
        if injector.is_none() && pacer.is_none() {
            return None;
        }
        Some(Box::new(Self::with(injector, pacer)))
    }

    pub(crate) fn with(injector: Option<Injector>, pacer: Option<Pacer>) -> Self {
        Self {
            injector,
            pacer,
            delayed: DelayedCommands::default(),
            last: BTreeMap::new(),
            old_blocks: OldBlocks::default(),
            counts: FaultCounts::default(),
        }
    }

    pub(crate) fn drop_queue(&mut self, qid: u16) {
        self.delayed.drop_queue(qid);
        // A command of a later queue with this number may have the same identifier, so that a
        // duplicate or stale completion would end it.
        self.last.remove(&qid);
    }

    pub(crate) fn drop_all(&mut self) {
        self.delayed.clear();
        self.last.clear();
        self.old_blocks.clear();
    }

    /// Returns true if a completion with this identifier could be mistaken for that of `current`,
    /// of a delayed command or of a lost one.
    pub(crate) fn is_outstanding(&self, qid: u16, cid: u16, current: &Sqe) -> bool {
        cid == current.cid.get() || self.delayed.contains(qid, cid)
    }
}

/// Delayed transitions of CSTS.RDY.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stuck {
    /// Time for which RDY stays 1 after the next reset.
    pub(crate) ready: Option<Duration>,
    /// Time for which RDY stays 0 after the next enable.
    pub(crate) not_ready: Option<Duration>,
    /// The requested transition, and the time at which it takes effect.
    pub(crate) pending: Option<(u64, Transition)>,
}
