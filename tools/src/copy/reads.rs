//! Contents of many files at once: their reads are in flight on one queue.
//!
//! The suite `walk` compiles this file, too, and counts its waits on a modelled drive. Therefore it
//! uses only the libraries.

use std::collections::HashMap;
use std::ops::DerefMut;

use nvio_ext4::{File, OpenInode};
use nvio_iomap::{Done, FileError, FileQueue, IoArgs, Memory, Queue, Rejected, Tag};

/// Largest read in bytes.
const READ_BYTES_MAX: u64 = 128 << 10;
/// Number of reads in flight, and of bytes in their buffers.
const IN_FLIGHT_MAX: usize = 64;
const BYTES_IN_FLIGHT_MAX: u64 = 2 << 20;
/// A full queue is filled again when a quarter of the reads is left, or when this number of bytes
/// is left: more than a fast drive transfers during the latency of a read, so that it never idles.
const READS_LEFT: usize = 4;
const BYTES_LEFT: u64 = 1 << 20;

/// The destination of a file's contents.
pub trait Target {
    /// Writes `data`, which the file has at byte `pos`. Holes and unwritten ranges are left out.
    fn write(&mut self, data: &[u8], pos: u64);

    /// Records a failure. After the first one, no more data comes.
    fn fail(&mut self, failure: Failure);

    /// Returns true after a failure.
    fn has_failed(&self) -> bool;
}

/// The reason why the contents of a file are incomplete.
pub enum Failure {
    /// The map of the file or its data cannot be read.
    File(nvio_ext4::Error),
    /// The queue has failed, or its memory is used up.
    Queue(nvio_iomap::Error),
    /// A read has not come back.
    Lost,
}

/// A file that is being read.
struct Active<T> {
    target: T,
    /// Reads in flight.
    reads: usize,
    /// All reads were submitted.
    submitted: bool,
}

/// A read in flight.
struct Read {
    /// Number of the file.
    file: u64,
    pos: u64,
    /// Bytes of the file; the buffer ends at a block.
    length: usize,
    buffer: u64,
}

/// The reads of files in progress, on `D`, a queue or its owner.
pub struct Reads<T, D> {
    queue: D,
    block: u64,
    active: HashMap<u64, Active<T>>,
    reads: HashMap<u64, Read>,
    bytes: u64,
    next: u64,
    /// Targets whose files have ended.
    ended: Vec<T>,
    /// Reads so far.
    pub count: u64,
    /// Number of times that a full queue was waited for.
    pub waits: u64,
}

