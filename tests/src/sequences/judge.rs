//! Requests end: what they may end with, and what must be in the memory.

use nvio_iomap::{Error, IoFlags, MappingFlags, MappingKind, Memory};

use super::effect::Effect;
use super::filesystem::{FsError, Visit};
use super::layout::Kind;
use super::memory::Lease;
use super::request::{Class, Request};
use super::run::Run;
use super::source::{Came, Sources};
use super::strategy::{Mischief, Shape};
use super::watch::Command;
use crate::simulation::model::Moment;
use crate::simulation::{Checked, Wrong, ensure};

/// A request that was made, with all that is known of it.
pub struct Pending {
    /// The request.
    pub request: Request,
    /// Its token.
    pub token: u64,
    /// When it was made.
    pub begun: Moment,
    /// Reasons for which it must fail.
    pub certain: Vec<Class>,
    /// Reasons for which it may.
    pub possible: Vec<Class>,
    /// Requests whose results were not taken when it was made.
    pub outstanding: usize,
    /// What was in its memory.
    pub data: Vec<u8>,
    /// Its memory.
    pub lease: Lease,
    /// Mappings that it was given.
    pub visits: Vec<Visit>,
    /// Commands that it took.
    pub commands: Vec<Command>,
    /// How often there was no room for one.
    pub refused: u32,
    /// How often there was no memory to bounce.
    pub short: u32,
    /// How often the filesystem failed on purpose.
    pub fired: u32,
    /// What it does, if it is a write.
    pub effect: Effect,
    /// What it gives, if it is a read.
    pub sources: Sources,
}

impl Pending {
    /// A request of which nothing is known.
    pub fn new(request: Request) -> Self {
        Self {
            request,
            token: 0,
            begun: 0,
            certain: Vec::new(),
            possible: Vec::new(),
            outstanding: 0,
            data: Vec::new(),
            lease: Lease::default(),
            visits: Vec::new(),
            commands: Vec::new(),
            refused: 0,
            short: 0,
            fired: 0,
            effect: Effect::default(),
            sources: Sources::default(),
        }
    }
}

/// What kind of error it is.
pub fn class(error: &FsError) -> Class {
    match error {
        FsError::Begin => Class::Begin,
        FsError::Again => Class::Again,
        FsError::End => Class::End,
        FsError::SubmitHook => Class::SubmitHook,
        FsError::EndHook => Class::EndHook,
        FsError::WriteBack => Class::WriteBack,
        FsError::Inline => Class::Inline,
        FsError::Iomap(error) => match error {
            Error::BadMapping { .. } => Class::BadMapping,
            Error::Misaligned { .. } => Class::Misaligned,
            Error::MisalignedMemory { .. } => Class::MisalignedMemory,
            Error::Delalloc { .. } => Class::Delalloc,
            Error::NoBlocks { .. } => Class::NoBlocks,
            Error::NotAtomic { .. } => Class::NotAtomic,
            Error::Flags(_) => Class::Flags,
            Error::Busy => Class::Busy,
            Error::WouldBlock => Class::WouldBlock,
            Error::Fault { .. } => Class::Fault,
            Error::NoMemory => Class::NoMemory,
            Error::FallBack { .. } => Class::FallBack,
            Error::Bio { .. } => Class::Device,
            Error::Flush { .. } => Class::Flush,
            _ => Class::Other,
        },
    }
}

