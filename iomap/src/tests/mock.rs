//! Doubles for the tests: a mapper that follows a script, and a queue over a byte array.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Mutex;

use nvio_driver::spec::Status;
use nvio_driver::{Arena, DmaBuf, Handler, PageSpan, Rejected};

use crate::contract::mapper::{Mapper, Mapping, Op, PAGE};
use crate::contract::open_file::{EndIo, FileRef, OpenFile, Report};
use crate::device::bio::{Bio, BioDone, BioOp, Queue, WriteQueue};
use crate::error::{BioError, Error, FileError};

/// The call that failed.
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

/// A call of one of the doubles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    WriteBack,
    Invalidate,
    Begin,
    /// With the bytes that were processed.
    End(u64),
    ReadInline,
    WriteInline,
    SubmitIo,
    EndIo,
    Report,
    Alloc(usize),
    Submit(Command),
    Complete(Command),
}

/// The journal that the doubles of a test share: the order of their calls, and the number of the
/// call that fails.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Rc<Calls>);

#[derive(Debug, Default)]
struct Calls {
    events: RefCell<Vec<Event>>,
    fallible: Cell<usize>,
    failing: Cell<Option<usize>>,
}

impl Journal {
    fn note(&self, event: Event) {
        self.0.events.borrow_mut().push(event);
    }

    /// Notes a call that may fail, and tells whether it does.
    fn fails(&self, event: Event) -> bool {
        self.note(event);
        let number = self.0.fallible.replace(self.0.fallible.get() + 1);
        self.0.failing.get() == Some(number)
    }

    /// Has the call of that number fail, from 0 on.
    pub(crate) fn fail_at(&self, number: usize) {
        self.0.failing.set(Some(number));
    }

    /// Whether the call that was to fail was reached.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.failing.get().is_some_and(|failing| failing < self.0.fallible.get())
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.events.borrow().clone()
    }

    pub(crate) fn count(&self, of: impl Fn(&Event) -> bool) -> usize {
        self.0.events.borrow().iter().filter(|event| of(event)).count()
    }
}

/// The calls that the open file received, and the behaviour that the test sets.
#[derive(Debug, Default)]
pub(crate) struct MockState {
    pub(crate) journal: Journal,
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

impl OpenFile for MockInode {
    type Error = Fail;

    fn write_back(&self, pos: u64, length: u64, nowait: bool) -> Result<(), Fail> {
        let mut state = self.0.lock().unwrap();
        if state.journal.fails(Event::WriteBack) {
            return Err(Fail::Hook);
        }
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
        !state.journal.fails(Event::Invalidate) && !state.pinned
    }

    fn is_cached(&self) -> bool {
        self.0.lock().unwrap().cached
    }

    fn submit_io(&self, pos: u64, addr: u64, bytes: usize) -> Result<(), Fail> {
        let mut state = self.0.lock().unwrap();
        state.submits.push((pos, addr, bytes));
        if state.journal.fails(Event::SubmitIo) || state.fail_submit_io {
            Err(Fail::Hook)
        } else {
            Ok(())
        }
    }

    fn end_io(&self, end: &EndIo) -> Result<(), Fail> {
        let mut state = self.0.lock().unwrap();
        state.ends.push(*end);
        if state.journal.fails(Event::EndIo) || state.fail_end_io {
            Err(Fail::Hook)
        } else {
            Ok(())
        }
    }

