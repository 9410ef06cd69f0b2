//! A wrapper around the queue of bios that records commands, tracks the memory that is lent to the
//! controller, and injects faults.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nvio_driver::DmaBuf;
use nvio_iomap::{
    Bio, BioDone, BioOp, DiskQueue, Error, Handler, Queue, Rejected, WritableDisk, WriteQueue,
};

use crate::simulator::buffers::span;
use crate::simulator::lend::{Lent, Span};
use crate::simulator::lock;
use crate::simulator::machine::Machine;
use nvio_testkit::random::Rng;

/// Time and number of the steps of a wait, before a command is considered lost.
const STEP: Duration = Duration::from_micros(20);
const STEPS: u32 = 40;

/// A fault of the queue that is injected on purpose, to test that runs detect it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// No fault.
    #[default]
    None,
    /// Writes with FUA are not durable.
    DropFua,
    /// Flushes have no effect.
    LyingFlush,
    /// Some reads do not change the buffer.
    LyingRead,
    /// Some writes have no effect.
    LyingWrite,
    /// Some writes change the block after the right one instead.
    Misdirected,
    /// A byte is changed in some reads.
    FlippedByte,
    /// Failed writes are reported as successful.
    HiddenError,
}

/// A submitted command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// The command is a write.
    pub write: bool,
    /// First byte on the device.
    pub addr: u64,
    /// Length, bytes.
    pub len: u64,
    /// The command has FUA.
    pub fua: bool,
}

/// The recorded events.
#[derive(Debug, Default)]
pub struct Seen {
    /// Addresses of the test's own buffers.
    pub user: Vec<Span>,
    /// Reads and writes since the last reset of this list.
    pub commands: Vec<Command>,
    /// Number of commands rejected by a full queue since the last reset of this count.
    pub refused: u32,
    /// Maximum size of an allocation, bytes; 0 if all fail.
    pub most: usize,
    /// Number of failed allocations.
    pub short: u32,
    /// The first violation.
    pub wrong: Option<String>,
    /// Total number of commands.
    pub total: u64,
}

/// A queue of bios with recording and fault injection.
pub struct Watched<C> {
    inner: DiskQueue<C, WritableDisk>,
    machine: Arc<Mutex<Machine>>,
    seen: Arc<Mutex<Seen>>,
    rng: Rng,
    io_timeout: Duration,
    sabotage: Sabotage,
}

impl<C> Watched<C> {
    /// Wraps a queue.
    pub fn new(
        inner: DiskQueue<C, WritableDisk>,
        machine: Arc<Mutex<Machine>>,
        seen: Arc<Mutex<Seen>>,
        (seed, io_timeout): (u64, Duration),
        sabotage: Sabotage,
    ) -> Self {
        Self { inner, machine, seen, rng: Rng::new(seed), io_timeout, sabotage }
    }

    /// Returns the wrapped queue.
    pub fn inner(&self) -> &DiskQueue<C, WritableDisk> {
        &self.inner
    }

    fn lend(&self, at: Span, lent: Lent) {
        let table = Arc::clone(&lock(&self.machine).table);
        lock(&table).set(at, lent);
    }

    fn taken(&mut self, command: Command) {
        let most =
            <DiskQueue<C, WritableDisk> as Queue<C>>::max_transfer_at(&self.inner, command.addr);
        let mut seen = lock(&self.seen);
        if command.len == 0 || command.len > most as u64 {
            seen.wrong.get_or_insert(format!("{command:?} exceeds the maximum of {most} bytes"));
        }
        seen.commands.push(command);
        seen.total += 1;
    }

    fn refused(&mut self, refused: &Rejected<Error, Bio<C>>, at: Span) {
        let table = Arc::clone(&lock(&self.machine).table);
        returned(&mut lock(&table), &lock(&self.seen).user, at);
        if matches!(refused.error, Error::Busy) {
            lock(&self.seen).refused += 1;
        } else {
            let wrong = format!("refused: {}", refused.error);
            lock(&self.seen).wrong.get_or_insert(wrong);
        }
    }

    fn sometimes(&mut self, sabotage: Sabotage) -> bool {
        self.sabotage == sabotage && self.rng.range(0, 4) == 0
    }
}

/// Records a returned buffer: one of the test must no longer be accessed, others are no longer in
/// the table.
fn returned(table: &mut crate::simulator::lend::Table, user: &[Span], at: Span) {
    match user.iter().any(|own| own.iova <= at.iova && at.end() <= own.end()) {
        true => table.set(at, Lent::Held),
        false => table.forget(at),
    }
}

/// The processing of each completed command.
struct Ends {
    table: Arc<Mutex<crate::simulator::lend::Table>>,
    seen: Arc<Mutex<Seen>>,
    hides: bool,
    flips: bool,
}

