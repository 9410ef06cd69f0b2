//! The run of one seed: a controller at power on, a driver, and random turns.

use std::sync::Arc;
use std::time::Duration;

use nvio_driver::spec::EventType;
use nvio_driver::{Error, WritableNamespace};
use nvio_emulator::DeviceFault;

use super::lane::Lane;
use super::mix::{Mix, chance};
use super::outcome::Outcome;
use super::request::Limits;
use crate::simulator::bound::Bounds;
use crate::simulator::buffers::Buffers;
use crate::simulator::device::Device;
use crate::simulator::lock;
use crate::simulator::machine::{Broken, Machine};
use crate::simulator::model::Model;
use crate::simulator::{Checked, ensure, wrong};
use nvio_testkit::random::Rng;

/// Plays a seed. Returns its counts, and the error if there is one.
pub fn run(mix: &Mix, print: bool) -> (Outcome, Checked) {
    match Run::new(mix, print) {
        Err(wrong) => (Outcome::default(), Err(wrong)),
        Ok(mut run) => {
            let checked = run.play();
            (run.outcome(), checked)
        }
    }
}

/// The state of a run. The driver's side is dropped first.
pub struct Run<'a> {
    pub(super) lanes: Vec<Lane>,
    pub(super) buffers: Buffers,
    pub(super) spaces: Vec<WritableNamespace>,
    pub(super) mix: &'a Mix,
    pub(super) device: Device,
    pub(super) rng: Rng,
    pub(super) bounds: Bounds,
    pub(super) model: Model,
    pub(super) token: u64,
    pub(super) outcome: Outcome,
    /// Faults are disabled: every operation must succeed.
    pub(super) strict: bool,
    /// Memory was given up, because the driver could not stop the controller.
    pub(super) leaky: bool,
}

impl<'a> Run<'a> {
    /// Powers the controller on and opens it.
    ///
    /// # Errors
    /// Any failure, because faults are not enabled yet.
    pub fn new(mix: &'a Mix, print: bool) -> Checked<Self> {
        let device = Device::new(mix.config(), mix.seed, mix.iova, print)?;
        let sizes = mix.spaces.iter().map(|space| space.blocks);
        let mut run = Self {
            lanes: Vec::new(),
            buffers: Buffers::new(&device.with(|machine| Arc::clone(&machine.table))),
            spaces: Vec::new(),
            mix,
            device,
            rng: Rng::new(mix.seed.wrapping_mul(3)),
            bounds: Bounds::new(&mix.options, mix.rates.stuck_up_to),
            model: Model::new(sizes, mix.cache.is_some()),
            token: 0,
            outcome: Outcome { runs: 1, ..Outcome::default() },
            strict: false,
            leaky: false,
        };
        run.open()?;
        Ok(run)
    }

    fn play(&mut self) -> Checked {
        let mix = self.mix;
        for &depth in &mix.depths {
            self.add_lane(depth)?;
        }
        self.device.set_faults(&mix.faults())?;
        self.device
            .with(|machine| machine.broken = Broken { reset: mix.no_reset, unmap: mix.no_unmap });
        for _ in 0..mix.turns {
            self.mishaps()?;
            self.turn()?;
            self.check()?;
        }
        self.finish()
    }

    /// Opens the controller.
    pub(super) fn open(&mut self) -> Checked {
        let failed = |error: Error| wrong("opening a controller without faults", &error);
        let controller = self.device.open(self.mix.options.clone())?;
        let ids = controller.namespace_ids().map_err(failed)?;
        ensure!(ids.len() == self.mix.spaces.len(), "namespaces {ids:?}");
        let spaces = ids.iter().map(|&id| controller.writable_namespace(id));
        self.spaces = spaces.collect::<Result<_, _>>().map_err(failed)?;
        self.device.count_pages();
        let sizes = self.spaces.iter().map(|space| space.block_size().into()).collect();
        self.device.with(|machine| lock(&machine.table).set_block_sizes(sizes));
        Ok(())
    }