    fn report(&self, report: &Report<'_, Fail>) {
        let mut state = self.0.lock().unwrap();
        state.journal.note(Event::Report);
        state.reports.push(report.error.to_string());
    }
}

/// Gives prepared mappings in turn, then those of its layout, then fails; counts that each `begin`
/// meets one `end`.
pub(crate) struct Script {
    pub(crate) journal: Journal,
    pub(crate) mappings: VecDeque<Mapping>,
    /// Mappings for any number of calls of `begin`.
    pub(crate) layout: Vec<Mapping>,
    begins: usize,
    ends: Vec<u64>,
    /// Arguments of the calls of `begin` and `end`.
    pub(crate) asked: Vec<(u64, u64)>,
    pub(crate) told: Vec<(Mapping, u64, u64, Op)>,
    pub(crate) ops: Vec<Op>,
    failing_end: Option<usize>,
    pub(crate) inode: FileRef<MockInode>,
    pub(crate) size: u64,
    /// By how much the file is larger each time that its size is asked for.
    pub(crate) growth: u64,
    looks: Cell<u64>,
    pub(crate) block_size: u32,
    pub(crate) plain: bool,
    /// True if `begin` fails with "again" after the last mapping.
    pub(crate) again: bool,
    /// Inline data, as a whole.
    pub(crate) inline: Vec<u8>,
}

impl Script {
    pub(crate) fn new(mappings: impl Into<VecDeque<Mapping>>) -> Self {
        Self {
            journal: Journal::default(),
            mappings: mappings.into(),
            layout: Vec::new(),
            begins: 0,
            ends: Vec::new(),
            asked: Vec::new(),
            told: Vec::new(),
            ops: Vec::new(),
            failing_end: None,
            inode: FileRef::new(MockInode::default()),
            size: 1 << 40,
            growth: 0,
            looks: Cell::new(0),
            block_size: 4096,
            plain: true,
            again: false,
            inline: Vec::new(),
        }
    }

