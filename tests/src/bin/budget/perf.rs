//! The loop of `nvio perf` over random reads of a namespace.

use std::error::Error;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::Duration;

use nvio_driver::{Address, Controller};
use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_perf::clock::Monotonic;
use nvio_perf::engine::{self, Engine};
use nvio_perf::plan::{Live, Plan, Watch};
use nvio_perf::random::Random;
use nvio_perf::raw::Raw;
use nvio_perf::uniform::UniformReads;

use crate::allocations;
use crate::load::{BATCH, DEPTH, ROUNDS};

const BYTES: u64 = 1 << 40;

type Loop<'e, const MODE: u8> = Engine<'e, Raw, Monotonic, UniformReads, MODE>;

/// Submits a batch.
#[inline(never)]
fn perf_submit<const MODE: u8>(engine: &mut Loop<'_, MODE>) {
    engine.submit();
}

/// Polls once.
#[inline(never)]
fn perf_complete<const MODE: u8>(engine: &mut Loop<'_, MODE>) -> usize {
    engine.complete()
}

/// Reads at full depth, in batches. Between them the controller has enough time to complete all
/// commands.
pub(crate) fn run<const MODE: u8>() -> Result<usize, Box<dyn Error>> {
    let disk = NamespaceConfig::new(Backing::null(BYTES)).block_size(4096);
    let emulator = Emulator::builder().namespace(disk).start()?;
    let controller = Controller::open(&Address::VfioUser(emulator.socket().to_owned()))?;
    let namespace = controller.namespace(1)?;
    let mut raw = Raw::new(&controller, &namespace, None, DEPTH)?;
    let (mut clock, random) = (Monotonic::start(), Random::new(1, 0));
    let mut work = UniformReads::new(0..BYTES, 4096, random);
    let depth = usize::from(DEPTH);
    let plan = Plan { depth, batch_submit: BATCH, ..Plan::default() };
    let (stop, live) = (AtomicBool::new(false), Live::default());
    let watch = Watch { stop: &stop, live: &live };
    let mut engine =
        engine::Engine::<_, _, _, MODE>::new(&mut raw, &mut clock, &mut work, &plan, watch)?;
    let mut done = 0;
    for _ in 0..ROUNDS {
        for _ in 0..depth / BATCH {
            allocations::watch(|| perf_submit(&mut engine));
        }
        let mut left = depth;
        while left > 0 {
            // Not counted, as the empty polls of the other parts.
            sleep(Duration::from_millis(5));
            let taken = allocations::watch(|| perf_complete(&mut engine));
            if taken == 0 {
                continue;
            }
            left = left.checked_sub(taken).ok_or("more results than requests")?;
            done += taken;
        }
    }
    match done == engine.ios() {
        true => Ok(done),
        false => Err("requests were counted wrongly".into()),
    }
}
