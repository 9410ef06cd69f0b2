//! The table of memory that is lent to the controller, and the checks of the controller's accesses.
//!
//! The table contains every buffer of the test: a held buffer must not be accessed, and the buffer
//! of a command may be accessed only in the command's direction. The use of the driver's own memory
//! is derived from the admin commands that the controller fetches and completes: rings, doorbell
//! pages, and the data of admin commands. Any other memory must be allocated, and may only be read:
//! lists of data pointers.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use nvio_driver::Arena;
use nvio_driver::spec::opcode::{admin, nvm};
use nvio_driver::spec::{CQE_SIZE, Cqe, SQE_SIZE, Sqe};
use nvio_emulator::Dma;
use zerocopy::FromBytes;

use super::lock;
use super::trace::Trace;

/// Maximum size of the data of an admin command, and of the doorbells of all queues, bytes.
const PAGE: u64 = 4096;

/// A range of I/O virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte of the range.
    pub iova: u64,
    /// Length, bytes.
    pub len: u64,
}

impl Span {
    /// Returns the first byte after the range.
    pub fn end(self) -> u64 {
        self.iova + self.len
    }

    fn overlaps(self, other: Self) -> bool {
        self.iova < other.end() && other.iova < self.end()
    }
}

/// The accesses that the controller may make to a buffer of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lent {
    /// No access: the test holds the buffer.
    Held,
    /// Read access: a Write or a Compare is in flight.
    Out,
    /// Write access: a Read is in flight.
    In,
}

/// The use of a part of the driver's own memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    SubmissionQueue(u16),
    CompletionQueue(u16),
    ShadowDoorbells,
    EventIndices,
    AdminData,
}

impl Purpose {
    fn is_written(self) -> bool {
        matches!(self, Self::CompletionQueue(_) | Self::EventIndices | Self::AdminData)
    }
}

/// The effect of a successful admin command on the use of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Begins(Purpose, Span),
    BeginsShadow(Span, Span),
    Ends(Purpose),
}

/// The table of lent memory; see the module.
pub struct Table {
    arena: Option<(Arena, File)>,
    /// The controller may access memory.
    running: bool,
    buffers: BTreeMap<u64, (Span, Lent)>,
    own: Vec<(Purpose, Span)>,
    /// The admin command in progress and its identifier, if it affects the use of memory.
    command: Option<(u16, Effect)>,
    /// Address of an entry in the admin completion queue that is being written.
    posted: Option<u64>,
    wrong: Option<String>,
    accesses: u64,
    shadow_reads: u64,
    block_sizes: Vec<u64>,
    trace: Arc<Mutex<Trace>>,
}

impl Table {
    /// Creates an empty table.
    pub fn new(trace: Arc<Mutex<Trace>>) -> Self {
        Self {
            arena: None,
            running: false,
            buffers: BTreeMap::new(),
            own: Vec::new(),
            command: None,
            posted: None,
            wrong: None,
            accesses: 0,
            shadow_reads: 0,
            block_sizes: Vec::new(),
            trace,
        }
    }

    /// Records that the arena was mapped.
    pub fn mapped(&mut self, arena: &Arena, memfd: File) {
        self.arena = Some((arena.clone(), memfd));
    }

    /// Records that the arena was unmapped.
    pub fn unmapped(&mut self) {
        self.stopped();
        self.arena = None;
    }

    /// Records that the controller was enabled with these admin queues.
    pub fn enabled(&mut self, sq: (u64, u32), cq: (u64, u32)) {
        self.stopped();
        let ring =
            |(iova, entries), size: usize| Span { iova, len: u64::from(entries) * size as u64 };
        self.own.push((Purpose::SubmissionQueue(0), ring(sq, SQE_SIZE)));
        self.own.push((Purpose::CompletionQueue(0), ring(cq, CQE_SIZE)));
        self.running = true;
    }

    /// Records that the driver knows that the controller has stopped or was reset.
    pub fn stopped(&mut self) {
        self.running = false;
        self.own.clear();
        (self.command, self.posted) = (None, None);
    }

    /// Records the use of a buffer.
    pub fn set(&mut self, span: Span, lent: Lent) {
        if span.len > 0 {
            self.buffers.insert(span.iova, (span, lent));
        }
    }

    /// Removes a buffer of the test.
    pub fn forget(&mut self, span: Span) {
        if span.len > 0 {
            self.buffers.remove(&span.iova);
        }
    }

