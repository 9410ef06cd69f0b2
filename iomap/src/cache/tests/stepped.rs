//! A device on a stepped clock: each poll is a step, commands end in any order, and some fail.

use std::sync::{Arc, Mutex};

use nvio_driver::{Arena, DmaBuf, FrozenBuf, Handler, Rejected};
use nvio_testkit::random::Rng;

use super::switched;
use crate::{Bio, BioDone, BioError, BioOp, Error, Queue, WriteQueue};

const SECTOR: usize = 512;
/// The content of blocks that were never written: neither a value nor zeroes.
pub(super) const GARBAGE: u8 = 0xab;

/// Chances of faults, in thousandths of the commands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) read: u64,
    pub(super) write: u64,
    pub(super) flush: u64,
    /// The queue rejects a command.
    pub(super) reject: u64,
    /// A failed command keeps its memory.
    pub(super) lost: u64,
    /// The arena has no memory.
    pub(super) memory: u64,
}

/// The bytes of the device, which its queues share.
pub(super) struct Disk {
    /// The bytes that commands read.
    pub(super) bytes: Vec<u8>,
    /// The bytes that a power cut leaves.
    pub(super) durable: Vec<u8>,
    /// Completed writes that were not flushed, with the number of writes before them.
    volatile: Vec<(u64, u64, Vec<u8>)>,
    writes: u64,
    now: u64,
    rng: Rng,
    pub(super) faults: Faults,
    /// Writes of the cache that failed.
    pub(super) failed_writes: u64,
    /// Device ranges of the writes in flight.
    writing: Vec<(u64, u64)>,
    /// Memory that failed commands kept.
    kept: Vec<Data>,
    /// The first rule that the submitters broke.
    pub(super) broken: Option<String>,
}

/// The state that the queues of the device share.
#[derive(Clone)]
pub(super) struct Queues {
    pub(super) disk: Arc<Mutex<Disk>>,
    pub(super) arena: Arena,
    /// Commands in flight.
    pub(super) depth: usize,
    /// Bytes of a command.
    pub(super) most: usize,
}

/// A queue of the device.
pub(super) struct Stepped<C> {
    queues: Queues,
    in_flight: Vec<Command<C>>,
    /// Its failed writes are counted.
    is_counted: bool,
}

struct Command<C> {
    due: u64,
    tag: C,
    addr: u64,
    work: Work,
    result: Result<(), BioError>,
    keeps: bool,
}

enum Work {
    Read(DmaBuf),
    Write { memory: Data, copy: Vec<u8>, fua: bool, applied: bool },
    Flush { before: u64 },
}

/// The memory of a write.
enum Data {
    Own(DmaBuf),
    Frozen(Vec<FrozenBuf>),
}

impl Data {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Own(buf) => buf.to_vec(),
            Self::Frozen(parts) => parts.iter().flat_map(|part| part.to_vec()).collect(),
        }
    }
}

impl Disk {
    pub(super) fn new(bytes: Vec<u8>, durable: Vec<u8>, seed: u64, faults: Faults) -> Self {
        Self {
            bytes,
            durable,
            volatile: Vec::new(),
            writes: 0,
            now: 0,
            rng: Rng::new(seed),
            faults,
            failed_writes: 0,
            writing: Vec::new(),
            kept: Vec::new(),
            broken: None,
        }
    }

