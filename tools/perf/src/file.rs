//! A file, past the cache.

use std::time::Duration;

use nvio_ext4::{Error as FsError, OpenInode};
use nvio_iomap::{
    DmaBuf, Done, FileError, FileQueue, Handler, IoArgs, IoFlags, Mapper, Memory, Op, Queue,
    Rejected, Tag,
};

use crate::sleep;
use crate::target::{self, Counters, Error, Request, Sink, Target};

/// The way of a request through iomap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The simple path, where it serves the request.
    Simple,
    /// The generic path.
    Generic,
    /// A copy through private memory.
    Bounce,
}

/// The parts of a queue that differ between readers and writers.
pub trait FileAccess {
    /// The queue of bios.
    type Bios: Queue<Tag<OpenInode>>;
    /// The open file.
    type File: Mapper<OpenFile = OpenInode>;

    /// Returns file and queue.
    fn parts(&mut self) -> (&mut Self::File, &mut FileQueue<Self::Bios, OpenInode>);

    /// Returns the queue.
    fn queue(&self) -> &FileQueue<Self::Bios, OpenInode>;

    /// Submits a write.
    ///
    /// # Errors
    /// The request comes back.
    fn write(&mut self, io: IoArgs, buf: DmaBuf) -> Result<(), Rejected<FsError>>;

    /// Returns the counters of the queue pair.
    fn pair_counters(&self) -> Option<nvio_driver::Counters>;

    /// Makes written data durable.
    ///
    /// # Errors
    /// If the device fails.
    fn flush(&mut self) -> Result<(), Error>;
}

/// A file of a filesystem that is open for reading.
#[derive(Debug)]
pub struct Reader {
    /// The file.
    pub file: nvio::File,
    /// The queue.
    pub queue: nvio::Queue,
}

impl FileAccess for Reader {
    type Bios = nvio::VolumeQueue<Tag<OpenInode>>;
    type File = nvio::File;

    #[inline(always)]
    fn parts(&mut self) -> (&mut nvio::File, &mut FileQueue<Self::Bios, OpenInode>) {
        (&mut self.file, &mut self.queue)
    }

    fn queue(&self) -> &FileQueue<Self::Bios, OpenInode> {
        &self.queue
    }

    fn write(&mut self, _io: IoArgs, buf: DmaBuf) -> Result<(), Rejected<FsError>> {
        let error = nvio_iomap::Error::ReadOnly.into();
        Err(Rejected { error, payload: Memory::Dma(buf) })
    }

