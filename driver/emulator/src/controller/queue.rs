//! Submission and completion queues in host memory (Base 3.3.1, PCIe 2.1).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nvio_spec::{CQE_SIZE, Cqe, SQE_SIZE, Sqe};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, VolatileMemory};
use zerocopy::IntoBytes;

use crate::host::access::Access;
use crate::host::memory::HostMemory;

/// A doorbell value that is invalid for its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidDoorbell;

/// A queue entry outside of host memory, which is fatal (Base 3.1.3.6, CSTS.CFS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable {
    pub(crate) iova: u64,
}

/// The last refused value of a doorbell. It is reported once, and has no effect until the host
/// writes another.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    refused: Option<u32>,
}

impl Seen {
    fn refuse(&mut self, value: u32) -> Result<(), InvalidDoorbell> {
        match self.refused.replace(value) {
            Some(before) if before == value => Ok(()),
            _ => Err(InvalidDoorbell),
        }
    }
}

/// The controller's state of a submission queue.
#[derive(Debug)]
pub(crate) struct SubmissionQueue {
    base: u64,
    entries: u32,
    head: u32,
    tail: u32,
    doorbell: Seen,
    /// Number of times that the host has moved the tail.
    pub(crate) tail_changes: u64,
    /// The queue was empty. Its shadow doorbell is not read until the doorbell register is written.
    pub(crate) asleep: bool,
    /// The arbitration has no turn for the queue.
    pub(crate) starves: bool,
    /// Completion queue of its commands.
    pub(crate) cqid: u16,
    /// Controller memory that holds the queue, and the offset in it; `None` for host memory.
    controller_memory: Option<(Arc<MmapRegion>, usize)>,
}

impl SubmissionQueue {
    pub(crate) fn new(base: u64, entries: u32, cqid: u16) -> Self {
        Self {
            base,
            entries,
            head: 0,
            tail: 0,
            doorbell: Seen::default(),
            tail_changes: 0,
            asleep: false,
            starves: false,
            cqid,
            controller_memory: None,
        }
    }

    /// Places the queue `offset` bytes into memory of the controller, which holds all of it.
    pub(crate) fn in_controller_memory(self, memory: Arc<MmapRegion>, offset: usize) -> Self {
        Self { controller_memory: Some((memory, offset)), ..self }
    }

    /// Applies the value of the tail doorbell.
    #[inline]
    pub(crate) fn set_tail(&mut self, value: u32) -> Result<(), InvalidDoorbell> {
        if value == self.tail {
            return Ok(());
        }
        if value >= self.entries {
            return self.doorbell.refuse(value);
        }
        self.doorbell.refused = None;
        self.tail_changes += 1;
        self.tail = value;
        Ok(())
    }

    /// Returns true if every command has been fetched.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Returns true if the queue is empty and stays so with this tail.
    #[inline]
    pub(crate) fn is_idle_at(&self, tail: u32) -> bool {
        self.is_empty() && tail == self.tail
    }

    /// Reads the next commands, until `to` is full, the queue is empty or the ring ends. Returns
    /// their number. They stay in the queue until [`Self::consume`].
    #[inline]
    pub(crate) fn fetch(&self, memory: &HostMemory, to: &mut [Sqe]) -> Result<usize, Unreachable> {
        let end = if self.tail >= self.head { self.tail } else { self.entries };
        let count = to.len().min((end - self.head) as usize);
        let bytes = to[..count].as_mut_bytes();
        self.read(memory, bytes).map(|()| count).ok_or(Unreachable { iova: self.base })
    }

    /// Reads the bytes of the ring from the head.
    #[inline]
    fn read(&self, memory: &HostMemory, bytes: &mut [u8]) -> Option<()> {
        if let Some((memory, offset)) = &self.controller_memory {
            let at = offset + self.head as usize * SQE_SIZE;
            return memory.get_slice(at, bytes.len()).ok()?.read_slice(bytes, 0).ok();
        }
        let size = u64::from(self.entries) * SQE_SIZE as u64;
        let place = memory.find(self.base, size, Access::READ)?;
        let at = self.head as usize * SQE_SIZE;
        memory.will_access(place, at as u64, bytes.len() as u64);
        memory.unobserved(place, size)?.read_slice(bytes, at).ok()
    }

