//! A filesystem of one file, which allocates: blocks are reserved by a buffered write, allocated
//! when they are written to the device, and converted afterwards.

use std::sync::{Arc, Mutex};

use nvio_testkit::random::Rng;

use crate::cache::{CachedFile, WeakCachedFile};
use crate::contract::mapper::{Mapper, Mapping, MappingFlags, MappingKind, Op};
use crate::contract::open_file::{EndIo, FileRef, OpenFile};
use crate::error::Error;

pub(super) const BLOCK: u64 = 1024;

/// The state of a block of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    Hole,
    Reserved,
    /// With its address on the device.
    Unwritten(u64),
    Mapped(u64),
}

/// The knowledge of the filesystem.
#[derive(Default)]
pub(super) struct Record {
    pub(super) blocks: Vec<Block>,
    /// Size on the disk, bytes.
    pub(super) size: u64,
    /// The next free block of the device.
    free: u64,
    pub(super) ends: Vec<EndIo>,
    pub(super) ops: Vec<Op>,
    /// The answers of `begin`.
    pub(super) answers: Vec<Mapping>,
    /// Calls of the hooks that direct I/O makes.
    pub(super) hooks: usize,
    begun: usize,
    /// Number of begins and ends of direct writes.
    written_past: u64,
    pub(super) fail_end_io: bool,
    /// `begin` fails for these operations.
    pub(super) fail_begin: Option<Op>,
    /// Reserved blocks are not allocated for a write through the cache, against the contract.
    pub(super) stubborn: bool,
    /// A file whose mappings change during the next call of `begin`.
    pub(super) changing: Option<WeakCachedFile<Double>>,
    /// Blocks are not allocated: a write to a hole fails.
    pub(super) fixed: bool,
    /// The cached data, for direct I/O on the file.
    pub(super) cached: Option<Arc<WeakCachedFile<Double>>>,
    /// Calls fail with this chance, in thousandths.
    pub(super) mishaps: Option<(Rng, u64)>,
    /// Number of calls of `end_io` that failed.
    pub(super) failed_ends: u64,
}

impl Record {
    /// Returns the address of a block that is free.
    pub(super) fn allocate(&mut self) -> u64 {
        self.free += 1;
        (self.free - 1) * BLOCK
    }

    fn fails(&mut self) -> bool {
        self.mishaps.as_mut().is_some_and(|(rng, chance)| rng.below(1000) < *chance)
    }
}

#[derive(Default)]
pub(super) struct Inode(pub(super) Mutex<Record>);

impl Inode {
    /// Returns the cached data for a hook of direct I/O.
    fn cached(&self) -> Option<CachedFile<Double>> {
        let cached = {
            let mut record = self.0.lock().unwrap();
            record.hooks += 1;
            record.cached.clone()
        };
        cached.and_then(|file| file.upgrade())
    }
}

impl OpenFile for Inode {
    type Error = Error;

    fn write_back(&self, pos: u64, length: u64, nowait: bool) -> Result<(), Error> {
        match self.cached() {
            Some(file) => file.write_back(pos..pos + length, nowait).map(drop),
            None => Ok(()),
        }
    }

    fn written_past(&self) -> Option<u64> {
        Some(self.0.lock().unwrap().written_past)
    }

    fn invalidate(&self, pos: u64, length: u64) -> bool {
        self.0.lock().unwrap().written_past += 1;
        self.cached().is_none_or(|file| file.invalidate(pos..pos + length))
    }

    fn is_cached(&self) -> bool {
        self.0.lock().unwrap().cached.is_some()
    }

    fn end_io(&self, end: &EndIo) -> Result<(), Error> {
        let mut record = self.0.lock().unwrap();
        record.ends.push(*end);
        if record.fail_end_io || record.fails() {
            record.failed_ends += 1;
            return Err(Error::WouldBlock);
        }
        if end.failed {
            return Ok(());
        }
        assert_eq!(end.private, 77);
        let (first, last) = (end.pos / BLOCK, (end.pos + end.bytes).div_ceil(BLOCK));
        for block in &mut record.blocks[first as usize..last as usize] {
            if let Block::Unwritten(addr) = *block {
                *block = Block::Mapped(addr);
            }
        }
        record.size = record.size.max(end.pos + end.bytes);
        Ok(())
    }
}

/// A handle of the file.
#[derive(Clone)]
pub(super) struct Double(pub(super) Arc<FileRef<Inode>>);

