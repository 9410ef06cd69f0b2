//! The numbers of inodes and blocks, as types of their own.

use std::fmt;

use zerocopy::little_endian::U32;

/// Converts a length in memory. No platform has a `usize` of more than 64 bits.
#[inline]
pub(crate) fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Converts a number to an index or a length in memory. A number that memory cannot hold becomes
/// the largest one, which no slice has.
#[inline]
pub(crate) fn as_usize(number: impl Into<u64>) -> usize {
    usize::try_from(number.into()).unwrap_or(usize::MAX)
}

/// Number of an inode, from 1. Structures use 0 for "no inode".
///
/// # Examples
/// ```
/// use nvio_ext4::InodeNumber;
///
/// let number = InodeNumber::from(12);
/// assert!(number == 12 && number > InodeNumber::ROOT);
/// assert_eq!((number.get(), number.to_string()), (12, "12".to_owned()));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeNumber(u32);

impl InodeNumber {
    /// Number of the root directory's inode.
    ///
    /// See the [example](Self#examples).
    pub const ROOT: Self = Self(2);

    /// Returns the number as an integer.
    ///
    /// See the [example](Self#examples).
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl From<u32> for InodeNumber {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl From<U32> for InodeNumber {
    fn from(stored: U32) -> Self {
        Self(stored.get())
    }
}

impl From<InodeNumber> for u64 {
    fn from(number: InodeNumber) -> Self {
        number.0.into()
    }
}

impl PartialEq<u32> for InodeNumber {
    fn eq(&self, other: &u32) -> bool {
        self.0 == *other
    }
}

impl fmt::Debug for InodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for InodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a block in a file, from 0. The format has 32 bits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogicalBlock(u32);

impl LogicalBlock {
    /// First block of a file.
    pub(crate) const START: Self = Self(0);
    /// First number that is not a block: the largest file has 2^32 - 1 blocks.
    pub(crate) const END: Self = Self(u32::MAX);

    /// `END` as an integer.
    pub(crate) const END_NUMBER: u64 = (1 << 32) - 1;

    /// Returns block `number` of a file, or `END` if no file has as many blocks.
    pub(crate) fn or_end(number: u64) -> Self {
        Self(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// Returns the number as an integer.
    pub(crate) fn get(self) -> u32 {
        self.0
    }

    /// Returns the block after `count` more; `None` past the end of the largest file.
    pub(crate) fn checked_add(self, count: u32) -> Option<Self> {
        self.0.checked_add(count).map(Self)
    }

    /// Returns the number of blocks from `start` to this block; 0 if it is before `start`.
    pub(crate) fn since(self, start: Self) -> u32 {
        self.0.saturating_sub(start.0)
    }
}

impl From<U32> for LogicalBlock {
    fn from(stored: U32) -> Self {
        Self(stored.get())
    }
}

impl From<LogicalBlock> for u64 {
    fn from(block: LogicalBlock) -> Self {
        block.0.into()
    }
}

impl fmt::Display for LogicalBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a block of the filesystem, from 0.
///
/// # Examples
/// ```
/// use nvio_ext4::PhysicalBlock;
///
/// let block = PhysicalBlock::from(1000);
/// assert_eq!(block.checked_add(24), Some(1024.into()));
/// assert_eq!((block.get(), block.checked_add(u64::MAX)), (1000, None));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysicalBlock(u64);

impl PhysicalBlock {
    /// Returns the number as an integer.
    ///
    /// See the [example](Self#examples).
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the block after `count` more; `None` if its number has more than 64 bits.
    ///
    /// See the [example](Self#examples).
    pub fn checked_add(self, count: u64) -> Option<Self> {
        self.0.checked_add(count).map(Self)
    }
}

impl From<u64> for PhysicalBlock {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<PhysicalBlock> for u64 {
    fn from(block: PhysicalBlock) -> Self {
        block.0
    }
}

impl PartialEq<u64> for PhysicalBlock {
    fn eq(&self, other: &u64) -> bool {
        self.0 == *other
    }
}

impl fmt::Debug for PhysicalBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for PhysicalBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Consecutive blocks of the filesystem. The number of the last one was checked, so that the number
/// of each block is `start` plus its index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockRun {
    start: u64,
    end: u64,
}

impl BlockRun {
    /// Creates a run of `count` blocks; `None` if numbers of 64 bits do not suffice.
    pub(crate) fn new(start: PhysicalBlock, count: u64) -> Option<Self> {
        Some(Self { start: start.0, end: start.0.checked_add(count)? })
    }

    /// Returns the first block.
    pub(crate) fn start(self) -> PhysicalBlock {
        PhysicalBlock(self.start)
    }

    /// Returns the first block after the run.
    pub(crate) fn end(self) -> PhysicalBlock {
        PhysicalBlock(self.end)
    }

    /// Returns the number of blocks.
    pub(crate) fn count(self) -> u64 {
        self.end.wrapping_sub(self.start)
    }

    /// Returns the block at `index`.
    pub(crate) fn get(self, index: u64) -> Option<PhysicalBlock> {
        (index < self.count()).then(|| PhysicalBlock(self.start.wrapping_add(index)))
    }

    /// Returns the part of the run from `index` on, at most `count` blocks.
    pub(crate) fn part(self, index: u64, count: u64) -> Self {
        let start = self.start.wrapping_add(index.min(self.count()));
        let end = start.wrapping_add(count.min(self.end.wrapping_sub(start)));
        Self { start, end }
    }

    /// Returns the blocks that are in both runs, if there are any.
    pub(crate) fn intersection(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Self { start, end })
    }

    /// Returns the blocks in order.
    pub(crate) fn blocks(self) -> impl Iterator<Item = PhysicalBlock> {
        (self.start..self.end).map(PhysicalBlock)
    }
}