    pub(super) fn limits(&self, space: usize) -> Limits {
        let namespace = &self.spaces[space];
        let block_size = namespace.block_size() as usize;
        Limits {
            block_size,
            blocks: namespace.blocks(),
            most: (namespace.max_transfer() / block_size) as u64,
            sgl: self.device.controller().is_ok_and(|controller| controller.has_sgl()),
        }
    }

    /// Returns true if requests may fail.
    pub(super) fn is_disturbed(&self) -> bool {
        let counts = self.device.with(|machine| machine.fault_counts());
        let Outcome { resets, power_cuts, removals, .. } = self.outcome;
        let commands = counts.status + counts.late + counts.lost + counts.device;
        commands + resets + power_cuts + removals > 0 || !self.mix.admin.is_empty()
    }

    /// Returns true if a reset may fail, and with it the controller or a queue pair.
    pub(super) fn may_fail(&self) -> bool {
        let Mix { rates, mishaps, .. } = self.mix;
        let stuck = rates.stuck_ready + rates.stuck_not_ready > 0 || mishaps.stuck > 0;
        let removed = rates.removed > 0 || mishaps.removal > 0;
        !self.strict && (stuck || removed || !self.mix.admin.is_empty() || self.mix.is_broken())
    }

    /// Checks the invariants.
    pub(super) fn check(&self) -> Checked {
        self.device.check_accesses()?;
        self.lanes.iter().try_for_each(Lane::check_counters)
    }

    /// Draws an incident of the whole controller.
    fn mishaps(&mut self) -> Checked {
        let mishaps = self.mix.mishaps;
        let happens = |rng: &mut Rng, often: u64| often > 0 && rng.range(0, 1000) < often;
        if happens(&mut self.rng, mishaps.reset) {
            self.reset()?;
        }
        if happens(&mut self.rng, mishaps.power_cut) {
            self.power_cut();
        }
        if happens(&mut self.rng, mishaps.blink) {
            self.outcome.removals += 1;
            self.device.with(Machine::replug);
        }
        if happens(&mut self.rng, mishaps.fatal) {
            self.device.with(|machine| machine.inject(DeviceFault::Fatal));
        }
        if happens(&mut self.rng, mishaps.stuck) {
            let most = u64::try_from(self.mix.rates.stuck_up_to.as_micros()).unwrap_or(u64::MAX);
            let time = Duration::from_micros(self.rng.range(0, most + 1));
            let at_one = chance(&mut self.rng, 50);
            self.device.with(|machine| {
                machine.inject(match at_one {
                    true => DeviceFault::StuckReady(time),
                    false => DeviceFault::StuckNotReady(time),
                });
            });
        }
        if happens(&mut self.rng, mishaps.removal) {
            self.outcome.removals += 1;
            self.device.with(|machine| machine.inject(DeviceFault::Removed));
        }
        if happens(&mut self.rng, mishaps.event) {
            let event = DeviceFault::Event { kind: EventType::NOTICE, info: 1, log: 3 };
            self.device.with(|machine| machine.inject(event));
        }
        if happens(&mut self.rng, mishaps.pairs) {
            self.change_lanes()?;
        }
        Ok(())
    }

    /// Resets the controller through the driver, with commands in flight.
    pub(super) fn reset(&mut self) -> Checked {
        self.outcome.resets += 1;
        let result = self.device.controller()?.reset();
        self.device.note("reset", &[u64::from(result.is_ok())]);
        match result {
            Err(error) if !self.may_fail() => Err(wrong("a reset failed", &error)),
            _ => Ok(()),
        }
    }

    pub(super) fn power_cut(&mut self) {
        self.outcome.power_cuts += 1;
        let seed = self.rng.next_u64();
        self.device.with(|machine| machine.power_cut(seed));
        self.model.power_cut();
        if chance(&mut self.rng, 50) {
            // Half of the hosts notice the power cut and reset the controller.
            self.outcome.resets += 1;
            let _ = self.device.controller().map(|controller| controller.reset());
        }
    }