    fn pair_counters(&self) -> Option<nvio_driver::Counters> {
        Some(self.queue.device().as_disk()?.pair().counters())
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// A file of a filesystem that is open for overwriting.
#[derive(Debug)]
pub struct Writer {
    /// The file.
    pub file: nvio::WritableFile,
    /// The queue.
    pub queue: nvio::WritableQueue,
}

impl FileAccess for Writer {
    type Bios = nvio_iomap::DiskQueue<Tag<OpenInode>, nvio_iomap::WritableDisk>;
    type File = nvio_ext4::WritableFile;

    #[inline(always)]
    fn parts(&mut self) -> (&mut Self::File, &mut FileQueue<Self::Bios, OpenInode>) {
        (&mut self.file, &mut self.queue)
    }

    fn queue(&self) -> &FileQueue<Self::Bios, OpenInode> {
        &self.queue
    }

    #[inline(always)]
    fn write(&mut self, io: IoArgs, buf: DmaBuf) -> Result<(), Rejected<FsError>> {
        let file: &mut nvio_ext4::WritableFile = &mut self.file;
        self.queue.submit_write_with(file, io, Memory::Dma(buf))
    }

    fn pair_counters(&self) -> Option<nvio_driver::Counters> {
        Some(self.queue.device().pair().counters())
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.file.sync_data().map_err(|error| Error::of(&error))
    }
}

/// A file with a queue.
#[derive(Debug)]
pub struct FileTarget<A> {
    access: A,
    way: Way,
    flags: IoFlags,
    /// First byte of the filesystem on the namespace.
    offset: u64,
    block_shift: u32,
    /// Sleeps with a limit, which the queue pair does not count.
    sleeps: u64,
}

impl<A: FileAccess> FileTarget<A> {
    /// Creates a target of requests that take `way`. `offset` is the first byte of the filesystem on
    /// its namespace, and `extents` are positions of the file whose mappings are read in advance.
    pub fn new(mut access: A, way: Way, offset: u64, extents: impl Iterator<Item = u64>) -> Self {
        let (file, queue) = access.parts();
        let block_shift = queue.device().block_shift();
        // Errors are those of the requests later.
        extents.for_each(|pos| drop(file.begin(pos, 1, Op::REPORT)));
        let flags = match way {
            Way::Simple => IoFlags::empty(),
            Way::Generic => IoFlags::GENERIC,
            Way::Bounce => IoFlags::BOUNCE,
        };
        Self { access, way, flags, offset, block_shift, sleeps: 0 }
    }

    #[inline(always)]
    fn with_flags(&mut self, request: &Request, buf: DmaBuf, slot: u64) -> Result<(), Back> {
        let io = IoArgs::at(request.pos).token(slot);
        if request.write {
            // A write takes the generic path anyway.
            let flags = self.flags.difference(IoFlags::GENERIC);
            return self.access.write(io.flags(flags), buf);
        }
        let flags = self.flags;
        let (file, queue) = self.access.parts();
        queue.submit_read_with(file, io.flags(flags), Memory::Dma(buf))
    }
}

type Back = Rejected<FsError>;

#[cold]
fn rejected(back: Back) -> Box<target::Rejected<DmaBuf>> {
    let busy = back.error.is_busy();
    let buf = back.payload.into_dma();
    Box::new(target::Rejected { error: Error::of(&back.error), busy, buf })
}

impl<A: FileAccess> Target for FileTarget<A> {
    type Buf = DmaBuf;

    fn alloc(&mut self, bytes: usize) -> Result<DmaBuf, Error> {
        self.access.parts().1.alloc(bytes).map_err(|error| Error::of(&error))
    }

    #[inline(always)]
    fn submit(
        &mut self,
        request: &Request,
        buf: DmaBuf,
        slot: u64,
    ) -> Result<(), Box<target::Rejected<DmaBuf>>> {
        if request.write || self.way != Way::Simple {
            return self.with_flags(request, buf, slot).map_err(rejected);
        }
        let (file, queue) = self.access.parts();
        queue.submit_read(file, request.pos, buf, slot).map_err(rejected)
    }

    #[inline(always)]
    fn ring(&mut self) {
        self.access.parts().1.ring();
    }

    #[inline(always)]
    fn poll(&mut self, limit: usize, sink: &mut impl Sink<DmaBuf>) -> usize {
        self.access.parts().1.poll_with(limit, &mut Takes(sink))
    }

    fn wait(
        &mut self,
        within: Option<Duration>,
        sink: &mut impl Sink<DmaBuf>,
    ) -> Result<usize, Error> {
        let mut takes = Takes(sink);
        let queue = self.access.parts().1;
        let Some(within) = within else {
            let waited = queue.wait(|done| takes.completed(done));
            return waited.map_err(|error| Error::of(&error));
        };
        let may_sleep = queue.prepare_to_sleep();
        if may_sleep && let Some(event) = queue.event_fd() {
            sleep::until_readable(event, within);
            self.sleeps += 1;
        }
        Ok(self.poll(usize::MAX, sink))
    }

    fn capacity(&self) -> usize {
        self.access.queue().in_flight_max()
    }

    fn counters(&self) -> Counters {
        let counters = Counters::default().with_iomap(&self.access.queue().counters());
        let mut counters =
            self.access.pair_counters().map_or(counters, |pair| counters.with_driver(&pair));
        counters.sleeps += self.sleeps;
        counters
    }

    fn lba(&mut self, pos: u64) -> Option<u64> {
        let mapping = self.access.parts().0.begin(pos, 1, Op::REPORT).ok()?;
        Some((self.offset + mapping.device_address(pos)?) >> self.block_shift)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.access.flush()
    }
}

struct Takes<'s, S>(&'s mut S);

impl<S: Sink<DmaBuf>> Handler<Done<FsError>> for Takes<'_, S> {
    #[inline(always)]
    fn completed(&mut self, done: Done<FsError>) {
        match (done.result, done.memory) {
            (Ok(bytes), Some(Memory::Dma(buf))) if bytes == buf.len() => {
                self.0.done(done.token, buf);
            }
            (result, memory) => failed(self.0, done.token, result, memory),
        }
    }
}

#[cold]
fn failed<S: Sink<DmaBuf>>(
    sink: &mut S,
    slot: u64,
    result: Result<usize, FsError>,
    memory: Option<Memory>,
) {
    let error = match result {
        Ok(bytes) => Error(format!("only {bytes} bytes were transferred")),
        Err(error) => Error::of(&error),
    };
    sink.failed(slot, error, memory.and_then(Memory::into_dma));
}
