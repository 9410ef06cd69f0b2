//! The choices that a seed makes: a controller, the driver's options, a workload, and faults.

use std::fmt;
use std::time::Duration;

use nvio_driver::Options;
use nvio_driver::spec::opcode::admin;
use nvio_driver::spec::status;
use nvio_emulator::{Backing, Config, Fault, Faults, NamespaceConfig, Rates, Rule, Service};

use nvio_testkit::random::Rng;

/// Number of repetitions that is large enough for one attempt of each command to meet no fault.
pub const RETRIES_MANY: u8 = 40;

/// A namespace to create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Block size, bytes.
    pub block_size: u32,
    /// Number of blocks.
    pub blocks: u64,
}

/// Probabilities of incidents of the whole controller, per thousand turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mishaps {
    /// [`Controller::reset`](nvio_driver::Controller::reset) with commands in flight.
    pub reset: u64,
    /// A power cut.
    pub power_cut: u64,
    /// A reset of the function that the driver does not request.
    pub blink: u64,
    /// CSTS.CFS is set.
    pub fatal: u64,
    /// CSTS.RDY gets stuck, at 1 or at 0.
    pub stuck: u64,
    /// The device is removed.
    pub removal: u64,
    /// An asynchronous event.
    pub event: u64,
    /// A queue pair is dropped or created.
    pub pairs: u64,
}

/// All choices of a seed that are made before the run.
#[derive(Clone, Debug)]
pub struct Mix {
    /// The seed.
    pub seed: u64,
    /// The namespaces.
    pub spaces: Vec<Space>,
    /// Size of the volatile write cache, bytes; `None` without a cache.
    pub cache: Option<u64>,
    /// Depths of the queue pairs.
    pub depths: Vec<u16>,
    /// The doorbell is rung for each command.
    pub rings_each: bool,
    /// Options of the driver.
    pub options: Options,
    /// Preferred address of the arena.
    pub iova: u64,
    /// Rates of the faults of commands.
    pub rates: Rates,
    /// Faults of admin commands.
    pub admin: Vec<Rule>,
    /// Incidents of the whole controller.
    pub mishaps: Mishaps,
    /// The function cannot be reset.
    pub no_reset: bool,
    /// Memory cannot be unmapped.
    pub no_unmap: bool,
    /// Number of turns.
    pub turns: u32,
    /// Number of blocks of each namespace that are used often.
    pub hot: u64,
    /// The controller, without faults.
    config: Config,
}

/// Returns true with a probability of `percent`.
pub fn chance(rng: &mut Rng, percent: u64) -> bool {
    rng.range(0, 100) < percent
}

