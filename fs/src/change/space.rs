//! Changes of the blocks and the size of a file: allocation, truncation, holes.

use std::ops::Range;

use crate::alloc::windows::WINDOW_BYTES_MAX;
use crate::alloc::{self, Request};
use crate::blocks::device::WriteRange;
use crate::change::extents::{Found, Tree};
use crate::change::orphans::Entry;
use crate::change::time::now;
use crate::change::{JournaledFilesystem, features, orphans};
use crate::error::reasons::Protected;
use crate::error::{Error, Unsupported};
use crate::file::open_inode::CachedData;
use crate::format::corrupt::{Problem, Structure};
use crate::format::features::{IncompatFeatures, RoCompatFeatures};
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::format::time::Timestamp;
use crate::journal::handle::Stop;
use crate::number::{BlockRun, InodeNumber, LogicalBlock, PhysicalBlock, as_usize};

/// Maximum number of blocks that one change allocates, so that a transaction has room for the bitmaps and
/// the nodes of the tree.
const BLOCKS_MAX: u64 = 32_767;

/// Maximum number of extents that one change frees, for the same reason: each may reach into several
/// groups.
pub(super) const EXTENTS_MAX: usize = 32;

/// The time of the last change of contents that a change of a map gives an inode.
#[derive(Clone, Copy, Default)]
pub(super) enum Times {
    /// The time of the change.
    #[default]
    Now,
    /// The time of a write before it, if the inode does not have that yet.
    Of(Option<Timestamp>),
}

/// The circumstances of a change of a map.
#[derive(Clone, Copy, Default)]
pub(super) struct How {
    /// Times that the inode gets.
    pub times: Times,
    /// True if the change may use the blocks that are reserved for cached data.
    pub is_reserved: bool,
    /// True if the change makes data reachable that may be in the device's volatile cache.
    pub needs_flush: bool,
}

impl JournaledFilesystem {
    /// Allocates blocks for all bytes of a range that have none, as fallocate(2) does. They read as
    /// zeroes. The file grows to the end of the range, unless `keep_size`. Returns the inode.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::NoSpace`]: blocks before the first that could not be allocated are allocated.
    /// [`Error::FileTooLarge`]; [`Error::Protected`]; [`Error::UnsupportedInode`] for a file without
    /// extents; damage; a failure of the device.
    pub fn allocate(
        &self,
        inode: impl Into<InodeNumber>,
        pos: u64,
        length: u64,
        keep_size: bool,
    ) -> Result<Inode, Error> {
        let number = inode.into();
        let end = pos.checked_add(length).ok_or(Error::FileTooLarge { inode: number })?;
        self.check_end(number, end)?;
        let size = if keep_size { None } else { Some(end) };
        self.under_cache(number, |cached| match cached {
            None => self.allocate_locked(number, pos, length, keep_size),
            Some(cached) => {
                // Reserved blocks are allocated first, by the write.
                cached.write_back(pos..end, false)?;
                let mut allocate = || {
                    let _lock = self.lock(number);
                    self.allocate_locked(number, pos, length, keep_size).map(drop)
                };
                match size {
                    Some(end) => cached.grow(end, &mut allocate)?,
                    None => allocate()?,
                }
                self.inode(number)
            }
        })
    }

