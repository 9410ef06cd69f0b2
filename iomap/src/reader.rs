//! Any bytes of a disk, for those who read structures and not files.

use nvio_driver::Controller;

use crate::tag::Tag;
use crate::{Disk, DiskQueue, Error, FileQueue, Inode, Mapper, Mapping, Op, Shared};

/// Reads bytes of a disk, one range at a time.
pub struct DiskReader {
    queue: FileQueue<DiskQueue<Tag<Whole>>, Whole>,
    whole: WholeDisk,
    disk: Disk,
}

impl DiskReader {
    /// A reader with a queue pair of its own, with room for `depth` commands. `disk` must be of a
    /// namespace of `controller`.
    ///
    /// # Errors
    /// As [`Controller::queue_pair`].
    pub fn new(controller: &Controller, disk: &Disk, depth: u16) -> Result<Self, Error> {
        let queue = FileQueue::over(DiskQueue::new(controller, disk, depth)?);
        let whole = WholeDisk {
            shared: Shared::new(Whole),
            size: disk.size(),
            block_size: disk.namespace().block_size(),
        };
        Ok(Self { queue, whole, disk: disk.clone() })
    }

    /// The disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Fills `out` from byte `offset` of the disk, and waits. No alignment is needed.
    ///
    /// # Errors
    /// [`Error::OutsideDisk`] if the range is not inside, else what the device fails with.
    pub fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.disk.check(offset, out.len() as u64)?;
        let read = self.queue.read_at(&mut self.whole, offset, out)?;
        match out.len() {
            length if read == length => Ok(()),
            length => Err(Error::LostBuffer { length }),
        }
    }
}

/// Nothing is to be remembered of a disk.
struct Whole;

impl Inode for Whole {
    type Error = Error;
}

/// The disk itself as a file: every byte is where it is.
struct WholeDisk {
    shared: Shared<Whole>,
    size: u64,
    block_size: u32,
}

impl Mapper for WholeDisk {
    type Inode = Whole;

    fn inode(&self) -> &Shared<Whole> {
        &self.shared
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn begin(&mut self, _pos: u64, _length: u64, _op: Op) -> Result<Mapping, Error> {
        Ok(Mapping::mapped(0, self.size, 0))
    }
}