    /// Removes all buffers of the test within this range.
    pub fn forget_within(&mut self, span: Span) {
        let inside: Vec<u64> =
            self.buffers.range(span.iova..span.end()).map(|(&at, _)| at).collect();
        for at in inside {
            self.buffers.remove(&at);
        }
    }

    /// Returns the first invalid access.
    pub fn wrong(&self) -> Option<&str> {
        self.wrong.as_deref()
    }

    /// Records an error of the driver.
    pub fn accuse(&mut self, wrong: &str) {
        self.wrong.get_or_insert(wrong.to_owned());
    }

    /// Sets the block sizes of the namespaces, for the checks of commands.
    pub fn set_block_sizes(&mut self, sizes: Vec<u64>) {
        self.block_sizes = sizes;
    }

    /// Returns the number of accesses.
    pub fn accesses(&self) -> u64 {
        self.accesses
    }

    /// Returns the number of reads of shadow doorbells.
    pub fn shadow_reads(&self) -> u64 {
        self.shadow_reads
    }

    /// Checks an access of the controller to memory.
    pub fn access(&mut self, dma: Dma) {
        self.accesses += 1;
        self.learn_from_completion();
        let span = Span { iova: dma.iova, len: dma.len };
        let write = dma.access.write;
        let base = self.arena.as_ref().map_or(0, |(arena, _)| arena.iova());
        let what = if write { "dma to host" } else { "dma to device" };
        lock(&self.trace).note(what, &[span.iova.wrapping_sub(base), span.len]);
        if let Err(why) = self.check(span, write) {
            let what = if write { "writes" } else { "reads" };
            let wrong = format!("the controller {what} {span:#x?}: {why}");
            lock(&self.trace).say(|| wrong.clone());
            self.wrong.get_or_insert(wrong);
        }
        self.learn(span);
    }

    fn check(&self, span: Span, write: bool) -> Result<(), String> {
        let (arena, _) = self.arena.as_ref().ok_or("nothing is mapped")?;
        if !self.running {
            return Err("the controller is stopped".into());
        }
        if !arena.is_allocated(span.iova, usize::try_from(span.len).unwrap_or(usize::MAX)) {
            return Err("not allocated".into());
        }
        let mut at = span.iova;
        while at < span.end() {
            let before = self.buffers.range(..=at).next_back().map(|(_, found)| found);
            let next = match before.filter(|(buffer, _)| buffer.end() > at) {
                Some((buffer, lent)) => {
                    match (lent, write) {
                        (Lent::Out, false) | (Lent::In, true) => {}
                        (Lent::Held, _) => return Err(format!("{buffer:#x?} is held by the host")),
                        _ => return Err(format!("{buffer:#x?} is lent for the other direction")),
                    }
                    buffer.end()
                }
                None => {
                    let next = self.buffers.range(at..).next().map_or(u64::MAX, |(&at, _)| at);
                    let part = Span { iova: at, len: next.min(span.end()) - at };
                    self.check_own(part, write)?;
                    next
                }
            };
            at = next;
        }
        Ok(())
    }

    /// Checks an access to memory that is not a buffer of the test.
    fn check_own(&self, span: Span, write: bool) -> Result<(), String> {
        let found = self.own.iter().find(|(_, own)| own.overlaps(span));
        match found {
            Some((purpose, own)) if purpose.is_written() != write || span.end() > own.end() => {
                Err(format!("{own:#x?} is {purpose:?}"))
            }
            None if write => Err("no memory is lent for writing there".into()),
            _ => Ok(()),
        }
    }

    /// Updates the table after an entry was fetched or posted.
    fn learn(&mut self, span: Span) {
        let Some((purpose, _)) = self.own.iter().find(|(_, own)| own.overlaps(span)) else {
            return;
        };
        match purpose {
            Purpose::ShadowDoorbells => self.shadow_reads += 1,
            Purpose::SubmissionQueue(0) => {
                for at in (span.iova..span.end()).step_by(SQE_SIZE) {
                    if let Some(sqe) = self.entry::<SQE_SIZE, Sqe>(at) {
                        self.learn_from(&sqe);
                    }
                }
            }
            Purpose::SubmissionQueue(_) => {
                for at in (span.iova..span.end()).step_by(SQE_SIZE) {
                    let sqe = self.entry::<SQE_SIZE, Sqe>(at);
                    if let Some(sqe) = sqe.filter(|sqe| !self.is_tidy(sqe)) {
                        self.accuse(&format!("reserved fields of a command are not 0: {sqe:x?}"));
                    }
                }
            }
            // The entry has not been written yet.
            Purpose::CompletionQueue(0) => self.posted = Some(span.iova),
            _ => {}
        }
    }