    /// Returns true if memory did not come back.
    pub(super) fn kept(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Moves bytes durably to another place, and leaves garbage.
    pub(super) fn relocate(&mut self, from: u64, to: u64, bytes: usize) {
        let (from, at) = (from as usize, to as usize);
        self.bytes.copy_within(from..from + bytes, at);
        for sector in (0..bytes).step_by(SECTOR) {
            let data = &self.bytes[from + sector..][..SECTOR];
            // No write was here: a power cut leaves zeroes.
            let is_written = data.iter().any(|&byte| byte != GARBAGE);
            let durable = &mut self.durable[at + sector..][..SECTOR];
            if is_written { durable.copy_from_slice(data) } else { durable.fill(0) }
        }
        self.bytes[from..from + bytes].fill(0xcd);
    }

    /// Draws whether a fault of this chance happens.
    fn happens(&mut self, chance: u64) -> bool {
        chance > 0 && self.rng.below(1000) < chance
    }

    fn break_rule(&mut self, rule: String) {
        self.broken.get_or_insert(rule);
        switched::stop();
    }

    fn due(&mut self) -> u64 {
        let most = *self.rng.pick(&[1, 4, 12, 60]);
        self.now + self.rng.below(most)
    }

    /// Writes data, or those of its sectors that a failed write reached.
    fn apply(&mut self, addr: u64, data: &[u8], failed: bool) {
        let reached = if failed { self.rng.below(3) } else { 2 };
        for (index, sector) in data.chunks(SECTOR).enumerate() {
            if reached == 2 || reached == 1 && self.rng.below(2) == 0 {
                let at = addr as usize + index * SECTOR;
                self.bytes[at..at + sector.len()].copy_from_slice(sector);
            }
        }
    }

    fn begin_write(&mut self, addr: u64, bytes: u64) {
        let range = (addr, addr + bytes);
        if self.writing.iter().any(|other| range.0 < other.1 && other.0 < range.1) {
            self.break_rule(format!("two writes of the device's bytes {range:?} at a time"));
        }
        self.writing.push(range);
    }

    /// Ends a write. With `fua`, it is durable.
    fn end_write(&mut self, addr: u64, copy: Vec<u8>, fua: bool, failed: bool) {
        let range = (addr, addr + copy.len() as u64);
        let at = self.writing.iter().position(|other| *other == range);
        self.writing.remove(at.unwrap());
        if failed {
            return;
        }
        self.writes += 1;
        if !fua {
            return self.volatile.push((self.writes, addr, copy));
        }
        self.durable[addr as usize..][..copy.len()].copy_from_slice(&copy);
        // A flush of an older write does not bring its data back.
        for (_, first, older) in &mut self.volatile {
            for (index, byte) in older.iter_mut().enumerate() {
                let at = *first + index as u64;
                if (range.0..range.1).contains(&at) {
                    *byte = copy[(at - range.0) as usize];
                }
            }
        }
    }

    /// Makes the writes durable that had ended when a flush was submitted.
    fn flush(&mut self, before: u64) {
        let count = self.volatile.iter().take_while(|write| write.0 <= before).count();
        for (_, addr, data) in self.volatile.drain(..count) {
            self.durable[addr as usize..][..data.len()].copy_from_slice(&data);
        }
    }
}

impl<C> Stepped<C> {
    /// Creates a queue. If it `is_counted`, its failed writes are.
    pub(super) fn new(queues: Queues, is_counted: bool) -> Self {
        Self { queues, in_flight: Vec::new(), is_counted }
    }

    fn disk<T>(&self, with: impl FnOnce(&mut Disk) -> T) -> T {
        with(&mut self.queues.disk.lock().unwrap())
    }

    /// Returns the reason not to accept a command.
    fn refusal(&self, addr: u64, length: u64, write: bool) -> Option<Error> {
        if self.in_flight.len() >= self.queues.depth {
            return Some(Error::Busy);
        }
        self.disk(|disk| {
            let size = disk.bytes.len() as u64;
            let aligned = (addr | length).is_multiple_of(SECTOR as u64);
            if !aligned || addr + length > size || length > self.queues.most as u64 {
                disk.break_rule(format!("a command at {addr} of {length} bytes"));
            }
            let chance = disk.faults.reject;
            let rejects = disk.happens(chance);
            disk.failed_writes += u64::from(rejects && write && self.is_counted);
            rejects.then_some(Error::OutsideDisk { addr, length, size })
        })
    }

    fn accept(&mut self, addr: u64, tag: C, work: Work) {
        let (due, failed, lost) = self.disk(|disk| {
            let Faults { read, write, flush, lost, .. } = disk.faults;
            let failed = disk.happens(match work {
                Work::Read(_) => read,
                Work::Write { .. } => write,
                Work::Flush { .. } => flush,
            });
            (disk.due(), failed, failed && disk.happens(lost))
        });
        let result = if failed { Err(BioError::System { errno: 5 }) } else { Ok(()) };
        self.in_flight.push(Command { due, tag, addr, work, result, keeps: lost });
    }

    fn accept_write(&mut self, addr: u64, memory: Data, fua: bool, tag: C) {
        let copy = memory.bytes();
        let applied = self.disk(|disk| {
            disk.begin_write(addr, copy.len() as u64);
            disk.rng.below(2) == 0
        });
        let work = Work::Write { memory, copy, fua, applied: false };
        self.accept(addr, tag, work);
        // The device takes the data at once or at the end.
        if applied && let Some(command) = self.in_flight.last_mut() {
            let failed = command.result.is_err();
            if let Work::Write { copy, applied, .. } = &mut command.work {
                self.queues.disk.lock().unwrap().apply(addr, copy, failed);
                *applied = true;
            }
        }
    }

