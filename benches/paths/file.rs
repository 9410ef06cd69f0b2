//! Reads and overwrites of a file.

use nvio_driver::DmaBuf;
use nvio_ext4::{Error, File, FileQueue, OpenInode};
use nvio_iomap::{
    Done, FileRef, Handler, IoArgs, IoFlags, Mapper, Mapping, Memory, Op, WritableDisk,
};

use crate::Result;
use crate::image::Target;
use crate::load::{Back, LIMIT, Path};

type Queue = FileQueue<WritableDisk>;

/// Reads without flags.
pub(crate) struct Simple<'r> {
    pub(crate) queue: &'r mut Queue,
    pub(crate) file: &'r mut File,
}

impl Path for Simple<'_> {
    #[inline]
    fn submit(&mut self, target: Target, buf: DmaBuf) -> Result<()> {
        match self.queue.submit_read(self.file, target.pos, buf, 0) {
            Ok(()) => Ok(()),
            Err(rejected) => Err(rejected.error.into()),
        }
    }

    #[inline]
    fn ring(&mut self) {
        self.queue.ring();
    }

    #[inline]
    fn poll(&mut self, back: &mut Back) -> usize {
        self.queue.poll_with(LIMIT, &mut Takes(back))
    }
}

/// Reads with flags.
pub(crate) struct Flagged<'r> {
    pub(crate) queue: &'r mut Queue,
    pub(crate) file: &'r mut File,
    pub(crate) flags: IoFlags,
}

impl Path for Flagged<'_> {
    #[inline]
    fn submit(&mut self, target: Target, buf: DmaBuf) -> Result<()> {
        let io = IoArgs::at(target.pos).flags(self.flags);
        match self.queue.submit_read_with(self.file, io, Memory::Dma(buf)) {
            Ok(()) => Ok(()),
            Err(rejected) => Err(rejected.error.into()),
        }
    }

    #[inline]
    fn ring(&mut self) {
        self.queue.ring();
    }

    #[inline]
    fn poll(&mut self, back: &mut Back) -> usize {
        self.queue.poll_with(LIMIT, &mut Takes(back))
    }
}

/// Overwrites of allocated blocks.
pub(crate) struct Overwrites<'r> {
    pub(crate) queue: &'r mut Queue,
    pub(crate) file: &'r mut File,
    pub(crate) flags: IoFlags,
}

impl Path for Overwrites<'_> {
    #[inline]
    fn submit(&mut self, target: Target, buf: DmaBuf) -> Result<()> {
        let io = IoArgs::at(target.pos).flags(self.flags);
        match self.queue.submit_write_with(&mut Mapped(self.file), io, Memory::Dma(buf)) {
            Ok(()) => Ok(()),
            Err(rejected) => Err(rejected.error.into()),
        }
    }

    #[inline]
    fn ring(&mut self) {
        self.queue.ring();
    }

    #[inline]
    fn poll(&mut self, back: &mut Back) -> usize {
        self.queue.poll_with(LIMIT, &mut Takes(back))
    }
}

/// A file that maps writes like reads, because overwrites do not change metadata.
struct Mapped<'f>(&'f mut File);

impl Mapper for Mapped<'_> {
    type OpenFile = OpenInode;

    fn open_file(&self) -> &FileRef<OpenInode> {
        Mapper::open_file(&*self.0)
    }

    fn size(&self) -> u64 {
        Mapper::size(&*self.0)
    }

    fn block_size(&self) -> u32 {
        self.0.block_size()
    }

    #[inline(always)]
    fn begin(&mut self, pos: u64, length: u64, op: Op) -> std::result::Result<Mapping, Error> {
        self.0.begin(pos, length, op.difference(Op::WRITE))
    }
}

struct Takes<'b>(&'b mut Back);

impl Handler<Done<Error>> for Takes<'_> {
    #[inline(always)]
    fn completed(&mut self, done: Done<Error>) {
        match (done.result, done.memory) {
            (Ok(bytes), Some(Memory::Dma(buf))) if bytes == buf.len() => self.0.put(buf),
            (result, memory) => self.0.fail(&(result, memory)),
        }
    }
}
