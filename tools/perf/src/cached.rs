//! A file, through the page cache of nvio.

use std::time::Duration;

use nvio::{CachedQueue, WritableFile};
use nvio_iomap::{Done, FileError, IoArgs, IoFlags, Mapper, Memory, Op};

use crate::target::{Buffer, Counters, Error, Rejected, Request, Sink, Target};

/// Memory of a request that the device does not access.
#[derive(Clone, Debug, Default)]
pub struct Plain(Vec<u8>);

impl Buffer for Plain {
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn set_len(&mut self, bytes: usize) {
        if bytes != self.0.len() {
            // The capacity is that of the largest request.
            self.0.resize(bytes, 0);
        }
    }
}

/// A file in the cache, with a queue.
#[derive(Debug)]
pub struct Cached {
    file: WritableFile,
    queue: CachedQueue,
    /// Flags of writes.
    flags: IoFlags,
    polls: u64,
    empty_polls: u64,
    /// First byte of the filesystem on the namespace.
    offset: u64,
    block_shift: u32,
}

impl Cached {
    /// Creates a target of buffered requests, whose writes have `flags`. `offset` is the first byte of
    /// the filesystem on its namespace, and `block_shift` belongs to the namespace's logical block.
    pub fn new(
        file: WritableFile,
        queue: CachedQueue,
        flags: IoFlags,
        offset: u64,
        block_shift: u32,
    ) -> Self {
        Self { file, queue, flags, polls: 0, empty_polls: 0, offset, block_shift }
    }
}

impl Target for Cached {
    type Buf = Plain;

    fn alloc(&mut self, bytes: usize) -> Result<Plain, Error> {
        Ok(Plain(vec![0; bytes]))
    }

    fn submit(
        &mut self,
        request: &Request,
        buf: Plain,
        slot: u64,
    ) -> Result<(), Box<Rejected<Plain>>> {
        let Self { file, queue, flags, .. } = self;
        let io = IoArgs::at(request.pos).token(slot);
        let submitted = match request.write {
            true => queue.submit_write(file, io.flags(*flags), buf.0),
            false => queue.submit_read(file, io, buf.0),
        };
        submitted.map_err(|back| {
            let busy = matches!(&back.error, nvio::Error::File(error) if error.is_busy());
            let buf = back.payload.into_bytes().map(Plain);
            Box::new(Rejected { error: Error::of(&back.error), busy, buf })
        })
    }

    fn ring(&mut self) {}

    fn poll(&mut self, limit: usize, sink: &mut impl Sink<Plain>) -> usize {
        let count = self.queue.poll(limit, |done| pass_on(done, sink));
        self.polls += 1;
        self.empty_polls += u64::from(count == 0);
        count
    }

    fn wait(
        &mut self,
        within: Option<Duration>,
        sink: &mut impl Sink<Plain>,
    ) -> Result<usize, Error> {
        match within {
            None => Ok(self.queue.wait(|done| pass_on(done, sink))),
            // The cache has no file descriptor to wait for its results.
            Some(_) if self.queue.in_flight() > 0 => Ok(self.poll(usize::MAX, sink)),
            Some(within) => {
                std::thread::sleep(within);
                Ok(0)
            }
        }
    }

    fn capacity(&self) -> usize {
        self.queue.in_flight_max()
    }

    fn counters(&self) -> Counters {
        Counters { polls: self.polls, empty_polls: self.empty_polls, ..Counters::default() }
    }

    fn lba(&mut self, pos: u64) -> Option<u64> {
        let file: &mut nvio_ext4::WritableFile = &mut self.file;
        let mapping = file.begin(pos, 1, Op::REPORT).ok()?;
        Some((self.offset + mapping.device_address(pos)?) >> self.block_shift)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.file.sync_data().map_err(|error| Error::of(&error))
    }
}

fn pass_on(done: Done<nvio_ext4::Error>, sink: &mut impl Sink<Plain>) {
    let buf = done.memory.and_then(Memory::into_bytes).map(Plain);
    match (done.result, buf) {
        (Ok(bytes), Some(buf)) if bytes == buf.0.len() => sink.done(done.token, buf),
        (Ok(bytes), buf) => {
            let error = Error(format!("only {bytes} bytes were transferred"));
            sink.failed(done.token, error, buf);
        }
        (Err(error), buf) => sink.failed(done.token, Error::of(&error), buf),
    }
}
