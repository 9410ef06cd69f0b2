//! The rings and pending commands that admin and I/O queue pairs share.

use std::sync::Arc;

use nvio_spec::register::{cq_head_doorbell, sq_tail_doorbell};
use nvio_spec::{CQE_SIZE, SQE_SIZE, Sqe, Status, status};
use zerocopy::little_endian::{U16, U64};

use super::completion::{Completion, Handler};
use super::counters::Counters;
use super::data_pointer::{DataPointer, LIST_BYTES, Lists, Range, Scattered};
use super::doorbells::Gathering;
use super::pending::{PageCommand, PendingCommands};
use super::request::Request;
use super::retry::{Retries, RetryPolicy};
use super::ring::{CompletionRing, Posted, SubmissionRing};
use crate::controller::controller_memory::ControllerMemory;
use crate::dma::{Arena, DmaBuf, FrozenBuf, ScatterList, Shared};
use crate::error::{Error, Result};
use crate::mmio::{Doorbell, DoorbellMemory, Mmio, Shadow};

/// Sizes of a queue pair, and the memory and registers that it uses.
pub(crate) struct Layout<'a> {
    pub(crate) arena: &'a Arena,
    /// Memory for the submission ring, preferred to the arena if it has room.
    pub(crate) controller_memory: Option<&'a Arc<ControllerMemory>>,
    pub(crate) doorbells: &'a Arc<Mmio>,
    /// Bytes between two doorbells.
    pub(crate) stride: u32,
    /// log2 of the bytes of a memory page.
    pub(crate) page_shift: u32,
    /// Pages of PRP lists for each command.
    pub(crate) list_pages: usize,
    /// Whether the controller accepts SGLs for data.
    pub(crate) sgl: bool,
    pub(crate) qid: u16,
    /// Commands in flight, at least 1 and less than `entries`.
    pub(crate) depth: u16,
    /// Entries of either ring, a power of two from 2 to [`Layout::ENTRIES_MAX`].
    pub(crate) entries: u32,
    pub(crate) retry: RetryPolicy,
}

impl Layout<'_> {
    /// Largest number of entries of a ring.
    pub(crate) const ENTRIES_MAX: u32 = PendingCommands::<()>::ENTRIES_MAX;

    /// Allocates controller memory for the submission ring, if the controller has any free.
    fn submission_memory(&self) -> Option<Shared> {
        let memory = self.controller_memory?;
        let bytes = self.entries as usize * SQE_SIZE;
        let pages = memory.take(bytes, 1 << self.page_shift);
        if pages.is_none() {
            log::debug!("no {bytes} bytes of controller memory for queue {}", self.qid);
        }
        pages
    }
}

/// The result of [`RawQueuePair::process_one`].
pub(crate) enum Processed<T> {
    Completed(Completion<T>),
    /// An entry with a status other than 0, for [`RawQueuePair::process_failed`].
    Failed(Posted),
    /// A completion that matches no command in flight.
    Stale,
    /// An empty completion ring.
    Empty,
}

/// The reason why a command with a [`ScatterList`] was not submitted.
#[derive(Debug)]
pub(super) enum NotSubmitted {
    /// Every entry is in flight.
    Full,
    /// No data pointer describes the buffers.
    Scattered,
}

/// The rings of one queue pair, and the commands in flight. `T` is the context of a command.
pub(crate) struct RawQueuePair<T> {
    pub(super) sq: SubmissionRing,
    pub(super) cq: CompletionRing,
    pub(super) pending: PendingCommands<Request<T>>,
    lists: Lists,
    /// Empty buffer, for commands without data.
    no_data: DmaBuf,
    /// Whether the submission ring is in memory of the controller.
    pub(super) is_in_controller: bool,
    /// Number of commands that ended.
    ended: usize,
    /// Number of polls that found a completion entry.
    found: u64,
    /// Number of completions after which no command ended: they matched none, or their command is
    /// repeated.
    unmatched: usize,
    /// Number of them in the last call of [`process`](Self::process).
    unmatched_of_poll: usize,
    restarts: u64,
    pub(super) retries: Retries,
    pub(super) gathering: Gathering,
}

