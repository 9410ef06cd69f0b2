//! Submission of requests.

use std::time::Duration;

use nvio_iomap::{
    Cursor, Failed, FileError, IoArgs, IoFlags, MappingFlags, MappingKind, Memory, Rejected,
};

use super::effect::Effect;
use super::filesystem::{FsError, Mood};
use super::judge::class;
use super::memory::{Frail, Lease, fill};
use super::pending::Pending;
use super::request::{Class, Request};
use super::run::Run;
use super::source::Sources;
use super::strategy::{Ask, Mischief, Way};
use super::watch::Command;
use crate::simulator::content::{self, POISON};
use crate::simulator::{Checked, Wrong, ensure, lock};

/// Maximum size of the memory of all requests in flight, bytes.
const MOST_OUT: u64 = 512 << 10;

/// The result of a submission.
enum Gave {
    /// The request is in flight, or its result is kept for a poll.
    Taken,
    /// The request has completed. The memory contains its data.
    Over(Result<usize, FsError>, Option<Memory>),
    /// The request was rejected.
    Rejected(FsError, Memory),
}

impl Run<'_> {
    /// Submits a request.
    pub(super) fn ask(&mut self, ask: &Ask) -> Checked {
        let request = self.fs.with(|state| Request::new(ask, &state.layout));
        let out: u64 = self.pending.values().map(|pending| pending.request.len).sum();
        if out + request.len > MOST_OUT {
            return Ok(());
        }
        self.token += 1;
        let token = self.token;
        let data = self.data(&request, token);
        let (mut certain, possible) =
            self.fs.with(|state| request.causes(&state.layout, &self.sequence.device));
        self.fs.with(|state| {
            state.mood = Mood { mischief: ask.mischief, trim: ask.trim, late: ask.late };
            state.visits.clear();
            (state.fired, state.hooked) = (0, 0);
            state.was_cached = state.is_cached();
            if state.dirty && !request.write && request.has(IoFlags::NOWAIT) && request.count > 0 {
                certain.push(Class::Again);
            }
        });
        {
            let mut seen = lock(&self.seen);
            seen.commands.clear();
            (seen.refused, seen.short) = (0, 0);
        }
        self.device.say(|| format!("request {token}: {request:?}"));
        let simple = self.queue()?.counters().simple;
        let begun = self.model.moment();
        let outstanding = self.pending.len();
        let mut pending =
            Pending { token, begun, certain, possible, outstanding, data, ..Pending::new(request) };
        let called = match pending.request.is_borrowed() {
            true => self.borrow(&mut pending)?,
            false => match self.give(&mut pending)? {
                Some(gave) => gave,
                None => return Ok(()),
            },
        };
        self.learn(&mut pending, &called);
        self.check_path(&pending, &called, simple)?;
        self.outcome.requests += 1;
        match called {
            Gave::Taken => {
                self.outcome.taken += 1;
                self.pending.insert(token, pending);
                Ok(())
            }
            Gave::Over(result, memory) => self.ended(pending, result, memory),
            Gave::Rejected(error, memory) => {
                let own = pending.commands.len();
                ensure!(own == 0, "rejected with {own} commands in flight: {error}");
                self.outcome.rejected += 1;
                let busy = error.is_busy();
                self.ended(pending, Err(error), Some(memory))?;
                if busy && self.rng.range(0, 2) == 0 {
                    // Let time pass, as callers do that receive `Busy`.
                    self.device.with(|machine| machine.pass(Duration::from_micros(50), usize::MAX));
                    self.poll(usize::MAX)?;
                }
                Ok(())
            }
        }
    }

    /// Returns the data to write, which depends on the place of each block.
    fn data(&self, request: &Request, token: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(request.len).unwrap_or(0)];
        if !request.write {
            bytes.fill(POISON);
            return bytes;
        }
        self.fs.with(|state| {
            let block = state.layout.device_block;
            let chunks = bytes.chunks_mut(usize::try_from(block).unwrap_or(512));
            for (index, chunk) in (0..).zip(chunks) {
                let pos = request.pos + index * block;
                let place = match state.layout.lba(pos) {
                    Some(lba) => content::place(1, lba),
                    None => content::place(2, pos / block),
                };
                content::fill(chunk, token, place);
            }
        });
        bytes
    }

    /// Submits a request with memory of its own. Returns `None` if the arena is full.
    fn give(&mut self, pending: &mut Pending) -> Checked<Option<Gave>> {
        let request = &pending.request;
        let len = usize::try_from(request.len).unwrap_or(0);
        let block = 1 << self.sequence.device.block_shift;
        let made = self.workshop.make(&self.controller, &request.shape, len, block);
        let Some((mut memory, lease)) = made else { return Ok(None) };
        fill(&mut memory, &pending.data);
        pending.lease = lease;
        let Request { pos, flags, done_before, write, .. } = *request;
        let io = IoArgs::at(pos).token(pending.token).flags(flags).done_before(done_before);
        let queue = self.queue.as_mut().ok_or(Wrong("no queue".into()))?;
        let fs = &mut self.fs;
        let over = |done: Result<(Memory, usize), Failed<FsError>>| match done {
            Ok((memory, n)) => Gave::Over(Ok(n), Some(memory)),
            Err(Failed { error, payload }) => Gave::Over(Err(error), payload),
        };
        let submitted = |done: Result<(), Rejected<FsError>>| match done {
            Ok(()) => Gave::Taken,
            Err(Rejected { error, payload }) => Gave::Rejected(error, payload),
        };
        let gave = match (request.ask.way, memory) {
            (Way::Execute | Way::OneBuffer, memory) if write => {
                over(queue.write_with(fs, io, memory))
            }
            (Way::Execute | Way::OneBuffer, memory) => over(queue.read_with(fs, io, memory)),
            (Way::Short, Memory::Dma(buf)) if !write => {
                submitted(queue.submit_read(fs, pos, buf, pending.token))
            }
            (_, memory) if write => submitted(queue.submit_write_with(fs, io, memory)),
            (_, memory) => submitted(queue.submit_read_with(fs, io, memory)),
        };
        Ok(Some(gave))
    }

    /// Makes a request with borrowed memory.
    fn borrow(&mut self, pending: &mut Pending) -> Checked<Gave> {
        let request = &pending.request;
        let Request { pos, flags, done_before, write, .. } = *request;
        let queue = self.queue.as_mut().ok_or(Wrong("no queue".into()))?;
        let fs = &mut self.fs;
        let Way::Cursor { soft, before, .. } = request.ask.way else {
            let mut bytes = pending.data.clone();
            let done = match write {
                true => {
                    let io = IoArgs::at(pos).flags(flags);
                    queue.write_from(fs, io, &mut Cursor::new(&bytes[..]))
                }
                false => queue.read_at(fs, pos, &mut bytes),
            };
            return Ok(Gave::Over(done, Some(self.borrowed(pending, bytes))));
        };
        let before = usize::from(before);
        let mut bytes = vec![POISON; before];
        bytes.extend_from_slice(&pending.data);
        let fault =
            request.frail.map_or(usize::MAX, |at| before + usize::try_from(at).unwrap_or(0));
        let mut frail = Frail { bytes, fault, soft, nofault: None, mixed: false };
        let io = IoArgs::at(pos).token(pending.token).flags(flags).done_before(done_before);
        let mut cursor = Cursor::new(&mut frail);
        cursor.at = before;
        let done = match write {
            true => queue.write_from(fs, io, &mut cursor),
            false => queue.read_into(fs, io, &mut cursor),
        };
        let now = cursor.at;
        let moved = done
            .as_ref()
            .map_or(0, |n| n.saturating_sub(usize::try_from(done_before).unwrap_or(0)));
        ensure!(now == before + moved, "the cursor went from {before} to {now}: {done:?}");
        let nofault = request.has(IoFlags::NOFAULT);
        let told = frail.nofault.is_none_or(|told| told == nofault) && !frail.mixed;
        ensure!(told, "nofault was {nofault}, but the memory received another value");
        let clean = frail.bytes[..before].iter().all(|&byte| byte == POISON);
        ensure!(clean, "bytes before the cursor were overwritten");
        let bytes = frail.bytes.split_off(before);
        Ok(Gave::Over(done, Some(self.borrowed(pending, bytes))))
    }

    fn borrowed(&self, pending: &mut Pending, bytes: Vec<u8>) -> Memory {
        pending.lease = Lease::of_bytes(bytes.len());
        Memory::Bytes(bytes)
    }

    /// Collects the calls and commands that the request has caused.
    fn learn(&mut self, pending: &mut Pending, gave: &Gave) {
        let submitted = std::mem::take(&mut lock(&self.seen).commands);
        (pending.refused, pending.short) = {
            let seen = lock(&self.seen);
            (seen.refused, seen.short)
        };
        let request = &pending.request;
        self.fs.with(|state| {
            pending.fired = state.fired;
            pending.visits = std::mem::take(&mut state.visits);
            if request.write {
                pending.effect =
                    Effect::new(request, &state.layout, &pending.visits, pending.token);
            } else {
                state.visits = std::mem::take(&mut pending.visits);
                pending.sources = Sources::new(request, state);
                pending.visits = std::mem::take(&mut state.visits);
            }
            state.mood = Mood { mischief: Mischief::None, trim: 0, late: false };
        });
        // The queue first submits the backlog of earlier requests.
        let own = |command: &Command| match command.write {
            true => pending.request.write && pending.effect.allows(command),
            false => !pending.request.write,
        };
        let earlier = |command: &Command| self.pending.values().any(|other| other.allows(command));
        pending.backlogged = matches!(gave, Gave::Taken);
        pending.possible_commands = pending.backlogged || submitted.iter().any(own);
        pending.commands = submitted.into_iter().filter(|command| !earlier(command)).collect();
        if request.write && pending.possible_commands {
            pending.effect.begin(&mut self.model, pending.begun);
        } else {
            pending.effect = Effect::default();
        }
    }

    /// Checks that a request took the expected path, and that its commands are valid.
    fn check_path(&mut self, pending: &Pending, gave: &Gave, before: u64) -> Checked {
        let request = &pending.request;
        for command in &pending.commands {
            ensure!(command.write == request.write, "{command:?} for {request:?}");
            let allowed = !request.write || pending.effect.allows(command);
            ensure!(allowed, "{command:?} writes blocks outside the request: {request:?}");
            let fua = command.fua;
            ensure!(!fua || request.has(IoFlags::DSYNC), "{command:?} has FUA without DSYNC");
        }
        let simple = self.queue()?.counters().simple - before;
        let went = match gave {
            Gave::Taken => true,
            Gave::Over(result, _) => result.is_ok(),
            Gave::Rejected(error, _) => {
                // A fall-back error of a path must not reach the caller.
                let sentinel = error.is_fall_back() && !pending.certain.contains(&Class::FallBack);
                ensure!(!sentinel, "the internal error {:?} is returned", class(error));
                false
            }
        };
        if went {
            let expected = u64::from(self.takes_simple(pending)?);
            ensure!(simple == expected, "{simple} requests took the simple path: {request:?}");
            self.outcome.simple += simple;
        }
        Ok(())
    }

    /// Returns true if the request meets the conditions of the simple path.
    fn takes_simple(&mut self, pending: &Pending) -> Checked<bool> {
        let request = &pending.request;
        let known =
            IoFlags::NOWAIT | IoFlags::FSBLOCK_ALIGNED | IoFlags::NOFAULT | IoFlags::DONTCACHE;
        let one_buffer = matches!(request.shape, super::strategy::Shape::Dma(_));
        let (block, was_cached) = self.fs.with(|state| (state.layout.block, state.was_cached));
        let fits = request.count == request.len && (1..=block).contains(&request.len);
        let plain = known.contains(request.flags) && request.done_before == 0;
        if request.write
            || request.is_borrowed()
            || !one_buffer
            || !fits
            || !plain
            || was_cached
            || !self.is_simple()
        {
            return Ok(false);
        }
        let Some(visit) = pending.visits.first() else { return Ok(false) };
        let mapping = &visit.mapping;
        let unfit = MappingFlags::INTEGRITY | MappingFlags::ANON_WRITE;
        let Some(addr) = mapping.device_address(request.pos) else { return Ok(false) };
        let most = nvio_iomap::Queue::max_transfer_at(self.queue()?.device(), addr) as u64;
        Ok(mapping.kind == MappingKind::Mapped
            && !mapping.flags.intersects(unfit)
            && mapping.end() >= request.end()
            && request.len <= most)
    }
}
