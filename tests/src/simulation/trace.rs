//! What happened in a run: one number that two runs are compared by, and lines to be read.

use std::time::Duration;

/// A record of a run. Only its hash is kept; the lines are printed when asked for.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    print: bool,
    /// The time of the controller's clock.
    pub now: Duration,
}

impl Trace {
    /// An empty record, which is printed as it is made if `print`.
    pub fn new(print: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0, print, now: Duration::ZERO }
    }

    /// Records that something happened, with its numbers.
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

    /// Prints a line, if lines are printed.
    pub fn say(&self, line: impl FnOnce() -> String) {
        if self.print {
            println!("{:>14.3} us  {}", self.now.as_nanos() as f64 / 1e3, line());
        }
    }

    /// The run as a number.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How much happened.
    pub fn events(&self) -> u64 {
        self.events
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}