impl<T, Q, D> Reads<T, D>
where
    T: Target,
    Q: Queue<Tag<OpenInode>>,
    D: DerefMut<Target = FileQueue<Q, OpenInode>>,
{
    /// Creates a record of reads on `queue`, of a filesystem whose block has `block` bytes.
    pub fn new(queue: D, block: u64) -> Self {
        Self {
            queue,
            block,
            active: HashMap::new(),
            reads: HashMap::new(),
            bytes: 0,
            next: 0,
            ended: Vec::new(),
            count: 0,
            waits: 0,
        }
    }

    /// Submits the reads of a file: of its written extents only, so that holes and unwritten ranges
    /// stay holes. Waits only if the queue is full.
    pub fn start(&mut self, mut file: File, target: T) {
        let number = self.number();
        self.active.insert(number, Active { target, reads: 0, submitted: false });
        let submitted = self.submit_all(number, &mut file);
        if let Some(active) = self.active.get_mut(&number) {
            active.submitted = true;
            if let Err(failure) = submitted {
                active.target.fail(failure);
            }
        }
        self.end(number);
    }

    /// Waits for the end of all files.
    ///
    /// # Errors
    /// If the controller fails. The files have then ended, too.
    pub fn drain(&mut self) -> Result<(), nvio_iomap::Error> {
        self.wait_until(0, 0)
    }

    /// Returns the targets of the files that have ended since the last call.
    pub fn take_ended(&mut self) -> Vec<T> {
        std::mem::take(&mut self.ended)
    }

    fn submit_all(&mut self, number: u64, file: &mut File) -> Result<(), Failure> {
        let size = file.size();
        for extent in file.extents().until(size) {
            let extent = extent.map_err(Failure::File)?;
            let end = extent.logical.saturating_add(extent.length).min(size);
            let mut pos = extent.logical;
            while !extent.unwritten && pos < end {
                let length = (end - pos).min(READ_BYTES_MAX);
                self.submit(number, file, pos, length)?;
                if self.active.get(&number).is_none_or(|active| active.target.has_failed()) {
                    return Ok(());
                }
                pos += length;
            }
        }
        Ok(())
    }

    /// Submits a read.
    fn submit(
        &mut self,
        number: u64,
        file: &mut File,
        pos: u64,
        length: u64,
    ) -> Result<(), Failure> {
        let buffer = length.next_multiple_of(self.block);
        let most = IN_FLIGHT_MAX.min(self.queue.in_flight_max());
        if self.reads.len() >= most || self.bytes + buffer > BYTES_IN_FLIGHT_MAX {
            self.wait_until(most / READS_LEFT, BYTES_LEFT).map_err(Failure::Queue)?;
        }
        let bytes = usize::try_from(buffer).unwrap_or(usize::MAX);
        let mut memory = loop {
            match self.queue.alloc(bytes) {
                Ok(memory) => break Memory::from(memory),
                Err(_) if !self.reads.is_empty() => self.wait().map_err(Failure::Queue)?,
                Err(error) => return Err(Failure::Queue(error)),
            }
        };
        let token = self.number();
        loop {
            let io = IoArgs::at(pos).token(token);
            match file.submit_read_with(&mut self.queue, io, memory) {
                Ok(()) => break,
                Err(Rejected { error, payload }) if error.is_again() && !self.reads.is_empty() => {
                    memory = payload;
                    self.wait().map_err(Failure::Queue)?;
                }
                Err(Rejected { error, .. }) => return Err(Failure::File(error)),
            }
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.reads.insert(token, Read { file: number, pos, length, buffer });
        self.bytes += buffer;
        self.count += 1;
        if let Some(active) = self.active.get_mut(&number) {
            active.reads += 1;
        }
        Ok(())
    }

    fn wait_until(&mut self, reads: usize, bytes: u64) -> Result<(), nvio_iomap::Error> {
        self.waits += u64::from(!self.reads.is_empty());
        while self.reads.len() > reads || self.bytes > bytes {
            self.wait()?;
        }
        Ok(())
    }

    /// Waits for a read, and passes on the data that has come.
    fn wait(&mut self) -> Result<(), nvio_iomap::Error> {
        self.queue.ring();
        let mut done = Vec::new();
        let waited = self.queue.wait(|read| done.push(read));
        let is_lost = done.is_empty();
        done.into_iter().for_each(|read| self.complete(read));
        match waited {
            Ok(_) if !is_lost => Ok(()),
            waited => {
                // No read will end any more.
                self.reads.clear();
                self.bytes = 0;
                for (_, Active { mut target, .. }) in self.active.drain() {
                    target.fail(Failure::Lost);
                    self.ended.push(target);
                }
                waited.map(drop)
            }
        }
    }

    fn complete(&mut self, done: Done<nvio_ext4::Error>) {
        let Some(read) = self.reads.remove(&done.token) else { return };
        self.bytes -= read.buffer;
        let Some(Active { target, reads, .. }) = self.active.get_mut(&read.file) else { return };
        *reads -= 1;
        let memory = done.memory.and_then(Memory::into_dma);
        let data = memory.as_deref().and_then(|memory| memory.get(..read.length));
        match (done.result, data) {
            (Err(error), _) => target.fail(Failure::File(error)),
            (Ok(bytes), Some(data)) if bytes >= data.len() => {
                if !target.has_failed() {
                    target.write(data, read.pos);
                }
            }
            (Ok(_), _) => target.fail(Failure::Lost),
        }
        self.end(read.file);
    }

    /// Ends a file whose reads have all ended.
    fn end(&mut self, number: u64) {
        let has_ended = |active: &Active<T>| active.submitted && active.reads == 0;
        if self.active.get(&number).is_some_and(has_ended) {
            self.ended.extend(self.active.remove(&number).map(|active| active.target));
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
