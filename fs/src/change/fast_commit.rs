//! The tags of a fast commit, for inodes that the running transaction has changed, and names that it has
//! added.

use std::ops::Range;

use crate::change::extents::{Found, Tree};
use crate::file::system_zone::SystemZone;
use crate::format::inode;
use crate::format::inode_flags::InodeFlags;
use crate::journal::changes::NewName;
use crate::journal::fast_commit::Pending;
use crate::journal::handle::{Handle, Stop};
use crate::number::{InodeNumber, LogicalBlock};
use crate::recovery::fast_commit::tag;

/// Maximum number of tags for maps in one fast commit.
const TAGS_MAX: usize = 2048;

/// Adds a name to the changes of a handle, which are those of the directory and of the inode. A fast commit
/// can have them if the directory has not grown: the kernel's replay adds the name to the blocks of the
/// directory, and a loss of power during it could tear a division of a block.
///
/// Names that are removed are in no fast commit. After a loss of power the kernel replays all tags again,
/// and if the first replay had written a part of its blocks, the second one removes a link too many: a file
/// that was renamed is empty then.
pub(super) fn add_name(handle: &mut Handle<'_>, name: NewName) {
    handle.changes.is_fast = handle.changes.allocated == 0;
    handle.changes.names.push(name);
}

/// Returns the encoded tags of all inodes and names in `pending`, as they are now; `None` if one of them is
/// not for a fast commit.
pub(super) fn tags(
    handle: &mut Handle<'_>,
    zone: &SystemZone,
    pending: &Pending,
) -> Result<Option<Vec<Vec<u8>>>, Stop> {
    let mut tags = Vec::new();
    for NewName { directory, name, inode, is_new } in pending.names() {
        // The name of a new inode is replayed after it.
        if *is_new {
            tags.push(inode_tag(handle, *inode)?);
        }
        let name = tag::Name { directory: *directory, inode: *inode, name };
        tags.push(tag::added(name, *is_new));
    }
    for (number, ranges) in pending.inodes() {
        let mut inode = handle.inode(number)?;
        // The kernel writes fast commits for no directories. When it replays one, it does not count a
        // block of attributes.
        let is_plain = inode.is_file()
            && inode.flags().contains(InodeFlags::EXTENTS)
            && !inode.flags().contains(InodeFlags::JOURNAL_DATA)
            && inode.attribute_block == 0;
        if !is_plain || handle.is_orphan(number) || handle.next_orphan(number)? != 0 {
            return Ok(None);
        }
        let tree = Tree { handle: &mut *handle, zone, inode: &mut inode, is_changed: false };
        for range in ranges {
            if !add_ranges(&tree, range, &mut tags)? {
                return Ok(None);
            }
        }
        tags.push(inode_tag(handle, number)?);
    }
    Ok(Some(tags))
}

/// Returns the tag of an inode.
fn inode_tag(handle: &Handle<'_>, number: InodeNumber) -> Result<Vec<u8>, Stop> {
    let bytes = handle.inode_bytes(number)?;
    Ok(tag::inode(number, inode::declared(&bytes)))
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
