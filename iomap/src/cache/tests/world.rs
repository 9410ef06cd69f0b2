//! Plays a sequence: its threads, the device and the file, and the history that judges each result.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use nvio_driver::Arena;
use nvio_testkit::random::Rng;
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use super::double::{BLOCK, Block, Double};
use super::history::{CELL, History, fill};
use super::plan::{CELLS, Plan};
use super::schedule::Chosen;
use super::stepped::{Disk, Faults, GARBAGE, Queues, Stepped};
use super::switched::{self, NoSwitchLeft, RwLock};
use crate::FileQueue;
use crate::cache::wait::block_on;
use crate::cache::{CachedFile, PageCache};

/// Most switches of a sequence: a sequence that needs more hangs.
const SWITCHES_MAX: u64 = 400_000;
/// The value of cells that the device has at first.
const OLD: u64 = 1;

/// The work of a sequence, to be seen that it tests anything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) calls: u64,
    /// Calls that returned an error.
    pub(super) errors: u64,
    pub(super) switches: u64,
    /// Folios that were evicted for `Call::Evict`.
    pub(super) evicted: u64,
    /// Blocks that the filesystem moved.
    pub(super) moved: u64,
    /// Direct writes that did not fall back.
    pub(super) direct: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.switches += other.switches;
        self.evicted += other.evicted;
        self.moved += other.moved;
        self.direct += other.direct;
    }
}

/// The state of a sequence that its threads share.
pub(super) struct World {
    plan: Plan,
    disk: Arc<Mutex<Disk>>,
    queues: Queues,
    pub(super) double: Double,
    pub(super) cache: PageCache,
    /// Held by calls that write, and by the one that frees blocks.
    pub(super) gate: RwLock<()>,
    history: Mutex<History>,
    counts: Mutex<Counts>,
    /// Value of the last write; each write has another.
    last: Mutex<u64>,
    /// The call that each thread plays.
    calls: Mutex<Vec<usize>>,
    failure: Mutex<Option<String>>,
}

/// A handle, with the numbers of failed writes that decide which error it must report.
pub(super) struct Handle {
    pub(super) file: CachedFile<Double>,
    /// Failures when the last sync, or the creation of the handle, began; all ones if that is not
    /// known.
    pub(super) at_begin: u64,
    /// Failures when it ended.
    pub(super) at_end: u64,
}

/// Returns the configuration of shuttle. Hangs and failures are found here.
pub(super) fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::None;
    config.silence_warnings = true;
    config
}

/// Plays a sequence.
pub(super) fn play(plan: &Plan, schedule: u64) -> Result<Counts, String> {
    let result = Arc::new(Mutex::new(Ok(Counts::default())));
    let (plan, out) = (plan.clone(), Arc::clone(&result));
    let runner = Runner::new(Chosen::new(plan.seed ^ schedule << 32, plan.rule), config());
    let switches = switched::switching(SWITCHES_MAX, || {
        runner.run(move || *out.lock().unwrap() = root(&plan));
    });
    let mut result = result.lock().unwrap().clone();
    if let Ok(counts) = &mut result {
        counts.switches = switches;
    }
    result
}