    /// Calls `change` with the cached data of a file, or with the inode locked if it has none.
    pub(super) fn under_cache<T>(
        &self,
        number: InodeNumber,
        change: impl FnOnce(Option<&dyn CachedData>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let lock = self.lock(number);
        // No thread opens the file in a cache while the inode is locked.
        let result = match self.open_inodes().cached_data(number) {
            None => change(None),
            Some(cached) => {
                // The cache locks the file first, and then the inode.
                drop(lock);
                change(Some(&*cached))
            }
        };
        self.journal().recorded(self, result)
    }

    /// Allocates blocks, as [`allocate`](Self::allocate); the inode is locked.
    pub(super) fn allocate_locked(
        &self,
        number: InodeNumber,
        pos: u64,
        length: u64,
        keep_size: bool,
    ) -> Result<Inode, Error> {
        let end = pos.checked_add(length).ok_or(Error::FileTooLarge { inode: number })?;
        self.check_end(number, end)?;
        let bits = self.superblock().geometry.block_bits;
        let last = end.div_ceil(u64::from(self.superblock().block_size()));
        let mut at = pos.wrapping_shr(bits);
        while at < last {
            at = self.change_map(number, |tree| fill_hole(tree, at..last))?;
        }
        if !keep_size {
            self.zero_tail(number, end)?;
        }
        self.change_map(number, |tree| {
            if !keep_size && end > tree.inode.size() {
                tree.inode.set_size(end);
            }
            Ok(tree.inode.clone())
        })
    }

    /// Sets the size of a file, as truncate(2) does: new bytes read as zeroes, and blocks after the end
    /// are freed, unless the file grows. Returns the inode.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    pub fn truncate(&self, inode: impl Into<InodeNumber>, size: u64) -> Result<Inode, Error> {
        let number = inode.into();
        self.check_end(number, size)?;
        self.check_map(&self.inode(number)?)?;
        self.under_cache(number, |cached| match cached {
            None => self.truncate_locked(number, size),
            Some(cached) => {
                // The cache has written zeroes to the rest of the last block.
                cached.truncate(size, &mut || {
                    let _lock = self.lock(number);
                    self.open_inodes().release(self.superblock(), number, size..u64::MAX);
                    self.free_after(number, size, None).map(drop)
                })?;
                self.inode(number)
            }
        })
    }

    fn truncate_locked(&self, number: InodeNumber, size: u64) -> Result<Inode, Error> {
        // Bytes between the end and the end of its block must be zero when the file grows over them.
        let before = self.inode(number)?.size();
        let edge = before.min(size);
        self.zero(number, edge..edge.next_multiple_of(self.superblock().block_size().into()))?;
        if size > before {
            // Blocks that were allocated after the end are left for the data to come.
            return self.change_map(number, |tree| {
                tree.inode.set_size(size);
                Ok(tree.inode.clone())
            });
        }
        self.free_after(number, size, None)
    }

    /// Sets the size of a file, and frees the blocks after it, in as many steps as are needed. While
    /// there are more, the inode is an orphan; `entry` is where it is listed already.
    pub(super) fn free_after(
        &self,
        number: InodeNumber,
        size: u64,
        entry: Option<Entry>,
    ) -> Result<Inode, Error> {
        let first = size.div_ceil(u64::from(self.superblock().block_size()));
        let mut entry = entry;
        loop {
            let (inode, is_done) = self.change_map(number, |tree| {
                let start = tree.last_extents(EXTENTS_MAX)?.max(first);
                free(tree, start..LogicalBlock::END_NUMBER)?;
                tree.inode.set_size(size);
                let is_done = tree.end()? <= first;
                match entry {
                    // An inode that lost its last name meanwhile stays in the list until it is freed.
                    Some(entry) if is_done && tree.inode.links() > 0 => {
                        entry.remove(tree.handle, number)?;
                    }
                    None if !is_done => orphans::add(tree.handle, number)?,
                    _ => (),
                }
                Ok((tree.inode.clone(), is_done))
            })?;
            if is_done {
                return Ok(inode);
            }
            entry = entry.or(Some(Entry::List));
        }
    }