impl Ends {
    fn of<C>(watched: &mut Watched<C>) -> Self {
        let table = Arc::clone(&lock(&watched.machine).table);
        let flips = watched.sometimes(Sabotage::FlippedByte);
        let hides = watched.sabotage == Sabotage::HiddenError;
        Self { table, seen: Arc::clone(&watched.seen), hides, flips }
    }

    fn end<C>(&self, mut bio: BioDone<C>) -> BioDone<C> {
        if !bio.buf.is_empty() {
            returned(&mut lock(&self.table), &lock(&self.seen).user, span(&bio.buf));
        }
        if self.hides {
            bio.result = Ok(());
        }
        if self.flips && bio.result.is_ok() && !bio.buf.is_empty() {
            let at = bio.buf.len() / 2;
            bio.buf[at] ^= 1;
        }
        bio
    }
}

/// A handler that processes completions with [`Ends`] and forwards them.
struct Through<'a, S> {
    ends: Ends,
    handler: &'a mut S,
}

impl<C, S: Handler<BioDone<C>>> Handler<BioDone<C>> for Through<'_, S> {
    fn completed(&mut self, done: BioDone<C>) {
        self.handler.completed(self.ends.end(done));
    }
}

impl<C> Queue<C> for Watched<C> {
    fn block_shift(&self) -> u32 {
        self.inner.block_shift()
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn capacity(&self) -> usize {
        self.inner.capacity()
    }

    fn max_transfer(&self) -> usize {
        self.inner.max_transfer()
    }

    fn max_transfer_at(&self, addr: u64) -> usize {
        self.inner.max_transfer_at(addr)
    }

    fn fits(&self, addr: u64, bytes: u64) -> bool {
        self.inner.fits(addr, bytes)
    }

    fn has_volatile_cache(&self) -> bool {
        self.inner.has_volatile_cache()
    }

    fn max_atomic_at(&self, addr: u64) -> usize {
        self.inner.max_atomic_at(addr)
    }

    fn has_integrity(&self) -> bool {
        self.inner.has_integrity()
    }

    fn must_bounce(&self) -> bool {
        self.inner.must_bounce()
    }

    fn submit(&mut self, mut bio: Bio<C>) -> Result<(), Rejected<Error, Bio<C>>> {
        let (at, write) = (span(&bio.buf), bio.op == BioOp::Write);
        if !write && self.sometimes(Sabotage::LyingRead) {
            bio.addr = 0;
        }
        let command = Command { write, addr: bio.addr, len: at.len, fua: bio.fua };
        if write && self.sabotage == Sabotage::DropFua {
            bio.fua = false;
        }
        if write && self.sometimes(Sabotage::Misdirected) {
            bio.addr += 1 << self.inner.disk().block_shift();
        }
        self.lend(at, if write { Lent::Out } else { Lent::In });
        match self.inner.submit(bio) {
            Ok(()) => self.taken(command),
            Err(refused) => {
                self.refused(&refused, at);
                return Err(refused);
            }
        }
        Ok(())
    }

    fn flush(&mut self, tag: C) -> Result<(), Rejected<Error, C>> {
        lock(&self.seen).total += 1;
        self.inner.flush(tag)
    }

    fn ring(&mut self) {
        self.inner.ring();
    }

    fn poll(&mut self, limit: usize, handler: &mut impl Handler<BioDone<C>>) -> usize {
        let ends = Ends::of(self);
        self.inner.poll(limit, &mut Through { ends, handler })
    }

    fn wait(&mut self, mut done: impl FnMut(BioDone<C>)) -> Result<usize, Error> {
        self.inner.ring();
        let mut steps = 0;
        while self.inner.pair().in_flight() > 0 && !self.inner.pair().is_ready() {
            // Skip to the timeout, because a lost command cannot complete earlier.
            steps += 1;
            if steps > STEPS {
                lock(&self.machine).pass(self.io_timeout, usize::MAX);
                break;
            }
            let budget = usize::try_from(self.rng.range(0, 6)).unwrap_or(1);
            lock(&self.machine).pass(STEP, budget);
        }
        let ends = Ends::of(self);
        self.inner.wait(|bio| done(ends.end(bio)))
    }

    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        let mut seen = lock(&self.seen);
        if bytes > seen.most {
            seen.short += 1;
            return Err(Error::NoMemory);
        }
        drop(seen);
        let mut buf = <DiskQueue<C, WritableDisk> as Queue<C>>::alloc(&mut self.inner, bytes);
        match &mut buf {
            // Overwrite old contents, which must not reach the caller.
            Ok(buf) => buf.fill(0xdd),
            Err(_) => lock(&self.seen).short += 1,
        }
        buf
    }
}

impl<C> WriteQueue<C> for Watched<C> {}
