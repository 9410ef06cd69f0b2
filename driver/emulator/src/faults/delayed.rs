//! Delayed commands, which are fetched and not due yet, and commands whose completion was lost.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use nvio_spec::Sqe;

use crate::faults::plan::Plan;

/// Largest number of delayed commands, at which no more are fetched, and of lost commands, at which
/// the oldest are dropped.
pub(crate) const DELAYED_COMMANDS_MAX: usize = 4096;

/// A command that the host waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    pub(crate) qid: u16,
    pub(crate) sqe: Sqe,
    pub(crate) plan: Plan,
}

impl Command {
    fn is(&self, qid: u16, cid: u16) -> bool {
        self.qid == qid && self.sqe.cid.get() == cid
    }
}

/// The due time of a command in nanoseconds, and its number, which orders commands that are due at
/// one time.
pub(crate) type Due = (u64, u64);

/// Delayed and lost commands.
#[derive(Debug, Default)]
pub(crate) struct DelayedCommands {
    /// Delayed commands, ordered by due time.
    commands: BTreeMap<Due, Command>,
    count: u64,
    /// Commands that were executed and not completed, the newest first.
    lost: VecDeque<Command>,
}

impl DelayedCommands {
    pub(crate) fn is_full(&self) -> bool {
        self.commands.len() >= DELAYED_COMMANDS_MAX
    }

    pub(crate) fn insert(&mut self, at: u64, command: Command) -> Due {
        self.count += 1;
        let due = (at, self.count);
        self.commands.insert(due, command);
        due
    }

    pub(crate) fn get(&self, due: Due) -> Option<&Command> {
        self.commands.get(&due)
    }

    pub(crate) fn remove(&mut self, due: Due) -> Option<Command> {
        self.commands.remove(&due)
    }

    /// Returns the next command that is due by `now`, after the command `after`.
    pub(crate) fn next_due(&self, after: Due, now: u64) -> Option<Due> {
        let range = (Bound::Excluded(after), Bound::Included((now, u64::MAX)));
        // A range whose start is beyond its end would panic.
        (after < (now, u64::MAX)).then(|| self.commands.range(range).next())?.map(|(due, _)| *due)
    }

    /// Returns the due time of the first command.
    pub(crate) fn first(&self) -> Option<u64> {
        self.commands.keys().next().map(|&(at, _)| at)
    }

    /// Adds a command that was executed and whose completion is lost.
    pub(crate) fn lose(&mut self, command: Command) {
        // A host that reuses an identifier does not wait for the earlier command.
        self.lost.retain(|lost| !lost.is(command.qid, command.sqe.cid.get()));
        self.lost.truncate(DELAYED_COMMANDS_MAX - 1);
        self.lost.push_front(command);
    }

    /// Returns true if the host waits for a command of this queue and identifier.
    pub(crate) fn contains(&self, qid: u16, cid: u16) -> bool {
        self.commands.values().chain(&self.lost).any(|command| command.is(qid, cid))
    }

    /// Removes and returns a command that Abort may end.
    pub(crate) fn abort(&mut self, qid: u16, cid: u16) -> Option<Command> {
        let found = |command: &Command| command.is(qid, cid) && !command.plan.not_abortable;
        if let Some((&due, _)) = self.commands.iter().find(|(_, command)| found(command)) {
            return self.commands.remove(&due);
        }
        self.lost.remove(self.lost.iter().position(found)?)
    }

    /// Drops the commands of a queue.
    pub(crate) fn drop_queue(&mut self, qid: u16) {
        self.commands.retain(|_, command| command.qid != qid);
        self.lost.retain(|command| command.qid != qid);
    }

    /// Drops every command.
    pub(crate) fn clear(&mut self) {
        self.commands.clear();
        self.lost.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_in_due_order_and_those_of_a_queue_can_be_dropped() {
        let mut held = DelayedCommands::default();
        let command = |qid, cid: u16| Command {
            qid,
            sqe: Sqe { cid: cid.into(), ..Sqe::default() },
            plan: Plan::default(),
        };
        for (at, qid, cid) in [(30, 1, 1), (10, 2, 2), (10, 1, 3), (20, 2, 4)] {
            held.insert(at, command(qid, cid));
        }
        let cids = |held: &DelayedCommands, now| {
            let mut after = (0, 0);
            std::iter::from_fn(|| {
                after = held.next_due(after, now)?;
                held.get(after).map(|command| command.sqe.cid.get())
            })
            .collect::<Vec<_>>()
        };
        assert_eq!((cids(&held, 9), cids(&held, 20)), (vec![], vec![2, 3, 4]));
        assert_eq!(cids(&held, u64::MAX), [2, 3, 4, 1]);
        assert!(!held.contains(1, 2) && held.abort(1, 2).is_none());
        assert!(held.contains(2, 2) && held.abort(2, 2).is_some());
        held.drop_queue(1);
        assert_eq!((cids(&held, 100), held.first()), (vec![4], Some(20)));
        assert_eq!(held.next_due((50, 1), 20), None);
    }

    #[test]
    fn lost_commands_are_bounded_and_found_by_queue_and_identifier() {
        let mut held = DelayedCommands::default();
        let command = |cid: u16, not_abortable| Command {
            qid: 1,
            sqe: Sqe { cid: cid.into(), ..Sqe::default() },
            plan: Plan { not_abortable, ..Plan::default() },
        };
        for cid in 0..4106 {
            held.lose(command(cid, false));
        }
        assert_eq!((held.lost.len(), DELAYED_COMMANDS_MAX), (4096, 4096));
        assert!(!held.contains(1, 9) && held.contains(1, 10) && !held.contains(2, 10));
        // A reused identifier replaces the entry.
        held.lose(command(10, true));
        assert!(held.contains(1, 10) && held.lost.len() == DELAYED_COMMANDS_MAX);
        assert!(held.abort(1, 10).is_none() && held.abort(1, 11).is_some());
        assert!(held.abort(1, 11).is_none());
        held.drop_queue(1);
        assert!(held.lost.is_empty());
    }
}