    /// Frees the blocks inside a range, and fills the rest of the range with zeroes. The size does
    /// not change. Returns the inode.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    pub fn punch_hole(
        &self,
        inode: impl Into<InodeNumber>,
        pos: u64,
        length: u64,
    ) -> Result<Inode, Error> {
        let number = inode.into();
        self.check_map(&self.inode(number)?)?;
        // No file has bytes after these.
        let most = self.superblock().bytes(LogicalBlock::END_NUMBER);
        let (pos, end) = (pos.min(most), pos.saturating_add(length).min(most));
        self.under_cache(number, |cached| match cached {
            None => self.punch_locked(number, pos, end, true),
            Some(cached) => {
                cached.punch_hole(pos..end, &mut || {
                    let _lock = self.lock(number);
                    self.open_inodes().release(self.superblock(), number, pos..end);
                    self.punch_locked(number, pos, end, false).map(drop)
                })?;
                self.inode(number)
            }
        })
    }

    /// Frees the blocks inside a range; the inode is locked. With `edges`, fills the rest of the range
    /// with zeroes.
    fn punch_locked(
        &self,
        number: InodeNumber,
        pos: u64,
        end: u64,
        edges: bool,
    ) -> Result<Inode, Error> {
        let block = u64::from(self.superblock().block_size());
        let (first, last) = (pos.next_multiple_of(block), end & !block.wrapping_sub(1));
        if first >= last {
            self.zero(number, if edges { pos..end } else { 0..0 })?;
            return self.change_map(number, |tree| Ok(tree.inode.clone()));
        }
        if edges {
            self.zero(number, pos..first)?;
            self.zero(number, last..end)?;
        }
        let bits = self.superblock().geometry.block_bits;
        let range = first.wrapping_shr(bits)..last.wrapping_shr(bits).min(LogicalBlock::END_NUMBER);
        let mut at = range.start;
        while at < range.end {
            at = self.change_map(number, |tree| {
                let next = tree.next_extents(at, EXTENTS_MAX)?.min(range.end);
                free(tree, at..next)?;
                Ok(next)
            })?;
        }
        self.inode(number)
    }

    /// Marks the unwritten blocks in a range as written, after their data is there, and sets the
    /// size if the file now ends later.
    pub(super) fn convert(
        &self,
        number: InodeNumber,
        range: Range<u64>,
        size: u64,
        how: How,
    ) -> Result<Inode, Error> {
        self.change_map_as(number, how, |tree| {
            let mut at = range.start;
            while at < range.end {
                at = match tree.find(at)? {
                    // Another call has freed the blocks while the write was in flight.
                    Found::Hole { .. } => {
                        let pos = tree.handle.superblock().bytes(at);
                        return Err(Error::Hole { inode: number, pos }.into());
                    }
                    Found::Extent(extent) => {
                        let end = extent.end().min(range.end);
                        let skip = at.saturating_sub(extent.start);
                        if extent.unwritten {
                            let run = extent.blocks.part(skip, end.saturating_sub(at));
                            tree.replace(at..end, Some((run, false)))?;
                        }
                        end
                    }
                };
            }
            if size > tree.inode.size() {
                tree.inode.set_size(size);
            }
            Ok(tree.inode.clone())
        })
    }

    /// Fills the rest of the last block with zeroes, if the file is about to grow over it from `pos` on.
    pub(super) fn zero_tail(&self, number: InodeNumber, pos: u64) -> Result<(), Error> {
        let size = self.inode(number)?.size();
        let end = size.next_multiple_of(self.superblock().block_size().into());
        self.zero(number, size..end.min(pos))
    }

    /// Rejects a size that a file cannot have.
    pub(super) fn check_end(&self, inode: InodeNumber, end: u64) -> Result<(), Error> {
        let superblock = self.superblock();
        match end > superblock.bytes(LogicalBlock::END_NUMBER) {
            true => Err(Error::FileTooLarge { inode }),
            false => Ok(()),
        }
    }

    /// Allocates blocks for a hole at the begin of a range, or for a part of it. Returns the block of the
    /// file after them.
    pub(super) fn fill_hole(
        &self,
        number: InodeNumber,
        range: Range<u64>,
        how: How,
    ) -> Result<u64, Error> {
        self.change_map_as(number, how, |tree| fill_hole(tree, range.clone()))
    }

    /// Rejects blocks of the filesystem itself in the map of a file.
    pub(super) fn check_place(&self, inode: InodeNumber, blocks: BlockRun) -> Result<(), Error> {
        match self.zone().overlap(blocks) {
            None => Ok(()),
            Some(area) => {
                let (start, count) = (blocks.start(), blocks.count());
                let problem = Problem::Overlap { start, count, area };
                Err(Structure::BlockMap { inode }.corrupt(problem))
            }
        }
    }

    /// Changes the map of a regular file with extents, and the times of its last change.
    pub(super) fn change_map<T>(
        &self,
        number: InodeNumber,
        change: impl FnMut(&mut Tree<'_, '_>) -> Result<T, Stop>,
    ) -> Result<T, Error> {
        self.change_map_as(number, How::default(), change)
    }

    fn change_map_as<T>(
        &self,
        number: InodeNumber,
        how: How,
        mut change: impl FnMut(&mut Tree<'_, '_>) -> Result<T, Stop>,
    ) -> Result<T, Error> {
        let now = now();
        self.journal().change(self, |handle| {
            let mut inode = handle.inode(number)?;
            self.check_map(&inode)?;
            let How { is_reserved, needs_flush, times } = how;
            (handle.changes.is_reserved, handle.changes.needs_flush) = (is_reserved, needs_flush);
            handle.changes.owner = Some(number);
            let size = inode.size();
            handle.changes.is_fast = true;
            let mut tree = Tree { handle, zone: self.zone(), inode: &mut inode, is_changed: false };
            let result = change(&mut tree)?;
            let is_changed = tree.is_changed;
            handle.changes.has_new_map = is_changed || inode.size() != size;
            if inode.size() > size {
                features::set_large_file(handle, inode.size())?;
            }
            let time = if let Times::Of(time) = times { time } else { Some(now) };
            if let Some(time) = time {
                inode.set_mtime(time);
                inode.set_ctime(time);
            }
            handle.set_inode(inode)?;
            Ok(result)
        })
    }

    /// Rejects inodes whose map must not or cannot be changed.
    pub(super) fn check_map(&self, inode: &Inode) -> Result<(), Error> {
        self.check(inode)?;
        let number = inode.number();
        let flags = inode.flags();
        let (kind, protected) = (inode.kind(), |why| Err(Error::Protected { inode: number, why }));
        match () {
            () if inode.is_dir() => Err(Error::IsADirectory { inode: number }),
            () if !inode.is_file() => Err(Error::NotAFile { inode: number, kind }),
            () if flags.contains(InodeFlags::VERITY) => protected(Protected::Verity),
            () if flags.contains(InodeFlags::JOURNAL_DATA) => protected(Protected::JournalsData),
            () if flags.contains(InodeFlags::EA_INODE) => protected(Protected::Attribute),
            () if flags.contains(InodeFlags::INLINE_DATA) => protected(Protected::InlineData),
            () if !flags.contains(InodeFlags::EXTENTS) => {
                Err(Error::UnsupportedInode { inode: number, what: Unsupported::IndirectBlocks })
            }
            () => Ok(()),
        }
    }

    /// Fills a range of a file with zeroes, on the device, where it has written blocks.
    pub(super) fn zero(&self, number: InodeNumber, range: Range<u64>) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        let superblock = self.superblock();
        let size = as_usize(superblock.block_size());
        let bits = superblock.geometry.block_bits;
        let mut at = range.start;
        while at < range.end {
            let logical = at.wrapping_shr(bits);
            let start = logical.wrapping_shl(bits);
            let next = range.end.min(start.saturating_add(superblock.bytes(1)));
            if let Some(block) = self.written_block(number, logical)? {
                let mut bytes = self.metadata().block_now(block)?;
                let (from, to) = (at.saturating_sub(start), next.saturating_sub(start));
                let part = bytes.get_mut(as_usize(from)..as_usize(to).min(size));
                part.unwrap_or_default().fill(0);
                let offset = superblock.address(block);
                self.journal().write_data(&[WriteRange { offset, bytes: &bytes }])?;
            }
            at = next;
        }
        Ok(())
    }

    /// Returns the block that holds block `logical` of a file, if it is allocated and written.
    fn written_block(
        &self,
        number: InodeNumber,
        logical: u64,
    ) -> Result<Option<PhysicalBlock>, Error> {
        self.journal().read(self, |handle| {
            let mut inode = handle.inode(number)?;
            self.check_map(&inode)?;
            let tree = Tree { handle, zone: self.zone(), inode: &mut inode, is_changed: false };
            Ok(match tree.find(logical)? {
                Found::Extent(extent) if !extent.unwritten => {
                    extent.blocks.get(logical.saturating_sub(extent.start))
                }
                _ => None,
            })
        })
    }
}