impl Double {
    /// A file of `blocks`, on a device whose first free block is `free`.
    pub(super) fn new(blocks: Vec<Block>, size: u64, free: u64) -> Self {
        let record = Record { blocks, size, free, ..Record::default() };
        Self(Arc::new(FileRef::new(Inode(Mutex::new(record)))))
    }

    pub(super) fn record<T>(&self, with: impl FnOnce(&mut Record) -> T) -> T {
        with(&mut self.0.state().0.lock().unwrap())
    }

    /// The bytes of the file on the device, with zeroes for blocks without data.
    pub(super) fn on_device(&self, image: &[u8]) -> Vec<u8> {
        self.record(|record| {
            let block = |block: &Block| match block {
                Block::Mapped(addr) => image[*addr as usize..][..BLOCK as usize].to_vec(),
                _ => vec![0; BLOCK as usize],
            };
            let mut bytes: Vec<u8> = record.blocks.iter().flat_map(block).collect();
            bytes.resize(record.size as usize, 0);
            bytes
        })
    }

    /// Sets the size on the disk, and frees the blocks past it.
    pub(super) fn truncate(&self, size: u64) -> Result<(), Error> {
        self.record(|record| {
            record.size = size;
            record.blocks.truncate(size.div_ceil(BLOCK) as usize);
        });
        Ok(())
    }

    /// Checks that each `begin` had its `end`.
    pub(super) fn assert_balanced(&self) {
        assert_eq!(self.record(|record| record.begun), 0);
    }
}

impl Mapper for Double {
    type OpenFile = Inode;

    fn open_file(&self) -> &FileRef<Inode> {
        &self.0
    }

    fn size(&self) -> u64 {
        self.record(|record| record.size)
    }

    fn block_size(&self) -> u32 {
        BLOCK as u32
    }

    fn private(&self) -> u64 {
        77
    }

    fn begin(&mut self, pos: u64, length: u64, op: Op) -> Result<Mapping, Error> {
        if let Some(file) = self.record(|record| record.changing.take()) {
            file.upgrade().unwrap().mappings_changed();
        }
        self.record(|record| {
            record.ops.push(op);
            if record.fail_begin.is_some_and(|failing| op.contains(failing)) || record.fails() {
                return Err(Error::WouldBlock);
            }
            let (first, last) = (pos / BLOCK, (pos + length).div_ceil(BLOCK));
            let allocates = op.contains(Op::WRITE) && !record.fixed;
            if allocates && record.blocks.len() < last as usize {
                record.blocks.resize(last as usize, Block::Hole);
            }
            let Some(&old) = record.blocks.get(first as usize) else {
                record.begun += 1;
                return Ok(Mapping::hole(first * BLOCK, last * BLOCK - first * BLOCK));
            };
            let through = op.contains(Op::WRITETHROUGH) && !record.stubborn;
            let now = through || op.contains(Op::WRITEBACK);
            let new = allocates && now && matches!(old, Block::Hole | Block::Reserved);
            for index in first..last.min(record.blocks.len() as u64) {
                let block = &mut record.blocks[index as usize];
                if *block != old {
                    break;
                }
                if new {
                    *block = Block::Unwritten(record.free * BLOCK);
                    record.free += 1;
                } else if allocates && *block == Block::Hole {
                    *block = Block::Reserved;
                }
            }
            let block = record.blocks[first as usize];
            record.begun += 1;
            let offset = first * BLOCK;
            let mut mapping = match block {
                Block::Hole => Mapping::hole(offset, BLOCK),
                Block::Reserved => {
                    Mapping { kind: MappingKind::Delalloc, ..Mapping::hole(offset, BLOCK) }
                }
                Block::Unwritten(addr) => Mapping::unwritten(offset, BLOCK, addr),
                Block::Mapped(addr) => Mapping::mapped(offset, BLOCK, addr),
            };
            mapping.flags.set(MappingFlags::NEW, new);
            // As long as the next blocks continue it.
            for next in &record.blocks[first as usize + 1..] {
                let continues = match (block, *next) {
                    (Block::Mapped(addr), Block::Mapped(next))
                    | (Block::Unwritten(addr), Block::Unwritten(next)) => {
                        next == addr + mapping.length
                    }
                    (block, next) => block == next,
                };
                if !continues {
                    break;
                }
                mapping.length += BLOCK;
            }
            record.answers.push(mapping);
            Ok(mapping)
        })
    }

    fn end(&mut self, _: &Mapping, _: u64, _: u64, _: u64, _: Op) -> Result<(), Error> {
        self.record(|record| record.begun -= 1);
        Ok(())
    }
}