fn root(plan: &Plan) -> Result<Counts, String> {
    let world = Arc::new(World::new(plan));
    let file = CachedFile::new(&world.cache, world.double.clone());
    let weak = Arc::new(file.downgrade());
    world.double.record(|record| record.cached = Some(weak));
    let threads: Vec<_> = (0..plan.threads.len())
        .map(|thread| {
            let (world, file) = (Arc::clone(&world), file.clone());
            shuttle::thread::spawn(move || world.thread(thread, file))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let handle = Handle { file, at_begin: 0, at_end: 0 };
    match world.has_failed() {
        false => world.guarded("the end", handle, |handle| world.finish(handle)),
        true => abandon(handle),
    }
    let failure = world.failure.lock().unwrap().take();
    let broken = world.disk.lock().unwrap().broken.take();
    world.double.record(|record| record.cached = None);
    match broken.or(failure) {
        Some(failure) => Err(failure),
        None => Ok(*world.counts.lock().unwrap()),
    }
}

/// Drops a handle of a sequence that failed, without writing anything back.
fn abandon(handle: Handle) {
    switched::unswitched(|| {
        handle.file.cache_for_tests().handles.fetch_add(1, Relaxed);
        drop(handle);
    });
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

/// The bytes of the device at first, and the values of the file's cells. What is not part of the
/// file is `garbage`.
fn contents(plan: &Plan, free: u64, garbage: u8) -> (Vec<u8>, Vec<u64>) {
    let count = plan.blocks.len() as u64;
    let mut image = vec![garbage; ((free + 40 + 20 * count) * BLOCK) as usize];
    let mut values = vec![0; plan.size + 48];
    for (index, block) in plan.blocks.iter().enumerate() {
        let Block::Mapped(addr) = *block else { continue };
        let cells = values.iter_mut().enumerate().skip(index * CELLS).take(CELLS);
        for (cell, value) in cells {
            // Zeroes from the end of the file on.
            *value = if cell < plan.size { OLD } else { 0 };
            let at = addr as usize + cell % CELLS * CELL as usize;
            image[at..at + CELL as usize].copy_from_slice(&fill(cell..cell + 1, *value));
        }
    }
    (image, values)
}

impl World {
    fn new(plan: &Plan) -> Self {
        // Blocks that are allocated or moved get places after all others.
        let free = 3 * plan.blocks.len() as u64;
        let (image, values) = contents(plan, free, GARBAGE);
        // A power cut leaves new blocks as they were before they were allocated: zeroes.
        let (durable, _) = contents(plan, free, 0);
        let size = plan.size as u64 * CELL;
        let disk = Arc::new(Mutex::new(Disk::new(image, durable, plan.seed, plan.faults)));
        let double = Double::new(plan.blocks.clone(), size, free);
        let mishaps = (Rng::new(plan.seed), plan.filesystem);
        double.record(|record| record.mishaps = Some(mishaps));
        let queues = Queues {
            disk: Arc::clone(&disk),
            arena: Arena::detached(2 << 20).unwrap(),
            depth: plan.depth,
            most: plan.most,
        };
        Self {
            gate: RwLock::new(()),
            cache: PageCache::new(Stepped::new(queues.clone(), true), plan.limit),
            plan: plan.clone(),
            disk,
            queues,
            double,
            history: Mutex::new(History::new(&values, size)),
            counts: Mutex::default(),
            last: Mutex::new(OLD),
            calls: Mutex::new(vec![0; plan.threads.len()]),
            failure: Mutex::default(),
        }
    }

    pub(super) fn history<T>(&self, with: impl FnOnce(&mut History) -> T) -> T {
        with(&mut self.history.lock().unwrap())
    }

    pub(super) fn disk<T>(&self, with: impl FnOnce(&mut Disk) -> T) -> T {
        with(&mut self.disk.lock().unwrap())
    }

    pub(super) fn count(&self, with: impl FnOnce(&mut Counts)) {
        with(&mut self.counts.lock().unwrap());
    }

    /// Returns a value that no cell has had.
    pub(super) fn value(&self) -> u64 {
        let mut last = self.last.lock().unwrap();
        *last += 1;
        *last
    }

    /// Returns true if a call may fail because of a fault.
    pub(super) fn has_faults(&self) -> bool {
        self.plan.has_faults()
    }

    /// Returns the number of writes of the cache that failed, or that the filesystem could not end.
    pub(super) fn failures(&self) -> u64 {
        self.disk(|disk| disk.failed_writes) + self.double.record(|record| record.failed_ends)
    }

    fn has_failed(&self) -> bool {
        self.failure.lock().unwrap().is_some() || self.disk(|disk| disk.broken.is_some())
    }

    /// Ends the sequence with the first failure.
    fn fail(&self, failure: String) {
        self.failure.lock().unwrap().get_or_insert(failure);
        switched::stop();
    }

    /// Calls `body` with a handle, which is abandoned if the sequence ends in it.
    fn guarded(
        &self,
        name: &str,
        mut handle: Handle,
        body: impl FnOnce(&mut Handle) -> Result<(), String>,
    ) {
        let mut whole = Some(());
        let played = catch_unwind(AssertUnwindSafe(|| body(&mut handle)));
        match played {
            Ok(Ok(())) => _ = whole.take(),
            Ok(Err(failure)) => self.fail(format!("{name}: {failure}")),
            Err(panic) if panic.is::<NoSwitchLeft>() => {
                let calls = self.calls.lock().unwrap().clone();
                self.fail(format!("{name}: no end; the threads are at calls {calls:?}"));
            }
            Err(panic) => self.fail(format!("{name}: panic: {}", message(&*panic))),
        }
        if whole.is_some() {
            return abandon(handle);
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(handle))) {
            self.fail(format!("{name}: closing the file: {}", message(&*panic)));
        }
    }

    fn thread(&self, thread: usize, file: CachedFile<Double>) {
        let mut direct = FileQueue::new(Stepped::new(self.queues.clone(), false));
        let failures = self.failures();
        let handle = Handle { file, at_begin: 0, at_end: failures };
        self.guarded(&format!("thread {thread}"), handle, |handle| {
            for (index, call) in self.plan.threads[thread].iter().enumerate() {
                self.calls.lock().unwrap()[thread] = index;
                let played = self.call(handle, &mut direct, call);
                self.count(|counts| counts.calls += 1);
                played.map_err(|failure| format!("call {index}, {call:?}: {failure}"))?;
                self.check_cache(handle)?;
            }
            Ok(())
        });
    }

    /// Checks what holds at any time.
    fn check_cache(&self, handle: &Handle) -> Result<(), String> {
        let used = self.cache.usage().0;
        if used > self.plan.limit {
            return Err(format!("the cache has {used} of {} bytes", self.plan.limit));
        }
        let folios = handle.file.cache_for_tests().state.folios(&(0..u64::MAX));
        match folios.windows(2).find(|pair| pair[0].end() > pair[1].pos) {
            Some(pair) => Err(format!("folios overlap at {}", pair[1].pos)),
            None => Ok(()),
        }
    }

    /// Checks the file when all threads have ended and nothing fails any more.
    fn finish(&self, handle: &mut Handle) -> Result<(), String> {
        self.disk(|disk| disk.faults = Faults::default());
        self.double.record(|record| record.mishaps = None);
        let begin = self.history(History::stamp);
        // The first sync reports earlier errors.
        let synced = handle.file.sync_data().or_else(|_| handle.file.sync_data());
        let file = handle.file.cache_for_tests();
        block_on(file.pool.wait_until(|| file.state.commands() == 0));
        if file.state.writes() > 0 {
            return Err(format!("{} writes in flight", file.state.writes()));
        }
        if self.disk(|disk| disk.kept()) {
            // Data in memory that the device has kept cannot be written.
            return Ok(());
        }
        synced.map_err(|error| format!("sync: {error}"))?;
        self.history(|history| history.synced(begin));
        self.check_device(begin)?;
        let size = handle.file.size();
        if self.double.record(|record| record.size) != size {
            return Err("the size on the device is another".into());
        }
        // From the cache, and from the device.
        for _ in 0..2 {
            let mut out = vec![0; size as usize];
            let (mut done, mut tries) = (0, 0);
            while done < out.len() {
                // A read that failed before is an error of the first reader.
                done += handle.file.read_at(done as u64, &mut out[done..]).unwrap_or(0);
                tries += 1;
                if tries > 200 {
                    return Err(format!("{done} of {size} bytes can be read"));
                }
            }
            self.history(|history| history.check(0, &out, begin))?;
            if !handle.file.invalidate(0..u64::MAX) {
                return Err("a folio stays".into());
            }
        }
        match self.cache.usage() {
            (0, 0) => Ok(()),
            usage => Err(format!("bytes of the empty cache, and dirty ones: {usage:?}")),
        }
    }

    /// Checks what a sync promises that began at `begin`.
    pub(super) fn check_device(&self, begin: u64) -> Result<(), String> {
        let (least, _) = self.history(|history| history.sizes(begin));
        let size = self.double.record(|record| record.size);
        if size < least {
            return Err(format!("the size on the device is {size}, not {least}"));
        }
        self.history(|history| {
            self.disk(|disk| {
                let found = self.double.on_device(&disk.bytes);
                history.check(0, &found, begin).map_err(|why| format!("the device: {why}"))?;
                let left = self.double.on_device(&disk.durable);
                history.check_durable(0, &left).map_err(|why| format!("after a power cut: {why}"))
            })
        })
    }
}
