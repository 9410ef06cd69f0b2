//! The log of a filesystem that is open for changes: where transactions are written.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use crate::blocks::block_cache::Block;
use crate::blocks::device::WriteRange;
use crate::blocks::overlay::MAGIC;
use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::journal::fast_commit;
use crate::journal::sink::Sink;
use crate::journal::transaction::Transaction;
use crate::number::{BlockRun, PhysicalBlock, as_u64, as_usize};
use crate::recovery::journal::superblock::{self, Format, JournalSuperblock};
use crate::recovery::journal::{commit, revoke, tag};

/// The ring of blocks that transactions are written to, and its superblock.
pub(crate) struct Log {
    /// The blocks of the journal's file, in order.
    places: Box<[BlockRun]>,
    superblock: JournalSuperblock,
    /// The first block of the journal, which holds the superblock.
    head: Vec<u8>,
    block_size: usize,
    /// Number of the block after the last transaction.
    next: u32,
    /// Number of blocks that hold transactions since the last checkpoint.
    used: u32,
    /// Number of blocks that hold fast commits since the last transaction.
    fast_used: u32,
    /// Block and number of the first transaction, as the superblock on the device has them.
    first: (u32, u32),
}

impl Log {
    /// Opens an empty log in the blocks `places`. `head` is the block with its superblock; the
    /// format of new transactions follows from the filesystem's features.
    pub(crate) fn new(
        places: Box<[BlockRun]>,
        mut head: Vec<u8>,
        format: Format,
    ) -> Result<Self, Error> {
        superblock::set_format(&mut head, format);
        let block_size = u32::try_from(head.len()).unwrap_or(u32::MAX);
        let blocks = places.iter().fold(0u64, |sum, run| sum.saturating_add(run.count()));
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        let superblock = JournalSuperblock::parse(&head, block_size, blocks)?;
        let next = superblock.log.start;
        let first = (0, superblock.sequence);
        Ok(Self {
            places,
            superblock,
            block_size: head.len(),
            head,
            next,
            used: 0,
            fast_used: 0,
            first,
        })
    }

    /// Returns the number of blocks for transactions.
    pub(crate) fn length(&self) -> u32 {
        self.superblock.length()
    }

    /// Returns true if `transaction` has room without a checkpoint.
    pub(crate) fn has_room(&self, transaction: &Transaction) -> bool {
        // A log is never filled completely.
        let needed = self.blocks_of(transaction).saturating_add(1);
        self.used.saturating_add(needed) <= self.length()
    }

    /// Returns the number of blocks that `transaction` has in the log.
    fn blocks_of(&self, transaction: &Transaction) -> u32 {
        let images = transaction.images.len();
        let tags = tag::tags_in(&self.superblock, self.block_size).max(1);
        let records = revoke::records_in(&self.superblock, self.block_size).max(1);
        let blocks = images.saturating_add(images.div_ceil(tags));
        let blocks = blocks.saturating_add(transaction.revoked.len().div_ceil(records));
        // The commit block.
        u32::try_from(blocks.saturating_add(1)).unwrap_or(u32::MAX)
    }

    /// Writes a transaction, which [has room](Self::has_room), and makes it durable: the commit
    /// block is written when all other blocks are durable, because recovery rejects a commit block
    /// whose transaction is incomplete.
    pub(crate) fn write(&mut self, sink: &Sink, transaction: &Transaction) -> Result<(), Error> {
        let mut bytes = self.encode(transaction);
        let blocks = self.blocks_of(transaction);
        self.write_blocks(sink, self.next, &bytes, !transaction.needs_flush)?;
        if transaction.needs_flush {
            sink.flush()?;
        }
        bytes.clear();
        bytes.resize(self.block_size, 0);
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let time = time.unwrap_or(Duration::ZERO);
        commit::encode(&self.superblock, transaction.tid, time, &mut bytes);
        let last = self.after(self.next, blocks.saturating_sub(1));
        self.write_blocks(sink, last, &bytes, true)?;
        self.next = self.after(last, 1);
        self.used = self.used.saturating_add(blocks);
        // The fast commits before this transaction are void.
        self.fast_used = 0;
        Ok(())
    }

    /// Returns true if there is an area for fast commits.
    pub(crate) fn has_fast_commits(&self) -> bool {
        self.superblock.fast_commit.is_some()
    }

    /// Returns the blocks of a fast commit with the tags `tags` of transaction `tid`; `None` if the area
    /// has no room for it.
    ///
    /// The last block of the area has no tags. The kernel reads on after an area that is full, and refuses
    /// the filesystem.
    pub(crate) fn fast_commit(&self, tags: &[Vec<u8>], tid: u32) -> Option<Vec<u8>> {
        let area = self.superblock.fast_commit.clone()?;
        let mut bytes = fast_commit::encode(tags, tid, self.fast_used == 0, self.block_size)?;
        let left = area.end.saturating_sub(area.start).saturating_sub(self.fast_used);
        let room = as_usize(left.checked_sub(1)?).saturating_mul(self.block_size);
        if bytes.len() == room {
            bytes.resize(bytes.len().saturating_add(self.block_size), 0);
            return Some(bytes);
        }
        (bytes.len() < room).then_some(bytes)
    }