    /// Removes the next command from a queue that is not empty.
    #[inline]
    pub(crate) fn consume(&mut self) {
        self.head = if self.head + 1 == self.entries { 0 } else { self.head + 1 };
    }

    /// Returns the head pointer for completions (SQHD).
    #[inline]
    pub(crate) fn head(&self) -> u16 {
        // The head is below the number of entries, which is at most 65,536.
        (self.head & 0xffff) as u16
    }
}

/// The controller's state of a completion queue.
#[derive(Debug)]
pub(crate) struct CompletionQueue {
    base: u64,
    entries: u32,
    head: u32,
    tail: u32,
    phase: bool,
    doorbell: Seen,
    /// Number of times that the host has moved the head.
    pub(crate) head_changes: u64,
    /// Interrupt vector, if interrupts are enabled.
    pub(crate) vector: Option<u16>,
}

impl CompletionQueue {
    pub(crate) fn new(base: u64, entries: u32, vector: Option<u16>) -> Self {
        let doorbell = Seen::default();
        Self { base, entries, head: 0, tail: 0, phase: true, doorbell, head_changes: 0, vector }
    }

    /// Applies the value of the head doorbell, which may release only posted entries.
    #[inline]
    pub(crate) fn set_head(&mut self, value: u32) -> Result<(), InvalidDoorbell> {
        if value == self.head {
            return Ok(());
        }
        if value >= self.entries || self.distance(self.head, value) > self.used() {
            return self.doorbell.refuse(value);
        }
        self.doorbell.refused = None;
        self.head_changes += 1;
        self.head = value;
        Ok(())
    }

    /// Returns the head that was last applied.
    #[inline]
    pub(crate) fn head(&self) -> u32 {
        self.head
    }

    fn distance(&self, from: u32, to: u32) -> u32 {
        if to >= from { to - from } else { to + self.entries - from }
    }

    fn used(&self) -> u32 {
        self.distance(self.head, self.tail)
    }

    /// Returns the number of entries that can be posted. One entry always stays free (Base
    /// 3.3.1.2.1).
    #[inline]
    pub(crate) fn room(&self) -> u32 {
        self.entries - 1 - self.used()
    }

    /// Posts entries, for which there must be room. The half of an entry with the phase tag is
    /// stored last, so that a host that sees the tag sees the whole entry.
    #[inline]
    pub(crate) fn post(&mut self, memory: &HostMemory, cqes: &[Cqe]) -> Result<(), Unreachable> {
        let bytes = u64::from(self.entries) * CQE_SIZE as u64;
        let unreachable = Unreachable { iova: self.base };
        let place = memory.find(self.base, bytes, Access::WRITE).ok_or(unreachable)?;
        let ring = memory.unobserved(place, bytes).ok_or(unreachable)?;
        for cqe in cqes {
            let phase = Cqe::pack_status(cqe.status(), self.phase);
            let [first, second] = words(&Cqe { status_phase: phase, ..*cqe });
            let at = self.tail as usize * CQE_SIZE;
            memory.will_access(place, at as u64, CQE_SIZE as u64);
            ring.store(first, at, Ordering::Relaxed).map_err(|_| unreachable)?;
            ring.store(second, at + 8, Ordering::Release).map_err(|_| unreachable)?;
            self.tail += 1;
            if self.tail == self.entries {
                self.tail = 0;
                self.phase = !self.phase;
            }
        }
        Ok(())
    }
}

