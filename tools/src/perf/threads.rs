//! The threads of a run: each has a processor, a queue and a part of the positions.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};

use nvio::iomap::IoFlags;
use nvio_perf::cached::Cached;
use nvio_perf::clock::Monotonic;
use nvio_perf::distribution::Distribution;
use nvio_perf::engine;
use nvio_perf::file::{self, FileTarget, Reader, Writer};
use nvio_perf::general::{self, General};
use nvio_perf::outcome::Outcome;
use nvio_perf::pace::Pace;
use nvio_perf::pattern::Origin;
use nvio_perf::plan::{Latency, Live, Plan, Watch};
use nvio_perf::random::Random;
use nvio_perf::raw::Raw;
use nvio_perf::split_raw::SplitRaw;
use nvio_perf::target::{Error, Target};
use nvio_perf::uniform::UniformReads;
use nvio_perf::verify::Verify;
use nvio_uring::queue::Kernel;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity, set_current_timer_slack};
use rustix::time::{ClockId, clock_gettime};

use crate::perf::rows::{Row, Source};
use crate::perf::settings::{Settings, Way};

/// Size of the requests that prepare a range and read it back.
const PASS_BYTES: u64 = 128 << 10;

/// A thread of a row.
struct Job<'j> {
    row: &'j Row,
    /// Bytes that the requests of all threads of the row go to.
    range: &'j Range<u64>,
    settings: &'j Settings,
    /// Number of the thread in its row.
    number: usize,
    /// Number of the thread in the run.
    index: usize,
    clock: Monotonic,
    watch: Watch<'j>,
    /// Passed when all threads are ready, so that they begin together.
    ready: &'j Barrier,
}

/// The words that the threads share with the observer.
pub struct Shared {
    /// Set to end the run.
    pub stop: AtomicBool,
    /// The progress of each thread.
    pub live: Vec<Live>,
    /// Number of threads that have ended.
    pub ended: Mutex<usize>,
}

impl Shared {
    /// Creates the state of `threads` threads.
    pub fn new(threads: usize) -> Self {
        let live = std::iter::repeat_with(Live::default).take(threads).collect();
        Self { stop: AtomicBool::new(false), live, ended: Mutex::new(0) }
    }

    /// Returns true if all threads have ended.
    pub fn is_over(&self) -> bool {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) == self.live.len()
    }
}

/// Runs the load on all rows, each with the bytes that its requests go to, calls `observe` meanwhile,
/// and returns the measurement of each row. An error of one thread ends the others.
///
/// # Errors
/// If a queue cannot be created, or fails.
pub fn run(
    rows: &[(&Row, Range<u64>)],
    settings: &Settings,
    shared: &Shared,
    observe: impl FnOnce(),
) -> Result<Vec<Outcome>, (String, Error)> {
    let ready = Barrier::new(shared.live.len());
    let clock = Monotonic::start();
    let results: Vec<Vec<Result<Outcome, Error>>> = std::thread::scope(|scope| {
        let mut index = 0;
        let mut spawn = |row, range, number| {
            let watch = Watch { stop: &shared.stop, live: shared.live.get(index)? };
            let job = Job { row, range, settings, number, index, clock, watch, ready: &ready };
            index += 1;
            Some(scope.spawn(move || {
                let result = job.run();
                if !matches!(&result, Ok(outcome) if outcome.errors == 0 || settings.go_on) {
                    shared.stop.store(true, Ordering::Relaxed);
                }
                *shared.ended.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                result
            }))
        };
        let threads: Vec<Vec<_>> = rows
            .iter()
            .map(|(row, range)| {
                (0..settings.threads).filter_map(|number| spawn(*row, range, number)).collect()
            })
            .collect();
        observe();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(Error("a thread has panicked".to_owned())))
        };
        threads.into_iter().map(|row| row.into_iter().map(join).collect()).collect()
    });
    let merged = rows.iter().zip(results).map(|((row, _), threads)| {
        let mut total = Outcome::default();
        for thread in threads {
            total.merge(&thread.map_err(|error| (row.name.clone(), error))?);
        }
        Ok(total)
    });
    merged.collect()
}

