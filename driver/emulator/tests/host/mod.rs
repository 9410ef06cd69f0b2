//! A minimal NVMe host over vfio-user: what a driver does, by hand, and nothing to hide behind.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nvio_spec::register::{ACQ, AQA, ASQ, CC, CSTS, Cc, Csts, cq_head_doorbell, sq_tail_doorbell};
use nvio_spec::{Cqe, Sqe, Status};
use vfio_user::Client;
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, FileOffset, VolatileMemory};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of memory shared with the controller, at I/O address [`IOVA`].
pub const ARENA: usize = 4 << 20;
/// Where the arena is for the controller.
pub const IOVA: u64 = 0x4000_0000;
/// Where data may be, above the queues.
pub const DATA: u64 = IOVA + (1 << 20);
/// Where a PRP list may be.
pub const LIST: u64 = IOVA + (3 << 20);

/// A queue pair in the arena.
pub struct Queue {
    qid: u16,
    entries: u32,
    sq: u64,
    cq: u64,
    tail: u32,
    head: u32,
    phase: bool,
    next_cid: u16,
}

/// A client with its memory.
pub struct Host {
    pub client: Client,
    pub admin: Queue,
    memory: MmapRegion,
    file: File,
    doorbells: MmapRegion,
}

impl Host {
    /// Connects, shares the arena and enables the controller.
    pub fn connect(socket: &Path) -> Self {
        let mut client = Client::new(socket).expect("connect");
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(ARENA as u64).unwrap();
        let offset = FileOffset::new(file.try_clone().unwrap(), 0);
        let memory = MmapRegion::from_file(offset, ARENA).unwrap();
        client.dma_map(0, IOVA, ARENA as u64, file.as_raw_fd()).unwrap();
        let bar0 = client.region(0).unwrap();
        let area = bar0.sparse_areas[0];
        let backing = bar0.file_offset.as_ref().unwrap();
        let offset =
            FileOffset::new(backing.file().try_clone().unwrap(), backing.start() + area.offset);
        let doorbells = MmapRegion::from_file(offset, area.size as usize).unwrap();
        // Memory space and bus mastering.
        client.region_write(7, 4, &0x0006u16.to_le_bytes()).unwrap();
        let admin = Queue::new(0, 32, 0);
        let mut host = Self { client, admin, memory, file, doorbells };
        host.enable();
        host
    }

    /// The file behind the arena.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Enables the controller with fresh admin queues.
    pub fn enable(&mut self) {
        self.admin = Queue::new(0, 32, 0);
        self.clear(self.admin.sq, 8192);
        self.write_register(AQA, 31 << 16 | 31);
        self.client.region_write(0, ASQ, &self.admin.sq.to_le_bytes()).unwrap();
        self.client.region_write(0, ACQ, &self.admin.cq.to_le_bytes()).unwrap();
        self.write_register(CC, Cc::enabled(12).0);
        assert!(Csts(self.read_register(CSTS)).ready());
    }

    /// Disables it.
    pub fn disable(&mut self) {
        self.write_register(CC, 0);
        assert_eq!(self.read_register(CSTS), 0);
    }

    pub fn read_register(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.client.region_read(0, offset, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    pub fn write_register(&mut self, offset: u64, value: u32) {
        self.client.region_write(0, offset, &value.to_le_bytes()).unwrap();
    }

    pub fn write(&self, iova: u64, bytes: &[u8]) {
        self.memory.as_volatile_slice().write_slice(bytes, (iova - IOVA) as usize).unwrap();
    }

    pub fn read(&self, iova: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.as_volatile_slice().read_slice(&mut bytes, (iova - IOVA) as usize).unwrap();
        bytes
    }

    pub fn clear(&self, iova: u64, len: usize) {
        self.write(iova, &vec![0; len]);
    }

    /// Writes a command without ringing.
    pub fn push(&self, queue: &mut Queue, mut sqe: Sqe) -> u16 {
        queue.next_cid = queue.next_cid.wrapping_add(1);
        sqe.cid = queue.next_cid.into();
        self.write(queue.sq + u64::from(queue.tail) * 64, sqe.as_bytes());
        queue.tail = (queue.tail + 1) % queue.entries;
        queue.next_cid
    }

    /// Rings the tail doorbell: a store in shared memory.
    pub fn ring(&self, queue: &Queue) {
        let at = sq_tail_doorbell(queue.qid, 4) - 0x1000;
        let bells = self.doorbells.as_volatile_slice();
        bells.store(queue.tail, at as usize, Ordering::Release).unwrap();
    }

    /// Takes the next completion, if there is one.
    pub fn poll(&self, queue: &mut Queue) -> Option<Cqe> {
        let at = (queue.cq + u64::from(queue.head) * 16 - IOVA) as usize;
        let slice = self.memory.as_volatile_slice();
        let last: u32 = slice.load(at + 12, Ordering::Acquire).unwrap();
        if (last >> 16 & 1 != 0) != queue.phase {
            return None;
        }
        let mut bytes = [0; 16];
        slice.read_slice(&mut bytes, at).unwrap();
        queue.head += 1;
        if queue.head == queue.entries {
            queue.head = 0;
            queue.phase = !queue.phase;
        }
        Some(Cqe::read_from_bytes(&bytes).unwrap())
    }

    /// Rings the head doorbell.
    pub fn release(&self, queue: &Queue) {
        let at = cq_head_doorbell(queue.qid, 4) - 0x1000;
        let bells = self.doorbells.as_volatile_slice();
        bells.store(queue.head, at as usize, Ordering::Release).unwrap();
    }

    /// Waits for the next completion.
    pub fn wait(&self, queue: &mut Queue) -> Cqe {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(cqe) = self.poll(queue) {
                self.release(queue);
                return cqe;
            }
            assert!(Instant::now() < deadline, "no completion");
            std::thread::yield_now();
        }
    }

    /// One command, from the first byte to its completion.
    pub fn run(&self, queue: &mut Queue, sqe: Sqe) -> Cqe {
        let cid = self.push(queue, sqe);
        self.ring(queue);
        let cqe = self.wait(queue);
        assert_eq!((cqe.cid.get(), cqe.sqid.get()), (cid, queue.qid));
        assert_eq!(u32::from(cqe.sqhd.get()), queue.tail);
        cqe
    }

    /// One admin command.
    pub fn admin(&mut self, sqe: Sqe) -> Cqe {
        let mut queue = std::mem::replace(&mut self.admin, Queue::new(0, 2, 0));
        let cqe = self.run(&mut queue, sqe);
        self.admin = queue;
        cqe
    }

    /// Creates I/O queue pair `qid`.
    pub fn create_queue(&mut self, qid: u16, entries: u32, vector: Option<u16>) -> Queue {
        let queue = Queue::new(qid, entries, u64::from(qid) * (256 << 10));
        self.clear(queue.sq, 256 << 10);
        let cq = self.admin(Sqe::create_io_cq(qid, entries, queue.cq, vector));
        assert_eq!(cq.status(), Status::SUCCESS);
        let sq = self.admin(Sqe::create_io_sq(qid, entries, queue.sq, qid));
        assert_eq!(sq.status(), Status::SUCCESS);
        queue
    }
}

impl Queue {
    /// Queues of up to 1024 entries, `offset` into the arena.
    fn new(qid: u16, entries: u32, offset: u64) -> Self {
        let sq = IOVA + offset;
        let cq = if qid == 0 { sq + 4096 } else { sq + (128 << 10) };
        Self { qid, entries, sq, cq, tail: 0, head: 0, phase: true, next_cid: 0 }
    }
}