impl Mix {
    /// Draws the choices of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed_5eed);
        let rng = &mut rng;
        let spaces = spaces(rng);
        let cache = chance(rng, 50).then(|| 64 << rng.range(10, 14));
        let lanes = rng.range(1, 5);
        let mut depths = (0..lanes).map(|_| depth(rng)).collect::<Vec<_>>();
        let mut options = options(rng);
        // With its own generator, so that each seed keeps its other choices.
        options.retries = *Rng::new(seed ^ 0x7e7e).pick(&[0, 0, 1, 3, RETRIES_MANY]);
        let mut config = config(rng, &spaces, cache, &options);
        // Commands wait for their doorbell only in a deep queue, if the caller rings for each.
        let rings_each = Rng::new(seed ^ 0xdeeb).below(8) == 0;
        if rings_each {
            depths.fill(128);
            config = config.max_queue_entries(256);
        }
        let mut mix = Self {
            seed,
            spaces,
            cache,
            depths,
            rings_each,
            iova: *rng.pick(&[0, 2 << 20, 1 << 32, 1 << 47]),
            rates: Rates::default(),
            admin: Vec::new(),
            mishaps: Mishaps::default(),
            no_reset: false,
            no_unmap: false,
            turns: u32::try_from(*rng.pick(&[200, 400, 800, 1600])).unwrap_or(100),
            hot: rng.range(1, 64),
            options,
            config,
        };
        // Some runs have no faults, and all their requests must succeed.
        if !chance(rng, 8) {
            mix.draw_faults(rng);
        }
        mix
    }

    fn draw_faults(&mut self, rng: &mut Rng) {
        let mut rate = |percent, low, high| match chance(rng, percent) {
            true => u32::try_from(rng.range(low, high)).unwrap_or(0),
            false => 0,
        };
        self.rates = Rates {
            status: rate(40, 5_000, 100_000),
            late: rate(45, 5_000, 150_000),
            lost: rate(35, 1_000, 20_000),
            duplicate: rate(40, 5_000, 150_000),
            stale_id: rate(40, 5_000, 150_000),
            unknown_id: rate(30, 5_000, 150_000),
            fatal: rate(15, 200, 3_000),
            stuck_ready: rate(10, 500, 3_000),
            stuck_not_ready: rate(10, 500, 3_000),
            removed: rate(4, 100, 1_000),
            event: rate(25, 1_000, 50_000),
            not_abortable: rate(35, 100_000, 1_000_000),
            // The driver cannot notice it.
            old_version: 0,
            late_up_to: self.options.io_timeout / 100
                * u32::try_from(*rng.pick(&[5, 80, 300])).unwrap_or(5),
            stuck_up_to: Duration::from_millis(*rng.pick(&[1, 40, 2_000, 15_000])),
        };
        let mut often =
            |percent, low, high| if chance(rng, percent) { rng.range(low, high) } else { 0 };
        self.mishaps = Mishaps {
            reset: often(30, 2, 25),
            power_cut: often(30, 2, 15),
            blink: often(10, 2, 10),
            fatal: often(15, 2, 10),
            stuck: often(20, 2, 15),
            removal: often(6, 1, 4),
            event: often(20, 2, 40),
            pairs: often(40, 5, 40),
        };
        if chance(rng, 20) {
            self.admin = admin_rules(rng, &self.options);
        }
        self.no_reset = chance(rng, 4);
        self.no_unmap = chance(rng, 3);
        if chance(rng, 4) {
            self.make_hopeless();
        }
    }

    /// Makes the controller impossible to stop, with commands that take very long, so that their
    /// memory must be given up.
    fn make_hopeless(&mut self) {
        (self.no_reset, self.no_unmap) = (true, true);
        self.rates.late = 100_000;
        self.rates.not_abortable = 1_000_000;
        self.rates.late_up_to = Duration::from_secs(90);
        self.rates.stuck_up_to = Duration::from_secs(60);
        self.mishaps.stuck = 20;
        self.mishaps.reset = 20;
    }

    /// Returns the settings of the controller, without faults.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the faults of commands, which are enabled after the driver has started.
    pub fn faults(&self) -> Faults {
        let seeded = Faults::new().seeded(self.seed, self.rates);
        self.admin.iter().cloned().fold(seeded, Faults::rule)
    }

    /// Returns true if memory may be given up, because the controller cannot be stopped.
    pub fn is_broken(&self) -> bool {
        self.no_reset || self.no_unmap
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} turns", self.seed, self.turns)?;
        writeln!(f, "{:?} cache {:?} depths {:?}", self.spaces, self.cache, self.depths)?;
        writeln!(f, "{:?}", self.options)?;
        writeln!(f, "{:?}", self.rates)?;
        writeln!(f, "{:?}, admin {:?}", self.mishaps, self.admin)?;
        write!(f, "no reset {}, no unmap {}", self.no_reset, self.no_unmap)
    }
}

fn spaces(rng: &mut Rng) -> Vec<Space> {
    let space = |rng: &mut Rng| match chance(rng, 50) {
        true => Space { block_size: 512, blocks: rng.range(64, 1024) },
        false => Space { block_size: 4096, blocks: rng.range(16, 200) },
    };
    (0..rng.range(1, 3)).map(|_| space(rng)).collect()
}

fn depth(rng: &mut Rng) -> u16 {
    let depth = *rng.pick(&[1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 64]);
    u16::try_from(depth).unwrap_or(1)
}