    /// Writes a fast commit, and makes it durable.
    pub(crate) fn write_fast_commit(&mut self, sink: &Sink, bytes: &[u8]) -> Result<(), Error> {
        let start = self.superblock.fast_commit.as_ref().map_or(0, |area| area.start);
        let ranges = self.ranges(start.saturating_add(self.fast_used), bytes)?;
        sink.write(&ranges, true)?;
        let blocks = bytes.len().checked_div(self.block_size).unwrap_or(0);
        self.fast_used = self.fast_used.saturating_add(u32::try_from(blocks).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Encodes all blocks of a transaction but the commit block.
    fn encode(&self, transaction: &Transaction) -> Vec<u8> {
        let (tid, size) = (transaction.tid, self.block_size);
        let blocks = as_usize(self.blocks_of(transaction));
        let mut bytes = Vec::with_capacity(blocks.saturating_mul(size));
        let mut block = vec![0; size];
        let mut revoked = transaction.revoked.iter().copied().peekable();
        while revoked.peek().is_some() {
            revoke::encode(&self.superblock, tid, revoked.by_ref(), &mut block);
            bytes.extend_from_slice(&block);
        }
        let copies: Vec<Copy<'_>> = transaction.images.iter().map(Copy::new).collect();
        for copies in copies.chunks(tag::tags_in(&self.superblock, size).max(1)) {
            let tags = copies.iter().map(|copy| (copy.number, copy.stored(), copy.is_escaped()));
            tag::encode(&self.superblock, tid, tags, &mut block);
            bytes.extend_from_slice(&block);
            copies.iter().for_each(|copy| bytes.extend_from_slice(copy.stored()));
        }
        bytes
    }

    /// Tells in the journal's superblock that the log begins with transaction `tid` at the next block,
    /// and makes that durable. The space of older transactions can then be reused.
    pub(crate) fn restart(&mut self, sink: &Sink, tid: u32) -> Result<(), Error> {
        self.first = (self.next, tid);
        self.write_superblock(sink, 0)?;
        self.used = 0;
        Ok(())
    }

    /// Tells in the journal's superblock that the log is empty, and that `tid` will be the next
    /// transaction.
    pub(crate) fn finish(&mut self, sink: &Sink, tid: u32) -> Result<(), Error> {
        self.first = (0, tid);
        self.write_superblock(sink, 0)
    }

    /// Records the `errno` of a failed write in the journal's superblock.
    pub(crate) fn record_error(&mut self, sink: &Sink, errno: i32) -> Result<(), Error> {
        self.write_superblock(sink, errno)
    }

    fn write_superblock(&mut self, sink: &Sink, errno: i32) -> Result<(), Error> {
        let (start, tid) = self.first;
        let has_fast_commits = start != 0 && self.superblock.fast_commit.is_some();
        superblock::set_fast_commits(&mut self.head, has_fast_commits);
        superblock::update(&mut self.head, start, tid, errno);
        let first = self.places.first().map(|run| run.start()).unwrap_or_default();
        let offset = first.get().saturating_mul(as_u64(self.block_size));
        sink.write(&[WriteRange { offset, bytes: &self.head }], true)
    }

    /// Writes blocks to the log from block `at` on, and makes them durable if `durable`.
    fn write_blocks(&self, sink: &Sink, at: u32, bytes: &[u8], durable: bool) -> Result<(), Error> {
        let Range { start, end } = self.superblock.log;
        let room = as_usize(end.saturating_sub(at)).saturating_mul(self.block_size);
        let (before, wrapped) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        let mut ranges = self.ranges(at, before)?;
        ranges.extend(self.ranges(start, wrapped)?);
        sink.write(&ranges, durable)
    }

    /// Returns the places of blocks from block `at` of the journal on.
    fn ranges<'b>(&self, at: u32, bytes: &'b [u8]) -> Result<Vec<WriteRange<'b>>, Error> {
        let (mut ranges, mut rest, mut at) = (Vec::new(), bytes, at);
        while !rest.is_empty() {
            let (place, run) = self.place(at)?;
            let length = as_usize(run.max(1)).saturating_mul(self.block_size);
            let (here, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            let offset = place.get().saturating_mul(as_u64(self.block_size));
            ranges.push(WriteRange { offset, bytes: here });
            rest = after;
            at = at.saturating_add(u32::try_from(run.max(1)).unwrap_or(u32::MAX));
        }
        Ok(ranges)
    }

    /// Returns the block of the filesystem that holds block `number` of the log, and the number of
    /// blocks that are contiguous from there.
    fn place(&self, number: u32) -> Result<(PhysicalBlock, u64), Error> {
        let mut index = u64::from(number);
        for run in &self.places {
            match run.get(index) {
                Some(place) => return Ok((place, run.count().saturating_sub(index))),
                None => index = index.saturating_sub(run.count()),
            }
        }
        Err(Structure::Journal.corrupt(Problem::Missing { logical: number.into() }))
    }

    /// Returns the number of the block `count` blocks after block `at` in the ring.
    fn after(&self, at: u32, count: u32) -> u32 {
        let Range { start, end } = self.superblock.log;
        match u64::from(at).saturating_add(count.into()) {
            next if next < end.into() => u32::try_from(next).unwrap_or(start),
            next => u32::try_from(next.saturating_sub(self.length().into())).unwrap_or(start),
        }
    }
}

/// A block as it is stored in the log.
struct Copy<'a> {
    number: PhysicalBlock,
    bytes: &'a [u8],
    /// The copy of a block that begins with the magic number of log blocks, without it.
    escaped: Option<Vec<u8>>,
}

