//! The scheduler of a random sequence: it chooses the thread that runs on, by a rule and a seed.

use nvio_testkit::random::Rng;
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

use super::plan::Rule;

/// Switches among which a change of priorities is drawn.
const SWITCHES: u64 = 2000;

pub(super) struct Chosen {
    rng: Rng,
    rule: Rule,
    /// Tasks from the lowest priority to the highest.
    order: Vec<TaskId>,
    /// Switches at which the running task gets the lowest priority.
    changes: Vec<u64>,
    switches: u64,
    is_begun: bool,
}

impl Chosen {
    pub(super) fn new(seed: u64, rule: Rule) -> Self {
        let mut rng = Rng::new(seed);
        let count = if let Rule::Priorities(count) = rule { count } else { 0 };
        let changes = (0..count).map(|_| rng.below(SWITCHES)).collect();
        Self { rng, rule, order: Vec::new(), changes, switches: 0, is_begun: false }
    }

    fn any(&mut self, tasks: &[TaskId]) -> Option<TaskId> {
        (!tasks.is_empty()).then(|| *self.rng.pick(tasks))
    }

    fn highest(&mut self, tasks: &[TaskId], lowered: Option<TaskId>) -> Option<TaskId> {
        for &task in tasks {
            if !self.order.contains(&task) {
                let at = self.rng.below(self.order.len() as u64 + 1);
                self.order.insert(at as usize, task);
            }
        }
        if let Some(lowered) = lowered {
            self.order.retain(|&task| task != lowered);
            self.order.insert(0, lowered);
        }
        self.order.iter().rev().find(|task| tasks.contains(task)).copied()
    }
}

impl Scheduler for Chosen {
    fn new_execution(&mut self) -> Option<Schedule> {
        // One execution.
        (!std::mem::replace(&mut self.is_begun, true)).then(|| Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        self.switches += 1;
        let tasks: Vec<_> = runnable.iter().map(|task| task.id()).collect();
        let others: Vec<_> = tasks.iter().copied().filter(|task| Some(*task) != current).collect();
        if others.is_empty() {
            return tasks.first().copied();
        }
        let running = current.filter(|task| tasks.contains(task));
        match self.rule {
            _ if is_yielding && !matches!(self.rule, Rule::Priorities(_)) => self.any(&others),
            Rule::Any => self.any(&tasks),
            Rule::Seldom(most) if self.rng.below(most) > 0 => running.or_else(|| self.any(&tasks)),
            Rule::Seldom(_) => self.any(&others),
            Rule::Priorities(_) => {
                let lowers = is_yielding || self.changes.contains(&self.switches);
                self.highest(&tasks, running.filter(|_| lowers))
            }
        }
    }

    fn next_u64(&mut self) -> u64 {
        self.rng.next_u64()
    }
}
