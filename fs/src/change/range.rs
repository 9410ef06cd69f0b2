//! Changes of a range of a file: it is zeroed, taken out, or put in.

use std::ops::Range;

use crate::change::JournaledFilesystem;
use crate::change::extents::shift::Shift;
use crate::change::extents::{Found, Tree};
use crate::change::space::{EXTENTS_MAX, free};
use crate::error::Error;
use crate::error::reasons::BadRange;
use crate::format::inode::Inode;
use crate::journal::handle::Stop;
use crate::number::{InodeNumber, LogicalBlock};

/// The two calls that move the rest of a file.
#[derive(Clone, Copy)]
enum Direction {
    Collapse,
    Insert,
}

/// A range of blocks that is taken out of a file or put in, and the sizes of the file in bytes.
struct Move {
    direction: Direction,
    blocks: Range<u64>,
    old_size: u64,
    new_size: u64,
}

impl JournaledFilesystem {
    /// Zeroes a range, as fallocate(2) does with `FALLOC_FL_ZERO_RANGE`: whole blocks become unwritten,
    /// and the rest of the range is overwritten. Bytes that have no block get one. The file grows to
    /// the end of the range, unless `keep_size`. Returns the inode.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate): the range may be zeroed, and the size is the old one then.
    pub fn zero_range(
        &self,
        inode: impl Into<InodeNumber>,
        pos: u64,
        length: u64,
        keep_size: bool,
    ) -> Result<Inode, Error> {
        let number = inode.into();
        let end = pos.checked_add(length).ok_or(Error::FileTooLarge { inode: number })?;
        self.check_end(number, end)?;
        self.check_map(&self.inode(number)?)?;
        self.under_cache(number, |cached| match cached {
            None => {
                let (first, last) = self.inner_blocks(pos, end);
                self.zero(number, pos..first)?;
                self.zero(number, last..end)?;
                self.mark_unwritten(number, first..last)
            }
            Some(cached) => cached.punch_hole(pos..end, &mut || {
                let _lock = self.lock(number);
                self.open_inodes().release(self.superblock(), number, pos..end);
                let (first, last) = self.inner_blocks(pos, end);
                self.mark_unwritten(number, first..last)
            }),
        })?;
        self.allocate(number, pos, length, keep_size)
    }

    /// Returns the begin of the first whole block in a range of bytes, and the end of the last one. Both
    /// are the end of the range if it has none.
    fn inner_blocks(&self, pos: u64, end: u64) -> (u64, u64) {
        let block = u64::from(self.superblock().block_size());
        let (first, last) = (pos.next_multiple_of(block), end & !block.wrapping_sub(1));
        if first < last { (first, last) } else { (end, end) }
    }

    /// Marks the blocks in a range of bytes as unwritten; the inode is locked.
    fn mark_unwritten(&self, number: InodeNumber, bytes: Range<u64>) -> Result<(), Error> {
        let bits = self.superblock().geometry.block_bits;
        let mut at = bytes.start.wrapping_shr(bits);
        let end = bytes.end.wrapping_shr(bits).min(LogicalBlock::END_NUMBER);
        while at < end {
            at = self.change_map(number, |tree| {
                let next = tree.next_extents(at, EXTENTS_MAX)?.min(end);
                mark_unwritten(tree, at..next)?;
                Ok(next)
            })?;
        }
        Ok(())
    }

    /// Takes a range out of a file: the bytes after it move to its begin, and the file has `length` bytes
    /// less. Returns the inode.
    ///
    /// The change is made as a whole. A later overwrite is in place on the device at once: after a loss
    /// of power before a [`sync`](Self::sync), it can be at the place that its block had before.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::BadRange`] if the range is not of whole blocks, or does not end before the end of the file;
    /// [`Error::InFlight`]; [`Error::ChangeTooLarge`] if the journal has no room for the part of the
    /// extent tree that moves. Others as [`allocate`](Self::allocate).
    pub fn collapse_range(
        &self,
        inode: impl Into<InodeNumber>,
        pos: u64,
        length: u64,
    ) -> Result<Inode, Error> {
        self.move_blocks(inode.into(), pos, length, Direction::Collapse)
    }

