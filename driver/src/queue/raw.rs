//! What the admin queue and I/O queues have in common: rings, slots and data pointers.

use std::sync::Arc;

use nvio_spec::register::{cq_head_doorbell, sq_tail_doorbell};
use nvio_spec::{CQE_SIZE, SQE_SIZE, Sqe, Status};
use zerocopy::little_endian::{U16, U64};

use super::data_pointer::{DataPointer, LIST_BYTES, Lists, Range, Scattered};
use super::pending::{Overdue, PendingCommands};
use super::ring::{CompletionRing, Posted, RingMemory, SubmissionRing};
use crate::controller::controller_memory::ControllerMemory;
use crate::dma::{Arena, DmaBuf, ScatterList};
use crate::mmio::{Doorbell, DoorbellMemory, Mmio, Shadow};
use crate::{Error, Result};

/// Where a queue pair's parts go.
pub(crate) struct Layout<'a> {
    pub(crate) arena: &'a Arena,
    /// Where the submission ring is to be, if there is room.
    pub(crate) controller_memory: Option<&'a Arc<ControllerMemory>>,
    pub(crate) doorbells: &'a Arc<Mmio>,
    /// Bytes between doorbells.
    pub(crate) stride: u32,
    /// Memory page size, as a power of two.
    pub(crate) page_shift: u32,
    /// Pages of PRP lists for each command.
    pub(crate) list_pages: usize,
    /// Whether data may be described by SGLs.
    pub(crate) sgl: bool,
    pub(crate) qid: u16,
    /// Commands in flight, at least 1 and less than `entries`.
    pub(crate) depth: u16,
    /// Entries of either ring, a power of two, 2 to [`Layout::MOST_ENTRIES`].
    pub(crate) entries: u32,
}

impl Layout<'_> {
    /// Most entries of a queue that this driver uses.
    pub(crate) const MOST_ENTRIES: u32 = PendingCommands::<()>::MOST;

    /// Memory of the controller for the submission ring, if there is any.
    fn submission_memory(&self) -> Option<RingMemory> {
        let memory = self.controller_memory?;
        let bytes = self.entries as usize * SQE_SIZE;
        let pages = memory.take(bytes, 1 << self.page_shift);
        if pages.is_none() {
            log::debug!("no {bytes} bytes of controller memory for queue {}", self.qid);
        }
        pages.map(|pages| RingMemory::controller(pages, bytes))
    }
}

/// A request in flight: what comes back with its completion.
struct Request<T> {
    /// Empty for a command without memory; carries the [`ScatterList`] of one that has several.
    buf: DmaBuf,
    context: T,
}

/// A command that ended, with what it was given.
pub(crate) struct Ended<T> {
    pub(crate) status: Status,
    /// Command specific (DW0).
    pub(crate) result: u32,
    pub(crate) buf: DmaBuf,
    pub(crate) context: T,
}

/// What [`RawQueuePair::take_one`] found.
pub(crate) enum Taken<T> {
    Ended(Ended<T>),
    /// A completion that matches no command.
    Stale,
    Nothing,
}

/// The rings of one queue pair with the commands in flight. `T` comes back with each completion.
pub(crate) struct RawQueuePair<T> {
    sq: SubmissionRing,
    cq: CompletionRing,
    pending: PendingCommands<Request<T>>,
    lists: Lists,
    /// The buffer of commands that have none.
    nothing: DmaBuf,
    /// Commands that ended.
    ended: usize,
    /// Commands that ended with an error.
    errors: usize,
    /// Completions that matched no command: late, doubled or made up.
    stale: usize,
    restarts: u64,
}

impl<T> RawQueuePair<T> {
    pub(crate) fn new(layout: &Layout<'_>) -> Result<Self> {
        let Layout { arena, doorbells, stride, page_shift, qid, depth, entries, .. } = *layout;
        let possible = entries.is_power_of_two() && entries <= Layout::MOST_ENTRIES;
        if depth == 0 || u32::from(depth) >= entries || !possible {
            let value = u64::from(entries);
            return Err(Error::Invalid { structure: "queue", field: "entries", value });
        }
        let page = 1usize << page_shift;
        let ring = |entry| {
            let bytes = entries as usize * entry;
            arena.share(bytes, page).map(|shared| RingMemory::host(shared, bytes))
        };
        let (sq, cq) =
            (layout.submission_memory().map_or_else(|| ring(SQE_SIZE), Ok)?, ring(CQE_SIZE)?);
        let lists = usize::from(depth) * layout.list_pages * LIST_BYTES;
        let lists = arena.share(lists, LIST_BYTES)?;
        let mut tail = Doorbell::new(doorbells, sq_tail_doorbell(qid, stride))?;
        if sq.is_controller() {
            tail.set_entries_combine();
        }
        let head = Doorbell::new(doorbells, cq_head_doorbell(qid, stride))?;
        Ok(Self {
            sq: SubmissionRing::new(sq, entries, tail),
            cq: CompletionRing::new(cq, entries, head),
            pending: PendingCommands::new(depth),
            lists: Lists::new(lists, layout.list_pages, page_shift, layout.sgl),
            nothing: arena.alloc(0)?,
            ended: 0,
            errors: 0,
            stale: 0,
            restarts: 0,
        })
    }

