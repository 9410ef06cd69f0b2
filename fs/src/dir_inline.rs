//! Directories inside of their inodes (`inline_data`).

use crate::block_cache::Block;
use crate::corrupt::{Problem, Structure};
use crate::inode::{self, BLOCK_AREA};
use crate::{Error, Filesystem, Inode};

/// Bytes of the parent's inode number, which stands for "." and "..".
const PARENT: usize = 4;

/// The parts that have entries: what `i_block` has behind the number of the parent, and the
/// attribute. In each, the entries fill all of it, and there is no checksum.
pub(crate) fn parts(fs: &Filesystem, inode: &Inode) -> Result<Vec<Block>, Error> {
    let data = fs.inline_data(inode)?;
    let structure = Structure::Directory(inode.number());
    let (block, rest) = data
        .split_at_checked(BLOCK_AREA)
        .ok_or_else(|| structure.corrupt(Problem::NoInlineData))?;
    let (parent, entries) = block
        .split_first_chunk::<PARENT>()
        .ok_or_else(|| structure.corrupt(Problem::NoInlineData))?;
    let parent = u32::from_le_bytes(*parent);
    let superblock = fs.superblock();
    let allowed = superblock.first_inode..=superblock.inodes_count();
    if parent != inode::ROOT && !allowed.contains(&parent) {
        return Err(structure.corrupt(Problem::EntryInode { offset: 0, inode: parent }));
    }
    Ok([entries, rest].into_iter().filter(|part| !part.is_empty()).map(Block::from).collect())
}
