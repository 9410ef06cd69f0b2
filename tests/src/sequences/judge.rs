//! Completion of requests: the checks of their results and of their memory.

use nvio_iomap::{Error, IoFlags, MappingFlags, MappingKind, Memory};

use super::filesystem::{FsError, Visit};
use super::pending::Pending;
use super::request::Class;
use super::run::Run;
use super::source::Came;
use super::strategy::{Kind, Mischief, Shape};
use super::watch::Command;
use crate::simulator::{Checked, Wrong, ensure};

/// Returns the class of an error.
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
    /// Checks the completion of a request.
    pub(super) fn ended(
        &mut self,
        mut pending: Pending,
        result: Result<usize, FsError>,
        memory: Option<Memory>,
    ) -> Checked {
        self.model.moment();
        let token = pending.token;
        self.device.say(|| format!("request {token} ends: {result:?}"));
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
        ensure!(certain.is_empty(), "the request succeeded, but must fail");
        let fault = request.faults_at();
        ensure!(*fired == 0 || fault.is_some(), "the error of the filesystem was not returned");
        ensure!(n >= request.done_before, "the result is less than `done_before`");
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
            // The simple path ends its mapping before it finds that the queue is full, so the
            // position may be mapped again.
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
            let one = parts == 1 || parts == 0 && pending.possible_commands;
            ensure!(one && visits.len() == 1, "an atomic write of {parts} commands");
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
            ensure!(*at <= fault, "the fault was reported at {at}, but is at {fault}");
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

    /// Returns true if an error of this class has a cause.
    fn may(&self, pending: &Pending, class: Class) -> bool {
        let Pending { request, certain, possible, outstanding, refused, fired, .. } = pending;
        let nowait = request.has(IoFlags::NOWAIT);
        let fires = |mischief: bool| mischief && *fired > 0;
        let mischief = request.ask.mischief;
        let caused = match class {
            Class::Busy if nowait => *refused > 0 || *outstanding > 0,
            Class::Busy => *outstanding > 0 && !request.is_waited() && pending.commands.is_empty(),
            // Zeroes next to the data may need memory that is not available.
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

    /// Returns true if an atomic write may be possible: one command in one mapping.
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

    /// Returns true if a write zeroes a part of a block next to its data.
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

    /// Returns true if the end hook must be called: on request, and for writes to unwritten blocks
    /// or past the end of the file. Returns `None` if that depends on the progress of the request.
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

    /// Checks that the end hook was called exactly once if necessary, with these bytes or this
    /// failure.
    fn hooks(&mut self, pending: &Pending, how: Result<u64, Class>) -> Checked {
        let request = &pending.request;
        let told = match how {
            Ok(_) => true,
            // The end hook is not called for a request that fails before its first command.
            Err(Class::Fault | Class::EndHook | Class::Flush) => true,
            Err(Class::FallBack) => request.faults_at().is_some() && !pending.visits.is_empty(),
            Err(_) => pending.possible_commands,
        };
        let hooked = self.hooked(pending);
        if hooked == Some(false) || !told {
            return Ok(());
        }
        // A failure may precede the commands, which may be those of an earlier request.
        let early = how.is_err() && pending.commands.is_empty() && pending.possible_commands;
        let need =
            hooked == Some(true) && !early || how.is_err_and(|class| class == Class::EndHook);
        let (found, unwritten) = self.fs.with(|state| {
            let fits = |end: &nvio_iomap::EndIo| {
                (end.pos, end.write) == (request.pos, request.write)
                    && match how {
                        Ok(moved) => end.bytes == moved && !end.failed,
                        // The hook does not know of failures after it.
                        Err(Class::EndHook | Class::Flush) => {
                            let whole = end.bytes == request.count || request.fault.is_some();
                            !end.failed && whole
                        }
                        Err(_) => end.failed,
                    }
            };
            let taken = state.ended.iter().position(&fits).map(|at| state.ended.swap_remove(at));
            let found = match need {
                // With several requests at the same position, the call may have been attributed to
                // one that does not need it.
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
        ensure!(found, "the end hook was not called");
        ensure!(how.is_err() || !request.write || !unwritten, "written blocks are still unwritten");
        Ok(())
    }
}
