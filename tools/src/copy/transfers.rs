//! The contents of regular files: reads of many files are in flight at once on one queue.

use std::collections::HashMap;
use std::ffi::OsString;
use std::rc::Rc;

use indicatif::ProgressBar;
use nvio::{Queue, Volume};
use nvio_ext4::{File, Inode};
use nvio_iomap::{Done, FileError, IoArgs, Memory, Rejected};

use super::host;
use super::place::{Folder, Unfinished};
use crate::error::Error;

/// Largest read in bytes.
const READ_BYTES_MAX: u64 = 128 << 10;
/// Number of reads in flight, and of bytes in their buffers.
const IN_FLIGHT_MAX: usize = 64;
const BYTES_IN_FLIGHT_MAX: u64 = 2 << 20;
/// A full queue is filled again when this part of it is left.
const LEFT: usize = 4;

/// A name to be created in a directory of the copy.
pub struct Entry {
    /// The path in the filesystem.
    pub source: Vec<u8>,
    /// The inode.
    pub inode: Inode,
    /// The directory on this machine.
    pub folder: Rc<Folder>,
    /// The name there.
    pub name: OsString,
}

/// A file whose contents are being copied.
pub struct Transfer {
    /// Its name.
    pub entry: Entry,
    /// The copy, which has no name yet.
    pub target: Unfinished,
    /// The first failure.
    pub result: Result<(), Error>,
    /// End of the last range that was written.
    pub written: u64,
    /// Reads in flight.
    reads: usize,
    /// All reads were submitted.
    submitted: bool,
}

/// A read in flight.
struct Read {
    transfer: u64,
    pos: u64,
    /// Bytes of the file; the buffer ends at a block.
    length: usize,
    buffer: u64,
}

/// The transfers in progress.
pub struct Transfers {
    queue: Queue,
    block: u64,
    transfers: HashMap<u64, Transfer>,
    reads: HashMap<u64, Read>,
    bytes: u64,
    next: u64,
    /// Transfers that have ended.
    ended: Vec<Transfer>,
    progress: ProgressBar,
    /// Reads so far.
    pub count: u64,
    /// Number of times that the copy waited for the device.
    pub waits: u64,
}

impl Transfers {
    /// Creates a queue on the volume.
    ///
    /// # Errors
    /// If the controller has no more queues.
    pub fn new(volume: &Volume, progress: ProgressBar) -> Result<Self, Error> {
        Ok(Self {
            queue: volume.queue()?,
            block: volume.filesystem().superblock().block_size().into(),
            transfers: HashMap::new(),
            reads: HashMap::new(),
            bytes: 0,
            next: 0,
            ended: Vec::new(),
            progress,
            count: 0,
            waits: 0,
        })
    }

    /// Submits the reads of a file: of its written extents only, so that holes and unwritten ranges
    /// stay holes. Waits only if the queue is full.
    pub fn start(&mut self, mut file: File, entry: Entry, target: Unfinished) {
        let number = self.number();
        let transfer =
            Transfer { entry, target, result: Ok(()), written: 0, reads: 0, submitted: false };
        self.transfers.insert(number, transfer);
        let result = self.submit_all(number, &mut file);
        if let Some(transfer) = self.transfers.get_mut(&number) {
            transfer.submitted = true;
            transfer.fail(result);
        }
        self.end(number);
    }

    fn submit_all(&mut self, number: u64, file: &mut File) -> Result<(), Error> {
        let size = file.size();
        for extent in file.extents().until(size) {
            let extent = extent.map_err(|error| self.error(number, error))?;
            let end = extent.logical.saturating_add(extent.length).min(size);
            let mut pos = extent.logical;
            while !extent.unwritten && pos < end {
                let length = (end - pos).min(READ_BYTES_MAX);
                self.submit(number, file, pos, length)?;
                if self.transfers.get(&number).is_none_or(|transfer| transfer.result.is_err()) {
                    return Ok(());
                }
                pos += length;
            }
        }
        Ok(())
    }

