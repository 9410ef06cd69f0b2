//! A namespace, or a partition of one, as the device that bios go to.

use nvio_driver::{Controller, DmaBuf, Error as DriverError, Namespace, QueuePair};

use crate::{Bio, BioDone, Error, Mapper, Mapping, Op, Queue, Refused, bounce};

/// A range of a namespace: all of it, or a partition. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Disk {
    namespace: Namespace,
    /// First block in the namespace.
    start: u64,
    blocks: u64,
}

impl Disk {
    /// All of a namespace.
    pub fn whole(namespace: &Namespace) -> Self {
        Self { namespace: namespace.clone(), start: 0, blocks: namespace.blocks() }
    }

    /// The `length` bytes at `offset` of this disk: a partition.
    ///
    /// # Errors
    /// [`Error::Misaligned`] if they are not whole blocks, [`Error::OutsideDisk`] if they are not
    /// inside.
    pub fn slice(&self, offset: u64, length: u64) -> Result<Self, Error> {
        let (shift, align) = (self.block_shift(), u64::from(self.namespace.block_size()));
        if !(offset | length).is_multiple_of(align) {
            return Err(Error::Misaligned { pos: offset, length, align });
        }
        self.check(offset, length)?;
        let start = self.start + (offset >> shift);
        Ok(Self { namespace: self.namespace.clone(), start, blocks: length >> shift })
    }

    /// The namespace it is on.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The logical block, as a power of two.
    #[inline]
    pub fn block_shift(&self) -> u32 {
        self.namespace.block_shift()
    }

    /// Size in bytes.
    #[inline]
    pub fn size(&self) -> u64 {
        self.blocks << self.block_shift()
    }

    #[inline]
    fn check(&self, addr: u64, length: u64) -> Result<(), Error> {
        let size = self.size();
        if addr <= size && length <= size - addr {
            return Ok(());
        }
        Err(Error::OutsideDisk { addr, length, size })
    }
}

/// A queue pair bound to a disk.
pub struct DiskQueue {
    pair: QueuePair<u64>,
    disk: Disk,
    controller: Controller,
    /// The bounce memory, unless it is in use.
    bounce: Option<DmaBuf>,
}

impl DiskQueue {
    /// A queue pair of its own with room for `depth` commands; see [`Controller::queue_pair`].
    /// `disk` must be of a namespace of `controller`.
    ///
    /// # Errors
    /// As [`Controller::queue_pair`].
    pub fn new(controller: &Controller, disk: &Disk, depth: u16) -> Result<Self, Error> {
        let pair = controller.queue_pair(depth)?;
        Ok(Self { pair, disk: disk.clone(), controller: controller.clone(), bounce: None })
    }

    /// The disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// A zeroed DMA buffer of `bytes`.
    ///
    /// # Errors
    /// When the arena is full.
    pub fn alloc(&self, bytes: usize) -> Result<DmaBuf, Error> {
        Ok(self.controller.alloc(bytes)?)
    }

    /// Fills `out` from byte `offset` of the disk, and waits. No alignment is needed.
    ///
    /// # Errors
    /// [`Error::OutsideDisk`] if the range is not inside, else what the device fails with.
    pub fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.disk.check(offset, out.len() as u64)?;
        let size = self.disk.size();
        bounce::read(self, &mut Identity { size }, size, offset, out).map(|_| ())
    }
}

/// The disk itself as a file: every byte is where it is.
struct Identity {
    size: u64,
}

impl Mapper for Identity {
    type Error = Error;

    fn begin(&mut self, _pos: u64, _length: u64, _op: Op) -> Result<Mapping, Error> {
        Ok(Mapping::mapped(0, self.size, 0))
    }
}

impl Queue for DiskQueue {
    #[inline]
    fn block_shift(&self) -> u32 {
        self.disk.block_shift()
    }

    #[inline]
    fn size(&self) -> u64 {
        self.disk.size()
    }

    #[inline]
    fn max_transfer(&self) -> usize {
        self.disk.namespace.max_transfer()
    }