impl<T> RawQueuePair<T> {
    /// Allocates the rings and lists. The controller does not know the queues yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] for impossible sizes, and [`Error::ArenaFull`].
    pub(crate) fn new(layout: &Layout<'_>) -> Result<Self> {
        let Layout { arena, doorbells, stride, page_shift, qid, depth, entries, .. } = *layout;
        let possible = entries.is_power_of_two() && entries <= Layout::ENTRIES_MAX;
        if depth == 0 || u32::from(depth) >= entries || !possible {
            let value = u64::from(entries);
            return Err(Error::Invalid { structure: "queue", field: "entries", value });
        }
        let page = 1usize << page_shift;
        let ring = |entry| arena.share(entries as usize * entry, page);
        let controller_memory = layout.submission_memory();
        let is_in_controller = controller_memory.is_some();
        let sq = controller_memory.map_or_else(|| ring(SQE_SIZE), Ok)?;
        let lists = usize::from(depth) * layout.list_pages * LIST_BYTES;
        let lists = arena.share(lists, LIST_BYTES)?;
        let mut tail = Doorbell::new(doorbells, sq_tail_doorbell(qid, stride))?;
        if is_in_controller {
            tail.set_entries_combine();
        }
        let head = Doorbell::new(doorbells, cq_head_doorbell(qid, stride))?;
        Ok(Self {
            sq: SubmissionRing::new(sq, entries, tail),
            cq: CompletionRing::new(ring(CQE_SIZE)?, entries, head),
            pending: PendingCommands::new(depth),
            lists: Lists::new(lists, layout.list_pages, page_shift, layout.sgl),
            no_data: arena.alloc(0)?,
            is_in_controller,
            ended: 0,
            found: 0,
            unmatched: 0,
            unmatched_of_poll: 0,
            restarts: 0,
            retries: Retries::new(layout.retry, depth),
            gathering: Gathering::default(),
        })
    }

    /// I/O virtual addresses of submission ring and completion ring.
    pub(crate) fn ring_iovas(&self) -> (u64, u64) {
        (self.sq.memory.iova(), self.cq.memory.iova())
    }

    pub(crate) fn capacity(&self) -> usize {
        self.pending.capacity()
    }

    /// Returns the number of entries of either ring.
    pub(crate) fn entries(&self) -> u32 {
        self.sq.entries
    }

    /// Uses the shadow doorbells in `memory`, or the registers if it has no place for this queue.
    /// The controller must not know the queue yet.
    pub(crate) fn use_shadow(
        &mut self,
        memory: Option<&Arc<DoorbellMemory>>,
        qid: u16,
        stride: u32,
    ) {
        let entries = self.entries();
        let shadow = |offset| memory.and_then(|memory| Shadow::new(memory, offset, entries));
        self.sq.doorbell.set_shadow(shadow(sq_tail_doorbell(qid, stride)));
        self.cq.doorbell.set_shadow(shadow(cq_head_doorbell(qid, stride)));
    }

    /// Returns the counters of the rings. `polls` are those that found a completion entry.
    pub(crate) fn counters(&self) -> Counters {
        let spared = self.sq.doorbell.spared() + self.cq.doorbell.spared();
        let Retries { errors, kept, repeated, .. } = self.retries;
        Counters {
            submitted: (self.sq.placed() - repeated) as u64,
            completed: (self.ended - repeated) as u64,
            errors: errors as u64,
            retries: repeated as u64,
            polls: self.found,
            doorbells: self.sq.rings + self.cq.rings - spared,
            stale: (self.unmatched - kept) as u64,
            resets: self.restarts,
            ..Counters::default()
        }
    }

    #[inline]
    pub(crate) fn in_flight(&self) -> usize {
        self.sq.placed() - self.ended
    }

    /// Submits a command without data.
    ///
    /// # Errors
    /// Returns the context if every entry is in flight.
    #[inline]
    pub(crate) fn submit(&mut self, sqe: Sqe, context: T) -> Result<(), T> {
        let buf = self.no_data.mark();
        self.push(sqe, buf, context).map_err(|(_, context)| context)
    }

    /// Writes a complete command to the ring.
    fn push(&mut self, mut sqe: Sqe, buf: DmaBuf, context: T) -> Result<(), (DmaBuf, T)> {
        let Some(slot) = self.pending.reserve() else { return Err((buf, context)) };
        sqe.cid = U16::new(slot.cid());
        slot.fill(Request { buf, context }, head_of(&sqe));
        self.place(sqe);
        Ok(())
    }

    /// Places a complete command, whose slot is filled, in the ring.
    fn place(&mut self, sqe: Sqe) {
        if self.sq.push(sqe) {
            self.prepare_entry();
        }
    }

