//! Orphans: inodes that a crash left to be removed or truncated by the next mount.
//!
//! What is to be removed has no links and is not in use for anyone here. What is to be truncated
//! has blocks past its end, which the next mount frees: here they are left out of its map. The count
//! of its blocks is the stored one, until that mount.

use std::collections::HashSet;

use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::features::{CompatFeatures, RoCompatFeatures};
use crate::format::file_type::FileType;
use crate::format::inode::Inode;
use crate::format::superblock::Superblock;
use crate::map::LOGICAL_END;
use crate::recovery::orphan_file;

/// Most inodes in the list that are followed, and most to be truncated that are remembered.
const ORPHANS_MAX: usize = 1 << 20;

/// What a kernel mounts for writing, which it must to see to orphans.
const WRITABLE: RoCompatFeatures =
    RoCompatFeatures::OVERWRITABLE.union(RoCompatFeatures::ORPHAN_PRESENT);

/// The numbers of the inodes that are truncated to their sizes.
#[derive(Debug, Default)]
pub(crate) struct Orphans(HashSet<u32>);

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
        self.0.contains(&number)
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
                self.0.insert(number);
                check_count(self.0.len())?;
                Ok(Some(next))
            }
            // Without links: it is gone.
            Err(Error::InodeNotInUse { .. }) => Ok(Some(next)),
            Ok(_) | Err(Error::Corrupt(_)) => Ok(None),
            Err(error) => Err(error),
        }
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

    /// Blocks that each has, by its map.
    fn blocks(fs: &Filesystem) -> [u64; 3] {
        [12, 13, 14].map(|number| {
            let inode = fs.inode(number).unwrap();
            let mapped: u64 =
                fs.extents(&inode).unwrap().map(|extent| extent.unwrap().length).sum();
            assert_eq!(inode.blocks_512(), 32, "as stored");
            mapped / BLOCK as u64
        })
    }

    #[test]
    fn what_is_in_the_list_ends_at_its_size() {
        assert_eq!(blocks(&open([13, 14, 0], 1)), [2; 3]);
        assert_eq!(blocks(&open([14, 0, 0], 1)), [2, 4, 2]);
    }

    #[test]
    fn lists_come_to_an_end() {
        assert_eq!(blocks(&open([13, 12, 0], 1)), [2, 2, 4]);
        // The second is not taken with a number behind it that none has.
        assert_eq!(blocks(&open([13, 1 << 30, 0], 1)), [2, 4, 4]);
        assert_eq!(blocks(&open([8, 0, 0], 1)), [2, 4, 4]);
    }

    #[test]
    fn what_has_no_links_is_gone() {
        let fs = open([13, 14, 0], 0);
        assert!(matches!(fs.inode(13), Err(Error::InodeNotInUse { inode: 13 })));
    }
}
