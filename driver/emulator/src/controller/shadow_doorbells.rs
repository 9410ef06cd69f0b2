//! Shadow doorbells: doorbells in host memory (Doorbell Buffer Config, Base 5.8).
//!
//! The host stores tails and heads in one page of its memory. It rings a doorbell of BAR0 only if
//! the value passes the EventIdx, which the controller stores in another page.
//!
//! A controller that always polls would never need the doorbell, and would not detect a host that
//! fails to ring. This controller behaves like one that sleeps: when a submission queue is empty,
//! it stores that in EventIdx and does not read the shadow again until the doorbell rings. It reads
//! heads when it needs room, so they need no doorbell.

use std::sync::atomic::{Ordering, fence};

use nvio_spec::register;
use vm_memory::Bytes;

use crate::controller::doorbells::Doorbells;
use crate::controller::queue::{SubmissionQueue, Unreachable};
use crate::host::access::Access;
use crate::host::memory::HostMemory;

/// Value of a sleeping queue's doorbell. No host writes it, so every write is seen.
const NOT_RUNG: u32 = u32::MAX;

/// The two pages that a host lends until the next reset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShadowDoorbells {
    shadow: u64,
    event: u64,
    stride: u32,
}

impl ShadowDoorbells {
    /// Uses the pages at these I/O addresses, with `stride` bytes between doorbells.
    pub(crate) fn new(shadow: u64, event: u64, stride: u32) -> Self {
        Self { shadow, event, stride }
    }

    /// Returns the tail of a submission queue; `None` while the queue sleeps.
    #[inline]
    pub(crate) fn sq_tail(
        &self,
        qid: u16,
        sq: &mut SubmissionQueue,
        doorbells: &Doorbells,
        memory: &HostMemory,
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
        // A host that stored a tail before it could see this EventIdx does not ring. Its tail is
        // visible here, because both sides have a barrier between their store and their load.
        doorbells.ring_sq(qid, NOT_RUNG);
        store(memory, self.event + at, tail)?;
        fence(Ordering::SeqCst);
        let again = load(memory, self.shadow + at)?;
        sq.asleep = sq.is_idle_at(again);
        Ok((!sq.asleep).then_some(again))
    }

    /// Returns the head of a completion queue whose last head was `before`.
    #[inline]
    pub(crate) fn cq_head(
        &self,
        qid: u16,
        before: u32,
        memory: &HostMemory,
    ) -> Result<u32, Unreachable> {
        let at = register::cq_head_doorbell(qid, self.stride) - register::DOORBELLS;
        let head = load(memory, self.shadow + at)?;
        if head != before {
            // EventIdx is one less than the head, so no next head passes it.
            store(memory, self.event + at, head.wrapping_sub(1) & 0xffff)?;
        }
        Ok(head)
    }
}

#[inline]
fn load(memory: &HostMemory, iova: u64) -> Result<u32, Unreachable> {
    // The queue entries of a new tail are read after the tail.
    let value = memory.slice(iova, 4, Access::READ);
    let value = value.and_then(|slice| slice.load(0, Ordering::Acquire).ok());
    value.map(u32::from_le).ok_or(Unreachable { iova })
}

#[inline]
fn store(memory: &HostMemory, iova: u64, value: u32) -> Result<(), Unreachable> {
    let to = memory.slice(iova, 4, Access::WRITE);
    let stored = to.and_then(|slice| slice.store(value.to_le(), 0, Ordering::Release).ok());
    stored.ok_or(Unreachable { iova })
}