    /// Prepares the ring's entry for the next command. If the last command of the entry is still in
    /// flight, and its slot does not describe it, it is saved for a repetition.
    #[cold]
    #[inline(never)]
    fn prepare_entry(&mut self) {
        let Self { sq, pending, retries, .. } = self;
        let saves = retries.are_possible();
        let overwritten = sq.prepare(|cid| saves && pending.find(cid.into()).is_some());
        if let Some(sqe) = overwritten
            && let Some(mut pending) = pending.find(sqe.cid.get().into())
        {
            let (_, (index, _)) = pending.slot();
            retries.save(index, sqe);
        }
    }

    /// Submits a Read, Write or Compare whose data lies in one memory page; see
    /// [`SubmissionRing::push_page`]. Bits 31:16 of `head`, the command identifier, are zero, and
    /// `nlb` is less than 8.
    ///
    /// # Errors
    /// Returns buffer and context if every entry is in flight.
    #[inline(always)]
    pub(crate) fn submit_page(
        &mut self,
        head: u64,
        slba: u64,
        nlb: u64,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), (DmaBuf, T)> {
        let Some(slot) = self.pending.reserve() else { return Err((buf, context)) };
        let iova = buf.iova();
        let head = head | u64::from(slot.tag());
        #[expect(clippy::cast_possible_truncation, reason = "a page has at most 8 blocks")]
        let command = PageCommand { head, slba, nlb: nlb as u32 };
        slot.fill_page(Request { buf, context }, command);
        // Last, so that no register is live across the rare call.
        if self.sq.push_page(head, iova, slba, nlb) {
            self.prepare_entry();
        }
        Ok(())
    }

    /// Submits a command whose data is all of `buf`. Its length is within the limits of the
    /// controller.
    ///
    /// # Errors
    /// Returns buffer and context if every entry is in flight.
    pub(crate) fn submit_buf(
        &mut self,
        sqe: Sqe,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), (DmaBuf, T)> {
        let len = buf.len();
        self.submit_prefix(sqe, len, buf, context)
    }

    /// Submits a command whose data is `buf[..len]`. `len` must not exceed the bytes that the
    /// command transfers, because they determine the meaning of PRP2.
    ///
    /// # Errors
    /// Returns buffer and context if every entry is in flight, or if `len` exceeds the PRP lists,
    /// which the limits of the controller exclude.
    pub(super) fn submit_prefix(
        &mut self,
        sqe: Sqe,
        len: usize,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), (DmaBuf, T)> {
        let range = Range { iova: buf.iova(), len };
        self.submit_range(sqe, range, buf, context)
    }

    /// Submits a command whose data is the memory that `frozen` shares, which the command keeps.
    ///
    /// # Errors
    /// As [`submit_prefix`](Self::submit_prefix).
    pub(super) fn submit_frozen(
        &mut self,
        sqe: Sqe,
        frozen: &FrozenBuf,
        context: T,
    ) -> Result<(), T> {
        let range = Range { iova: frozen.iova(), len: frozen.len() };
        let submitted = self.submit_range(sqe, range, frozen.as_buf().mark(), context);
        submitted.map_err(|(_, context)| context)
    }

    fn submit_range(
        &mut self,
        mut sqe: Sqe,
        range: Range,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), (DmaBuf, T)> {
        let index = self.pending.next_free();
        let pointer = index.and_then(|index| self.lists.contiguous(index, range).ok());
        let Some(pointer) = pointer else { return Err((buf, context)) };
        set_data_pointer(&mut sqe, pointer);
        self.push(sqe, buf, context)
    }

    /// Submits a command whose memory is `list`. Its length is within the limits of the controller.
    ///
    /// # Errors
    /// Returns the reason, the list and the context.
    pub(super) fn submit_scattered(
        &mut self,
        mut sqe: Sqe,
        list: ScatterList,
        context: T,
    ) -> Result<(), (NotSubmitted, ScatterList, T)> {
        let Some(index) = self.pending.next_free() else {
            return Err((NotSubmitted::Full, list, context));
        };
        match self.lists.scattered(index, ranges(&list)) {
            Ok(pointer) => set_data_pointer(&mut sqe, pointer),
            Err(Scattered) => return Err((NotSubmitted::Scattered, list, context)),
        }
        if let Some(metadata) = list.metadata() {
            sqe.mptr = U64::new(metadata.iova());
        }
        let Some(slot) = self.pending.reserve() else {
            return Err((NotSubmitted::Full, list, context));
        };
        sqe.cid = U16::new(slot.cid());
        slot.fill(Request { buf: list.into_completed(), context }, head_of(&sqe));
        self.place(sqe);
        Ok(())
    }