impl<'a> Copy<'a> {
    fn new((&number, block): (&PhysicalBlock, &'a Block)) -> Self {
        let bytes: &[u8] = block;
        let is_escaped = bytes.first_chunk() == Some(&MAGIC.to_be_bytes());
        let escaped = is_escaped.then(|| {
            let mut copy = bytes.to_vec();
            copy.iter_mut().take(size_of_val(&MAGIC)).for_each(|byte| *byte = 0);
            copy
        });
        Self { number, bytes, escaped }
    }

    fn stored(&self) -> &[u8] {
        self.escaped.as_deref().unwrap_or(self.bytes)
    }

    fn is_escaped(&self) -> bool {
        self.escaped.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::journal::tag::Tags;

    const SIZE: usize = 4096;

    /// An empty log of `blocks` blocks of a filesystem with fast commits.
    fn log_of(blocks: u32) -> Log {
        let mut head = vec![0; SIZE];
        for (at, value) in [(0, MAGIC), (4, 4), (0xc, 4096), (0x10, blocks), (0x14, 1), (0x18, 5)] {
            head[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        let places = [BlockRun::new(100.into(), blocks.into()).unwrap()];
        let format = Format { wide: true, checksums: true, fast_commits: true };
        Log::new(places.into(), head, format).unwrap()
    }

    fn log() -> Log {
        log_of(64)
    }

    #[test]
    fn the_area_for_fast_commits_is_left_out_of_the_log() {
        assert!(!log().has_fast_commits(), "a small journal has no area");
        assert_eq!(log().length(), 63);
        let mut log = log_of(1280);
        assert_eq!(
            (log.superblock.log.clone(), log.superblock.fast_commit.clone()),
            (1..1024, Some(1025..1280))
        );
        // Three blocks of tags, and one without.
        log.fast_used = 252 - 1;
        let tags = |count| vec![vec![7; 2500]; count];
        assert_eq!(log.fast_commit(&tags(3), 5).unwrap().len(), 4 * SIZE);
        assert_eq!(log.fast_commit(&tags(2), 5).unwrap().len(), 2 * SIZE);
        assert!(log.fast_commit(&tags(4), 5).is_none());
        log.fast_used = 254;
        assert!(log.fast_commit(&tags(1), 5).is_none());
    }

    #[test]
    fn copies_that_begin_with_the_magic_number_are_escaped() {
        let (log, mut transaction) = (log(), Transaction::new(5));
        let mut block = vec![7; SIZE];
        transaction.insert(8.into(), block.clone().into());
        block[..4].copy_from_slice(&MAGIC.to_be_bytes());
        transaction.insert(7.into(), block.clone().into());
        let bytes = log.encode(&transaction);
        let (descriptor, copies) = bytes.split_at(SIZE);
        let tags: Vec<_> = Tags::new(&log.superblock, descriptor).collect();
        assert_eq!(
            tags.iter().map(|tag| (tag.block.get(), tag.escaped)).collect::<Vec<_>>(),
            [(7, true), (8, false)]
        );
        for (tag, copy) in tags.iter().zip(copies.chunks(SIZE)) {
            tag.verify(&log.superblock, 5, copy).unwrap();
        }
        assert_eq!(copies[..4], [0; 4]);
        assert_eq!(copies[4..SIZE], block[4..]);
        assert_eq!(*transaction.images[&7.into()], block[..], "home keeps the number");
    }

    #[test]
    fn a_revoke_is_taken_back_when_the_block_is_logged_again() {
        let mut transaction = Transaction::new(5);
        transaction.revoke(7.into());
        transaction.revoke(8.into());
        transaction.insert(7.into(), vec![1; SIZE].into());
        assert_eq!(transaction.revoked.iter().map(|block| block.get()).collect::<Vec<_>>(), [8]);
        transaction.revoke(7.into());
        assert!(transaction.images.is_empty() && transaction.revoked.len() == 2);
    }
}