/// Allocates blocks for the first hole in a range, or for a part of it. Returns the block of the file
/// to continue at.
fn fill_hole(tree: &mut Tree<'_, '_>, range: Range<u64>) -> Result<u64, Stop> {
    let end = match tree.find(range.start)? {
        Found::Extent(extent) => return Ok(extent.end()),
        Found::Hole { end } => end.min(range.end),
    };
    let goal = goal(tree, range.start)?;
    let want = end.saturating_sub(range.start).min(BLOCKS_MAX);
    let want = u32::try_from(want).unwrap_or(1);
    let window = window(tree, range.start);
    let owner = (window > 0).then_some(tree.inode.number());
    let request = Request { goal, count: want, window, owner };
    let run = alloc::allocate(tree.handle, tree.zone, request)?;
    let end = range.start.saturating_add(run.count());
    tree.replace(range.start..end, Some((run, true)))?;
    add_blocks(tree, run.count())?;
    Ok(end)
}

/// Counts the blocks that the file now has, if the filesystem can.
fn add_blocks(tree: &mut Tree<'_, '_>, blocks: u64) -> Result<(), Stop> {
    let superblock = tree.handle.superblock();
    tree.inode.add_blocks(superblock, blocks);
    let is_huge = superblock.ro_compat.contains(RoCompatFeatures::HUGE_FILE);
    let most = if is_huge { 1 << 48 } else { 1u64 << 32 };
    match tree.inode.blocks_512() < most {
        true => Ok(()),
        false => Err(Error::FileTooLarge { inode: tree.inode.number() }.into()),
    }
}

