//! The trace of a run: a hash for comparing runs, and optional lines of text.

use std::time::Duration;

/// The trace of a run. Only its hash is stored; lines are printed on request.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    print: bool,
    /// Current time of the controller's clock.
    pub now: Duration,
}

impl Trace {
    /// Creates an empty trace. If `print`, each event is printed.
    pub fn new(print: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0, print, now: Duration::ZERO }
    }

    /// Records an event with its numbers.
    pub fn note(&mut self, what: &'static str, numbers: &[u64]) {
        self.events += 1;
        self.mix(u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX));
        what.bytes().for_each(|byte| self.mix(byte.into()));
        numbers.iter().for_each(|&number| self.mix(number));
        if self.print {
            let numbers: Vec<String> = numbers.iter().map(|n| format!("{n:#x}")).collect();
            println!("{:>14.3} us  {what} {}", self.now.as_nanos() as f64 / 1e3, numbers.join(" "));
        }
    }

    /// Prints a line, if printing is on.
    pub fn say(&self, line: impl FnOnce() -> String) {
        if self.print {
            println!("{:>14.3} us  {}", self.now.as_nanos() as f64 / 1e3, line());
        }
    }

    /// Returns the hash of the run.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Returns the number of events.
    pub fn events(&self) -> u64 {
        self.events
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}
