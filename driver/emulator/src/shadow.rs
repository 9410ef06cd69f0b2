//! Shadow doorbells: doorbells in client memory (Doorbell Buffer Config, Base 5.8).
//!
//! The host stores tails and heads in one page of its memory and rings a doorbell of BAR0 only if
//! the value it stores passes the one that the controller left in another page, the EventIdx.
//!
//! A controller that always polls would never want to be rung; a host that forgets to ring would
//! not be found out. So this one behaves as one that sleeps: once a submission queue is empty it
//! says so in EventIdx, and does not look at the shadow again until the doorbell rings. Heads are
//! looked at when room is needed, and need no ringing.

use std::sync::atomic::{Ordering, fence};

use nvio_spec::{Sqe, Status, register, status};
use vm_memory::Bytes;

use crate::controller::Controller;
use crate::doorbell::Doorbells;
use crate::memory::{Access, ClientMemory};
use crate::queue::{SubmissionQueue, Unreachable};

/// What the doorbell of a sleeping queue holds: no host writes it, so that any write is seen.
const NOT_RUNG: u32 = u32::MAX;

/// The two pages that a host has lent, until the next reset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShadowDoorbells {
    shadow: u64,
    event: u64,
    stride: u32,
}

impl ShadowDoorbells {
    /// The tail of a submission queue; `None` while the queue sleeps.
    #[inline]
    pub(crate) fn sq_tail(
        &self,
        qid: u16,
        sq: &mut SubmissionQueue,
        doorbells: &Doorbells,
        memory: &ClientMemory,
    ) -> Result<Option<u32>, Unreachable> {
        if sq.asleep && doorbells.sq_tail(qid) == NOT_RUNG {
            return Ok(None);
        }
        sq.asleep = false;
        let at = register::sq_tail_doorbell(qid, self.stride) - register::DOORBELLS;
        let tail = load(memory, self.shadow + at)?;
        if !sq.is_idle_at(tail) {
            return Ok(Some(tail));
        }
        // A host that has stored a tail and not seen this EventIdx does not ring; but then its
        // tail is seen here, as there is a barrier between the two on both sides.
        doorbells.ring_sq(qid, NOT_RUNG);
        store(memory, self.event + at, tail)?;
        fence(Ordering::SeqCst);
        let again = load(memory, self.shadow + at)?;
        sq.asleep = sq.is_idle_at(again);
        Ok((!sq.asleep).then_some(again))
    }

    /// The head of a completion queue, where it was `before`.
    #[inline]
    pub(crate) fn cq_head(
        &self,
        qid: u16,
        before: u32,
        memory: &ClientMemory,
    ) -> Result<u32, Unreachable> {
        let at = register::cq_head_doorbell(qid, self.stride) - register::DOORBELLS;
        let head = load(memory, self.shadow + at)?;
        if head != before {
            // One behind: no head that can come next passes it.
            store(memory, self.event + at, head.wrapping_sub(1) & 0xffff)?;
        }
        Ok(head)
    }
}

impl Controller {
    /// Doorbell Buffer Config (Base 5.8). The host keeps what it stored for the I/O queues that
    /// exist already; the admin queue stays with its doorbells.
    pub(crate) fn doorbell_buffer_config(
        &mut self,
        sqe: &Sqe,
        memory: &ClientMemory,
    ) -> Result<u32, Status> {
        let page = 1 << self.registers.cc().page_shift();
        let (shadow, event) = (sqe.prp1.get(), sqe.prp2.get());
        let good = (shadow | event).is_multiple_of(page)
            && shadow != event
            && memory.find(shadow, page, Access::READ).is_some()
            && memory.find(event, page, Access::WRITE).is_some();
        if !good {
            return Err(status::INVALID_FIELD);
        }
        let stride = self.registers.cap().doorbell_stride();
        self.shadow = Some(ShadowDoorbells { shadow, event, stride });
        Ok(0)
    }
}

#[inline]
fn load(memory: &ClientMemory, iova: u64) -> Result<u32, Unreachable> {
    // The queue entries that a new tail announces are read after the tail.
    let value = memory.slice(iova, 4, Access::READ);
    let value = value.and_then(|slice| slice.load(0, Ordering::Acquire).ok());
    value.map(u32::from_le).ok_or(Unreachable { iova })
}

#[inline]
fn store(memory: &ClientMemory, iova: u64, value: u32) -> Result<(), Unreachable> {
    let to = memory.slice(iova, 4, Access::WRITE);
    let stored = to.and_then(|slice| slice.store(value.to_le(), 0, Ordering::Release).ok());
    stored.ok_or(Unreachable { iova })
}
