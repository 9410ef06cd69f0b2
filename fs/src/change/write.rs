//! Writes of the data of files that may grow.

use std::ops::Range;

use crate::blocks::device::WriteRange;
use crate::change::JournaledFilesystem;
use crate::change::extents::{Extent, Found, Tree};
use crate::change::space::How;
use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::format::inode::Inode;
use crate::number::{InodeNumber, PhysicalBlock, as_u64, as_usize};

/// Maximum number of bytes that are written before the blocks are counted as written.
const PIECE: usize = 4 << 20;

impl JournaledFilesystem {
    /// Writes `data` at byte `pos` of a regular file, and waits. Blocks are allocated where the file
    /// has none, and it grows if the data ends after its end. Returns the inode.
    ///
    /// The data is durable when the call returns; new blocks and the size are after
    /// [`sync_inode`](Self::sync_inode). After a loss of power before that, the file has its old
    /// contents, or zeroes where it had none.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate); a part of the data may then be written.
    pub fn write_at(
        &self,
        inode: impl Into<InodeNumber>,
        pos: u64,
        data: &[u8],
    ) -> Result<Inode, Error> {
        let number = inode.into();
        let end = pos.checked_add(as_u64(data.len()));
        self.check_end(number, end.ok_or(Error::FileTooLarge { inode: number })?)?;
        self.under_cache(number, |cached| match cached {
            None => self.write_locked(number, pos, data),
            Some(cached) => {
                cached.write_at(pos, data)?;
                self.inode(number)
            }
        })
    }

    fn write_locked(&self, number: InodeNumber, pos: u64, data: &[u8]) -> Result<Inode, Error> {
        self.zero_tail(number, pos)?;
        let mut at = pos;
        for piece in data.chunks(PIECE) {
            self.write_piece(number, at, piece)?;
            at = at.saturating_add(as_u64(piece.len()));
        }
        self.inode(number)
    }

    fn write_piece(&self, number: InodeNumber, pos: u64, data: &[u8]) -> Result<(), Error> {
        let superblock = self.superblock();
        let size = u64::from(superblock.block_size());
        let end = pos.saturating_add(as_u64(data.len()));
        let blocks = pos.wrapping_shr(superblock.geometry.block_bits)..end.div_ceil(size);
        // Blocks behind the end would be left if the file did not grow: they are unwritten.
        self.allocate_locked(number, pos, as_u64(data.len()), true)?;
        let extents = self.extents_of(number, blocks.clone())?;
        let before = self.inode(number)?.size();
        for extent in &extents {
            let start = superblock.bytes(extent.start);
            let range = pos.max(start)..end.min(superblock.bytes(extent.end()));
            let from = as_usize(range.start.saturating_sub(pos));
            let to = as_usize(range.end.saturating_sub(pos));
            let part = data.get(from..to).unwrap_or_default();
            let whole = self.whole_blocks(extent, range, part, before)?;
            let offset = superblock.address(extent.blocks.start());
            self.journal().write_data(&[WriteRange { offset, bytes: &whole }])?;
        }
        self.convert(number, blocks, end, How::default()).map(drop)
    }

    /// Returns the contents of all blocks of an extent after a write of `data` to a range inside it.
    /// `size` is the size of the file before.
    fn whole_blocks(
        &self,
        extent: &Extent,
        range: Range<u64>,
        data: &[u8],
        size: u64,
    ) -> Result<Vec<u8>, Error> {
        let superblock = self.superblock();
        let block = as_usize(superblock.block_size());
        let start = superblock.bytes(extent.start);
        let end = superblock.bytes(extent.end());
        let mut whole = vec![0; as_usize(end.saturating_sub(start))];
        let last = whole.len().saturating_sub(block);
        let edges = [(range.start > start, 0), (range.end < end, last)];
        for (_, at) in edges.into_iter().filter(|&(partial, _)| partial && !extent.unwritten) {
            let index = superblock.whole_blocks(as_u64(at));
            let number = extent.blocks.get(index).unwrap_or_default();
            let bytes = self.block_of_file(number, start.saturating_add(as_u64(at)), size)?;
            let place = whole.get_mut(at..).unwrap_or_default();
            place.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        }
        let from = as_usize(range.start.saturating_sub(start));
        let place = whole.get_mut(from..).and_then(|rest| rest.get_mut(..data.len()));
        place.unwrap_or_default().copy_from_slice(data);
        Ok(whole)
    }

    /// Reads the block that begins at byte `pos` of a file of `size` bytes. Bytes after the end of the
    /// file are zero.
    fn block_of_file(&self, block: PhysicalBlock, pos: u64, size: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = self.metadata().block_now(block)?;
        let inside = as_usize(size.saturating_sub(pos)).min(bytes.len());
        bytes.get_mut(inside..).unwrap_or_default().fill(0);
        Ok(bytes)
    }

    /// Returns the extents of a range of blocks of a file, which are allocated.
    fn extents_of(&self, number: InodeNumber, range: Range<u64>) -> Result<Vec<Extent>, Error> {
        self.journal().read(self, |handle| {
            let mut inode = handle.inode(number)?;
            self.check_map(&inode)?;
            let tree = Tree { handle, zone: self.zone(), inode: &mut inode, is_changed: false };
            let (mut extents, mut at) = (Vec::new(), range.start);
            while at < range.end {
                let Found::Extent(extent) = tree.find(at)? else {
                    let missing = Problem::Missing { logical: at };
                    return Err(Structure::BlockMap { inode: number }.corrupt(missing).into());
                };
                extents.extend(extent.part(range.clone()));
                at = extent.end();
            }
            Ok(extents)
        })
    }
}
