//! Raw reads of a namespace.

use std::hint::black_box;
use std::thread::sleep;
use std::time::Duration;

use nvio_driver::{Address, Controller, DmaBuf, Namespace, QueuePair};
use nvio_emulator::{Backing, Emulator, NamespaceConfig};

use crate::load::{BATCH, DEPTH, ROUNDS, random};

pub(crate) const BLOCKS: u64 = 1 << 28;

pub(crate) type Queue = QueuePair<usize>;
pub(crate) type Bufs = [Option<DmaBuf>; BATCH];

/// Submits a batch of random 4 KiB reads. The context of each is the index of its buffer.
#[inline(never)]
pub(crate) fn submit_batch(
    queue: &mut Queue,
    namespace: &Namespace,
    bufs: &mut Bufs,
    lbas: &[u64],
) {
    for (place, (buf, &lba)) in bufs.iter_mut().zip(lbas).enumerate() {
        let Some(taken) = buf.take() else { break };
        if queue.read(namespace, lba, taken, place).is_err() {
            eprintln!("a read was rejected");
        }
    }
    queue.ring();
}

/// Polls a batch of completions.
#[inline(never)]
pub(crate) fn complete_batch(queue: &mut Queue, bufs: &mut Bufs, sum: &mut u64) -> usize {
    queue.poll(BATCH, |done| {
        *sum = sum.wrapping_add(u64::from(done.status.0));
        // The place is empty, so replacing its buffer drops none.
        match bufs.get_mut(done.context) {
            Some(place) => std::mem::forget(place.replace(done.buf)),
            None => std::mem::forget(done.buf),
        }
    })
}

/// Submits one read and rings the doorbell.
#[inline(never)]
fn submit_one(queue: &mut Queue, namespace: &Namespace, buf: DmaBuf, lba: u64) -> bool {
    let queued = queue.read(namespace, lba, buf, 0).is_ok();
    queue.ring();
    queued
}

/// Polls one completion.
#[inline(never)]
fn complete_one(queue: &mut Queue, sum: &mut u64) -> Option<DmaBuf> {
    let done = queue.pop()?;
    *sum = sum.wrapping_add(u64::from(done.status.0));
    Some(done.buf)
}

/// Polls an empty queue.
#[inline(never)]
fn empty_poll(queue: &mut Queue) -> usize {
    queue.poll(BATCH, |_| ())
}

/// A namespace without storage, and the state of its reads.
pub(crate) struct Rig {
    queue: Queue,
    namespace: Namespace,
    /// Buffers of each batch.
    batches: Vec<Bufs>,
    seed: u64,
    pub(crate) sum: u64,
    _emulator: Emulator,
}

impl Rig {
    pub(crate) fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let disk = NamespaceConfig::new(Backing::null(BLOCKS * 4096)).block_size(4096);
        let emulator = Emulator::builder().namespace(disk).start()?;
        let controller = Controller::open(&Address::VfioUser(emulator.socket().to_owned()))?;
        let namespace = controller.namespace(1)?;
        let queue = controller.queue_pair(DEPTH)?;
        let batch = |_| {
            let mut bufs = [const { None }; BATCH];
            for buf in &mut bufs {
                *buf = Some(controller.alloc(4096)?);
            }
            Ok(bufs)
        };
        let batches = (0..usize::from(DEPTH) / BATCH).map(batch);
        let batches = batches.collect::<Result<_, nvio_driver::Error>>()?;
        Ok(Self { queue, namespace, batches, seed: 1, sum: 0, _emulator: emulator })
    }

    fn lba(&mut self) -> u64 {
        random(&mut self.seed) % BLOCKS
    }

    /// Waits for a completion. This is not counted.
    fn await_completion(&self) {
        while !self.queue.is_ready() {
            sleep(Duration::from_millis(1));
        }
    }

    /// Submits and completes batches at full depth. Between them the controller has enough time to
    /// complete all commands in order.
    pub(crate) fn batches(&mut self) -> usize {
        let mut done = 0;
        for _ in 0..ROUNDS {
            for i in 0..self.batches.len() {
                let lbas: [u64; BATCH] = std::array::from_fn(|_| self.lba());
                let (queue, bufs) = (&mut self.queue, &mut self.batches[i]);
                submit_batch(queue, &self.namespace, bufs, black_box(&lbas));
            }
            sleep(Duration::from_millis(5));
            for i in 0..self.batches.len() {
                self.await_completion();
                let (queue, bufs) = (&mut self.queue, &mut self.batches[i]);
                done += complete_batch(queue, bufs, &mut self.sum);
            }
        }
        done
    }

    /// Submits and completes one command at a time, each with its own doorbell.
    pub(crate) fn one_by_one(&mut self) -> usize {
        let mut done = 0;
        let mut buf = self.batches[0][0].take();
        for _ in 0..ROUNDS * 4 {
            let (lba, Some(taken)) = (self.lba(), buf) else { break };
            if !submit_one(&mut self.queue, &self.namespace, taken, black_box(lba)) {
                break;
            }
            self.await_completion();
            buf = complete_one(&mut self.queue, &mut self.sum);
            done += usize::from(buf.is_some());
        }
        done
    }

    pub(crate) fn empty(&mut self) -> usize {
        (0..ROUNDS * 16).map(|_| 1 + empty_poll(black_box(&mut self.queue))).sum()
    }
}
