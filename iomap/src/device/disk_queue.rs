//! The queue for bios over a queue pair of an NVMe controller.

use std::fmt;
use std::os::fd::BorrowedFd;

use nvio_driver::spec::Status;
use nvio_driver::{
    Completion, Controller, DmaBuf, Error as DriverError, FrozenBuf, Handler, Namespace, PageRead,
    QueuePair, Rejected,
};

use crate::contract::mapper::PAGE;
use crate::device::bio::{Bio, BioDone, BioOp, Queue, WriteQueue, write_copied};
use crate::device::disk::{Disk, DiskAccess, WritableDisk};
use crate::device::protection::bios::ProtectedBios;
use crate::error::{BioError, Error};

/// A queue pair bound to a disk: a [`Disk`] for reading, a [`WritableDisk`] also for writing.
///
/// # Examples
/// ```
/// # let served = nvio_testkit::controller::Served::memory(1 << 20);
/// # let controller = &served.controller;
/// use nvio_iomap::{Bio, Disk, DiskQueue, Queue};
///
/// let disk = Disk::whole(&controller.namespace(1)?);
/// let mut queue = DiskQueue::new(controller, &disk, 32)?;
/// let buf = queue.alloc(4096)?;
/// queue.submit(Bio::read(0, buf, "token")).map_err(|rejected| rejected.error)?;
/// queue.wait(|done| assert_eq!(done.tag, "token"))?;
/// assert_eq!((queue.disk().size(), queue.pair().in_flight()), (1 << 20, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DiskQueue<C, D = Disk> {
    pair: QueuePair<C>,
    /// The logical block, as a power of two and as a mask.
    block_shift: u32,
    block_mask: u64,
    /// The disk's first block in the namespace.
    start: u64,
    /// The disk's size in bytes.
    size: u64,
    page: PageRead,
    /// Maximum bytes of a bio at any address; 0 if it depends on the address.
    most_anywhere: usize,
    disk: D,
    controller: Controller,
    volatile_cache: bool,
    /// Maximum bytes of a bio.
    max_transfer: usize,
    /// Namespace for reads without metadata: the disk's, or one of no blocks if its blocks have
    /// metadata. So the path of a read does not test for it.
    plain: Namespace,
    /// Metadata of bios, if the blocks have any.
    guarded: Option<Box<ProtectedBios>>,
}

impl<C, D: fmt::Debug> fmt::Debug for DiskQueue<C, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskQueue").field("disk", &self.disk).finish_non_exhaustive()
    }
}

impl<C, D: DiskAccess> DiskQueue<C, D> {
    /// Creates a queue pair for `depth` commands; see [`Controller::queue_pair`]. `disk` must be on
    /// a namespace of `controller`.
    ///
    /// On a namespace with end-to-end protection, the queue generates guards before a write and
    /// checks them after a read, as the controller does at its side. Other metadata is written as
    /// zeroes, and not looked at.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`Controller::queue_pair`].
    pub fn new(controller: &Controller, disk: &D, depth: u16) -> Result<Self, Error> {
        let pair = controller.queue_pair(depth)?;
        let guarded = ProtectedBios::of(controller, disk.as_ref(), pair.capacity());
        let volatile_cache = controller.identify().has_write_cache();
        let Disk { namespace, start, .. } = disk.as_ref();
        let block_shift = namespace.block_shift();
        let bounded = namespace.blocks_to_boundary(0).is_some();
        let most = namespace.max_transfer();
        let max_transfer = guarded.as_ref().map_or(most, |guarded| guarded.max_transfer());
        let size = disk.as_ref().size();
        Ok(Self {
            pair,
            block_shift,
            block_mask: (1 << block_shift) - 1,
            start: *start,
            size,
            // The page path does not serve namespaces with metadata.
            page: namespace.page_read(PAGE),
            most_anywhere: if bounded { 0 } else { max_transfer },
            max_transfer,
            plain: if guarded.is_some() { namespace.limited_to(0) } else { namespace.clone() },
            disk: disk.clone(),
            controller: controller.clone(),
            volatile_cache,
            guarded,
        })
    }