    fn end(&self, command: Command<C>) -> BioDone<C> {
        let Command { tag, addr, work, result, keeps, .. } = command;
        let empty = || self.queues.arena.alloc(0).unwrap();
        let failed = result.is_err();
        let disk = &mut *self.queues.disk.lock().unwrap();
        let buf = match work {
            Work::Read(mut buf) => {
                let bytes = &disk.bytes[addr as usize..][..buf.len()];
                if failed {
                    buf.fill(0xee)
                } else {
                    buf.copy_from_slice(bytes)
                }
                if keeps {
                    disk.kept.push(Data::Own(buf));
                    empty()
                } else {
                    buf
                }
            }
            Work::Write { memory, copy, fua, applied } => {
                if memory.bytes() != copy {
                    disk.break_rule(format!("the memory of a write at {addr} has changed"));
                }
                if !applied {
                    disk.apply(addr, &copy, failed);
                }
                disk.end_write(addr, copy, fua, failed);
                disk.failed_writes += u64::from(failed && self.is_counted);
                match memory {
                    memory if keeps => {
                        disk.kept.push(memory);
                        empty()
                    }
                    Data::Own(buf) => buf,
                    Data::Frozen(_) => empty(),
                }
            }
            Work::Flush { before } => {
                if !failed {
                    disk.flush(before);
                }
                empty()
            }
        };
        BioDone { tag, buf, result }
    }
}

impl<C> Queue<C> for Stepped<C> {
    fn block_shift(&self) -> u32 {
        9
    }

    fn size(&self) -> u64 {
        self.disk(|disk| disk.bytes.len() as u64)
    }

    fn capacity(&self) -> usize {
        self.queues.depth
    }

    fn max_transfer(&self) -> usize {
        self.queues.most
    }

    fn submit(&mut self, bio: Bio<C>) -> Result<(), Rejected<Error, Bio<C>>> {
        if let Some(error) = self.refusal(bio.addr, bio.buf.len() as u64, bio.op == BioOp::Write) {
            return Err(Rejected { error, payload: bio });
        }
        let Bio { op, addr, buf, tag, fua } = bio;
        match op {
            BioOp::Read => self.accept(addr, tag, Work::Read(buf)),
            BioOp::Write => self.accept_write(addr, Data::Own(buf), fua, tag),
        }
        Ok(())
    }

    fn flush(&mut self, tag: C) -> Result<(), Rejected<Error, C>> {
        if let Some(error) = self.refusal(0, 0, false) {
            return Err(Rejected { error, payload: tag });
        }
        let before = self.disk(|disk| disk.writes);
        self.accept(0, tag, Work::Flush { before });
        Ok(())
    }

    fn ring(&mut self) {}

    fn poll(&mut self, limit: usize, handler: &mut impl Handler<BioDone<C>>) -> usize {
        let now = self.disk(|disk| {
            disk.now += 1;
            disk.now
        });
        let mut count = 0;
        while count < limit {
            let next = self.in_flight.iter().enumerate().filter(|(_, command)| command.due < now);
            let Some((index, _)) = next.min_by_key(|(_, command)| command.due) else { break };
            let command = self.in_flight.swap_remove(index);
            let done = self.end(command);
            handler.completed(done);
            count += 1;
        }
        count
    }

    fn wait(&mut self, mut done: impl FnMut(BioDone<C>)) -> Result<usize, Error> {
        while !self.in_flight.is_empty() {
            let count = self.poll(usize::MAX, &mut done);
            if count > 0 {
                return Ok(count);
            }
            switched::spin_loop();
        }
        Ok(0)
    }

    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        let missing = self.disk(|disk| {
            let chance = disk.faults.memory;
            disk.happens(chance)
        });
        if missing { Err(Error::NoMemory) } else { Ok(self.queues.arena.alloc(bytes)?) }
    }

    fn alloc_uncleared(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        self.alloc(bytes).map(|mut buf| {
            buf.fill(0xa5);
            buf
        })
    }
}

impl<C> WriteQueue<C> for Stepped<C> {
    fn write_frozen(
        &mut self,
        addr: u64,
        parts: &[FrozenBuf],
        fua: bool,
        tag: C,
    ) -> Result<(), Rejected<Error, C>> {
        let length = parts.iter().map(|part| part.len() as u64).sum();
        if let Some(error) = self.refusal(addr, length, true) {
            return Err(Rejected { error, payload: tag });
        }
        let parts = parts.iter().filter_map(|part| part.slice(0..part.len())).collect();
        self.accept_write(addr, Data::Frozen(parts), fua, tag);
        Ok(())
    }
}
