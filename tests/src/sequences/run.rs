//! The run of one sequence: a controller at power on, a file on it, and the steps.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nvio_driver::spec::opcode::nvm;
use nvio_driver::spec::status;
use nvio_driver::{Controller, DmaBuf, Options, QueuePair, WritableController, WritableNamespace};
use nvio_emulator::{Backing, Config, Fault, Faults, NamespaceConfig, Rates, Rule, Service};
use nvio_iomap::{DiskQueue, Done, FileQueue, Tag, WritableDisk};

use super::filesystem::{Fs, FsError, FsInode};
use super::layout::Layout;
use super::memory::Workshop;
use super::outcome::Outcome;
use super::pending::Pending;
use super::strategy::{Sequence, Step, Trouble};
use super::watch::{Sabotage, Seen, Watched};
use crate::simulator::device::Device;
use crate::simulator::model::{Ending, Model};
use crate::simulator::{Checked, Wrong, content, ensure, lock, wrong};
use nvio_testkit::random::Rng;

/// Token of the write that initialises every block.
const FIRST: u64 = 1;
/// Timeout of commands.
pub const IO_TIMEOUT: Duration = Duration::from_millis(4);
/// Size of the write cache, bytes.
const CACHE: u64 = 1 << 20;

/// The queue under test.
pub type Queue = FileQueue<Watched<Tag<FsInode>>, FsInode>;

/// Plays a sequence and returns its counts.
///
/// # Errors
/// The first error.
pub fn run(sequence: &Sequence, sabotage: Sabotage, print: bool) -> Checked<Outcome> {
    let mut run = Run::new(sequence, sabotage, print)?;
    for (index, step) in sequence.steps.iter().enumerate() {
        run.device.say(|| format!("step {index}: {step:?}"));
        run.step(step).map_err(|Wrong(why)| Wrong(format!("step {index}: {why}")))?;
    }
    run.finish()
}

/// The state of a run. The driver's side is dropped first.
pub struct Run<'a> {
    pub(super) queue: Option<Queue>,
    pub(super) fs: Fs,
    pub(super) pending: BTreeMap<u64, Pending>,
    pub(super) namespace: WritableNamespace,
    pub(super) controller: WritableController,
    pub(super) workshop: Workshop,
    pub(super) seen: Arc<Mutex<Seen>>,
    pub(super) device: Device,
    pub(super) model: Model,
    pub(super) sequence: &'a Sequence,
    pub(super) rng: Rng,
    pub(super) token: u64,
    pub(super) outcome: Outcome,
    /// The end hook has failed on purpose.
    pub(super) end_hook: bool,
    /// Number of resets and power cuts.
    pub(super) mishaps: u64,
    /// Number of requests that ended with a failure of the device.
    pub(super) failures: u64,
    /// Moment of the last power cut.
    pub(super) cut: u64,
    simple: bool,
}

impl<'a> Run<'a> {
    fn new(sequence: &'a Sequence, sabotage: Sabotage, print: bool) -> Checked<Self> {
        let layout = Layout::new(&sequence.device, &sequence.file);
        let mut device = Device::new(&config(sequence, &layout), sequence.seed, 1 << 32, print)?;
        let seen = Arc::new(Mutex::new(Seen { most: usize::MAX, ..Seen::default() }));
        let table = device.with(|machine| Arc::clone(&machine.table));
        let workshop = Workshop { table, seen: Arc::clone(&seen) };
        let failed = |error: nvio_driver::Error| wrong("opening the controller", &error);
        let controller = device.open(options(sequence))?;
        let namespace = controller.writable_namespace(1).map_err(failed)?;
        let mut model = Model::new([layout.device_blocks], sequence.device.cached);
        prepare(&controller, &namespace, &device, &mut model).map_err(failed)?;
        device.count_pages();
        let disk = WritableDisk::whole(&namespace);
        let queue = DiskQueue::new(&controller, &disk, sequence.depth)
            .map_err(|error| wrong("the queue", &error))?;
        let timing = (sequence.seed ^ 1, IO_TIMEOUT);
        let watched =
            Watched::new(queue, Arc::clone(device.machine()), Arc::clone(&seen), timing, sabotage);
        let bytes = layout.block;
        let inline = Rng::new(sequence.seed).bytes(bytes);
        let fs = Fs::new(layout, inline);
        let run = Self {
            queue: Some(FileQueue::new(watched)),
            fs,
            pending: BTreeMap::new(),
            namespace,
            controller,
            workshop,
            seen,
            device,
            model,
            sequence,
            rng: Rng::new(sequence.seed ^ 2),
            token: FIRST,
            outcome: Outcome { sequences: 1, ..Outcome::default() },
            end_hook: false,
            mishaps: 0,
            failures: 0,
            cut: 0,
            simple: true,
        };
        run.set_faults(sabotage)?;
        Ok(run)
    }