    pub(crate) fn sq_iova(&self) -> u64 {
        self.sq.iova()
    }

    pub(super) fn is_in_controller(&self) -> bool {
        self.sq.is_in_controller()
    }

    pub(crate) fn cq_iova(&self) -> u64 {
        self.cq.iova()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.pending.capacity()
    }

    /// Entries of either ring.
    pub(crate) fn entries(&self) -> u32 {
        self.sq.entries()
    }

    /// Has the doorbells in `memory`, if there is such and a place for this queue in it. The
    /// controller must not know the queue.
    pub(crate) fn use_shadow(
        &mut self,
        memory: Option<&Arc<DoorbellMemory>>,
        qid: u16,
        stride: u32,
    ) {
        let entries = self.entries();
        let shadow = |offset| memory.and_then(|memory| Shadow::new(memory, offset, entries));
        self.sq.set_shadow(shadow(sq_tail_doorbell(qid, stride)));
        self.cq.set_shadow(shadow(cq_head_doorbell(qid, stride)));
    }

    /// Commands submitted, ever.
    #[inline]
    pub(crate) fn submitted(&self) -> u64 {
        self.sq.placed() as u64
    }

    /// How often the rings began again.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Commands that ended, ever.
    pub(crate) fn ended(&self) -> u64 {
        self.ended as u64
    }

    /// Commands that ended with an error, ever.
    pub(crate) fn errors(&self) -> u64 {
        self.errors as u64
    }

    /// Polls that found something, ever.
    pub(crate) fn busy_polls(&self) -> u64 {
        self.cq.rings()
    }

    /// Doorbells rung, ever.
    pub(crate) fn doorbells(&self) -> u64 {
        self.sq.doorbells() + self.cq.doorbells()
    }

    #[inline]
    pub(crate) fn in_flight(&self) -> usize {
        self.sq.placed() - self.ended
    }

    pub(crate) fn stale(&self) -> u64 {
        self.stale as u64
    }

    /// Queues a command without data.
    ///
    /// # Errors
    /// Gives the context back when every slot is in flight.
    #[inline]
    pub(crate) fn submit(&mut self, mut sqe: Sqe, context: T) -> Result<(), T> {
        let Some(slot) = self.pending.take() else { return Err(context) };
        sqe.cid = U16::new(slot.cid());
        slot.fill(Request { buf: self.nothing.mark(), context });
        self.sq.push(sqe);
        Ok(())
    }

    /// Queues a Read, Write or Compare of what lies in one memory page: see
    /// [`SubmissionRing::push_page`]. `head` has room for the command identifier.
    ///
    /// # Errors
    /// Gives buffer and context back when every slot is in flight.
    #[inline(always)]
    pub(crate) fn submit_page(
        &mut self,
        head: u64,
        slba: u64,
        nlb: u64,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), (DmaBuf, T)> {
        let Some(slot) = self.pending.take() else { return Err((buf, context)) };
        let iova = buf.iova();
        let head = head | u64::from(slot.tag());
        slot.fill(Request { buf, context });
        self.sq.push_page(head, iova, slba, nlb);
        Ok(())
    }

    /// Queues a command whose data is all of `buf`, which is within the limits of the controller.
    ///
    /// # Errors
    /// Gives buffer and context back when every slot is in flight.
    pub(crate) fn submit_buf(
        &mut self,
        sqe: Sqe,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), (DmaBuf, T)> {
        let len = buf.len();
        self.submit_front(sqe, len, buf, context)
    }

    /// The same of the first `len` bytes of `buf`, which has as many. What PRP2 means depends on
    /// how much a command transfers, so that this must be no more than it does.
    ///
    /// # Errors
    /// Also when `len` is more than the lists were made for, which the limits exclude.
    pub(super) fn submit_front(
        &mut self,
        mut sqe: Sqe,
        len: usize,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), (DmaBuf, T)> {
        let range = Range { iova: buf.iova(), len };
        let index = self.pending.next_free();
        let pointer = index.and_then(|index| self.lists.contiguous(index, range).ok());
        let Some(pointer) = pointer else { return Err((buf, context)) };
        let Some(slot) = self.pending.take() else { return Err((buf, context)) };
        point(&mut sqe, pointer);
        sqe.cid = U16::new(slot.cid());
        slot.fill(Request { buf, context });
        self.sq.push(sqe);
        Ok(())
    }