/// Returns the block to allocate for block `at` of a file: the one after the block before it, or one
/// in the group of the inode.
pub(super) fn goal(tree: &Tree<'_, '_>, at: u64) -> Result<PhysicalBlock, Stop> {
    if let Some(before) = at.checked_sub(1)
        && let Found::Extent(extent) = tree.find(before)?
    {
        return Ok(extent.blocks.end());
    }
    let superblock = tree.handle.superblock();
    let index = tree.inode.number().get().saturating_sub(1);
    let mut group = index.checked_div(superblock.inodes_per_group).unwrap_or(0);
    // The first group of a flexible group holds the metadata of all of them.
    if superblock.has(IncompatFeatures::FLEX_BG) && superblock.log_groups_per_flex >= 2 {
        let flex = 1u32.checked_shl(superblock.log_groups_per_flex.into()).unwrap_or(1);
        group = (group & !flex.wrapping_sub(1)).saturating_add(1);
    }
    Ok(superblock.group_start(group.min(superblock.groups_count().saturating_sub(1))))
}

/// Returns the number of blocks that are left to a file for its growth when it gets blocks from `at` on:
/// as many as it has. There are none for its first blocks, after which most files do not grow.
fn window(tree: &Tree<'_, '_>, at: u64) -> u32 {
    let superblock = tree.handle.superblock();
    let blocks = tree.inode.size().div_ceil(superblock.block_size().into());
    if at.saturating_add(1) < blocks {
        return 0;
    }
    let most = WINDOW_BYTES_MAX.wrapping_shr(superblock.geometry.block_bits);
    u32::try_from(blocks).unwrap_or(most).min(most)
}

/// Frees all blocks in a range of a file.
pub(super) fn free(tree: &mut Tree<'_, '_>, range: Range<u64>) -> Result<(), Stop> {
    if range.is_empty() {
        return Ok(());
    }
    for extent in tree.replace(range, None)? {
        alloc::free(tree.handle, tree.zone, extent.blocks)?;
        if !tree.inode.is_file() {
            // The log may have copies of the blocks of a directory.
            extent.blocks.blocks().for_each(|block| tree.handle.revoke(block));
        }
        tree.inode.remove_blocks(tree.handle.superblock(), extent.blocks.count());
    }
    Ok(())
}