    /// Puts a hole into a file: the bytes from `pos` on move to its end, and the file has `length` bytes
    /// more. Returns the inode.
    ///
    /// As for [`collapse_range`](Self::collapse_range), the change is made as a whole.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::BadRange`] if the range is not of whole blocks, or does not begin inside the file. Others
    /// as [`collapse_range`](Self::collapse_range).
    pub fn insert_range(
        &self,
        inode: impl Into<InodeNumber>,
        pos: u64,
        length: u64,
    ) -> Result<Inode, Error> {
        self.move_blocks(inode.into(), pos, length, Direction::Insert)
    }

    fn move_blocks(
        &self,
        number: InodeNumber,
        pos: u64,
        length: u64,
        direction: Direction,
    ) -> Result<Inode, Error> {
        self.check_map(&self.inode(number)?)?;
        self.under_cache(number, |cached| {
            let Some(cached) = cached else {
                let size = self.inode(number)?.size();
                return self
                    .move_locked(number, &self.plan(number, (pos, length), size, direction)?);
            };
            let plan = self.plan(number, (pos, length), cached.size(), direction)?;
            cached.move_blocks(pos, plan.new_size, &mut || {
                let _lock = self.lock(number);
                self.move_locked(number, &plan).map(drop)
            })?;
            self.inode(number)
        })
    }

    /// Checks a range of position and length for a file of `size` bytes.
    fn plan(
        &self,
        number: InodeNumber,
        (pos, length): (u64, u64),
        size: u64,
        direction: Direction,
    ) -> Result<Move, Error> {
        let bad = |why| Err(Error::BadRange { inode: number, why });
        let block_size = self.superblock().block_size();
        let block = u64::from(block_size);
        if length == 0 || !pos.is_multiple_of(block) || !length.is_multiple_of(block) {
            return bad(BadRange::NotWholeBlocks { block_size });
        }
        let end = pos.checked_add(length).ok_or(Error::FileTooLarge { inode: number })?;
        let new_size = match direction {
            Direction::Collapse if end >= size => return bad(BadRange::EndsAfter { size }),
            Direction::Insert if pos >= size => return bad(BadRange::BeginsAfter { size }),
            Direction::Collapse => size.saturating_sub(length),
            Direction::Insert => size.saturating_add(length),
        };
        self.check_end(number, new_size)?;
        let bits = self.superblock().geometry.block_bits;
        let blocks = pos.wrapping_shr(bits)..end.wrapping_shr(bits);
        Ok(Move { direction, blocks, old_size: size, new_size })
    }

    /// Moves the blocks of a file in one change; the inode is locked.
    fn move_locked(&self, number: InodeNumber, plan: &Move) -> Result<Inode, Error> {
        let Range { start, end } = plan.blocks;
        // The change begins anew for each node of the tree that is not cached.
        for extent in self.extents(&self.inode(number)?)? {
            extent?;
        }
        self.change_map(number, |tree| {
            // Another write has extended the file, or its end of I/O would look for its blocks here.
            let is_other = tree.inode.size() != plan.old_size;
            if is_other || self.open_inodes().has_writes_after(number, start) {
                return Err(Error::InFlight { inode: number }.into());
            }
            // The kernel does not either: a replay could not tell moved blocks from others.
            tree.handle.changes.is_fast = false;
            match plan.direction {
                Direction::Collapse => {
                    free(tree, start..end)?;
                    tree.shift(Shift { from: end, to: start })?;
                }
                Direction::Insert => {
                    let last = tree.end()?.saturating_add(end.saturating_sub(start));
                    if last > LogicalBlock::END_NUMBER {
                        return Err(Error::FileTooLarge { inode: number }.into());
                    }
                    tree.shift(Shift { from: start, to: end })?;
                }
            }
            tree.inode.set_size(plan.new_size);
            Ok(tree.inode.clone())
        })
    }
}

/// Marks all blocks in a range of blocks as unwritten.
fn mark_unwritten(tree: &mut Tree<'_, '_>, range: Range<u64>) -> Result<(), Stop> {
    let mut at = range.start;
    while at < range.end {
        at = match tree.find(at)? {
            Found::Hole { end } => end,
            Found::Extent(extent) => {
                let part = extent.part(at..range.end).filter(|part| !part.unwritten);
                if let Some(part) = part {
                    tree.replace(part.start..part.end(), Some((part.blocks, true)))?;
                }
                extent.end()
            }
        };
    }
    Ok(())
}
