//! Doubles for the tests: a mapper that follows a script, and a queue over a byte array.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use nvio_driver::spec::Status;
use nvio_driver::{Arena, DmaBuf};

use crate::{
    Bio, BioDone, BioError, EndIo, Error, FileError, Inode, Mapper, Mapping, Op, Queue, Refused,
    Report, Settle, Shared, WriteQueue,
};

/// Which part failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fail {
    #[error("begin")]
    Begin,
    #[error("end")]
    End,
    /// A filesystem's own "again", which is not this crate's.
    #[error("again")]
    Again,
    #[error("hook")]
    Hook,
    #[error(transparent)]
    Iomap(#[from] Error),
}

impl FileError for Fail {
    fn is_again(&self) -> bool {
        matches!(self, Self::Again) || matches!(self, Self::Iomap(error) if error.is_again())
    }

    fn is_busy(&self) -> bool {
        matches!(self, Self::Iomap(error) if error.is_busy())
    }

    fn is_fall_back(&self) -> bool {
        matches!(self, Self::Iomap(error) if error.is_fall_back())
    }
}

/// What the inode was told, and how it is to behave.
#[derive(Debug, Default)]
pub(crate) struct MockState {
    pub(crate) dirty: bool,
    pub(crate) cached: bool,
    /// Whether cached data cannot be dropped.
    pub(crate) pinned: bool,
    pub(crate) fail_end_io: bool,
    pub(crate) fail_submit_io: bool,
    pub(crate) write_backs: Vec<(u64, u64)>,
    pub(crate) invalidations: Vec<(u64, u64)>,
    pub(crate) submits: Vec<(u64, u64, usize)>,
    pub(crate) ends: Vec<EndIo>,
    pub(crate) reports: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct MockInode(pub(crate) Mutex<MockState>);

impl Inode for MockInode {
    type Error = Fail;

    fn write_back(&self, pos: u64, length: u64, nowait: bool) -> Result<(), Fail> {
        let mut state = self.0.lock().unwrap();
        if !state.dirty {
            return Ok(());
        }
        if nowait {
            return Err(Fail::Again);
        }
        state.write_backs.push((pos, length));
        state.dirty = false;
        Ok(())
    }

    fn invalidate(&self, pos: u64, length: u64) -> bool {
        let mut state = self.0.lock().unwrap();
        state.invalidations.push((pos, length));
        !state.pinned
    }

    fn is_cached(&self) -> bool {
        self.0.lock().unwrap().cached
    }

    fn submit_io(&self, pos: u64, addr: u64, bytes: usize) -> Result<(), Fail> {
        let mut state = self.0.lock().unwrap();
        state.submits.push((pos, addr, bytes));
        if state.fail_submit_io { Err(Fail::Hook) } else { Ok(()) }
    }

    fn end_io(&self, end: &EndIo) -> Result<(), Fail> {
        let mut state = self.0.lock().unwrap();
        state.ends.push(*end);
        if state.fail_end_io { Err(Fail::Hook) } else { Ok(()) }
    }

    fn report(&self, report: &Report<'_, Fail>) {
        self.0.lock().unwrap().reports.push(report.error.to_string());
    }
}

/// Gives prepared mappings in turn, then fails; counts that each `begin` meets one `end`.
pub(crate) struct Script {
    mappings: VecDeque<Mapping>,
    begins: usize,
    ends: Vec<u64>,
    pub(crate) ops: Vec<Op>,
    failing_end: Option<usize>,
    pub(crate) inode: Shared<MockInode>,
    pub(crate) size: u64,
    pub(crate) block_size: u32,
    pub(crate) plain: bool,
    /// What `begin` fails with when no mapping is left.
    pub(crate) again: bool,
    /// Inline data, as a whole.
    pub(crate) inline: Vec<u8>,
}

impl Script {
    pub(crate) fn new(mappings: impl Into<VecDeque<Mapping>>) -> Self {
        Self {
            mappings: mappings.into(),
            begins: 0,
            ends: Vec::new(),
            ops: Vec::new(),
            failing_end: None,
            inode: Shared::new(MockInode::default()),
            size: 1 << 40,
            block_size: 4096,
            plain: true,
            again: false,
            inline: Vec::new(),
        }
    }

