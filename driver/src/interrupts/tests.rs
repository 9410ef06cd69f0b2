//! Eventfds, and devices with few vectors.

use std::time::Instant;

use nvio_emulator::{Backing, Emulator, NamespaceConfig, Service};

use super::*;
use crate::dma::Arena;
use crate::mmio::Mmio;
use crate::transport::vfio_user::VfioUser;
use crate::{Controller, Options, QueuePair, Wait};

#[test]
fn a_signal_stays_until_it_is_cleared() {
    let event = EventFd::new().unwrap();
    assert!(!event.wait(Duration::ZERO));
    event.signal();
    event.signal();
    assert!(event.wait(Duration::from_secs(10)) && event.wait(Duration::ZERO));
    event.clear();
    assert!(!event.wait(Duration::ZERO));
    event.clear();
    let begin = Instant::now();
    assert!(!event.wait(Duration::from_micros(4100)));
    assert!(begin.elapsed() >= Duration::from_micros(4100));
    (&event.0).write_all(&(u64::MAX - 1).to_ne_bytes()).unwrap();
    event.signal();
    assert!(event.wait(Duration::ZERO));
}

/// A device with few vectors, on a system that may have even fewer.
struct Few {
    device: VfioUser,
    offered: u16,
    left: Arc<AtomicUsize>,
}

// SAFETY: that of the transport inside.
unsafe impl Transport for Few {
    fn read32(&self, offset: u64) -> Result<u32> {
        self.device.read32(offset)
    }

    fn write32(&self, offset: u64, value: u32) -> Result<()> {
        self.device.write32(offset, value)
    }

    fn doorbells(&self) -> &Arc<Mmio> {
        self.device.doorbells()
    }

    fn choose_iova(&self, bytes: u64, used: &[std::ops::Range<u64>]) -> Result<u64> {
        self.device.choose_iova(bytes, used)
    }

    fn map(&self, arena: &Arena) -> Result<()> {
        self.device.map(arena)
    }

    fn unmap(&self, arena: &Arena) -> Result<()> {
        self.device.unmap(arena)
    }

    fn reset(&self) -> Result<()> {
        self.device.reset()
    }

    fn interrupts(&self) -> u16 {
        self.offered
    }

    fn connect_interrupts(&self, events: &[BorrowedFd<'_>]) -> Result<usize> {
        match self.left.load(Ordering::Relaxed) {
            usize::MAX => Err(Error::ResetRequested),
            left => self.device.connect_interrupts(&events[..left.min(events.len())]),
        }
    }
}

/// Opens a controller whose commands take 2 ms. The number of vectors that its system has left can
/// be changed.
fn open(offered: u16, left: usize) -> (Emulator, Controller, Arc<AtomicUsize>) {
    let emulator = Emulator::builder()
        .namespace(NamespaceConfig::new(Backing::memory(1 << 20)))
        .service(Service::new().latency(Duration::from_millis(2)))
        .max_queues(4)
        .start()
        .unwrap();
    let device = VfioUser::connect(emulator.socket(), Duration::from_secs(10)).unwrap();
    assert_eq!(device.interrupts(), 5);
    let left = Arc::new(AtomicUsize::new(left));
    let few = Few { device, offered, left: Arc::clone(&left) };
    let wait = Wait::Interrupt { spin: Duration::ZERO };
    let options = Options { wait, ..Options::default() };
    (emulator, Controller::open_on(Box::new(few), options).unwrap(), left)
}

/// Reads with each queue pair, and returns which of them slept. A pair with a vector may be too
/// slow to sleep on a busy machine, so it reads until it has slept.
fn who_sleeps(controller: &Controller, queues: &mut [QueuePair]) -> Vec<bool> {
    const READS: (u64, u64) = (4, 1000);
    let namespace = controller.namespace(1).unwrap();
    let mut slept = Vec::new();
    for queue in queues {
        let before = queue.counters();
        let has_slept = |queue: &QueuePair| queue.counters().sleeps - before.sleeps >= READS.0;
        let mut reads = 0;
        while reads < READS.0
            || (queue.event_fd().is_some() && !has_slept(queue) && reads < READS.1)
        {
            let lba = reads % namespace.blocks();
            queue.read(&namespace, lba, controller.alloc(512).unwrap(), lba).unwrap();
            assert_eq!(queue.wait(|done| assert!(done.status.is_success())).unwrap(), 1);
            reads += 1;
        }
        assert_eq!(queue.counters().missed_interrupts, 0);
        assert_eq!(has_slept(queue), queue.event_fd().is_some());
        slept.push(has_slept(queue));
    }
    slept
}

#[test]
fn queues_without_a_vector_are_polled() {
    for (offered, left, sleeping) in
        [(5, 5, 4), (4, 100, 4), (3, 3, 3), (5, 2, 2), (1, 1, 1), (5, 0, 0), (0, 5, 0)]
    {
        let (_emulator, controller, _) = open(offered, left);
        let mut queues: Vec<QueuePair> =
            (0..4).map(|_| controller.queue_pair(4).unwrap()).collect();
        let expected: Vec<_> = (0..4).map(|index| index < sleeping).collect();
        assert_eq!(who_sleeps(&controller, &mut queues), expected, "{offered} {left}");
        // The next pair gets the vector of the dropped one.
        if sleeping > 0 {
            drop(queues.remove(0));
            queues.push(controller.queue_pair(4).unwrap());
            assert!(who_sleeps(&controller, &mut queues)[3]);
        }
    }
}

#[test]
fn vectors_that_a_reset_takes_are_done_without_until_they_come_back() {
    let (_emulator, controller, left) = open(5, 5);
    let mut queues: Vec<QueuePair> = (0..4).map(|_| controller.queue_pair(4).unwrap()).collect();
    assert_eq!(who_sleeps(&controller, &mut queues), [true; 4]);
    for (now, expected) in [
        (3, [true, true, false, false]),
        (usize::MAX, [false; 4]),
        (5, [true; 4]),
        (0, [false; 4]),
        (5, [true; 4]),
    ] {
        left.store(now, Ordering::Relaxed);
        controller.reset().unwrap();
        queues.iter_mut().for_each(|queue| {
            queue.check(|_| ());
        });
        assert_eq!(who_sleeps(&controller, &mut queues), expected, "{now}");
    }
}