    /// Shows the controller the commands that were submitted, now or with further ones. Returns
    /// true if they wait: [`ring_held`](SubmissionRing::ring_held) must then be called in time.
    #[inline]
    pub(crate) fn ring(&mut self) -> bool {
        if self.gathering.is_on {
            return self.ring_or_hold();
        }
        self.sq.ring();
        false
    }

    // Cold, so that other callers need not save registers for it.
    #[cold]
    #[inline(never)]
    fn ring_or_hold(&mut self) -> bool {
        if self.retries.has_waiting() {
            self.sq.ring_all();
            return false;
        }
        let in_flight = self.in_flight();
        self.gathering.ring_or_hold(&mut self.sq, &mut self.cq, in_flight)
    }

    /// Writes both doorbells as far as they were put off.
    #[cold]
    #[inline(never)]
    pub(super) fn ring_overdue(&mut self) {
        let in_flight = self.in_flight();
        self.gathering.ring_overdue(&mut self.sq, &mut self.cq, in_flight);
    }

    /// Writes both doorbells now.
    pub(super) fn ring_all(&mut self) {
        self.sq.ring_all();
        self.cq.ring();
    }

    /// Returns true if the controller has posted a completion that was not processed.
    #[inline]
    pub(crate) fn has_posted(&self) -> bool {
        !self.cq.is_empty()
    }

    /// Removes at most `limit` completion entries, and no more than a ring has, passes the completions
    /// of commands in flight to `handler`, and returns their number.
    #[inline(always)]
    pub(crate) fn process(
        &mut self,
        limit: usize,
        handler: &mut impl Handler<Completion<T>>,
    ) -> usize {
        // The bound protects the caller from a device that never stops posting.
        let limit = limit.min(self.pending.capacity());
        self.unmatched_of_poll = 0;
        let mut left = limit;
        while left != 0 {
            let Some(posted) = self.cq.peek() else { break };
            left -= 1;
            if posted.status().0 != 0 {
                // A second call of the handler: where both paths join, the compiler would test the
                // status again.
                if let Some(completion) = self.complete_failed(posted) {
                    handler.completed(completion);
                }
                continue;
            }
            let result = self.cq.result(posted);
            self.advance(posted);
            if let Some(completion) = self.complete(posted) {
                handler.completed(Completion { result, ..completion });
            }
        }
        self.found += 1;
        let matched = limit - left - self.unmatched_of_poll;
        self.ended += matched;
        matched
    }

    /// Processes one completion entry, if the controller has posted one. An entry with an error is
    /// left to [`process_failed`](Self::process_failed).
    #[inline(always)]
    pub(crate) fn process_one(&mut self) -> Processed<T> {
        let Some(posted) = self.cq.peek() else { return Processed::Empty };
        if posted.status().0 != 0 {
            return Processed::Failed(posted);
        }
        let result = self.cq.result(posted);
        self.advance(posted);
        self.found += 1;
        match self.complete(posted) {
            Some(completion) => {
                self.ended += 1;
                Processed::Completed(Completion { result, ..completion })
            }
            None => Processed::Stale,
        }
    }

    /// Removes the completion entry at the head, and writes the doorbells if they are due.
    #[inline(always)]
    fn advance(&mut self, posted: Posted) {
        if self.cq.advance(posted) {
            self.ring_overdue();
        }
    }

    /// Ends the command of an entry with an error, unless it is repeated.
    #[cold]
    #[inline(never)]
    pub(crate) fn process_failed(&mut self, posted: Posted) -> Option<Completion<T>> {
        let completion = self.complete_failed(posted);
        self.found += 1;
        self.ended += usize::from(completion.is_some());
        completion
    }

    /// Ends the command of a completion with status 0.
    #[inline(always)]
    fn complete(&mut self, posted: Posted) -> Option<Completion<T>> {
        let Some(pending) = self.pending.find(posted.cid()) else {
            self.count_stale(posted.cid() & 0xffff);
            return None;
        };
        let Request { buf, context } = pending.remove();
        Some(Completion { context, buf, status: Status::SUCCESS, result: 0 })
    }

    /// Removes a completion with another status, and ends its command, unless it is repeated.
    #[cold]
    #[inline(never)]
    fn complete_failed(&mut self, posted: Posted) -> Option<Completion<T>> {
        let (status, result) = (posted.status(), self.cq.result(posted));
        self.advance(posted);
        if self.repeats(posted.cid(), status) {
            return None;
        }
        self.complete(posted).map(|completion| Completion { status, result, ..completion })
    }

