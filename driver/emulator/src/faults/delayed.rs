//! Delayed commands: fetched, and not due yet.

use std::collections::BTreeMap;
use std::ops::Bound;

use nvio_spec::Sqe;

use crate::faults::plan::Plan;

/// Largest number of delayed commands. At this number no more are fetched.
pub(crate) const DELAYED_COMMANDS_MAX: usize = 4096;

/// A delayed command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    pub(crate) qid: u16,
    pub(crate) sqe: Sqe,
    pub(crate) plan: Plan,
}

/// The due time of a command in nanoseconds, and its number, which orders commands that are due at
/// one time.
pub(crate) type Due = (u64, u64);

/// Delayed commands, ordered by due time.
#[derive(Debug, Default)]
pub(crate) struct DelayedCommands {
    commands: BTreeMap<Due, Command>,
    count: u64,
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

    /// Finds the command of this queue and identifier.
    pub(crate) fn find(&self, qid: u16, cid: u16) -> Option<Due> {
        let same = |command: &Command| command.qid == qid && command.sqe.cid.get() == cid;
        self.commands.iter().find(|(_, command)| same(command)).map(|(due, _)| *due)
    }

    /// Removes and returns a command that Abort may end.
    pub(crate) fn abort(&mut self, qid: u16, cid: u16) -> Option<Command> {
        let due = self.find(qid, cid)?;
        let abortable = !self.commands.get(&due)?.plan.not_abortable;
        abortable.then(|| self.commands.remove(&due))?
    }

    /// Drops the commands of a queue.
    pub(crate) fn drop_queue(&mut self, qid: u16) {
        self.commands.retain(|_, command| command.qid != qid);
    }

    /// Drops every command.
    pub(crate) fn clear(&mut self) {
        self.commands.clear();
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
        assert_eq!(held.find(1, 2), None);
        assert!(held.find(2, 2).is_some_and(|due| held.remove(due).is_some()));
        held.drop_queue(1);
        assert_eq!((cids(&held, 100), held.first()), (vec![4], Some(20)));
        assert_eq!(held.next_due((50, 1), 20), None);
    }
}
