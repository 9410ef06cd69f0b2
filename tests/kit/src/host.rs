//! A minimal NVMe host over vfio-user, which shares no code with nvio-driver.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nvio_spec::register::{
    ACQ, AQA, ASQ, CC, CSTS, Cc, Csts, DOORBELLS, cq_head_doorbell, sq_tail_doorbell,
};
use nvio_spec::{Cqe, Sqe, Status};
use vfio_user::Client;
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, FileOffset, VolatileMemory};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of memory shared with the controller, at I/O address [`IOVA`].
pub const ARENA: usize = 4 << 20;
/// I/O address of the arena.
pub const IOVA: u64 = 0x4000_0000;
/// I/O address of data, above the queues.
pub const DATA: u64 = IOVA + (1 << 20);
/// I/O address of a PRP list.
pub const LIST: u64 = IOVA + (3 << 20);
/// The region of PCI configuration space.
const CONFIG: u32 = 7;

/// A vfio-user client. A refusal by the server is a panic, where the client learns of it.
pub trait HostClient {
    /// Reads from region `index`.
    fn region_read(&mut self, index: u32, offset: u64, data: &mut [u8]);
    /// Writes to region `index`.
    fn region_write(&mut self, index: u32, offset: u64, data: &[u8]);
    /// Maps `size` bytes at the start of `file` at I/O address `iova`, for reading and writing.
    fn dma_map(&mut self, file: &File, iova: u64, size: u64);
    /// Returns the part of BAR0 that can be mapped.
    fn bar0(&self) -> Bar0;
}

/// The part of BAR0 that can be mapped.
#[derive(Debug)]
pub struct Bar0 {
    /// The file to map.
    pub file: File,
    /// Offset in the file.
    pub start: u64,
    /// Offset in BAR0.
    pub offset: u64,
    /// Bytes that can be mapped.
    pub size: u64,
}

impl HostClient for Client {
    fn region_read(&mut self, index: u32, offset: u64, data: &mut [u8]) {
        Client::region_read(self, index, offset, data).unwrap();
    }

    fn region_write(&mut self, index: u32, offset: u64, data: &[u8]) {
        Client::region_write(self, index, offset, data).unwrap();
    }

    fn dma_map(&mut self, file: &File, iova: u64, size: u64) {
        Client::dma_map(self, 0, iova, size, file.as_raw_fd()).unwrap();
    }

    fn bar0(&self) -> Bar0 {
        let region = self.region(0).unwrap();
        let area = region.sparse_areas[0];
        let backing = region.file_offset.as_ref().unwrap();
        Bar0 {
            file: backing.file().try_clone().unwrap(),
            start: backing.start() + area.offset,
            offset: area.offset,
            size: area.size,
        }
    }
}

/// A queue pair in the arena.
#[derive(Debug)]
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

/// A client with its memory and an enabled controller.
pub struct Host<C = Client> {
    /// The connection.
    pub client: C,
    /// The admin queue pair.
    pub admin: Queue,
    memory: MmapRegion,
    file: File,
    doorbells: MmapRegion,
}

impl Host {
    /// Connects with the client of crate `vfio_user`, shares the arena and enables the controller.
    pub fn connect(socket: &Path) -> Self {
        // Memory space and bus mastering.
        Self::new(Client::new(socket).expect("connect"), 0x0006)
    }
}

impl<C: HostClient> Host<C> {
    /// Shares the arena, sets the bits `command` of the PCI Command register and enables the
    /// controller.
    pub fn new(mut client: C, command: u16) -> Self {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(ARENA as u64).unwrap();
        let offset = FileOffset::new(file.try_clone().unwrap(), 0);
        let memory = MmapRegion::from_file(offset, ARENA).unwrap();
        client.dma_map(&file, IOVA, ARENA as u64);
        let bar0 = client.bar0();
        assert_eq!(bar0.offset, DOORBELLS);
        let offset = FileOffset::new(bar0.file, bar0.start);
        let doorbells = MmapRegion::from_file(offset, bar0.size as usize).unwrap();
        let mut bytes = [0; 2];
        client.region_read(CONFIG, 4, &mut bytes);
        let bits = u16::from_le_bytes(bytes) | command;
        client.region_write(CONFIG, 4, &bits.to_le_bytes());
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
        self.client.region_write(0, ASQ, &self.admin.sq.to_le_bytes());
        self.client.region_write(0, ACQ, &self.admin.cq.to_le_bytes());
        self.write_register(CC, Cc::enabled(12).0);
        assert!(Csts(self.read_register(CSTS)).ready());
    }

    /// Disables the controller.
    pub fn disable(&mut self) {
        self.write_register(CC, 0);
        assert_eq!(self.read_register(CSTS), 0);
    }

    /// Reads a register of 32 bits.
    pub fn read_register(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.client.region_read(0, offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Writes a register of 32 bits.
    pub fn write_register(&mut self, offset: u64, value: u32) {
        self.client.region_write(0, offset, &value.to_le_bytes());
    }

    /// Writes to the arena.
    pub fn write(&self, iova: u64, bytes: &[u8]) {
        self.memory.as_volatile_slice().write_slice(bytes, (iova - IOVA) as usize).unwrap();
    }

    /// Reads from the arena.
    pub fn read(&self, iova: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.as_volatile_slice().read_slice(&mut bytes, (iova - IOVA) as usize).unwrap();
        bytes
    }

    /// Zeroes a part of the arena.
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

    /// Returns the next completion, if there is one.
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

    /// Submits a command and waits for its completion.
    pub fn run(&self, queue: &mut Queue, sqe: Sqe) -> Cqe {
        let cid = self.push(queue, sqe);
        self.ring(queue);
        let cqe = self.wait(queue);
        assert_eq!((cqe.cid.get(), cqe.sqid.get()), (cid, queue.qid));
        assert_eq!(u32::from(cqe.sqhd.get()), queue.tail);
        cqe
    }

    /// Submits an admin command and waits for its completion.
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
    /// Creates queues of up to 1024 entries, `offset` bytes into the arena.
    fn new(qid: u16, entries: u32, offset: u64) -> Self {
        let sq = IOVA + offset;
        let cq = if qid == 0 { sq + 4096 } else { sq + (128 << 10) };
        Self { qid, entries, sq, cq, tail: 0, head: 0, phase: true, next_cid: 0 }
    }
}
