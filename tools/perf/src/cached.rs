//! A file, through the page cache of nvio. Its calls wait, so that one request is in flight.

use nvio::{IoMode, WritableFile};
use nvio_iomap::{IoArgs, Mapper, Op};

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

/// A file in the cache.
#[derive(Debug)]
pub struct Cached {
    file: WritableFile,
    mode: IoMode,
    done: Option<(u64, Plain, Result<(), Error>)>,
    polls: u64,
    empty_polls: u64,
    /// First byte of the filesystem on the namespace.
    offset: u64,
    block_shift: u32,
}

impl Cached {
    /// Creates a target of buffered or writethrough requests. `offset` is the first byte of the
    /// filesystem on its namespace, and `block_shift` belongs to the namespace's logical block.
    pub fn new(file: WritableFile, mode: IoMode, offset: u64, block_shift: u32) -> Self {
        Self { file, mode, done: None, polls: 0, empty_polls: 0, offset, block_shift }
    }

    fn transfer(&mut self, request: &Request, bytes: &mut [u8]) -> Result<(), Error> {
        if request.write {
            let io = IoArgs::at(request.pos);
            let written = self.file.write_at_with(self.mode, io, bytes);
            return written.map_err(|error| Error::of(&error));
        }
        match self.file.read_at_with(self.mode, request.pos, bytes) {
            Ok(read) if read == bytes.len() => Ok(()),
            Ok(read) => Err(Error(format!("only {read} bytes were transferred"))),
            Err(error) => Err(Error::of(&error)),
        }
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
        mut buf: Plain,
        slot: u64,
    ) -> Result<(), Box<Rejected<Plain>>> {
        if self.done.is_some() {
            let error = Error("one request is in flight".to_owned());
            return Err(Box::new(Rejected { error, busy: true, buf: Some(buf) }));
        }
        let result = self.transfer(request, buf.bytes());
        self.done = Some((slot, buf, result));
        Ok(())
    }

    fn ring(&mut self) {}

    fn poll(&mut self, _limit: usize, sink: &mut impl Sink<Plain>) -> usize {
        self.polls += 1;
        match self.done.take() {
            Some((slot, buf, Ok(()))) => sink.done(slot, buf),
            Some((slot, buf, Err(error))) => sink.failed(slot, error, Some(buf)),
            None => {
                self.empty_polls += 1;
                return 0;
            }
        }
        1
    }

    fn wait(&mut self, sink: &mut impl Sink<Plain>) -> Result<usize, Error> {
        Ok(self.poll(1, sink))
    }

    fn capacity(&self) -> usize {
        1
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
