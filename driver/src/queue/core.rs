//! What the admin queue and I/O queues have in common: rings, slots and data pointers.

use std::sync::Arc;

use nvio_spec::register::{cq_head_doorbell, sq_tail_doorbell};
use nvio_spec::{CQE_SIZE, SQE_SIZE, Sqe};
use zerocopy::little_endian::{U16, U64};

use super::prp::{LIST_BYTES, PrpLists};
use super::ring::{CompletionRing, Posted, SubmissionRing};
use super::slots::Slots;
use crate::dma::{Arena, DmaBuf};
use crate::mmio::{Doorbell, Mmio};
use crate::{Error, Result};

/// Where a queue pair's parts go.
pub(crate) struct Layout<'a> {
    pub(crate) arena: &'a Arena,
    pub(crate) doorbells: &'a Arc<Mmio>,
    /// Bytes between doorbells.
    pub(crate) stride: u32,
    /// Memory page size, as a power of two.
    pub(crate) page_shift: u32,
    pub(crate) qid: u16,
    /// Commands in flight, at least 1 and less than `entries`.
    pub(crate) depth: u16,
    /// Entries of either ring, a power of two, 2 to [`Layout::MOST_ENTRIES`].
    pub(crate) entries: u32,
}

impl Layout<'_> {
    /// Most entries of a queue that this driver uses.
    pub(crate) const MOST_ENTRIES: u32 = Slots::<()>::MOST;
}

/// A request in flight: what comes back with its completion.
struct Request<T> {
    buf: DmaBuf,
    context: T,
}

/// The rings of one queue pair with the commands in flight. `T` comes back with each completion.
pub(crate) struct Core<T> {
    sq: SubmissionRing,
    cq: CompletionRing,
    slots: Slots<Request<T>>,
    prp: PrpLists,
    /// The buffer of commands that have none, so that a request always has one: an absent request
    /// is then a null pointer in its place.
    nothing: DmaBuf,
    sq_iova: u64,
    cq_iova: u64,
    /// Completions that matched no command: late, doubled or made up.
    stale: u64,
}

impl<T> Core<T> {
    pub(crate) fn new(layout: &Layout<'_>) -> Result<Self> {
        let Layout { arena, doorbells, stride, page_shift, qid, depth, entries } = *layout;
        let possible = entries.is_power_of_two() && entries <= Layout::MOST_ENTRIES;
        if depth == 0 || u32::from(depth) >= entries || !possible {
            let value = u64::from(entries);
            return Err(Error::Invalid { structure: "queue", field: "entries", value });
        }
        let page = 1usize << page_shift;
        let sq = arena.share(entries as usize * SQE_SIZE, page)?;
        let cq = arena.share(entries as usize * CQE_SIZE, page)?;
        let lists = arena.share(usize::from(depth) * LIST_BYTES, LIST_BYTES)?;
        let (sq_iova, cq_iova) = (sq.iova(), cq.iova());
        let tail = Doorbell::new(doorbells, sq_tail_doorbell(qid, stride))?;
        let head = Doorbell::new(doorbells, cq_head_doorbell(qid, stride))?;
        Ok(Self {
            sq: SubmissionRing::new(sq, entries, tail),
            cq: CompletionRing::new(cq, entries, head),
            slots: Slots::new(depth),
            prp: PrpLists::new(lists, page_shift),
            nothing: arena.alloc(0)?,
            sq_iova,
            cq_iova,
            stale: 0,
        })
    }

    pub(crate) fn sq_iova(&self) -> u64 {
        self.sq_iova
    }

    pub(crate) fn cq_iova(&self) -> u64 {
        self.cq_iova
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.slots.in_flight()
    }

    pub(crate) fn stale(&self) -> u64 {
        self.stale
    }

    /// Queues a command without data.
    ///
    /// # Errors
    /// Gives the context back when every slot is in flight.
    #[inline]
    pub(crate) fn submit(&mut self, mut sqe: Sqe, context: T) -> Result<(), T> {
        let Some(slot) = self.slots.take() else { return Err(context) };
        sqe.cid = U16::new(slot.fill(Request { buf: self.nothing.mark(), context }));
        self.sq.push(sqe);
        Ok(())
    }

    /// Whether [`submit_page`](Self::submit_page) can take this buffer.
    #[inline]
    pub(crate) fn is_one_page(&self, buf: &DmaBuf) -> bool {
        self.prp.is_one_page(buf.iova(), buf.len())
    }

    /// Queues a command whose data is all of `buf`, which is inside one memory page.
    ///
    /// # Errors
    /// Gives buffer and context back when every slot is in flight.
    #[inline]
    pub(crate) fn submit_page(
        &mut self,
        sqe: Sqe,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), (DmaBuf, T)> {
        self.place(sqe, buf, context, |_, _, buf| (buf.iova(), 0))
    }

    /// Queues a command whose data is all of `buf`, which is within the limits of the controller.
    ///
    /// # Errors
    /// Gives buffer and context back when every slot is in flight.
    pub(crate) fn submit_pages(
        &mut self,
        sqe: Sqe,
        buf: DmaBuf,
        context: T,
    ) -> Result<(), (DmaBuf, T)> {
        self.place(sqe, buf, context, |prp, slot, buf| prp.describe(slot, buf.iova(), buf.len()))
    }

    /// Fills a slot and an entry; `pages` makes PRP1 and PRP2 in the name of the slot.
    #[inline]
    fn place(
        &mut self,
        mut sqe: Sqe,
        buf: DmaBuf,
        context: T,
        pages: impl FnOnce(&mut PrpLists, u16, &DmaBuf) -> (u64, u64),
    ) -> Result<(), (DmaBuf, T)> {
        let Some(slot) = self.slots.take() else { return Err((buf, context)) };
        let (prp1, prp2) = pages(&mut self.prp, slot.index(), &buf);
        sqe.prp1 = U64::new(prp1);
        sqe.prp2 = U64::new(prp2);
        sqe.cid = U16::new(slot.fill(Request { buf, context }));
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
    #[inline]
    pub(crate) fn poll(&mut self, limit: usize, done: impl FnMut(Posted, DmaBuf, T)) -> usize {
        // Most polls find nothing: that is all that is inlined.
        if self.has_posted() { self.take_posted(limit, done) } else { 0 }
    }

    #[inline(never)]
    fn take_posted(&mut self, limit: usize, mut done: impl FnMut(Posted, DmaBuf, T)) -> usize {
        // A device that posts for ever must not keep the caller for ever.
        let limit = limit.min(self.slots.capacity());
        let (mut taken, mut matched) = (0, 0);
        while taken < limit {
            let Some(posted) = self.cq.pop() else { break };
            taken += 1;
            match self.slots.remove(posted.cid) {
                Some(request) => {
                    matched += 1;
                    done(posted, request.buf, request.context);
                }
                None => self.count_stale(posted.cid),
            }
        }
        self.cq.ring();
        matched
    }

    /// Ends the use of these queues, whatever the controller does: nothing is taken, and nothing
    /// comes back. What is in flight stays.
    pub(crate) fn close(&mut self) {
        self.slots.close();
        self.cq.close();
    }

    #[cold]
    fn count_stale(&mut self, cid: u16) {
        self.stale += 1;
        log::warn!("a completion with identifier {cid:#06x} matches no command");
    }
}