fn options(rng: &mut Rng) -> Options {
    Options {
        arena_bytes: 8 << 20,
        queues: u16::try_from(rng.range(1, 9)).unwrap_or(1),
        admin_timeout: Duration::from_millis(*rng.pick(&[5, 20, 60])),
        io_timeout: Duration::from_millis(*rng.pick(&[8, 30, 120])),
        max_transfer: 1 << rng.range(12, 18),
        writable: true,
        shadow_doorbells: chance(rng, 80),
        ..Options::default()
    }
}

fn config(rng: &mut Rng, spaces: &[Space], cache: Option<u64>, options: &Options) -> Config {
    let namespace = |space: &Space| {
        let backing = Backing::memory(space.blocks * u64::from(space.block_size));
        NamespaceConfig::new(backing).block_size(space.block_size)
    };
    let mut config = spaces.iter().fold(Config::new(), |config, s| config.namespace(namespace(s)));
    let entries = *rng.pick(&[2, 3, 4, 8, 16, 31, 64, 256]);
    let page = if chance(rng, 10) { 16 << 10 } else { 4 << 10 };
    config = config
        .max_queues(u16::try_from(rng.range(1, 6)).unwrap_or(1))
        .max_queue_entries(entries)
        .doorbell_stride(4 << rng.range(0, 5))
        .page_sizes(page, 64 << 10)
        .mdts(chance(rng, 70).then(|| u8::try_from(rng.range(1, 6)).unwrap_or(1)))
        .shadow_doorbells(chance(rng, 50))
        .sgl(chance(rng, 50));
    if let Some(bytes) = cache {
        config = config.write_cache(bytes);
    }
    if chance(rng, 50) {
        let tenth = options.io_timeout / 10;
        let latency = tenth / u32::try_from(rng.range(1, 100)).unwrap_or(1);
        let service = Service::new().latency(latency).jitter(tenth / 2, rng.next_u64());
        config = config.service(service);
    }
    config
}

/// Draws faults of one or several admin commands.
fn admin_rules(rng: &mut Rng, options: &Options) -> Vec<Rule> {
    let opcodes = [
        admin::ABORT,
        admin::CREATE_IO_CQ,
        admin::CREATE_IO_SQ,
        admin::DELETE_IO_SQ,
        admin::DELETE_IO_CQ,
        admin::SET_FEATURES,
        admin::DOORBELL_BUFFER_CONFIG,
        admin::IDENTIFY,
    ];
    let late = options.admin_timeout / 100 * u32::try_from(rng.range(10, 200)).unwrap_or(100);
    let faults = [
        Fault::Lost,
        Fault::Late(late),
        Fault::Status(status::INTERNAL_ERROR),
        Fault::Duplicate,
        Fault::StaleId,
    ];
    let rule = |rng: &mut Rng| {
        let rule = Rule::admin(*rng.pick(&faults)).opcode(*rng.pick(&opcodes));
        rule.from(rng.range(1, 4)).times(rng.range(1, 3))
    };
    (0..rng.range(1, 3)).map(|_| rule(rng)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ_and_each_means_one_thing() {
        assert_eq!(Mix::new(7).to_string(), Mix::new(7).to_string());
        assert_ne!(Mix::new(7).to_string(), Mix::new(8).to_string());
    }

    #[test]
    fn every_setting_is_drawn_by_some_seed() {
        let mixes: Vec<Mix> = (0..500).map(Mix::new).collect();
        let some = |test: fn(&Mix) -> bool| mixes.iter().any(test);
        assert!(some(|m| m.rates == Rates::default() && m.mishaps == Mishaps::default()));
        assert!(some(|m| m.rates.lost > 0 && m.rates.late > 0 && m.mishaps.reset > 0));
        assert!(some(|m| m.rates.removed > 0) && some(|m| m.mishaps.removal > 0));
        assert!(some(|m| m.mishaps.power_cut > 0 && m.cache.is_some()));
        assert!(some(|m| m.no_reset) && some(|m| m.no_unmap) && some(|m| !m.admin.is_empty()));
        assert!(some(|m| m.options.retries == 0) && some(|m| m.options.retries == RETRIES_MANY));
        assert!(some(|m| m.depths.len() == 4) && some(|m| m.spaces.len() == 2));
    }
}
