//! The engine between doubles of a filesystem and of a device; `tests/iomap-points.md` says which
//! test proves what.

mod atomic;
mod balance;
mod bounce;
mod bounds;
mod cache;
mod completion;
mod contract;
mod durability;
mod generic;
mod hooks;
pub(crate) mod mock;
mod nowait;
mod simple;
mod trace;
mod zeroing;

use crate::contract::io_args::{Done, Failed, IoArgs, IoFlags, Memory};
use crate::contract::mapper::{Mapping, MappingFlags, MappingKind};
use crate::error::Error;
use crate::queue::file_queue::FileQueue;
use crate::queue::tag::Tag;
use crate::tests::mock::{Fail, Journal, MockInode, MockQueue, Script};
use nvio_driver::DmaBuf;

type Files = FileQueue<MockQueue<Tag<MockInode>>, MockInode>;

/// The device's block.
const BLOCK: u64 = 512;

/// A queue to a device of so many blocks, and a file on it.
struct Rig {
    files: Files,
    file: Script,
    journal: Journal,
}

impl Rig {
    fn new(blocks: usize, layout: impl Into<Vec<Mapping>>) -> Self {
        Self::over(MockQueue::new(blocks), layout)
    }

    fn over(mut queue: MockQueue<Tag<MockInode>>, layout: impl Into<Vec<Mapping>>) -> Self {
        let journal = Journal::default();
        queue.journal = journal.clone();
        let file = Script::of(layout, &journal);
        Self { files: FileQueue::new(queue), file, journal }
    }

    /// A file whose bytes are at the same place on the device.
    fn plain(blocks: usize) -> Self {
        Self::new(blocks, [Mapping::mapped(0, blocks as u64 * BLOCK, 0)])
    }

    /// Reads into a DMA buffer, and waits.
    fn read_dma(&mut self, io: IoArgs, buf: DmaBuf) -> Result<(DmaBuf, usize), Failed<Fail>> {
        let (memory, n) = self.files.read_with(&mut self.file, io, buf.into())?;
        Ok((memory.into_dma().unwrap(), n))
    }

    /// Writes from a DMA buffer, and waits.
    fn write_dma(&mut self, io: IoArgs, buf: DmaBuf) -> Result<(DmaBuf, usize), Failed<Fail>> {
        let (memory, n) = self.files.write_with(&mut self.file, io, buf.into())?;
        Ok((memory.into_dma().unwrap(), n))
    }

    fn device(&self) -> &[u8] {
        &self.files.queue.device
    }

    fn buf(&self, bytes: u64) -> DmaBuf {
        self.files.queue.buffer(bytes as usize)
    }

    fn filled(&self, data: &[u8]) -> DmaBuf {
        let mut buf = self.buf(data.len() as u64);
        buf.copy_from_slice(data);
        buf
    }

    /// Reads into DMA memory and waits: the bytes that arrived.
    fn read(&mut self, io: IoArgs, bytes: u64) -> Result<Vec<u8>, Fail> {
        let memory = Memory::Dma(self.buf(bytes));
        let done = self.files.read_with(&mut self.file, io, memory);
        let (memory, n) = done.map_err(|failed| failed.error)?;
        assert_eq!(memory.len() as u64, bytes, "the whole buffer comes back");
        let n = n - io.done_before as usize;
        Ok(memory.into_dma().unwrap()[..n].to_vec())
    }

    /// Writes from DMA memory and waits.
    fn write(&mut self, io: IoArgs, data: &[u8]) -> Result<usize, Fail> {
        let memory = Memory::Dma(self.filled(data));
        let done = self.files.write_with(&mut self.file, io, memory);
        done.map(|(_, n)| n).map_err(|failed| failed.error)
    }

    /// All results, until nothing is in flight.
    fn drain(&mut self) -> Vec<Done<Fail>> {
        let mut all = Vec::new();
        while self.files.wait(|done| all.push(done)).unwrap() > 0 {}
        all
    }

    /// Asserts that no request left anything behind.
    #[track_caller]
    fn assert_idle(&self) {
        self.file.assert_balanced();
        assert_eq!(self.file.inode.in_flight(), 0, "requests in flight");
        assert_eq!(self.files.queue.in_flight(), 0, "commands in flight");
    }
}

/// Data that is unlike the device's and any byte of which says where it belongs.
fn pattern(bytes: u64) -> Vec<u8> {
    (0..bytes).map(|i| 128 + (i / 3 % 113) as u8).collect()
}

fn with(mapping: Mapping, flags: MappingFlags) -> Mapping {
    Mapping { flags, ..mapping }
}

fn inline(length: u64) -> Mapping {
    Mapping { kind: MappingKind::Inline, ..Mapping::hole(0, length) }
}

fn delalloc(length: u64) -> Mapping {
    Mapping { kind: MappingKind::Delalloc, ..Mapping::hole(0, length) }
}

/// This crate's error, of a test's filesystem.
#[track_caller]
fn iomap(error: Fail) -> Error {
    match error {
        Fail::Iomap(error) => error,
        other => panic!("{other:?}"),
    }
}

/// An error of this crate in few letters.
fn name(error: &Fail) -> String {
    let debug = match error {
        Fail::Iomap(error) => format!("{error:?}"),
        other => format!("{other:?}"),
    };
    debug.split([' ', '(', '{']).next().unwrap().to_owned()
}

fn at(pos: u64, flags: IoFlags) -> IoArgs {
    IoArgs::at(pos).flags(flags)
}