    fn set_faults(&self, sabotage: Sabotage) -> Checked {
        let Trouble { status, late, lost, duplicate, stale_id, fatal } = self.sequence.rates;
        let late_up_to = IO_TIMEOUT * 2;
        let rates = Rates {
            status,
            late,
            lost,
            duplicate,
            stale_id,
            fatal,
            late_up_to,
            ..Rates::default()
        };
        let mut faults = Faults::new().seeded(self.sequence.seed, rates);
        let lie = |opcode| Rule::new(Fault::Status(status::SUCCESS)).opcode(opcode);
        match sabotage {
            Sabotage::LyingFlush => faults = faults.rule(lie(nvm::FLUSH)),
            Sabotage::LyingWrite => faults = faults.rule(lie(nvm::WRITE).nth(3)),
            _ => {}
        }
        self.device.set_faults(&faults)
    }

    pub(super) fn queue(&mut self) -> Checked<&mut Queue> {
        self.queue.as_mut().ok_or(Wrong("no queue".into()))
    }

    pub(super) fn is_simple(&self) -> bool {
        self.simple
    }

    /// Returns true if the device may have failed.
    pub(super) fn is_disturbed(&self) -> bool {
        let counts = self.device.with(|machine| machine.fault_counts());
        counts.status + counts.late + counts.lost + counts.device + self.mishaps > 0
    }

    fn step(&mut self, step: &Step) -> Checked {
        match step {
            Step::Ask(ask) => self.ask(ask)?,
            Step::Ring => self.queue()?.ring(),
            Step::Poll(limit) => self.poll(*limit)?,
            Step::Wait => self.wait().map(drop)?,
            Step::Pass(time, budget) => {
                let time = Duration::from_micros((*time).into());
                self.device.with(|machine| machine.pass(time, *budget));
            }
            Step::Simple(on) => {
                self.simple = *on;
                self.queue()?.set_simple(*on);
            }
            Step::Reset => {
                self.mishaps += 1;
                self.controller.reset().map_err(|error| wrong("a reset failed", &error))?;
            }
            Step::PowerCut => self.power_cut()?,
            Step::Shortage(most) => lock(&self.seen).most = *most,
            Step::EndHook(fails) => {
                self.end_hook |= *fails;
                self.fs.with(|state| state.fail_end_hook = *fails);
            }
            Step::Dirty => self.fs.with(|state| state.dirty = true),
        }
        self.check()
    }

    pub(super) fn power_cut(&mut self) -> Checked {
        self.mishaps += 1;
        let seed = self.rng.next_u64();
        self.device.with(|machine| machine.power_cut(seed));
        self.model.power_cut();
        self.cut = self.model.moment();
        // The host resets the controller after a power cut. The simulation covers hosts that do not
        // notice it.
        self.controller.reset().map_err(|error| wrong("a reset failed", &error))
    }

    /// Polls results.
    pub(super) fn poll(&mut self, limit: usize) -> Checked {
        let mut done = Vec::new();
        let (fs, pending) = (&self.fs, self.pending.len());
        let queue = self.queue.as_mut().ok_or(Wrong("no queue".into()))?;
        let mut late = false;
        let count = queue.poll(limit, |one| {
            done.push(one);
            // A completed request must no longer be counted when its result is delivered.
            late |= fs.in_flight() > pending - done.len().min(pending);
        });
        ensure!(
            count == done.len() && count <= limit,
            "poll says {count}, and gave {}",
            done.len()
        );
        ensure!(!late, "a request that has ended is still counted as in flight");
        self.deliver(done)
    }

    /// Waits for results and returns their number.
    pub(super) fn wait(&mut self) -> Checked<usize> {
        let mut done = Vec::new();
        let count = self.queue()?.wait(|one| done.push(one));
        let count = count.map_err(|error| wrong("waiting", &error))?;
        ensure!(count == done.len(), "wait says {count}, and gave {}", done.len());
        ensure!(count > 0 || self.pending.is_empty(), "nothing came, of {}", self.pending.len());
        self.deliver(done)?;
        Ok(count)
    }