/// Returns an entry as the two words that are stored.
#[inline]
fn words(cqe: &Cqe) -> [u64; 2] {
    let bytes: &[u8; CQE_SIZE] = zerocopy::transmute_ref!(cqe);
    let (words, _) = bytes.as_chunks();
    [u64::from_ne_bytes(words[0]), u64::from_ne_bytes(words[1])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvio_spec::status;
    use zerocopy::FromBytes;

    fn memory() -> HostMemory {
        let mut memory = HostMemory::new();
        let region = Arc::new(MmapRegion::new(4096).unwrap());
        memory.map_region(0, region, Access::READ_WRITE).unwrap();
        memory
    }

    #[test]
    fn phase_turns_at_the_end_and_the_queue_never_overflows() {
        let memory = memory();
        let mut queue = CompletionQueue::new(0, 3, None);
        let entry = |i: u64| {
            let mut bytes = [0; 16];
            memory.read(i * 16, &mut bytes).unwrap();
            Cqe::read_from_bytes(&bytes).unwrap()
        };
        let cqe = Cqe {
            status_phase: Cqe::pack_status(status::INVALID_FIELD, false),
            cid: 9.into(),
            dw0: 0x1234_5678.into(),
            ..Cqe::default()
        };
        assert_eq!(queue.room(), 2);
        queue.post(&memory, &[cqe]).unwrap();
        queue.post(&memory, &[cqe]).unwrap();
        assert_eq!(queue.room(), 0);
        assert!(entry(0).phase() && entry(1).phase() && !entry(2).phase());
        assert_eq!(entry(1).status(), status::INVALID_FIELD);
        assert_eq!((entry(1).cid.get(), entry(1).dw0.get()), (9, 0x1234_5678));
        queue.set_head(2).unwrap();
        assert_eq!(queue.room(), 2);
        queue.post(&memory, &[cqe]).unwrap();
        queue.post(&memory, &[cqe]).unwrap();
        assert!(entry(2).phase() && !entry(0).phase());
        assert_eq!(queue.room(), 0);
    }

    #[test]
    fn heads_beyond_what_was_posted_are_refused_once() {
        let memory = memory();
        let mut queue = CompletionQueue::new(0, 4, None);
        queue.post(&memory, &[Cqe::default()]).unwrap();
        assert_eq!(queue.set_head(2), Err(InvalidDoorbell));
        assert_eq!(queue.set_head(2), Ok(()));
        assert_eq!(queue.set_head(4), Err(InvalidDoorbell));
        assert_eq!(queue.room(), 2);
        assert_eq!(queue.set_head(1), Ok(()));
        assert_eq!(queue.room(), 3);
    }

    #[test]
    fn tails_beyond_the_queue_are_refused_and_have_no_effect() {
        let mut queue = SubmissionQueue::new(0, 4, 0);
        assert_eq!(queue.set_tail(4), Err(InvalidDoorbell));
        assert_eq!(queue.set_tail(u32::MAX), Err(InvalidDoorbell));
        assert!(queue.is_empty());
        queue.set_tail(3).unwrap();
        let memory = memory();
        let mut fetched = [Sqe::default(); 8];
        assert_eq!(queue.fetch(&memory, &mut fetched), Ok(3));
        assert_eq!(queue.fetch(&memory, &mut fetched[..2]), Ok(2));
        for head in 1..=3 {
            queue.consume();
            assert_eq!(queue.head(), head);
        }
        assert!(queue.is_empty());
        // Up to the end of the ring, then from its start.
        queue.set_tail(2).unwrap();
        assert_eq!(queue.fetch(&memory, &mut fetched), Ok(1));
        queue.consume();
        assert_eq!(queue.head(), 0);
        assert_eq!(queue.fetch(&memory, &mut fetched), Ok(2));
    }

    #[test]
    fn a_queue_outside_of_memory_is_unreachable() {
        let memory = memory();
        let mut queue = SubmissionQueue::new(4096, 4, 0);
        queue.set_tail(1).unwrap();
        let fetched = queue.fetch(&memory, &mut [Sqe::default()]);
        assert_eq!(fetched, Err(Unreachable { iova: 4096 }));
        let mut queue = CompletionQueue::new(u64::MAX - 15, 4, None);
        assert!(queue.post(&memory, &[Cqe::default()]).is_err());
    }
}