    /// Plays one turn.
    fn turn(&mut self) -> Checked {
        if self.lanes.is_empty() {
            return self.change_lanes();
        }
        let lane = usize::try_from(self.rng.range(0, self.lanes.len() as u64)).unwrap_or(0);
        match self.rng.range(0, 1000) {
            0..420 => self.submit_some(lane),
            420..640 => {
                let limit = *self.rng.pick(&[1, 2, 8, usize::MAX]);
                self.poll(lane, limit)
            }
            640..840 => {
                let time = Duration::from_micros(self.rng.range(0, 200));
                let budget = *self.rng.pick(&[0, 1, 4, usize::MAX]);
                self.device.with(|machine| machine.pass(time, budget));
                Ok(())
            }
            840..930 => self.attend(lane),
            930..970 => {
                let times = self.rng.range(1, 24);
                (0..times).try_for_each(|_| self.pass_time())
            }
            // Only with short timeouts, because `wait` polls a thousand times between reads of the
            // clock.
            970..975 if self.mix.options.io_timeout.as_millis() < 10 => self.wait(lane),
            _ => {
                let controller = self.device.controller()?;
                let mut kinds = Vec::new();
                controller.poll_events(|event| kinds.push(u64::from(event.kind.0)));
                self.outcome.events += kinds.len() as u64;
                self.device.note("events", &kinds);
                Ok(())
            }
        }
    }

    /// Advances the clock and attends to every queue pair.
    pub(super) fn pass_time(&mut self) -> Checked {
        let time = self.bounds.attention / 2;
        self.device.with(|machine| machine.pass(time, usize::MAX));
        (0..self.lanes.len()).try_for_each(|lane| self.attend(lane))
    }

    /// Creates a queue pair.
    pub(super) fn add_lane(&mut self, depth: u16) -> Checked {
        let controller = self.device.controller()?;
        let pair = match controller.queue_pair::<u64>(depth) {
            Ok(pair) => pair,
            Err(Error::NoQueue { .. } | Error::ArenaFull { .. }) => return Ok(()),
            Err(_) if self.is_disturbed() && !self.strict => {
                // The controller may have created the queue and use its memory.
                self.leaky = true;
                return Ok(());
            }
            Err(error) => return Err(wrong("no queue pair", &error)),
        };
        let capacity = pair.capacity();
        let fits = capacity > 0 && capacity <= usize::from(depth);
        ensure!(fits, "a depth of {depth} became {capacity}");
        self.device.note("new queue pair", &[pair.id().into(), capacity as u64]);
        let now = self.device.now();
        self.lanes.push(Lane::new(pair, now));
        Ok(())
    }

    /// Drops or creates a queue pair.
    fn change_lanes(&mut self) -> Checked {
        let depth = *self.rng.pick(&self.mix.depths);
        if self.lanes.is_empty() || chance(&mut self.rng, 50) {
            return self.add_lane(depth);
        }
        let lane = usize::try_from(self.rng.range(0, self.lanes.len() as u64)).unwrap_or(0);
        self.drop_lane(lane)
    }

    /// Returns the counts of the run.
    fn outcome(&self) -> Outcome {
        let (counts, now) = self.device.with(|machine| (machine.fault_counts(), machine.now()));
        let mut outcome = self.outcome.clone();
        self.device.with(|machine| {
            outcome.hash = lock(&machine.trace).hash();
            let table = lock(&machine.table);
            outcome.accesses = table.accesses();
            outcome.shadow_reads = table.shadow_reads();
        });
        outcome.faults_status = counts.status;
        outcome.faults_late = counts.late;
        outcome.faults_lost = counts.lost;
        outcome.faults_extra = counts.duplicate + counts.stale_id + counts.unknown_id;
        outcome.faults_device = counts.device;
        outcome.clock_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        outcome
    }
}
