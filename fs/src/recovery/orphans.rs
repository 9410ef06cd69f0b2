//! Orphans: inodes that a crash left to be removed or truncated by the next mount.
//!
//! What is to be removed has no links and is not in use for anyone here. What is to be truncated
//! has blocks past its end, which the next mount frees: here they are left out of its map, and out
//! of its count.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::features::{CompatFeatures, RoCompatFeatures};
use crate::format::file_type::FileType;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::format::superblock::Superblock;
use crate::map::{Extent, Extents, LOGICAL_END};
use crate::map::{extent_tree, indirect};
use crate::recovery::orphan_file;

/// Most inodes in the list that are followed, and most to be truncated that are remembered.
const ORPHANS_MAX: usize = 1 << 20;

/// What a kernel mounts for writing, which it must to see to orphans.
const WRITABLE: RoCompatFeatures =
    RoCompatFeatures::OVERWRITABLE.union(RoCompatFeatures::ORPHAN_PRESENT);

/// The inodes that are truncated to their sizes, and what their blocks come to, in units of 512
/// bytes, once that is known.
#[derive(Debug, Default)]
pub(crate) struct Orphans(HashMap<u32, OnceLock<u64>>);

impl Orphans {
    /// Reads the list and the file of orphans, if the kernel would look at them.
    ///
    /// # Errors
    /// Damage to the orphan file, which keeps a kernel from mounting; more orphans than are
    /// remembered; a failure of the source. Where the list is damaged it ends, as for the kernel.
    pub(crate) fn read(fs: &Filesystem) -> Result<Self, Error> {
        let mut orphans = Self::default();
        let superblock = fs.superblock();
        let has_file = superblock.compat_features().contains(CompatFeatures::ORPHAN_FILE)
            && superblock.ro_compat_features().contains(RoCompatFeatures::ORPHAN_PRESENT);
        if !is_cleaned_up(superblock) {
            return Ok(orphans);
        }
        orphans.read_list(fs)?;
        if has_file {
            orphan_file::read(fs, |number| orphans.add(fs, number).map(drop))?;
        }
        Ok(orphans)
    }

    /// Whether the inode is truncated to its size.
    pub(crate) fn contains(&self, number: u32) -> bool {
        self.0.contains_key(&number)
    }

    /// Follows the list. It is chained through the time of deletion.
    fn read_list(&mut self, fs: &Filesystem) -> Result<(), Error> {
        let mut seen = HashSet::new();
        let mut number = fs.superblock().last_orphan();
        while number != 0 {
            if !seen.insert(number) {
                log::warn!("the list of orphans comes back to inode {number}: ended there");
                break;
            }
            check_count(seen.len())?;
            match self.add(fs, number)? {
                Some(next) => number = next,
                None => {
                    log::warn!(
                        "the list of orphans has inode {number}, which is none: ended there"
                    );
                    break;
                }
            }
        }
        Ok(())
    }

