//! The queue under test's view of the device, watched: what is lent to the controller, which
//! commands there are, and what goes wrong on purpose.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nvio_driver::DmaBuf;
use nvio_iomap::{
    Bio, BioDone, BioOp, DiskQueue, Error, Handler, Queue, Rejected, WritableDisk, WriteQueue,
};

use crate::simulation::buffers::span;
use crate::simulation::lend::{Lent, Span};
use crate::simulation::lock;
use crate::simulation::machine::Machine;
use nvio_testkit::random::Rng;

/// How long is waited at a time, and how often, before a command is taken to be lost.
const STEP: Duration = Duration::from_micros(20);
const STEPS: u32 = 40;

/// What is wrong with the queue on purpose, to see that a run finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// Nothing.
    #[default]
    None,
    /// Writes are not durable that were to be.
    DropFua,
    /// Flushes do nothing.
    LyingFlush,
    /// Some reads leave the buffer as it is.
    LyingRead,
    /// Some writes do nothing.
    LyingWrite,
    /// Some writes go one block too far.
    Misdirected,
    /// Some reads have a byte changed.
    FlippedByte,
    /// What is written in vain is a success.
    HiddenError,
}

/// A command that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Whether it is a write.
    pub write: bool,
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// Whether it was to be durable.
    pub fua: bool,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Where the test's own buffers are.
    pub user: Vec<Span>,
    /// Reads and writes since this was emptied.
    pub commands: Vec<Command>,
    /// How often there was no room, since this was set to 0.
    pub refused: u32,
    /// Most bytes that can be allocated; 0 for none.
    pub most: usize,
    /// How often they could not.
    pub short: u32,
    /// The first thing that was wrong.
    pub wrong: Option<String>,
    /// Commands so far.
    pub total: u64,
}

/// A queue of bios that is watched.
pub struct Watched<C> {
    inner: DiskQueue<C, WritableDisk>,
    machine: Arc<Mutex<Machine>>,
    seen: Arc<Mutex<Seen>>,
    rng: Rng,
    io_timeout: Duration,
    sabotage: Sabotage,
}

impl<C> Watched<C> {
    /// Watches a queue.
    pub fn new(
        inner: DiskQueue<C, WritableDisk>,
        machine: Arc<Mutex<Machine>>,
        seen: Arc<Mutex<Seen>>,
        (seed, io_timeout): (u64, Duration),
        sabotage: Sabotage,
    ) -> Self {
        Self { inner, machine, seen, rng: Rng::new(seed), io_timeout, sabotage }
    }

    /// The queue.
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
            seen.wrong.get_or_insert(format!("{command:?}, where {most} bytes is the most"));
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

/// A buffer has come back: the test's own is not to be touched, and others are nobody's.
fn returned(table: &mut crate::simulation::lend::Table, user: &[Span], at: Span) {
    match user.iter().any(|own| own.iova <= at.iova && at.end() <= own.end()) {
        true => table.set(at, Lent::Held),
        false => table.forget(at),
    }
}

/// What happens to each command that ends.
struct Ends {
    table: Arc<Mutex<crate::simulation::lend::Table>>,
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

/// What takes the ends of commands, by way of [`Ends`].
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
            // What is lost takes as long as it may, and need not be polled for all the time.
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
            // What was there before must not show.
            Ok(buf) => buf.fill(0xdd),
            Err(_) => lock(&self.seen).short += 1,
        }
        buf
    }
}

impl<C> WriteQueue<C> for Watched<C> {}