impl Run<'_> {
    /// One request ends, with what is in its memory.
    pub(super) fn ended(
        &mut self,
        mut pending: Pending,
        result: Result<usize, FsError>,
        memory: Option<Memory>,
    ) -> Checked {
        self.model.moment();
        let token = pending.token;
        self.say(|| format!("request {token} ends: {result:?}"));
        let lease = std::mem::take(&mut pending.lease);
        let bytes = match memory {
            Some(memory) => self.workshop.take_back(memory, lease)?,
            None => return Err(Wrong(format!("request {token}: no memory: {result:?}"))),
        };
        let judged = match &result {
            Ok(n) => self.succeeded(&pending, *n as u64, &bytes),
            Err(error) => self.failed(&pending, error, &bytes),
        };
        judged.map_err(|Wrong(why)| {
            let Pending { request, certain, possible, commands, visits, .. } = &pending;
            Wrong(format!(
                "{why}: request {token} ended with {result:?}; must {certain:?}, may {possible:?}; \
                 {request:?}; {commands:?}; {visits:?}"
            ))
        })
    }

    fn succeeded(&mut self, pending: &Pending, n: u64, bytes: &[u8]) -> Checked {
        let Pending { request, certain, commands, visits, fired, .. } = pending;
        self.outcome.succeeded += 1;
        ensure!(certain.is_empty(), "success, where it must fail");
        let fault = request.faults_at();
        ensure!(*fired == 0 || fault.is_some(), "the filesystem failed, which nobody hears of");
        ensure!(n >= request.done_before, "less than was moved before");
        let moved = n - request.done_before;
        let block = 1 << self.sequence.device.block_shift;
        match fault {
            None => ensure!(moved == request.count, "{moved} bytes of {}", request.count),
            Some(at) if !request.write => ensure!(moved == at, "{moved} bytes, of {at} there are"),
            Some(at) => {
                let fits = moved > 0 && moved <= at && moved.is_multiple_of(block);
                ensure!(fits, "{moved} bytes, of {at} there are");
            }
        }
        let mut at = request.pos;
        for Visit { pos, processed, .. } in visits {
            let processed = processed.unwrap_or(0);
            // The simple path has its mapping ended before it finds out that there is no room.
            if *pos == request.pos {
                at = request.pos;
            }
            ensure!(processed == 0 || *pos == at, "mappings leave a gap at {at}");
            at += processed;
        }
        ensure!(at >= request.pos + moved, "{} bytes were mapped and processed", at - request.pos);
        let inline = visits.iter().any(|visit| visit.mapping.kind == MappingKind::Inline);
        if request.write && request.has(IoFlags::ATOMIC) && moved > 0 && !inline {
            let first = visits[0].mapping.device_address(request.pos).unwrap_or(0);
            let data = |command: &&Command| {
                command.addr < first + moved && first < command.addr + command.len
            };
            let parts = commands.iter().filter(data).count();
            ensure!(parts == 1 && visits.len() == 1, "an atomic write of {parts} commands");
        }
        self.hooks(pending, Ok(moved))?;
        if !request.write {
            let came = Came::To(moved);
            self.outcome.bytes_read += moved;
            return pending.sources.check(request, bytes, came, &mut self.model, pending.begun);
        }
        ensure!(bytes == pending.data, "memory of a write was written to");
        self.outcome.bytes_written += moved;
        if !pending.effect.is_empty() {
            let certain = pending.begun > self.cut;
            pending.effect.succeeded(&mut self.model, request, moved, certain);
        }
        Ok(())
    }

    fn failed(&mut self, pending: &Pending, error: &FsError, bytes: &[u8]) -> Checked {
        let request = &pending.request;
        self.outcome.failed += 1;
        let class = class(error);
        self.outcome.count(class);
        ensure!(self.may(pending, class), "{class:?} without a cause");
        self.failures += u64::from(matches!(class, Class::Device | Class::Flush));
        if let FsError::Iomap(Error::Fault { at }) = error {
            let fault = request.faults_at().unwrap_or(u64::MAX);
            ensure!(*at <= fault, "a fault at {at}, and it is at {fault}");
        }
        self.hooks(pending, Err(class))?;
        if !request.write {
            let came = Came::Failed;
            return pending.sources.check(request, bytes, came, &mut self.model, pending.begun);
        }
        ensure!(bytes == pending.data, "memory of a write was written to");
        if !pending.effect.is_empty() {
            pending.effect.failed(&mut self.model, request, request.faults_at());
        }
        Ok(())
    }

    /// Whether there is a cause for an error.
    fn may(&self, pending: &Pending, class: Class) -> bool {
        let Pending { request, certain, possible, outstanding, refused, fired, .. } = pending;
        let nowait = request.has(IoFlags::NOWAIT);
        let fires = |mischief: bool| mischief && *fired > 0;
        let mischief = request.ask.mischief;
        let caused = match class {
            Class::Busy if nowait => *refused > 0 || *outstanding > 0,
            Class::Busy => *outstanding > 0 && !request.is_waited() && pending.commands.is_empty(),
            // There may be no memory for zeroes beside the data.
            Class::WouldBlock => nowait && self.is_padded(pending),
            Class::NoMemory => pending.short > 0,
            Class::Device => self.is_disturbed(),
            Class::Flush => self.is_disturbed() && request.has(IoFlags::DSYNC),
            Class::Begin => fires(matches!(mischief, Mischief::Begin(_, false))),
            Class::Again => fires(matches!(mischief, Mischief::Begin(_, true))),
            Class::End => fires(matches!(mischief, Mischief::End(_))),
            Class::BadMapping => fires(matches!(mischief, Mischief::Bad(..))),
            Class::SubmitHook => fires(matches!(mischief, Mischief::Submit(_))),
            Class::EndHook => self.end_hook && self.hooked(pending) != Some(false),
            Class::NotAtomic => !self.could_be_atomic(pending),
            _ => false,
        };
        caused && class != Class::NotAtomic
            || certain.contains(&class)
            || possible.contains(&class) && (class != Class::NotAtomic || caused)
    }

    /// Whether an atomic write is one of one command to one mapping.
    fn could_be_atomic(&self, pending: &Pending) -> bool {
        let request = &pending.request;
        let Some(Visit { mapping, .. }) = pending.visits.first() else { return false };
        let Some(addr) = mapping.device_address(request.pos) else { return false };
        let Some(queue) = &self.queue else { return false };
        let most = nvio_iomap::Queue::max_transfer_at(queue.device(), addr) as u64;
        let scattered = matches!(request.shape, Shape::Vectored(..) | Shape::Odd);
        let bounced = request.is_bounced() && pending.short > 0;
        let atomic = u64::from(self.sequence.device.atomic) << self.sequence.device.block_shift;
        mapping.end() >= request.end()
            && request.len <= most.min(atomic)
            && !self.is_padded(pending)
            && !(scattered || bounced)
    }

    /// Whether a write leaves a part of a block to be zeroed, of those it was given.
    fn is_padded(&self, pending: &Pending) -> bool {
        let request = &pending.request;
        let (block, size) = self.fs.with(|state| (state.layout.block, state.layout.size));
        pending.visits.iter().any(|visit| {
            let mapping = &visit.mapping;
            let fresh =
                mapping.kind == MappingKind::Unwritten || mapping.flags.contains(MappingFlags::NEW);
            let end = mapping.end().min(request.end());
            let tail = (fresh || end >= size) && !end.is_multiple_of(block);
            request.write && (tail || (fresh && !visit.pos.is_multiple_of(block)))
        })
    }

    /// Whether the filesystem is to be told of the end: when it asks for it, and of writes to
    /// unwritten blocks and past the end of the file. `None` if that depends on how far it came.
    fn hooked(&self, pending: &Pending) -> Option<bool> {
        let request = &pending.request;
        let size = self.fs.with(|state| state.layout.size);
        if request.has(IoFlags::HOOKS) || (request.write && request.end() > size) {
            return Some(true);
        }
        let unwritten = |visit: &&Visit| visit.mapping.kind == MappingKind::Unwritten;
        let mut visits = pending.visits.iter().filter(unwritten).filter(|_| request.write);
        match visits.clone().any(|visit| visit.processed > Some(0)) {
            true => Some(true),
            false => visits.next().is_none().then_some(false),
        }
    }

    /// The filesystem was told of the end, once, if it was to be: of what ended with so many bytes,
    /// or failed like that.
    fn hooks(&mut self, pending: &Pending, how: Result<u64, Class>) -> Checked {
        let request = &pending.request;
        let told = match how {
            Ok(_) => true,
            // What fails before there is anything to end is the caller's alone.
            Err(Class::Fault | Class::EndHook | Class::Flush) => true,
            Err(Class::FallBack) => request.faults_at().is_some() && !pending.visits.is_empty(),
            Err(_) => !pending.commands.is_empty(),
        };
        let hooked = self.hooked(pending);
        if hooked == Some(false) || !told {
            return Ok(());
        }
        let need = hooked == Some(true) || how.is_err_and(|class| class == Class::EndHook);
        let (found, unwritten) = self.fs.with(|state| {
            let fits = |end: &nvio_iomap::EndIo| {
                (end.pos, end.write) == (request.pos, request.write)
                    && match how {
                        Ok(moved) => end.bytes == moved && !end.failed,
                        // What comes after the end is not known there.
                        Err(Class::EndHook | Class::Flush) => {
                            let whole = end.bytes == request.count || request.fault.is_some();
                            !end.failed && whole
                        }
                        Err(_) => end.failed,
                    }
            };
            let taken = state.ended.iter().position(&fits).map(|at| state.ended.swap_remove(at));
            let found = match need {
                // Of requests at the same place, one that may have been told or not may have got
                // what was said of this one.
                true => {
                    let at = state.unsure.iter().position(&fits);
                    taken.is_some() || at.map(|at| state.unsure.swap_remove(at)).is_some()
                }
                false => {
                    state.unsure.extend(taken);
                    true
                }
            };
            let blocks = request.pos..request.pos + how.unwrap_or(0);
            let step = usize::try_from(state.layout.device_block).unwrap_or(512);
            let unwritten = blocks
                .step_by(step)
                .any(|pos| state.layout.at(pos).is_some_and(|block| block.kind == Kind::Unwritten));
            (found, unwritten)
        });
        ensure!(found, "the filesystem was not told of its end");
        ensure!(how.is_err() || !request.write || !unwritten, "what was written does not show");
        Ok(())
    }
}
