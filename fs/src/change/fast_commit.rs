//! The tags of a fast commit, for inodes that the running transaction has changed.

use std::ops::Range;

use crate::change::extents::{Found, Tree};
use crate::file::system_zone::SystemZone;
use crate::format::inode;
use crate::format::inode_flags::InodeFlags;
use crate::journal::fast_commit::Pending;
use crate::journal::handle::{Handle, Stop};
use crate::number::LogicalBlock;
use crate::recovery::fast_commit::tag;

/// Maximum number of tags for maps in one fast commit.
const TAGS_MAX: usize = 2048;

/// Returns the encoded tags of all inodes in `pending`, as they are now; `None` if one of them is not
/// for a fast commit.
pub(super) fn tags(
    handle: &mut Handle<'_>,
    zone: &SystemZone,
    pending: &Pending,
) -> Result<Option<Vec<Vec<u8>>>, Stop> {
    let mut tags = Vec::new();
    for (number, ranges) in pending.inodes() {
        let mut inode = handle.inode(number)?;
        // The kernel writes fast commits for no directories. When it replays one, it does not count a
        // block of attributes.
        let is_plain = inode.is_file()
            && inode.flags().contains(InodeFlags::EXTENTS)
            && inode.attribute_block == 0;
        if !is_plain || handle.next_orphan(number)? != 0 {
            return Ok(None);
        }
        let tree = Tree { handle: &mut *handle, zone, inode: &mut inode, is_changed: false };
        for range in ranges {
            if !add_ranges(&tree, range, &mut tags)? {
                return Ok(None);
            }
        }
        let bytes = handle.inode_bytes(number)?;
        tags.push(tag::inode(number, inode::declared(&bytes)));
    }
    Ok(Some(tags))
}

/// Adds the tags of a range of blocks of a file: one for each extent, and one for each hole. Returns
/// false if there are too many.
fn add_ranges(
    tree: &Tree<'_, '_>,
    range: &Range<u64>,
    tags: &mut Vec<Vec<u8>>,
) -> Result<bool, Stop> {
    let number = tree.inode.number();
    let mut at = range.start;
    while at < range.end && tags.len() < TAGS_MAX {
        let start = LogicalBlock::or_end(at);
        at = match tree.find(at)? {
            Found::Hole { end } => {
                let end = end.min(range.end);
                tags.push(tag::del_range(number, start..LogicalBlock::or_end(end)));
                end
            }
            Found::Extent(extent) => {
                let part = extent.part(at..range.end).map(|part| part.blocks).unwrap_or_default();
                tags.extend(tag::add_range(number, start, part, extent.unwritten));
                extent.end()
            }
        };
    }
    Ok(at >= range.end)
}