    /// Returns true if all unused fields are 0. These are the fields that an I/O command without
    /// metadata does not use, and the second PRP entry of a command whose data is within a page.
    fn is_tidy(&self, sqe: &Sqe) -> bool {
        let unused = [sqe.cdw2.get(), sqe.cdw3.get(), sqe.cdw14.get(), sqe.cdw15.get()];
        let transfers = [nvm::READ, nvm::WRITE, nvm::COMPARE].contains(&sqe.opcode);
        let index = usize::try_from(sqe.nsid.get()).unwrap_or(0).checked_sub(1);
        let block_size = index.and_then(|index| self.block_sizes.get(index));
        let bytes = block_size.map_or(u64::MAX, |size| size.saturating_mul(sqe.nlb().into()));
        let in_page = (sqe.prp1.get() & (PAGE - 1)).saturating_add(bytes) <= PAGE;
        let one_pointer = transfers && sqe.flags == 0 && in_page;
        unused == [0; 4] && sqe.mptr.get() == 0 && (!one_pointer || sqe.prp2.get() == 0)
    }

    fn entry<const SIZE: usize, E: FromBytes>(&self, iova: u64) -> Option<E> {
        let (arena, memfd) = self.arena.as_ref()?;
        let mut bytes = [0; SIZE];
        memfd.read_exact_at(&mut bytes, arena.file_offset() + iova - arena.iova()).ok()?;
        E::read_from_bytes(&bytes).ok()
    }

    /// Applies the effect of the admin command that has completed.
    fn learn_from_completion(&mut self) {
        let posted = self.posted.take().and_then(|at| self.entry::<CQE_SIZE, Cqe>(at));
        let Some((posted, (cid, effect))) = posted.zip(self.command) else { return };
        if posted.cid.get() != cid {
            return;
        }
        self.command = None;
        if posted.status().is_success() {
            match effect {
                Effect::Begins(purpose, span) => self.own.push((purpose, span)),
                Effect::BeginsShadow(values, events) => {
                    self.own.push((Purpose::ShadowDoorbells, values));
                    self.own.push((Purpose::EventIndices, events));
                }
                Effect::Ends(purpose) => self.own.retain(|(other, _)| *other != purpose),
            }
        }
    }

    /// Updates the table for a fetched admin command.
    fn learn_from(&mut self, sqe: &Sqe) {
        if sqe.opcode == admin::ASYNC_EVENT_REQUEST {
            return;
        }
        // Admin commands are executed one at a time, so the data of the previous one is no longer
        // used.
        self.own.retain(|(purpose, _)| *purpose != Purpose::AdminData);
        let [low, high] = [sqe.cdw10.get() & 0xffff, sqe.cdw10.get() >> 16];
        let qid = u16::try_from(low).unwrap_or(0);
        let ring =
            |size: usize| Span { iova: sqe.prp1.get(), len: u64::from(high + 1) * size as u64 };
        let page = |iova| Span { iova, len: PAGE };
        let (sq, cq) = (Purpose::SubmissionQueue(qid), Purpose::CompletionQueue(qid));
        let effect = match sqe.opcode {
            admin::CREATE_IO_SQ => Some(Effect::Begins(sq, ring(SQE_SIZE))),
            admin::CREATE_IO_CQ => Some(Effect::Begins(cq, ring(CQE_SIZE))),
            admin::DELETE_IO_SQ => Some(Effect::Ends(sq)),
            admin::DELETE_IO_CQ => Some(Effect::Ends(cq)),
            admin::DOORBELL_BUFFER_CONFIG => {
                Some(Effect::BeginsShadow(page(sqe.prp1.get()), page(sqe.prp2.get())))
            }
            _ => None,
        };
        self.command = effect.map(|effect| (sqe.cid.get(), effect));
        if matches!(sqe.opcode, admin::IDENTIFY | admin::GET_LOG_PAGE) {
            self.own.push((Purpose::AdminData, page(sqe.prp1.get())));
        }
    }
}