    /// Handles a completion with a status other than 0. Returns true if its command is repeated,
    /// and so has not ended.
    fn repeats(&mut self, cid: u32, status: Status) -> bool {
        let Some(mut pending) = self.pending.find(cid) else { return false };
        let (slot, names) = pending.slot();
        let repeated = self.retries.note(&self.sq, slot, names, status);
        if repeated {
            self.count_unmatched();
            self.repeat(None);
        }
        repeated
    }

    /// Counts a completion after which no command ended.
    fn count_unmatched(&mut self) {
        self.unmatched += 1;
        self.unmatched_of_poll += 1;
    }

    #[cold]
    #[inline(never)]
    fn count_stale(&mut self, cid: u32) {
        self.count_unmatched();
        log::warn!("a completion with identifier {cid:#06x} matches no command");
    }

    /// Ends a command in flight with `status`, if there is one.
    ///
    /// With `lost`, the controller may still write to the memory of the command. The memory is
    /// leaked, and the completion has an empty buffer.
    pub(crate) fn abandon(&mut self, status: Status, lost: bool) -> Option<Completion<T>> {
        let retries = &self.retries;
        let mut request = self.pending.remove_any(|index, cid| retries.is_waiting(index, cid))?;
        if lost {
            std::mem::forget(std::mem::replace(&mut request.buf, self.no_data.mark()));
        }
        Some(self.end(request, status))
    }

    fn end(&mut self, Request { buf, context }: Request<T>, status: Status) -> Completion<T> {
        self.ended += 1;
        self.retries.errors += 1;
        Completion { context, buf, status, result: 0 }
    }

    /// Submits the commands again that have waited long enough at the time `now_ms`, and without a
    /// time, those that need not wait.
    #[cold]
    #[inline(never)]
    pub(super) fn repeat(&mut self, now_ms: Option<u32>) {
        if self.retries.held || self.retries.given_up {
            return;
        }
        while let Some(sqe) = self.retries.next_due(now_ms) {
            let cid = sqe.cid.get();
            // A device that invents completions may have ended the command.
            if let Some(mut pending) = self.pending.find(cid.into()) {
                log::debug!("repeating a command as {cid:#06x}");
                pending.slot().0.rename(u32::from(cid) << 16);
                self.place(sqe);
                // The former attempt.
                self.ended += 1;
                self.retries.repeated += 1;
            }
        }
        self.sq.ring_all();
    }

    /// Keeps the commands in flight that can be repeated after a reset. The controller was stopped.
    pub(super) fn keep_for_repetition(&mut self) {
        for cid in self.pending.cids() {
            if let Some(mut pending) = self.pending.find(cid.into()) {
                let (slot, names) = pending.slot();
                self.retries.keep(&self.sq, slot, names, status::ABORTED_BY_HOST);
            }
        }
    }

    /// Gives up the commands that wait to be repeated: [`end_given_up`](Self::end_given_up) ends
    /// them.
    pub(super) fn give_up(&mut self) {
        self.retries.given_up = true;
    }

    /// Ends a command that was given up with `status`, if there is one.
    pub(super) fn end_given_up(&mut self, status: Status) -> Option<Completion<T>> {
        while self.retries.given_up
            && let Some(sqe) = self.retries.next_due(None)
        {
            if let Some(pending) = self.pending.find(sqe.cid.get().into()) {
                let request = pending.remove();
                return Some(self.end(request, status));
            }
        }
        self.retries.given_up = false;
        None
    }

    /// Resets the rings. No command is in flight except those that wait to be repeated, and the
    /// controller does not know the queues.
    pub(crate) fn restart(&mut self) {
        self.restarts += 1;
        self.sq.restart();
        self.cq.restart();
        self.pending.open();
    }
}

fn ranges(list: &ScatterList) -> impl Iterator<Item = Range> + Clone {
    let data = list.buffers().filter(|buf| !buf.is_empty());
    data.map(|buf| Range { iova: buf.iova(), len: buf.len() })
}

/// Returns the first two dwords of a command.
fn head_of(sqe: &Sqe) -> u64 {
    let [head, ..]: [U64; 8] = zerocopy::transmute!(*sqe);
    head.get()
}

fn set_data_pointer(sqe: &mut Sqe, pointer: DataPointer) {
    sqe.prp1 = U64::new(pointer.first);
    sqe.prp2 = U64::new(pointer.second);
    sqe.flags |= pointer.psdt;
}