    /// Adds an inode if it is to be truncated; gives the next of the list. `None` if it is no
    /// orphan.
    fn add(&mut self, fs: &Filesystem, number: u32) -> Result<Option<u32>, Error> {
        let superblock = fs.superblock();
        let possible = superblock.first_inode..=superblock.inodes_count();
        if !possible.contains(&number) {
            return Ok(None);
        }
        let next = match fs.next_orphan(number) {
            Ok(next) if next <= superblock.inodes_count() => next,
            Ok(_) | Err(Error::Corrupt(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        match fs.inode(number) {
            Ok(inode) if can_truncate(superblock, &inode) => {
                self.0.insert(number, OnceLock::new());
                check_count(self.0.len())?;
                Ok(Some(next))
            }
            // Without links: it is gone.
            Err(Error::InodeNotInUse { .. }) => Ok(Some(next)),
            Ok(_) | Err(Error::Corrupt(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The blocks that are left of `inode`, one of the set, in units of 512 bytes.
    pub(crate) fn blocks_512(&self, fs: &Filesystem, inode: &Inode) -> Result<u64, Error> {
        let all = inode.blocks_512();
        let Some(known) = self.0.get(&inode.number()) else { return Ok(all) };
        if let Some(known) = known.get() {
            return Ok(*known);
        }
        let left = all.saturating_sub(freed_512(fs, inode)?);
        Ok(*known.get_or_init(|| left))
    }
}

fn check_count(count: usize) -> Result<(), Error> {
    if count <= ORPHANS_MAX {
        return Ok(());
    }
    let (value, max) = (u64::try_from(count), u64::try_from(ORPHANS_MAX));
    let (value, max) = (value.unwrap_or(u64::MAX), max.unwrap_or(u64::MAX));
    let field = "count of orphans";
    Err(Structure::Superblock.corrupt(Problem::TooLarge { field, value, max }))
}

/// Whether a kernel that mounts the filesystem sees to its orphans: not if it has noted errors, nor
/// if there are features with which it cannot write.
fn is_cleaned_up(superblock: &Superblock) -> bool {
    let features = superblock.ro_compat_features();
    let known = features.contains(RoCompatFeatures::READONLY) || WRITABLE.contains(features);
    known && !superblock.has_errors()
}

fn can_truncate(superblock: &Superblock, inode: &Inode) -> bool {
    match inode.kind() {
        FileType::Regular | FileType::Directory => true,
        FileType::Symlink => !inode.is_fast_symlink(superblock),
        _ => false,
    }
}

/// First logical block past the end of `inode`.
pub(crate) fn end(superblock: &Superblock, inode: &Inode) -> u64 {
    inode.size().div_ceil(superblock.bytes(1).max(1)).min(LOGICAL_END)
}

/// What truncating `inode` to its size frees, in units of 512 bytes: the clusters that have
/// nothing before the end, and the blocks of the map that nothing is left in.
fn freed_512(fs: &Filesystem, inode: &Inode) -> Result<u64, Error> {
    if inode.flags().contains(InodeFlags::INLINE_DATA) {
        return Ok(0);
    }
    let superblock = fs.superblock();
    let cluster = superblock.block_at(superblock.cluster_size().into()).max(1);
    let end = end(superblock, inode);
    let cluster_of = |block: u64| block.checked_div(cluster).unwrap_or(block);
    // The end's own cluster stays if a block before the end is in it.
    let shared = cluster_of(end).saturating_mul(cluster)..end;
    let is_shared = |first, last| !shared.is_empty() && first < shared.end && last > shared.start;
    let mut clusters = 0u64;
    let mut next = cluster_of(end);
    for extent in Extents::stored(fs, inode, shared.start) {
        let Extent { logical, length, .. } = extent?;
        let first = superblock.block_at(logical);
        let last = first.saturating_add(superblock.block_at(length));
        if is_shared(first, last) {
            next = cluster_of(end).saturating_add(1);
        }
        if last > end {
            let start = cluster_of(first.max(end)).max(next);
            let after = cluster_of(last.saturating_sub(1)).saturating_add(1);
            clusters = clusters.saturating_add(after.saturating_sub(start));
            next = next.max(after);
        }
    }
    let nodes = if inode.flags().contains(InodeFlags::EXTENTS) {
        extent_tree::nodes_past(fs, inode, end)?
    } else {
        indirect::blocks_past(fs, inode, end)?
    };
    let units = u64::from(superblock.cluster_size() >> 9);
    Ok(clusters.saturating_add(nodes).saturating_mul(units))
}

#[cfg(test)]
mod tests {
    use crate::error::Error;
    use crate::filesystem::Filesystem;
    use crate::testing::{BLOCK, Image, extent, node};

    /// Inodes 12 to 14 have four blocks and the size of two; the list is as `next` says, from 12 on.
    fn open(next: [u32; 3], links: u8) -> Filesystem {
        let mut image = Image::with(|raw| raw.last_orphan = 12.into());
        for (number, next) in (12..).zip(next) {
            image.inode(number, |bytes| {
                bytes[4..8].copy_from_slice(&(2 * BLOCK as u32 - 5).to_le_bytes());
                bytes[0x14..0x18].copy_from_slice(&next.to_le_bytes());
                bytes[0x1a] = links;
                bytes[0x1c] = 32;
                let at = 2000 + u64::from(number) * 10;
                let root = node(0, 4, &[extent(0, 4, at)]);
                bytes[0x28..0x28 + root.len()].copy_from_slice(&root);
            });
        }
        image.open()
    }

    /// Blocks that each has, by its map and by its count.
    fn blocks(fs: &Filesystem) -> [(u64, u64); 3] {
        [12, 13, 14].map(|number| {
            let inode = fs.inode(number).unwrap();
            let mapped: u64 =
                fs.extents(&inode).unwrap().map(|extent| extent.unwrap().length).sum();
            (mapped / BLOCK as u64, inode.blocks_512() / 8)
        })
    }

    #[test]
    fn what_is_in_the_list_ends_at_its_size() {
        assert_eq!(blocks(&open([13, 14, 0], 1)), [(2, 2); 3]);
        assert_eq!(blocks(&open([14, 0, 0], 1)), [(2, 2), (4, 4), (2, 2)]);
    }

    #[test]
    fn lists_come_to_an_end() {
        assert_eq!(blocks(&open([13, 12, 0], 1)), [(2, 2), (2, 2), (4, 4)]);
        // The second is not taken with a number behind it that none has.
        assert_eq!(blocks(&open([13, 1 << 30, 0], 1)), [(2, 2), (4, 4), (4, 4)]);
        assert_eq!(blocks(&open([8, 0, 0], 1)), [(2, 2), (4, 4), (4, 4)]);
    }

    #[test]
    fn what_has_no_links_is_gone() {
        let fs = open([13, 14, 0], 0);
        assert!(matches!(fs.inode(13), Err(Error::InodeNotInUse { inode: 13 })));
    }
}
