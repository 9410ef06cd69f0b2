//! Commands whose completion was lost.

use std::collections::VecDeque;

use nvio_spec::Sqe;

use crate::faults::delayed::{Command, DELAYED_COMMANDS_MAX};
use crate::faults::plan::Plan;

/// A command that was executed and not completed. The host still waits for it.
#[derive(Clone, Copy, Debug)]
struct LostCommand {
    qid: u16,
    sqe: Sqe,
    abortable: bool,
}

/// Commands whose completion was lost. When there are too many, the oldest are dropped.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    commands: VecDeque<LostCommand>,
}

impl Lost {
    pub(crate) fn insert(&mut self, qid: u16, sqe: Sqe, abortable: bool) {
        // A host that reuses an identifier does not wait for the earlier command.
        self.take(qid, sqe.cid.get());
        self.commands.truncate(DELAYED_COMMANDS_MAX - 1);
        self.commands.push_front(LostCommand { qid, sqe, abortable });
    }

    pub(crate) fn contains(&self, qid: u16, cid: u16) -> bool {
        self.find(qid, cid).is_some()
    }

    pub(crate) fn drop_queue(&mut self, qid: u16) {
        self.commands.retain(|lost| lost.qid != qid);
    }

    pub(crate) fn clear(&mut self) {
        self.commands.clear();
    }

    fn find(&self, qid: u16, cid: u16) -> Option<usize> {
        self.commands.iter().position(|lost| lost.qid == qid && lost.sqe.cid.get() == cid)
    }

    fn take(&mut self, qid: u16, cid: u16) -> Option<LostCommand> {
        self.commands.remove(self.find(qid, cid)?)
    }

    /// Removes and returns a command that Abort may end.
    pub(crate) fn abort(&mut self, qid: u16, cid: u16) -> Option<Command> {
        let at = self.find(qid, cid).filter(|&at| self.commands[at].abortable)?;
        let LostCommand { qid, sqe, .. } = self.commands.remove(at)?;
        Some(Command { qid, sqe, plan: Plan::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_commands_are_bounded_and_found_by_queue_and_identifier() {
        let mut lost = Lost::default();
        let sqe = |cid: u16| Sqe { cid: cid.into(), ..Sqe::default() };
        for cid in 0..4106 {
            lost.insert(1, sqe(cid), true);
        }
        assert_eq!((lost.commands.len(), DELAYED_COMMANDS_MAX), (4096, 4096));
        assert!(!lost.contains(1, 9) && lost.contains(1, 10) && !lost.contains(2, 10));
        // A reused identifier replaces the entry.
        lost.insert(1, sqe(10), false);
        assert!(lost.contains(1, 10) && lost.commands.len() == DELAYED_COMMANDS_MAX);
        assert!(lost.abort(1, 10).is_none() && lost.abort(1, 11).is_some());
        assert!(lost.abort(1, 11).is_none());
        lost.drop_queue(1);
        assert!(lost.commands.is_empty());
    }
}