    /// Returns the disk.
    ///
    /// See the [example](Self#examples).
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Returns the queue pair.
    ///
    /// See the [example](Self#examples).
    pub fn pair(&self) -> &QueuePair<C> {
        &self.pair
    }

    /// Returns the LBA of byte `addr` of the disk, if a block begins there. The driver checks the
    /// range against the namespace, whose handle ends where the disk does.
    #[inline(always)]
    fn locate(&self, addr: u64) -> Option<u64> {
        (addr & self.block_mask == 0).then(|| self.start + (addr >> self.block_shift))
    }

    /// Rejects a bio that begins inside a block.
    #[cold]
    #[inline(never)]
    fn misaligned(&self, bio: Bio<C>) -> Rejected<Error, Bio<C>> {
        let (pos, length, align) = (bio.addr, bio.buf.len() as u64, self.block_mask + 1);
        Rejected { error: Error::Misaligned { pos, length, align }, payload: bio }
    }

    #[cold]
    #[inline(never)]
    fn refused(
        &self,
        rejected: Rejected<DriverError, (DmaBuf, C)>,
        op: BioOp,
        addr: u64,
        fua: bool,
    ) -> Rejected<Error, Bio<C>> {
        let Rejected { error, payload: (buf, tag) } = rejected;
        self.outside(Rejected {
            error: Error::from_driver(error),
            payload: Bio { op, addr, buf, tag, fua },
        })
    }

    /// Converts the error of a bio from one of the range of the namespace to one of the range of the
    /// disk.
    fn outside(&self, refused: Rejected<Error, Bio<C>>) -> Rejected<Error, Bio<C>> {
        let Rejected { error, payload: bio } = refused;
        Rejected { error: self.of_disk(error, bio.addr, bio.buf.len()), payload: bio }
    }

    fn of_disk(&self, error: Error, addr: u64, length: usize) -> Error {
        match error {
            Error::Driver(DriverError::OutOfRange { .. }) => {
                Error::OutsideDisk { addr, length: length as u64, size: self.size }
            }
            error => error,
        }
    }

    /// Returns the maximum number of bytes of a bio at `addr` before a boundary of the namespace. A
    /// partition may begin between boundaries.
    #[cold]
    fn most_at(&self, addr: u64) -> usize {
        let namespace = &self.disk.as_ref().namespace;
        let (most, shift) = (self.max_transfer, self.block_shift);
        let blocks = namespace.blocks_to_boundary(self.start + (addr >> shift));
        let blocks = blocks.and_then(|blocks| usize::try_from(blocks << shift).ok());
        blocks.map_or(most, |bytes| bytes.min(most))
    }
}

impl<C, D: DiskAccess> Queue<C> for DiskQueue<C, D> {
    #[inline]
    fn block_shift(&self) -> u32 {
        self.block_shift
    }

    #[inline]
    fn size(&self) -> u64 {
        self.size
    }

    fn capacity(&self) -> usize {
        self.pair.capacity()
    }

    #[inline]
    fn max_transfer(&self) -> usize {
        self.max_transfer
    }

    #[inline]
    fn max_transfer_at(&self, addr: u64) -> usize {
        match self.most_anywhere {
            0 => self.most_at(addr),
            most => most,
        }
    }

    #[inline(always)]
    fn fits(&self, addr: u64, bytes: u64) -> bool {
        bytes <= self.most_anywhere as u64 || bytes <= self.most_at(addr) as u64
    }

    fn has_volatile_cache(&self) -> bool {
        self.volatile_cache
    }

    fn max_atomic_at(&self, addr: u64) -> usize {
        let disk = self.disk.as_ref();
        let lba = disk.start + (addr >> disk.block_shift());
        let blocks = disk.namespace.atomic_blocks_at(self.controller.identify(), lba);
        usize::try_from(blocks << disk.block_shift()).unwrap_or(usize::MAX)
    }

    #[inline]
    fn has_integrity(&self) -> bool {
        self.guarded.is_some()
    }