    /// Queues a command whose memory is `parts`, which are within the limits of the controller.
    ///
    /// # Errors
    /// Gives parts and context back; with [`Scattered`] if the parts cannot be described, without
    /// when every slot is in flight.
    pub(super) fn submit_parts(
        &mut self,
        mut sqe: Sqe,
        parts: ScatterList,
        context: T,
    ) -> Result<(), (Option<Scattered>, ScatterList, T)> {
        let Some(index) = self.pending.next_free() else { return Err((None, parts, context)) };
        match self.lists.scattered(index, ranges(&parts)) {
            Ok(pointer) => point(&mut sqe, pointer),
            Err(scattered) => return Err((Some(scattered), parts, context)),
        }
        if let Some(metadata) = parts.metadata() {
            sqe.mptr = U64::new(metadata.iova());
        }
        let Some(slot) = self.pending.take() else { return Err((None, parts, context)) };
        sqe.cid = U16::new(slot.cid());
        slot.fill(Request { buf: parts.into_completed(), context });
        self.sq.push(sqe);
        Ok(())
    }

    /// Tells the controller of what was queued.
    #[inline]
    pub(crate) fn ring(&mut self) {
        self.sq.ring();
    }

    /// Whether the controller has posted something that was not taken.
    #[inline]
    pub(crate) fn has_posted(&self) -> bool {
        !self.cq.is_empty()
    }

    /// Takes at most `limit` entries, and no more than a ring has, hands those that match a command
    /// to `done`, and gives their number.
    #[inline(always)]
    pub(crate) fn take(&mut self, limit: usize, mut done: impl FnMut(Ended<T>)) -> usize {
        // A device that posts for ever must not keep the caller for ever.
        let limit = limit.min(self.pending.capacity());
        let before = self.stale;
        let mut left = limit;
        while left != 0 {
            let Some(posted) = self.cq.pop() else { break };
            left -= 1;
            if let Some(ended) = self.end(posted) {
                done(Ended { result: self.cq.result(posted), ..ended });
            }
        }
        self.cq.ring();
        let matched = limit - left - (self.stale - before);
        self.ended += matched;
        matched
    }

    /// Takes one entry, if the controller has posted one.
    #[inline(always)]
    pub(crate) fn take_one(&mut self) -> Taken<T> {
        let Some(posted) = self.cq.pop() else { return Taken::Nothing };
        let result = self.cq.result(posted);
        self.cq.ring();
        match self.end(posted) {
            Some(ended) => {
                self.ended += 1;
                Taken::Ended(Ended { result, ..ended })
            }
            None => Taken::Stale,
        }
    }

    #[inline(always)]
    fn end(&mut self, posted: Posted) -> Option<Ended<T>> {
        let Some(used) = self.pending.find(posted.cid()) else {
            self.count_stale(posted.cid() & 0xffff);
            return None;
        };
        let status = posted.status();
        let Request { buf, context } = used.take();
        if status.0 != 0 {
            // Bits beside type and code are hints, to be seen by those who retry.
            self.errors += usize::from(!status.is_success());
        }
        Some(Ended { status, result: 0, buf, context })
    }

    #[cold]
    #[inline(never)]
    fn count_stale(&mut self, cid: u32) {
        self.stale += 1;
        log::warn!("a completion with identifier {cid:#06x} matches no command");
    }

    /// Ends a command in flight with `status`, if there is one.
    ///
    /// With `lost`, the controller may still write to its memory: that is given up, and comes back
    /// as an empty buffer.
    pub(crate) fn abandon(&mut self, status: Status, lost: bool) -> Option<Ended<T>> {
        let Request { mut buf, context } = self.pending.remove_any()?;
        if lost {
            std::mem::forget(std::mem::replace(&mut buf, self.nothing.mark()));
        }
        self.ended += 1;
        self.errors += 1;
        Some(Ended { status, result: 0, buf, context })
    }

    /// Begins again with empty rings, none of whose commands is in flight, and which the
    /// controller does not know yet.
    pub(crate) fn restart(&mut self) {
        debug_assert_eq!(self.in_flight(), 0);
        self.restarts += 1;
        self.sq.restart();
        self.cq.restart();
        self.pending.open();
    }

    /// Takes no commands until [`restart`](Self::restart).
    pub(crate) fn close(&mut self) {
        self.pending.close();
    }

    /// Looks after commands in flight; see [`PendingCommands::find_overdue`].
    pub(super) fn find_overdue(&mut self, now: u32, bounds: (u32, u32)) -> Option<Overdue> {
        self.pending.find_overdue(now, bounds)
    }

    /// See [`PendingCommands::mark_aborted`].
    pub(crate) fn mark_aborted(&mut self, cid: u16, now: u32) {
        self.pending.mark_aborted(cid, now);
    }
}

fn ranges(parts: &ScatterList) -> impl Iterator<Item = Range> + Clone {
    let data = parts.data().iter().filter(|buf| !buf.is_empty());
    data.map(|buf| Range { iova: buf.iova(), len: buf.len() })
}

/// Sets a command's data pointer.
fn point(sqe: &mut Sqe, pointer: DataPointer) {
    sqe.prp1 = U64::new(pointer.first);
    sqe.prp2 = U64::new(pointer.second);
    sqe.flags |= pointer.psdt;
}