    pub(crate) fn fail_end(&mut self, index: usize) {
        self.failing_end = Some(index);
    }

    pub(crate) fn begins(&self) -> usize {
        self.begins
    }

    pub(crate) fn ends(&self) -> &[u64] {
        &self.ends
    }

    pub(crate) fn assert_balanced(&self) {
        assert_eq!(self.begins, self.ends.len(), "one end for each begin");
    }
}

impl Mapper for Script {
    type Inode = MockInode;

    fn inode(&self) -> &Shared<MockInode> {
        &self.inode
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn is_plain(&self) -> bool {
        self.plain
    }

    fn begin(&mut self, _pos: u64, _length: u64, op: Op) -> Result<Mapping, Fail> {
        self.assert_balanced();
        self.ops.push(op);
        let fail = if self.again { Fail::Again } else { Fail::Begin };
        let mapping = self.mappings.pop_front().ok_or(fail)?;
        self.begins += 1;
        Ok(mapping)
    }

    fn end(&mut self, _: &Mapping, _: u64, _: u64, processed: u64, _: Op) -> Result<(), Fail> {
        let failing = self.failing_end == Some(self.ends.len());
        self.ends.push(processed);
        if failing { Err(Fail::End) } else { Ok(()) }
    }

    fn read_inline(&mut self, _: &Mapping, pos: u64, out: &mut [u8]) -> Result<(), Fail> {
        let at = usize::try_from(pos).unwrap();
        out.copy_from_slice(&self.inline[at..at + out.len()]);
        Ok(())
    }

    fn write_inline(&mut self, _: &Mapping, pos: u64, data: &[u8]) -> Result<(), Fail> {
        let at = usize::try_from(pos).unwrap();
        self.inline[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// What a command was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Read(u64, usize),
    Write(u64, usize),
    WriteThrough(u64, usize),
    Flush,
}

/// A device of bytes whose block is 512. Completions come in reverse order.
pub(crate) struct MockQueue<C> {
    pub(crate) device: Vec<u8>,
    pub(crate) max_transfer: usize,
    /// A boundary that bios do not cross, in bytes; 0 for none.
    pub(crate) boundary: u64,
    pub(crate) depth: usize,
    pub(crate) volatile_cache: bool,
    pub(crate) integrity: bool,
    pub(crate) max_atomic: usize,
    /// Commands submitted so far.
    pub(crate) log: Vec<Command>,
    /// Numbers of commands that fail on the device.
    pub(crate) failing: Vec<usize>,
    /// Whether waiting fails: the device is dead.
    pub(crate) dead: bool,
    /// Allocations of DMA memory that succeed from now on, and the most bytes of one.
    pub(crate) allocations: usize,
    pub(crate) largest: usize,
    pub(crate) rings: usize,
    arena: Arena,
    in_flight: HashMap<usize, (Command, DmaBuf, C)>,
}

impl<C> MockQueue<C> {
    pub(crate) const BLOCK: usize = 512;

    pub(crate) fn new(blocks: usize) -> Self {
        let device = (0..blocks * Self::BLOCK).map(|i| (i / 7 % 251) as u8 + 1).collect();
        Self {
            device,
            max_transfer: 4 * Self::BLOCK,
            boundary: 0,
            depth: 3,
            volatile_cache: true,
            integrity: false,
            max_atomic: 0,
            log: Vec::new(),
            failing: Vec::new(),
            dead: false,
            allocations: usize::MAX,
            largest: usize::MAX,
            rings: 0,
            arena: Arena::detached(4 << 20).unwrap(),
            in_flight: HashMap::new(),
        }
    }

    pub(crate) fn buffer(&self, bytes: usize) -> DmaBuf {
        let mut buf = self.arena.alloc(bytes).unwrap();
        buf.fill(0xee);
        buf
    }

    fn submit(&mut self, command: Command, bio: Bio<C>) -> Result<(), Refused<C>> {
        if self.in_flight.len() == self.depth {
            return Err(Refused { error: Error::Busy, bio });
        }
        assert!(bio.addr.is_multiple_of(512) && bio.buf.len().is_multiple_of(512), "blocks only");
        assert!((1..=self.max_transfer).contains(&bio.buf.len()));
        let (addr, length, size) = (bio.addr, bio.buf.len() as u64, self.device.len() as u64);
        if addr.checked_add(length).is_none_or(|end| end > size) {
            return Err(Refused { error: Error::OutsideDisk { addr, length, size }, bio });
        }
        self.in_flight.insert(self.log.len(), (command, bio.buf, bio.tag));
        self.log.push(command);
        Ok(())
    }

    /// Ends the command that was taken last.
    fn complete(&mut self) -> Option<BioDone<C>> {
        let number = *self.in_flight.keys().max()?;
        let (command, mut buf, tag) = self.in_flight.remove(&number)?;
        if self.failing.contains(&number) {
            if let Command::Read(..) = command {
                buf.fill(0xbb);
            }
            return Some(BioDone { tag, buf, result: Err(BioError::Status(Status::media(0x81))) });
        }
        match command {
            Command::Read(addr, length) => {
                buf.copy_from_slice(&self.device[addr as usize..][..length]);
            }
            Command::Write(addr, length) | Command::WriteThrough(addr, length) => {
                self.device[addr as usize..][..length].copy_from_slice(&buf);
            }
            Command::Flush => {}
        }
        Some(BioDone { tag, buf, result: Ok(()) })
    }
}

impl<C> Queue<C> for MockQueue<C> {
    fn block_shift(&self) -> u32 {
        Self::BLOCK.ilog2()
    }

    fn size(&self) -> u64 {
        self.device.len() as u64
    }

    fn capacity(&self) -> usize {
        self.depth
    }

    fn max_transfer(&self) -> usize {
        self.max_transfer
    }

    fn max_transfer_at(&self, addr: u64) -> usize {
        let room = addr.checked_rem(self.boundary).map_or(u64::MAX, |at| self.boundary - at);
        usize::try_from(room).unwrap_or(usize::MAX).min(self.max_transfer)
    }

    fn has_volatile_cache(&self) -> bool {
        self.volatile_cache
    }

    fn has_integrity(&self) -> bool {
        self.integrity
    }

    fn max_atomic_at(&self, _addr: u64) -> usize {
        self.max_atomic
    }

    fn read(&mut self, bio: Bio<C>) -> Result<(), Refused<C>> {
        self.submit(Command::Read(bio.addr, bio.buf.len()), bio)
    }

    fn flush(&mut self, tag: C) -> Result<(), (Error, C)> {
        if self.in_flight.len() == self.depth {
            return Err((Error::Busy, tag));
        }
        let empty = self.arena.alloc(0).unwrap();
        self.in_flight.insert(self.log.len(), (Command::Flush, empty, tag));
        self.log.push(Command::Flush);
        Ok(())
    }

    fn ring(&mut self) {
        self.rings += 1;
    }

    fn poll(&mut self, limit: usize, settle: &mut impl Settle<C>) -> usize {
        let mut count = 0;
        while count < limit {
            let Some(bio) = self.complete() else { break };
            settle.settle(bio);
            count += 1;
        }
        count
    }

    fn wait(&mut self, mut done: impl FnMut(BioDone<C>)) -> Result<usize, Error> {
        if self.dead {
            return Err(Error::Driver(nvio_driver::Error::Gone));
        }
        let Some(bio) = self.complete() else { return Ok(0) };
        done(bio);
        Ok(1)
    }

    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        if self.allocations == 0 || bytes > self.largest {
            return Err(Error::NoMemory);
        }
        self.allocations -= 1;
        let mut buf = self.arena.alloc(bytes)?;
        buf.fill(0xdd);
        Ok(buf)
    }
}

impl<C> WriteQueue<C> for MockQueue<C> {
    fn write(&mut self, bio: Bio<C>) -> Result<(), Refused<C>> {
        let (addr, length) = (bio.addr, bio.buf.len());
        let command = match bio.fua {
            true => Command::WriteThrough(addr, length),
            false => Command::Write(addr, length),
        };
        self.submit(command, bio)
    }
}