    // Always, because it is on the path of each read.
    #[inline(always)]
    fn submit(&mut self, bio: Bio<C>) -> Result<(), Rejected<Error, Bio<C>>> {
        if bio.op == BioOp::Write {
            return self.write(bio);
        }
        let Some(lba) = self.locate(bio.addr) else { return Err(self.misaligned(bio)) };
        let Bio { addr, buf, tag, .. } = bio;
        match self.pair.read(&self.plain, lba, buf, tag) {
            Ok(()) => Ok(()),
            Err(rejected) => self.read_guarded(lba, rejected, addr),
        }
    }

    fn has_pages(&self) -> bool {
        self.page.serves() && self.most_anywhere >= PAGE as usize
    }

    #[inline(always)]
    fn read_page(&mut self, addr: u64, buf: DmaBuf, tag: C) -> Result<(), (DmaBuf, C)> {
        match self.locate(addr) {
            Some(lba) => self.pair.read_page(&self.page, lba, buf, tag),
            None => Err((buf, tag)),
        }
    }

    fn flush(&mut self, tag: C) -> Result<(), Rejected<Error, C>> {
        let namespace = &self.disk.as_ref().namespace;
        self.pair.flush(namespace, tag).map_err(|Rejected { error, payload: ((), payload) }| {
            Rejected { error: Error::from_driver(error), payload }
        })
    }

    #[inline]
    fn ring(&mut self) {
        self.pair.ring();
    }

    #[inline(always)]
    fn poll(&mut self, limit: usize, handler: &mut impl Handler<BioDone<C>>) -> usize {
        match &mut self.guarded {
            None => self.pair.poll_with(limit, &mut Bios(handler)),
            Some(guarded) => self.pair.poll_with(limit, &mut GuardedBios(guarded, handler)),
        }
    }

    fn wait(&mut self, mut done: impl FnMut(BioDone<C>)) -> Result<usize, Error> {
        let Self { pair, guarded, .. } = self;
        let taken = pair.wait(|completion| {
            done(match guarded {
                Some(guarded) => guarded.complete(completion),
                None => completed(completion),
            });
        })?;
        Ok(taken)
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.pair.event_fd()
    }

    fn prepare_to_sleep(&mut self) -> bool {
        self.pair.prepare_to_sleep()
    }

    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        Ok(self.controller.alloc(bytes)?)
    }

    fn alloc_uncleared(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        Ok(self.controller.alloc_uncleared(bytes)?)
    }
}

impl<C> WriteQueue<C> for DiskQueue<C, WritableDisk> {
    fn write_frozen(
        &mut self,
        addr: u64,
        parts: &[FrozenBuf],
        fua: bool,
        tag: C,
    ) -> Result<(), Rejected<Error, C>> {
        if self.guarded.is_some() {
            return write_copied(self, addr, parts, fua, tag);
        }
        let bytes = parts.iter().map(|part| part.len()).sum();
        let Some(lba) = self.locate(addr) else {
            let (length, align) = (bytes as u64, self.block_mask + 1);
            let error = Error::Misaligned { pos: addr, length, align };
            return Err(Rejected { error, payload: tag });
        };
        let namespace = &self.disk.namespace;
        let submitted = self.pair.write_frozen(namespace, lba, parts, fua, tag);
        submitted.map_err(|Rejected { error, payload: ((), payload) }| Rejected {
            error: self.of_disk(Error::from_driver(error), addr, bytes),
            payload,
        })
    }
}

/// Passes the completions of a queue pair to a handler of bios.
struct Bios<'h, H>(&'h mut H);

impl<C, H: Handler<BioDone<C>>> Handler<Completion<C>> for Bios<'_, H> {
    #[inline(always)]
    fn completed(&mut self, completion: Completion<C>) {
        self.0.completed(completed(completion));
    }
}

/// Passes the completions of a queue pair of a protected disk to a handler of bios.
struct GuardedBios<'h, H>(&'h mut ProtectedBios, &'h mut H);

impl<C, H: Handler<BioDone<C>>> Handler<Completion<C>> for GuardedBios<'_, H> {
    #[inline(always)]
    fn completed(&mut self, completion: Completion<C>) {
        self.1.completed(self.0.complete(completion));
    }
}