impl Job<'_> {
    fn run(&self) -> Result<Outcome, Error> {
        // Without the right to choose a processor, the kernel chooses.
        if let Err(error) = pin(&self.settings.cpus, self.index) {
            log::debug!("thread {}: {error}", self.index);
        }
        if self.settings.interrupt && self.settings.rate.is_some() {
            // Else the kernel may wake the thread 50 microseconds after a start.
            set_current_timer_slack(NonZeroU64::new(1)).unwrap_or(());
        }
        // The others wait for this thread, also if it fails.
        let mut waits = Ready(Some(self.ready));
        match &self.row.source {
            Source::Raw { owner, namespace, writable } => {
                let controller = owner.controller();
                let controller =
                    controller.ok_or_else(|| Error("there is no controller".to_owned()))?;
                let (depth, writable) = (self.settings.depth, writable.as_ref());
                let bytes = self.bytes_max();
                if bytes > namespace.max_transfer() {
                    let target = SplitRaw::new(controller, namespace, writable, depth, bytes);
                    return self.drive(target?, &mut waits);
                }
                self.drive(Raw::new(controller, namespace, writable, depth)?, &mut waits)
            }
            Source::Kernel(place) => {
                self.drive(Kernel::new(place, self.settings.depth)?, &mut waits)
            }
            Source::File { volume, path, offset } => {
                let mut file = volume.open_file(path).map_err(|error| Error::of(&error))?;
                let queue = volume.queue().map_err(|error| Error::of(&error))?;
                let extents = starts(file.as_ext4());
                let access = Reader { file, queue };
                let target = FileTarget::new(access, self.way(), *offset, extents.into_iter());
                self.drive(target, &mut waits)
            }
            Source::Writable { volume, path, offset, block_shift } => {
                let file = volume.open_writable(path).map_err(|error| Error::of(&error))?;
                if self.settings.way.is_cached() {
                    let flags = match self.settings.way {
                        Way::Writethrough => IoFlags::WRITETHROUGH,
                        _ => IoFlags::empty(),
                    };
                    let queue = volume.cached_queue(self.settings.depth.into());
                    let target = Cached::new(file, queue, flags, *offset, *block_shift);
                    return self.drive(target, &mut waits);
                }
                let queue = volume.writable_queue().map_err(|error| Error::of(&error))?;
                let extents = starts(&file);
                let access = Writer { file, queue };
                let target = FileTarget::new(access, self.way(), *offset, extents.into_iter());
                self.drive(target, &mut waits)
            }
        }
    }

    fn way(&self) -> file::Way {
        match self.settings.way {
            Way::Generic => file::Way::Generic,
            Way::Bounce => file::Way::Bounce,
            Way::Raw | Way::Simple | Way::Buffered | Way::Writethrough => file::Way::Simple,
        }
    }

    /// Returns the size of the largest request of the load, the preparation and the check at the end.
    fn bytes_max(&self) -> usize {
        let has_pass = self.settings.prepare || self.settings.verify;
        let pass = if has_pass { usize::try_from(PASS_BYTES).unwrap_or(usize::MAX) } else { 0 };
        self.settings.bytes_max().max(pass)
    }

    /// Returns the positions of this thread.
    fn range(&self) -> Range<u64> {
        let Range { start, end } = *self.range;
        if !self.settings.has_parts() {
            return start..end;
        }
        let part = (end - start) / self.settings.threads as u64;
        let start = start + part * self.number as u64;
        start..start + part
    }

    /// Prepares the range, measures, and reads the written blocks back.
    fn drive<T: Target>(&self, mut target: T, waits: &mut Ready<'_>) -> Result<Outcome, Error> {
        let mut verify = self.verify();
        if self.settings.prepare && !self.settings.is_prepared {
            verify = self.prepare(&mut target, verify)?;
        }
        waits.wait();
        let mut clock = self.clock;
        let plan = self.plan();
        let is_plain = verify.is_none() && self.is_uniform();
        if is_plain {
            let random = Random::new(self.settings.seed, self.index as u64);
            let mut work = UniformReads::new(self.range(), plan.bytes_max, random);
            return engine::run(&mut target, &mut clock, &mut work, &plan, self.watch);
        }
        let mut work = General::new(self.general(), self.pace(), verify);
        let mut outcome = engine::run(&mut target, &mut clock, &mut work, &plan, self.watch)?;
        if self.settings.rw.writes() {
            target.flush()?;
        }
        let verify = work.into_verify();
        if outcome.errors == 0 && self.settings.rw.writes() && verify.is_some() {
            let read = self.pass(&mut target, false, verify)?.0;
            outcome.errors += read.errors;
            outcome.failed = read.failed;
        }
        Ok(outcome)
    }

    /// Returns true if a workload that costs less than the general one serves the settings.
    fn is_uniform(&self) -> bool {
        let Settings { rw, sizes, distribution, rate, .. } = self.settings;
        !rw.writes() && *distribution == Distribution::Random && sizes.len() == 1 && rate.is_none()
    }

    fn verify(&self) -> Option<Verify> {
        let settings = self.settings;
        settings.verify.then(|| {
            let origin = Origin { seed: settings.seed, file: self.row.file };
            let must_know = !settings.rw.writes();
            Verify::new(origin, &self.row.name, self.range(), settings.unit(), must_know)
        })
    }

    /// Writes the whole range once.
    fn prepare<T: Target>(
        &self,
        target: &mut T,
        verify: Option<Verify>,
    ) -> Result<Option<Verify>, Error> {
        // The pattern is written also if it is not checked: drives may compress zeroes.
        let verify = verify.or_else(|| {
            let origin = Origin { seed: self.settings.seed, file: self.row.file };
            let unit = self.settings.unit();
            Some(Verify::new(origin, &self.row.name, self.range(), unit, false))
        });
        let (outcome, verify) = self.pass(target, true, verify)?;
        target.flush()?;
        match outcome.failed {
            Some(failed) => Err(Error(format!("cannot prepare: {}", failed.error))),
            None => Ok(verify.filter(|_| self.settings.verify)),
        }
    }

    /// Writes or reads the whole range once.
    fn pass<T: Target>(
        &self,
        target: &mut T,
        write: bool,
        verify: Option<Verify>,
    ) -> Result<(Outcome, Option<Verify>), Error> {
        let range = self.range();
        let unit = self.settings.unit().max(1);
        let bytes = (PASS_BYTES / unit).max(1) * unit;
        let bytes = usize::try_from(bytes.min(range.end - range.start)).unwrap_or(usize::MAX);
        let count = (range.end - range.start).div_ceil(bytes as u64);
        let mut work = General::pass(range, bytes, write, verify);
        let plan = Plan {
            depth: self.settings.depth.min(32).into(),
            bytes_max: bytes,
            count,
            latency: Latency::None,
            ..Plan::default()
        };
        let mut clock = self.clock;
        let outcome = engine::run(target, &mut clock, &mut work, &plan, self.watch)?;
        Ok((outcome, work.into_verify()))
    }

    fn general(&self) -> general::Settings {
        let settings = self.settings;
        general::Settings {
            range: self.range(),
            sizes: settings.sizes.clone(),
            read_percent: settings.rw.read_percent(settings.mix),
            distribution: settings.distribution,
            seed: settings.seed,
            random: Random::new(settings.seed, self.index as u64),
        }
    }

    fn pace(&self) -> Option<Pace> {
        let settings = self.settings;
        let rate = settings.rate? / settings.threads as f64;
        // Positions and starts are independent.
        let random = Random::new(!settings.seed, self.index as u64);
        Some(Pace::new(rate, settings.arrival, random))
    }

    fn plan(&self) -> Plan {
        let settings = self.settings;
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let threads = settings.threads as u64;
        // The first threads do the rest.
        let count =
            |count: u64| count / threads + u64::from((self.number as u64) < count % threads);
        Plan {
            depth: settings.depth.into(),
            bytes_max: settings.bytes_max(),
            batch_submit: settings.batch_submit.unwrap_or(usize::MAX),
            batch_complete: settings.batch_complete,
            ramp: nanos(settings.ramp),
            time: settings.time.map_or(u64::MAX, nanos),
            count: settings.count.map_or(u64::MAX, count),
            latency: settings.latency,
            go_on: settings.go_on,
            interrupt: settings.interrupt,
            cpu: cpu_time,
        }
    }
}

/// The duty to let the other threads begin.
struct Ready<'b>(Option<&'b Barrier>);

impl Ready<'_> {
    fn wait(&mut self) {
        if let Some(barrier) = self.0.take() {
            barrier.wait();
        }
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        self.wait();
    }
}

/// Returns the positions of the extents of a file.
fn starts(file: &nvio_ext4::File) -> Vec<u64> {
    file.extents().filter_map(|extent| Some(extent.ok()?.logical)).collect()
}

/// Returns the processor time of this thread in nanoseconds.
fn cpu_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let [seconds, nanos] = [time.tv_sec, time.tv_nsec].map(|part| u64::try_from(part).unwrap_or(0));
    seconds * 1_000_000_000 + nanos
}

/// Binds this thread to a processor: one of `cpus`, or of those that the process may use.
fn pin(cpus: &[usize], index: usize) -> rustix::io::Result<()> {
    let allowed;
    let cpus = match cpus {
        [] => {
            let set = sched_getaffinity(None)?;
            allowed = (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect::<Vec<_>>();
            &allowed[..]
        }
        cpus => cpus,
    };
    let Some(&cpu) = cpus.get(index % cpus.len().max(1)) else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
}