    #[inline]
    fn max_transfer_at(&self, addr: u64) -> usize {
        let most = self.max_transfer();
        // The boundary is the namespace's, which a partition need not begin at.
        let shift = self.disk.block_shift();
        let Some(blocks) =
            self.disk.namespace.blocks_to_boundary(self.disk.start + (addr >> shift))
        else {
            return most;
        };
        usize::try_from(blocks << shift).unwrap_or(most).min(most)
    }

    #[inline]
    fn submit(&mut self, bio: Bio) -> Result<(), Refused> {
        let Bio { addr, buf } = bio;
        let shift = self.disk.block_shift();
        let (length, align) = (buf.len() as u64, 1u64 << shift);
        let checked = if (addr & (align - 1)) != 0 {
            Err(Error::Misaligned { pos: addr, length, align })
        } else {
            self.disk.check(addr, length)
        };
        if let Err(error) = checked {
            return Err(Refused { error, bio: Bio { addr, buf } });
        }
        let lba = self.disk.start + (addr >> shift);
        self.pair.read(&self.disk.namespace, lba, buf, addr).map_err(|rejected| {
            let error = match rejected.error {
                DriverError::QueueFull { .. } => Error::Busy,
                error => Error::Driver(error),
            };
            Refused { error, bio: Bio { addr: rejected.context, buf: rejected.buf } }
        })
    }

    #[inline]
    fn ring(&mut self) {
        self.pair.ring();
    }

    fn wait(&mut self, mut done: impl FnMut(BioDone)) -> Result<usize, Error> {
        let taken = self.pair.wait(|completion| {
            let (addr, status, buf) = (completion.context, completion.status, completion.buf);
            let result = if status.is_success() {
                Ok(())
            } else {
                Err(Error::Read { addr, length: buf.len(), status })
            };
            done(BioDone { addr, buf, result });
        })?;
        Ok(taken)
    }

    fn take_bounce(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        let mut whole = match self.bounce.take() {
            Some(buf) if buf.len() >= bytes => buf,
            _ => self.controller.alloc(bounce::PIECE.max(bytes))?,
        };
        let Some(buf) = whole.split_to(bytes) else { return Ok(whole) };
        self.bounce = Some(whole);
        Ok(buf)
    }

    fn put_bounce(&mut self, mut buf: DmaBuf) {
        if let Some(rest) = self.bounce.take() {
            // A stranger is dropped: the next bounce starts from fresh memory.
            if buf.join(rest).is_err() {
                return;
            }
        }
        self.bounce = Some(buf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvio_driver::Address;
    use nvio_emulator::{Backing, Emulator, NamespaceConfig};

    fn served(boundary: u16) -> (Emulator, Controller) {
        let namespace = NamespaceConfig::new(Backing::memory(1 << 20)).noiob(boundary);
        let emulator = Emulator::builder().namespace(namespace).mdts(Some(2)).start().unwrap();
        let address = Address::VfioUser(emulator.socket().to_owned());
        let controller = Controller::open(&address).unwrap();
        (emulator, controller)
    }

    #[test]
    fn the_boundary_is_that_of_the_namespace_and_not_of_the_partition() {
        let cases =
            [(0, [16384, 16384, 16384]), (24, [8192, 512, 4096]), (64, [16384, 16384, 12288])];
        for (boundary, expected) in cases {
            let (_emulator, controller) = served(boundary);
            let whole = Disk::whole(&controller.namespace(1).unwrap());
            let partition = whole.slice(8 * 512, 512 << 10).unwrap();
            let mut queue = DiskQueue::new(&controller, &partition, 8).unwrap();
            assert_eq!(queue.max_transfer(), 16384);
            // Blocks 8, 23 and 40 of the namespace.
            let most = [0, 15 * 512, 32 * 512].map(|addr| queue.max_transfer_at(addr));
            assert_eq!(most, expected, "{boundary}");
            let mut out = vec![1; 100_000];
            queue.read_at(77, &mut out).unwrap();
            assert!(out.iter().all(|&byte| byte == 0));
        }
    }
}