impl<C, D: DiskAccess> DiskQueue<C, D> {
    /// Handles a read that the plain namespace rejected: submits it with protection if the disk is
    /// protected, else rejects it.
    #[cold]
    #[inline(never)]
    fn read_guarded(
        &mut self,
        lba: u64,
        rejected: Rejected<DriverError, (DmaBuf, C)>,
        addr: u64,
    ) -> Result<(), Rejected<Error, Bio<C>>> {
        let Self { pair, disk, guarded, .. } = self;
        let Some(guarded) = guarded else {
            return Err(self.refused(rejected, BioOp::Read, addr, false));
        };
        let (buf, tag) = rejected.payload;
        let bio = Bio { op: BioOp::Read, addr, buf, tag, fua: false };
        let namespace = &disk.as_ref().namespace;
        let submitted = guarded.submit(bio, lba, |range, parts, how, tag| {
            pair.read_with(namespace, range, parts, how, tag)
        });
        submitted.map_err(|refused| self.outside(refused))
    }

    #[inline]
    fn write(&mut self, bio: Bio<C>) -> Result<(), Rejected<Error, Bio<C>>> {
        let Some(lba) = self.locate(bio.addr) else { return Err(self.misaligned(bio)) };
        let Self { pair, disk, guarded, .. } = self;
        let Some(disk) = disk.writable() else {
            return Err(Rejected { error: Error::ReadOnly, payload: bio });
        };
        let namespace = &disk.namespace;
        if let Some(guarded) = guarded {
            let submitted = guarded.submit(bio, lba, |range, parts, how, tag| {
                pair.write_with(namespace, range, parts, how, tag)
            });
            return submitted.map_err(|refused| self.outside(refused));
        }
        let Bio { op, addr, buf, tag, fua } = bio;
        let submitted = match fua {
            true => pair.write_through(namespace, lba, buf, tag),
            false => pair.write(namespace, lba, buf, tag),
        };
        submitted.map_err(|rejected| self.refused(rejected, op, addr, fua))
    }
}

#[inline(always)]
fn completed<C>(completion: Completion<C>) -> BioDone<C> {
    let Completion { context: tag, buf, status, .. } = completion;
    // The driver tests for 0 as well, so the compiler tests once.
    let result = match status {
        Status(0) => Ok(()),
        status if status.is_success() => Ok(()),
        status => Err(BioError::Status(status)),
    };
    BioDone { tag, buf, result }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::disk_reader::DiskReader;
    use nvio_driver::Options;
    use nvio_emulator::{Backing, Emulator, NamespaceConfig};
    use nvio_testkit::controller::Served;

    fn served(boundary: u16) -> Served {
        let namespace = NamespaceConfig::new(Backing::memory(1 << 20)).noiob(boundary);
        Served::start(Emulator::builder().namespace(namespace).mdts(Some(2)), Options::default())
    }

    #[test]
    fn the_boundary_is_that_of_the_namespace_and_not_of_the_partition() {
        let cases =
            [(0, [16384, 16384, 16384]), (24, [8192, 512, 4096]), (64, [16384, 16384, 12288])];
        for (boundary, expected) in cases {
            let Served { controller, emulator: _emulator } = served(boundary);
            let whole = Disk::whole(&controller.namespace(1).unwrap());
            let partition = whole.slice(8 * 512, 512 << 10).unwrap();
            let queue = DiskQueue::<()>::new(&controller, &partition, 8).unwrap();
            assert_eq!(queue.max_transfer(), 16384);
            // Blocks 8, 23 and 40 of the namespace.
            let most = [0, 15 * 512, 32 * 512].map(|addr| queue.max_transfer_at(addr));
            assert_eq!(most, expected, "{boundary}");
            let mut reader = DiskReader::new(&controller, &partition, 8).unwrap();
            let mut out = vec![1; 100_000];
            reader.read_at(77, &mut out).unwrap();
            assert!(out.iter().all(|&byte| byte == 0));
            let outside = reader.read_at(512 << 10, &mut [0]).unwrap_err();
            assert!(matches!(outside, Error::OutsideDisk { .. }));
        }
    }
}