    /// Submits a read.
    fn submit(&mut self, number: u64, file: &mut File, pos: u64, length: u64) -> Result<(), Error> {
        let buffer = length.next_multiple_of(self.block);
        let most = IN_FLIGHT_MAX.min(self.queue.in_flight_max());
        if self.reads.len() >= most || self.bytes + buffer > BYTES_IN_FLIGHT_MAX {
            self.wait_until(most / LEFT, BYTES_IN_FLIGHT_MAX / LEFT as u64)?;
        }
        let bytes = usize::try_from(buffer).unwrap_or(usize::MAX);
        let mut memory = loop {
            match self.queue.alloc(bytes) {
                Ok(memory) => break Memory::from(memory),
                Err(_) if !self.reads.is_empty() => self.wait()?,
                Err(error) => return Err(nvio::Error::from(error).into()),
            }
        };
        let token = self.number();
        loop {
            let io = IoArgs::at(pos).token(token);
            match file.submit_read_with(&mut self.queue, io, memory) {
                Ok(()) => break,
                Err(Rejected { error, payload }) if error.is_again() && !self.reads.is_empty() => {
                    memory = payload;
                    self.wait()?;
                }
                Err(Rejected { error, .. }) => return Err(self.error(number, error)),
            }
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.reads.insert(token, Read { transfer: number, pos, length, buffer });
        self.bytes += buffer;
        self.count += 1;
        if let Some(transfer) = self.transfers.get_mut(&number) {
            transfer.reads += 1;
        }
        Ok(())
    }

    /// Waits for the end of all transfers.
    ///
    /// # Errors
    /// If the controller fails. Its transfers have then ended, too.
    pub fn drain(&mut self) -> Result<(), Error> {
        self.wait_until(0, 0)
    }

    /// Returns transfers that have ended since the last call.
    pub fn take_ended(&mut self) -> Vec<Transfer> {
        std::mem::take(&mut self.ended)
    }

    fn wait_until(&mut self, reads: usize, bytes: u64) -> Result<(), Error> {
        self.waits += u64::from(!self.reads.is_empty());
        while self.reads.len() > reads || self.bytes > bytes {
            self.wait()?;
        }
        Ok(())
    }

    /// Waits for a read, and writes what has come.
    fn wait(&mut self) -> Result<(), Error> {
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
                for (_, mut transfer) in self.transfers.drain() {
                    let path = crate::name::escaped(&transfer.entry.source);
                    transfer.fail(Err(Error::ReadsLost { path }));
                    self.ended.push(transfer);
                }
                waited.map(drop).map_err(|error| nvio::Error::from(error).into())
            }
        }
    }

    fn complete(&mut self, done: Done<nvio_ext4::Error>) {
        let Some(read) = self.reads.remove(&done.token) else { return };
        self.bytes -= read.buffer;
        let Some(transfer) = self.transfers.get_mut(&read.transfer) else { return };
        transfer.reads -= 1;
        let result = done.result.map_err(|error| Error::path(&transfer.entry.source)(error));
        let result = result.and_then(|bytes| transfer.write(&read, bytes, done.memory));
        self.progress.inc(read.length as u64);
        transfer.fail(result);
        self.end(read.transfer);
    }

    /// Ends a transfer whose reads have all ended.
    fn end(&mut self, number: u64) {
        let has_ended = |transfer: &Transfer| transfer.submitted && transfer.reads == 0;
        if self.transfers.get(&number).is_some_and(has_ended) {
            self.ended.extend(self.transfers.remove(&number));
        }
    }

    fn error(&self, number: u64, error: nvio_ext4::Error) -> Error {
        let source = self.transfers.get(&number).map(|transfer| &*transfer.entry.source);
        Error::path(source.unwrap_or_default())(error)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Transfer {
    fn fail(&mut self, result: Result<(), Error>) {
        if self.result.is_ok() {
            self.result = result;
        }
    }

    /// Writes the data of a read.
    fn write(&mut self, read: &Read, bytes: usize, memory: Option<Memory>) -> Result<(), Error> {
        let memory = memory.and_then(Memory::into_dma);
        let data = memory.as_deref().and_then(|memory| memory.get(..read.length));
        let Some(data) = data.filter(|_| bytes >= read.length && self.result.is_ok()) else {
            let path = crate::name::escaped(&self.entry.source);
            return Err(Error::ReadsLost { path });
        };
        let path = || self.entry.folder.path.join(&self.entry.name);
        host::write_at(self.target.file(), data, read.pos, path)?;
        self.written = self.written.max(read.pos.saturating_add(data.len() as u64));
        Ok(())
    }
}
