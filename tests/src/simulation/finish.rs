//! The end of a run: faults are disabled, all requests complete, and all blocks are read.

use nvio_driver::Error;
use nvio_emulator::Faults;

use super::mix::chance;
use super::run::Run;
use super::submit::Asked;
use crate::simulator::machine::{Broken, Machine};
use crate::simulator::{Checked, Wrong, ensure};

/// Maximum number of attempts to recover the controller. Pending faults may make several attempts
/// fail, and a controller that was given up is opened again.
const ATTEMPTS: u32 = 6;

impl Run<'_> {
    /// Ends the run.
    pub(super) fn finish(&mut self) -> Checked {
        self.device.set_faults(&Faults::new())?;
        self.drain()?;
        self.linger()?;
        let mut attempts = 0;
        while !self.settle()? {
            attempts += 1;
            ensure!(attempts < ATTEMPTS, "the controller does not work after {ATTEMPTS} attempts");
            self.check()?;
        }
        self.strict = true;
        self.sweep()?;
        self.check()?;
        self.check_stale()?;
        self.shut()
    }

    /// Waits until all requests complete.
    fn drain(&mut self) -> Checked {
        // The loop ends, because the ages of requests are checked.
        while self.lanes.iter().any(|lane| !lane.requests.is_empty()) {
            self.pass_time()?;
            self.check()?;
        }
        Ok(())
    }

    /// Lets late commands complete, which must not access memory.
    fn linger(&mut self) -> Checked {
        let late = self.mix.rates.late_up_to.max(self.mix.options.io_timeout);
        for _ in 0..4 {
            self.device.with(|machine| machine.pass(late / 2, usize::MAX));
        }
        self.check()
    }

    /// Returns true if all queue pairs work, and otherwise starts their recovery.
    fn settle(&mut self) -> Checked<bool> {
        let works = self.device.controller()?.namespace(1);
        if let Err(error) = works {
            self.device.say(|| format!("the controller does not work: {error}"));
            // A controller that was only stuck can be reset.
            self.outcome.resets += 1;
            let back = self.device.controller()?.reset().is_ok();
            let gone = matches!(error, Error::Gone);
            ensure!(!back || !gone, "a removed controller is back after a reset");
            if !back {
                self.reopen()?;
            }
            return Ok(false);
        }
        (0..self.lanes.len()).try_for_each(|lane| self.attend(lane))?;
        let failed = self.outcome.failed;
        for lane in (0..self.lanes.len()).rev() {
            if self.flush(lane, 0)? == Asked::Closed {
                // With a working controller, all queue pairs work, unless one could not be
                // recreated.
                let may = self.may_fail();
                ensure!(may, "queue pair {} is closed", self.lanes[lane].pair.id());
                self.drop_lane(lane)?;
            }
        }
        self.drain()?;
        if self.lanes.is_empty() {
            self.add_lane(self.mix.depths[0])?;
            if self.lanes.is_empty() {
                // All queue identifiers belong to queues that the controller refused to delete.
                self.reset()?;
            }
            return Ok(false);
        }
        Ok(self.outcome.failed == failed)
    }

    /// Repairs a controller that was given up, and opens it again.
    fn reopen(&mut self) -> Checked {
        self.outcome.reopened += 1;
        while !self.lanes.is_empty() {
            self.drop_lane(0)?;
        }
        self.buffers.clear();
        let cut = chance(&mut self.rng, 50);
        self.device.with(|machine| machine.broken = Broken::default());
        self.spaces.clear();
        self.device.close();
        self.device.with(Machine::unplug_memory);
        self.device.with(Machine::replug);
        if cut {
            let seed = self.rng.next_u64();
            self.outcome.power_cuts += 1;
            self.device.with(|machine| machine.power_cut(seed));
            self.model.power_cut();
        }
        self.leaky = false;
        self.open()
    }

    /// Reads every block, in turn through each queue pair.
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

    /// Checks that exactly the faked completions were counted as stale.
    fn check_stale(&mut self) -> Checked {
        let counts = self.device.with(|machine| machine.fault_counts());
        let extra = counts.duplicate + counts.stale_id + counts.unknown_id;
        let counters = self.lanes.iter().map(|lane| lane.pair.counters());
        let here: u64 = counters.map(|counters| counters.stale).sum();
        let stale = self.outcome.stale + here;
        // A controller that cannot be stopped also completes commands that were given up.
        let stopped = stale <= extra || self.mix.is_broken();
        ensure!(stopped, "{stale} completions are stale, but {extra} were faked");
        // After a reset or the end of a queue pair, some completions are never seen, and admin
        // faults may affect the admin queue.
        let rebuilt: u64 = self.lanes.iter().map(|lane| lane.pair.counters().resets).sum();
        let all = rebuilt + self.outcome.lanes_dropped + self.outcome.power_cuts == 0;
        if all && self.outcome.removals == 0 && self.mix.admin.is_empty() {
            ensure!(stale == extra, "{stale} completions are stale, but {extra} were faked");
            self.outcome.stale_exact += u64::from(extra > 0);
        }
        Ok(())
    }

    /// Returns all memory and shuts the controller down.
    fn shut(&mut self) -> Checked {
        while !self.lanes.is_empty() {
            self.drop_lane(0)?;
        }
        self.buffers.clear();
        if !self.leaky {
            self.device.check_pages()?;
        }
        let unrequested = self.device.controller()?.resets().unrequested();
        let expected = self.is_disturbed() || self.mix.is_broken();
        ensure!(expected || unrequested == 0, "{unrequested} resets without a fault");
        self.spaces.clear();
        self.device.close();
        self.linger()
    }
}
