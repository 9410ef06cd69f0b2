//! The end of a run: the faults are off, everything ends, and all blocks are read back.

use nvio_driver::Error;
use nvio_emulator::Faults;

use super::machine::{Broken, Machine};
use super::mix::chance;
use super::run::{Run, wrong};
use super::submit::Asked;
use super::{Checked, Wrong, ensure};

/// How often it is tried to have a controller that works. What was to be stuck is stuck once, and
/// a controller that was given up is opened again.
const ATTEMPTS: u32 = 6;

impl Run<'_> {
    /// Ends the run.
    pub(super) fn finish(&mut self) -> Checked {
        self.with(|machine| machine.set_faults(&Faults::new()))
            .map_err(|error| wrong("no faults", &error))?;
        self.drain()?;
        self.linger()?;
        let mut attempts = 0;
        while !self.settle()? {
            attempts += 1;
            ensure!(attempts < ATTEMPTS, "no controller that works, after {ATTEMPTS} attempts");
            self.check()?;
        }
        self.strict = true;
        self.sweep()?;
        self.check()?;
        self.check_stale()?;
        self.shut()
    }

    /// Every request ends.
    fn drain(&mut self) -> Checked {
        // Ages are checked, so that this ends.
        while self.lanes.iter().any(|lane| !lane.requests.is_empty()) {
            self.pass_time()?;
            self.check()?;
        }
        Ok(())
    }

    /// What is late comes, and finds nothing lent.
    fn linger(&mut self) -> Checked {
        let late = self.mix.rates.late_up_to.max(self.mix.options.io_timeout);
        for _ in 0..4 {
            self.with(|machine| machine.pass(late / 2, usize::MAX));
        }
        self.check()
    }

    /// Tries whether every queue pair works, and does something about it if not.
    fn settle(&mut self) -> Checked<bool> {
        let works = self.controller()?.namespace(1);
        if let Err(error) = works {
            self.say(|| format!("the controller does not work: {error}"));
            // One that was only stuck comes back.
            self.outcome.resets += 1;
            let back = self.controller()?.reset().is_ok();
            let gone = matches!(error, Error::Gone);
            ensure!(!back || !gone, "a controller that was pulled out is back");
            if !back {
                self.reopen()?;
            }
            return Ok(false);
        }
        (0..self.lanes.len()).try_for_each(|lane| self.attend(lane))?;
        let failed = self.outcome.failed;
        for lane in (0..self.lanes.len()).rev() {
            if self.flush(lane, 0)? == Asked::Closed {
                // A controller that works has queue pairs that do, unless one was refused.
                let may = self.may_fail();
                ensure!(may, "queue pair {} is closed", self.lanes[lane].pair.id());
                self.drop_lane(lane)?;
            }
        }
        self.drain()?;
        if self.lanes.is_empty() {
            self.add_lane(self.mix.depths[0])?;
            if self.lanes.is_empty() {
                // Its identifiers are all of queues that it refused to delete.
                self.reset()?;
            }
            return Ok(false);
        }
        Ok(self.outcome.failed == failed)
    }

    /// A controller that was given up is put right, and opened again.
    fn reopen(&mut self) -> Checked {
        self.outcome.reopened += 1;
        while !self.lanes.is_empty() {
            self.drop_lane(0)?;
        }
        self.buffers.clear();
        let cut = chance(&mut self.rng, 50);
        self.with(|machine| machine.broken = Broken::default());
        self.close();
        self.with(Machine::unplug_memory);
        self.with(Machine::replug);
        if cut {
            let seed = self.rng.next_u64();
            self.outcome.power_cuts += 1;
            self.with(|machine| machine.power_cut(seed));
            self.model.power_cut();
        }
        self.leaky = false;
        self.open()
    }

    /// Reads every block, a part of it over each queue pair.
    fn sweep(&mut self) -> Checked {
        let mut turn = 0;
        for space in 0..self.spaces.len() {
            let limits = self.limits(space);
            let most = limits.most.min(16);
            let mut lba = 0;
            while lba < limits.blocks {
                let blocks = most.min(limits.blocks - lba);
                let lane = turn % self.lanes.len();
                turn += 1;
                let count = u32::try_from(blocks).unwrap_or(1);
                match self.read(lane, space, lba, count)? {
                    Asked::Yes => lba += blocks,
                    Asked::No => self.pass_time()?,
                    Asked::Closed => return Err(Wrong("a queue pair is closed".into())),
                }
            }
        }
        self.drain()
    }

    /// Whether the completions that were made up were all found out, and no others.
    fn check_stale(&mut self) -> Checked {
        let counts = self.with(|machine| machine.fault_counts());
        let extra = counts.duplicate + counts.stale_id + counts.unknown_id;
        let counters = self.lanes.iter().map(|lane| lane.pair.counters());
        let here: u64 = counters.map(|counters| counters.stale).sum();
        let stale = self.outcome.stale + here;
        // One that cannot be stopped completes what was given up.
        let stopped = stale <= extra || self.mix.is_broken();
        ensure!(stopped, "{stale} completions are stale, and {extra} were made up");
        // With a reset, or the end of a pair, some were never seen; and some were of the admin
        // queue.
        let rebuilt: u64 = self.lanes.iter().map(|lane| lane.pair.counters().resets).sum();
        let all = rebuilt + self.outcome.lanes_dropped + self.outcome.power_cuts == 0;
        if all && self.outcome.removals == 0 && self.mix.admin.is_empty() {
            ensure!(stale == extra, "{stale} completions are stale, of {extra} that were made up");
            self.outcome.stale_exact += u64::from(extra > 0);
        }
        Ok(())
    }

    /// Everything is given back, and the controller shut down.
    fn shut(&mut self) -> Checked {
        while !self.lanes.is_empty() {
            self.drop_lane(0)?;
        }
        self.buffers.clear();
        self.check_pages()?;
        let unrequested = self.controller()?.resets().unrequested();
        let expected = self.is_disturbed() || self.mix.is_broken();
        ensure!(expected || unrequested == 0, "{unrequested} resets without a fault");
        self.close();
        self.linger()
    }
}