    fn deliver(&mut self, done: Vec<Done<FsError>>) -> Checked {
        for Done { token, result, memory } in done {
            let Some(pending) = self.pending.remove(&token) else {
                return Err(Wrong(format!("request {token} ended, which is not in flight")));
            };
            self.outcome.ended += 1;
            self.ended(pending, result, memory)?;
        }
        Ok(())
    }

    /// Checks the invariants.
    pub(super) fn check(&mut self) -> Checked {
        self.device.check_accesses()?;
        if let Some(wrong) = lock(&self.seen).wrong.clone() {
            return Err(Wrong(wrong));
        }
        if let Some(wrong) = self.fs.with(|state| state.wrong.clone()) {
            return Err(Wrong(wrong));
        }
        let (counted, known) = (self.fs.in_flight(), self.pending.len());
        ensure!(counted <= known, "{counted} requests are in flight, and {known} are known");
        Ok(())
    }
}

fn options(sequence: &Sequence) -> Options {
    Options {
        arena_bytes: 4 << 20,
        queues: 2,
        admin_timeout: Duration::from_millis(20),
        io_timeout: IO_TIMEOUT,
        max_transfer: 1 << sequence.device.most_shift,
        writable: true,
        ..Options::default()
    }
}

fn config(sequence: &Sequence, layout: &Layout) -> Config {
    let device = &sequence.device;
    let backing = Backing::memory(layout.device_blocks * layout.device_block);
    let namespace =
        NamespaceConfig::new(backing).block_size(1 << device.block_shift).noiob(device.boundary);
    let mut config = Config::new()
        .namespace(namespace)
        .max_queues(2)
        .mdts(device.mdts)
        .atomic_writes(device.atomic, device.atomic)
        .sgl(device.sgl);
    if device.cached {
        config = config.write_cache(CACHE);
    }
    if device.jitter {
        let latency = Duration::from_micros(5);
        let service = Service::new().latency(latency).jitter(latency * 20, sequence.seed);
        config = config.service(service);
    }
    config
}

/// Writes all blocks, so that no block reads as zeroes.
fn prepare(
    controller: &Controller,
    namespace: &WritableNamespace,
    device: &Device,
    model: &mut Model,
) -> Result<(), nvio_driver::Error> {
    let mut pair = controller.queue_pair::<()>(32)?;
    let block = namespace.block_size() as usize;
    let most = namespace.max_transfer().min(64 << 10) / block;
    let table = device.with(|machine| Arc::clone(&machine.table));
    let mut lba = 0;
    let begun = model.moment();
    while lba < namespace.blocks() {
        let blocks = (namespace.blocks() - lba).min(most as u64);
        let mut buf = controller.alloc(usize::try_from(blocks).unwrap_or(1) * block)?;
        for (at, bytes) in (lba..).zip(buf.chunks_mut(block)) {
            content::fill(bytes, FIRST, content::place(1, at));
            model.write_begins(0, at, FIRST, FIRST);
        }
        let at = crate::simulator::buffers::span(&buf);
        lock(&table).set(at, crate::simulator::lend::Lent::Out);
        if let Err(rejected) = pair.write(namespace, lba, buf, ()) {
            return Err(rejected.error);
        }
        finish_one(&mut pair, device)?;
        lock(&table).forget(at);
        lba += blocks;
    }
    if let Err(rejected) = pair.flush(namespace, ()) {
        return Err(rejected.error);
    }
    finish_one(&mut pair, device)?;
    model.moment();
    for lba in 0..namespace.blocks() {
        model.write_ends(0, lba, FIRST, begun, Ending::Done { durable: true });
    }
    Ok(())
}

/// Waits for the only command in flight, and returns its buffer.
pub(super) fn finish_one(
    pair: &mut QueuePair<()>,
    device: &Device,
) -> Result<Option<DmaBuf>, nvio_driver::Error> {
    pair.ring();
    for _ in 0..100 {
        if pair.is_ready() {
            break;
        }
        device.with(|machine| machine.pass(Duration::from_micros(100), usize::MAX));
    }
    let mut done = None;
    pair.wait(|completion| done = Some(completion))?;
    Ok(done.filter(|done| done.status.is_success()).map(|done| done.buf))
}
