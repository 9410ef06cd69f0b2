//! Abort (Base 5.1): of commands in progress, of commands whose completion was lost, and of
//! Asynchronous Event Requests.

use crate::controller::state::Controller;
use crate::faults::delayed::Command;
use crate::faults::plan::Plan;

impl Controller {
    /// Executes Abort and returns DW0, whose bit 0 is set if no command was aborted. An aborted
    /// command completes with Command Abort Requested as soon as the completion queue has room,
    /// whatever faults were planned for it. The host cannot know whether it was executed.
    pub(crate) fn abort(&mut self, qid: u16, cid: u16) -> u32 {
        if qid == 0 && self.events.withdraw(cid) {
            return 0;
        }
        let Some(schedule) = self.schedule.as_mut() else { return 1 };
        let Some(command) = schedule.delayed.abort(qid, cid) else { return 1 };
        let plan = Plan { aborted: true, ..Plan::default() };
        schedule.delayed.insert(self.now, Command { plan, ..command });
        0
    }
}