    /// A file of `layout`, whose calls are noted in `journal`.
    pub(crate) fn of(layout: impl Into<Vec<Mapping>>, journal: &Journal) -> Self {
        let this = Self { layout: layout.into(), journal: journal.clone(), ..Self::new([]) };
        this.state().journal = journal.clone();
        this
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, MockState> {
        self.inode.state().0.lock().unwrap()
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
    type OpenFile = MockInode;

    fn open_file(&self) -> &FileRef<MockInode> {
        &self.inode
    }

    fn size(&self) -> u64 {
        self.size + self.growth * self.looks.replace(self.looks.get() + 1)
    }

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn is_plain(&self, _: &Self::OpenFile) -> bool {
        self.plain && !self.state().dirty
    }

    fn begin(&mut self, pos: u64, length: u64, op: Op) -> Result<Mapping, Fail> {
        self.assert_balanced();
        self.asked.push((pos, length));
        self.ops.push(op);
        if self.journal.fails(Event::Begin) {
            return Err(Fail::Begin);
        }
        let covers = |mapping: &&Mapping| mapping.offset <= pos && pos < mapping.end();
        let mapping = match self.mappings.pop_front() {
            None => self.layout.iter().find(covers).copied(),
            scripted => scripted,
        };
        let mapping = mapping.ok_or(if self.again { Fail::Again } else { Fail::Begin })?;
        self.begins += 1;
        Ok(mapping)
    }

    fn end(
        &mut self,
        mapping: &Mapping,
        pos: u64,
        length: u64,
        processed: u64,
        op: Op,
    ) -> Result<(), Fail> {
        assert_eq!(self.asked.last(), Some(&(pos, length)), "the range that was asked for");
        let failing = self.failing_end == Some(self.ends.len());
        self.ends.push(processed);
        self.told.push((*mapping, pos, processed, op));
        if self.journal.fails(Event::End(processed)) || failing { Err(Fail::End) } else { Ok(()) }
    }

    fn read_inline(&mut self, _: &Mapping, pos: u64, out: &mut [u8]) -> Result<(), Fail> {
        if self.journal.fails(Event::ReadInline) {
            return Err(Fail::Hook);
        }
        let at = usize::try_from(pos).unwrap();
        out.copy_from_slice(&self.inline[at..at + out.len()]);
        Ok(())
    }

    fn write_inline(&mut self, _: &Mapping, pos: u64, data: &[u8]) -> Result<(), Fail> {
        if self.journal.fails(Event::WriteInline) {
            return Err(Fail::Hook);
        }
        let at = usize::try_from(pos).unwrap();
        self.inline[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// A command, as the device received it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Read(u64, usize),
    Write(u64, usize),
    WriteThrough(u64, usize),
    Flush,
}

/// A device of bytes whose block is 512. Completions come in reverse order, unless told otherwise.
pub(crate) struct MockQueue<C> {
    pub(crate) journal: Journal,
    pub(crate) in_order: bool,
    pub(crate) device: Vec<u8>,
    pub(crate) max_transfer: usize,
    /// A boundary that bios do not cross, in bytes; 0 for none.
    pub(crate) boundary: u64,
    pub(crate) depth: usize,
    pub(crate) volatile_cache: bool,
    pub(crate) integrity: bool,
    pub(crate) must_bounce: bool,
    /// Whether pages have a way of their own.
    pub(crate) pages: bool,
    pub(crate) max_atomic: usize,
    /// Commands submitted so far, and where the memory of each began.
    pub(crate) log: Vec<Command>,
    pub(crate) iovas: Vec<u64>,
    /// Numbers of commands that fail on the device.
    pub(crate) failing: Vec<usize>,
    /// Numbers of those that fail and whose memory had to be given up.
    pub(crate) given_up: Vec<usize>,
    /// Whether waiting fails: the device is dead.
    pub(crate) dead: bool,
    /// Whether submissions fail: the device is gone.
    pub(crate) gone: bool,
    /// Allocations of DMA memory that succeed from now on, and the most bytes of one.
    pub(crate) allocations: usize,
    pub(crate) largest: usize,
    pub(crate) rings: usize,
    /// Times that somebody waited, and those in a row that there was nothing to wait for.
    pub(crate) waits: usize,
    vain: usize,
    pub(crate) arena: Arena,
    in_flight: HashMap<usize, (Command, DmaBuf, C)>,
}

impl<C> MockQueue<C> {
    pub(crate) const BLOCK: usize = 512;

    pub(crate) fn new(blocks: usize) -> Self {
        let device = (0..blocks * Self::BLOCK).map(|i| (i / 7 % 251) as u8 + 1).collect();
        Self {
            journal: Journal::default(),
            in_order: false,
            device,
            max_transfer: 4 * Self::BLOCK,
            boundary: 0,
            depth: 3,
            volatile_cache: true,
            integrity: false,
            must_bounce: false,
            pages: false,
            max_atomic: 0,
            log: Vec::new(),
            iovas: Vec::new(),
            failing: Vec::new(),
            given_up: Vec::new(),
            dead: false,
            gone: false,
            allocations: usize::MAX,
            largest: usize::MAX,
            rings: 0,
            waits: 0,
            vain: 0,
            arena: Arena::detached(16 << 20).unwrap(),
            in_flight: HashMap::new(),
        }
    }

    pub(crate) fn buffer(&self, bytes: usize) -> DmaBuf {
        let mut buf = self.arena.alloc(bytes).unwrap();
        buf.fill(0xee);
        buf
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn take(&mut self, command: Command, bio: Bio<C>) -> Result<(), Rejected<Error, Bio<C>>> {
        if self.in_flight.len() == self.depth {
            return Err(Rejected { error: Error::Busy, payload: bio });
        }
        if self.journal.fails(Event::Submit(command)) || self.gone {
            return Err(Rejected { error: Error::Driver(nvio_driver::Error::Gone), payload: bio });
        }
        assert!((1..=self.max_transfer).contains(&bio.buf.len()));
        assert!(bio.buf.iova().is_multiple_of(4), "PRP entries");
        let (addr, length, size) = (bio.addr, bio.buf.len() as u64, self.device.len() as u64);
        if !(addr | length).is_multiple_of(512) {
            let error = Error::Misaligned { pos: addr, length, align: 512 };
            return Err(Rejected { error, payload: bio });
        }
        if addr.checked_add(length).is_none_or(|end| end > size) {
            return Err(Rejected {
                error: Error::OutsideDisk { addr, length, size },
                payload: bio,
            });
        }
        self.iovas.push(bio.buf.iova());
        self.in_flight.insert(self.log.len(), (command, bio.buf, bio.tag));
        self.log.push(command);
        Ok(())
    }

    /// Ends the command that was taken last, or first.
    fn complete(&mut self) -> Option<BioDone<C>> {
        let numbers = self.in_flight.keys();
        let number = if self.in_order { numbers.min() } else { numbers.max() };
        let number = *number?;
        let (command, mut buf, tag) = self.in_flight.remove(&number)?;
        let fails = self.journal.fails(Event::Complete(command));
        if self.given_up.contains(&number) {
            buf = self.arena.alloc(0).unwrap();
        }
        if fails || buf.is_empty() && command != Command::Flush || self.failing.contains(&number) {
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

    fn must_bounce(&self) -> bool {
        self.must_bounce
    }

    fn max_atomic_at(&self, _addr: u64) -> usize {
        self.max_atomic
    }

    fn submit(&mut self, bio: Bio<C>) -> Result<(), Rejected<Error, Bio<C>>> {
        let (addr, length) = (bio.addr, bio.buf.len());
        let command = match (bio.op, bio.fua) {
            (BioOp::Read, _) => Command::Read(addr, length),
            (BioOp::Write, true) => Command::WriteThrough(addr, length),
            (BioOp::Write, false) => Command::Write(addr, length),
        };
        self.take(command, bio)
    }

    fn has_pages(&self) -> bool {
        self.pages
    }

    fn read_page(&mut self, addr: u64, buf: DmaBuf, tag: C) -> Result<(), (DmaBuf, C)> {
        let serves = addr.is_multiple_of(512) && addr.saturating_add(4096) <= self.size();
        if !serves || !buf.is_page(PageSpan::new(PAGE)) || self.in_flight.len() == self.depth {
            return Err((buf, tag));
        }
        let bio = Bio { op: BioOp::Read, addr, buf, tag, fua: false };
        self.take(Command::Read(addr, 4096), bio).map_err(|no| (no.payload.buf, no.payload.tag))
    }

    fn flush(&mut self, tag: C) -> Result<(), Rejected<Error, C>> {
        if self.in_flight.len() == self.depth {
            return Err(Rejected { error: Error::Busy, payload: tag });
        }
        if self.journal.fails(Event::Submit(Command::Flush)) {
            let error = Error::Driver(nvio_driver::Error::Gone);
            return Err(Rejected { error, payload: tag });
        }
        let empty = self.arena.alloc(0).unwrap();
        self.iovas.push(0);
        self.in_flight.insert(self.log.len(), (Command::Flush, empty, tag));
        self.log.push(Command::Flush);
        Ok(())
    }

    fn ring(&mut self) {
        self.rings += 1;
    }

    fn poll(&mut self, limit: usize, handler: &mut impl Handler<BioDone<C>>) -> usize {
        let mut count = 0;
        while count < limit {
            let Some(bio) = self.complete() else { break };
            handler.completed(bio);
            count += 1;
        }
        count
    }

    fn wait(&mut self, mut done: impl FnMut(BioDone<C>)) -> Result<usize, Error> {
        self.waits += 1;
        if self.dead {
            return Err(Error::Driver(nvio_driver::Error::Gone));
        }
        let Some(bio) = self.complete() else {
            self.vain += 1;
            assert!(self.vain < 1000, "waits for nothing, for ever");
            return Ok(0);
        };
        self.vain = 0;
        done(bio);
        Ok(1)
    }

    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        let fails = self.journal.fails(Event::Alloc(bytes));
        if fails || self.allocations == 0 || bytes > self.largest {
            return Err(Error::NoMemory);
        }
        self.allocations -= 1;
        let mut buf = self.arena.alloc(bytes)?;
        buf.fill(0xdd);
        Ok(buf)
    }
}

impl<C> WriteQueue<C> for MockQueue<C> {}
