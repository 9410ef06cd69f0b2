//! Orphans: inodes that the next mount removes or truncates after a crash.
//!
//! An inode to be removed has no links, and is treated as free. An inode to be truncated has blocks
//! past its end, which the next mount frees; they are excluded from its map. Its block count is the
//! stored one, until that mount.

use std::collections::HashSet;

use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::features::{CompatFeatures, RoCompatFeatures};
use crate::format::file_type::FileType;
use crate::format::inode::Inode;
use crate::format::superblock::Superblock;
use crate::number::{InodeNumber, as_u64};
use crate::recovery::orphan_file;

/// Maximum number of list entries to follow, and of inodes to be truncated.
const ORPHANS_MAX: usize = 1 << 20;

/// The features of filesystems that the kernel mounts writable, which it must to process orphans.
const WRITABLE: RoCompatFeatures =
    RoCompatFeatures::OVERWRITABLE.union(RoCompatFeatures::ORPHAN_PRESENT);

#[derive(Default)]
struct Orphans(HashSet<InodeNumber>);

/// Reads the list of orphans and the orphan file, if the kernel would process them. Returns the
/// numbers of the inodes that the next mount truncates to their sizes.
///
/// # Errors
/// Damage to the orphan file, with which the kernel refuses to mount; more orphans than the
/// maximum; a failure of the source. Damage to the list ends the list, as in the kernel.
pub(crate) fn read(fs: &Filesystem) -> Result<HashSet<InodeNumber>, Error> {
    let mut orphans = Orphans::default();
    let superblock = fs.superblock();
    let has_file = superblock.compat.contains(CompatFeatures::ORPHAN_FILE)
        && superblock.ro_compat.contains(RoCompatFeatures::ORPHAN_PRESENT);
    if !is_cleaned_up(superblock) {
        return Ok(orphans.0);
    }
    orphans.read_list(fs)?;
    if has_file {
        orphan_file::read(fs, |number, _| orphans.add(fs, number).map(drop))?;
    }
    Ok(orphans.0)
}

impl Orphans {
    /// Follows the list, which is linked through the deletion times of the inodes.
    fn read_list(&mut self, fs: &Filesystem) -> Result<(), Error> {
        let mut seen = HashSet::new();
        let mut number = fs.superblock().last_orphan;
        while number != 0 {
            if !seen.insert(number) {
                fs.add_damage(broken(number));
                break;
            }
            check_count(seen.len())?;
            match self.add(fs, number)? {
                Some(next) => number = next,
                None => {
                    fs.add_damage(broken(number));
                    break;
                }
            }
        }
        Ok(())
    }

    /// Adds an inode, if it is to be truncated, and returns the next one of the list. Returns
    /// `None` if the inode cannot be an orphan.
    fn add(&mut self, fs: &Filesystem, number: InodeNumber) -> Result<Option<InodeNumber>, Error> {
        let superblock = fs.superblock();
        if !superblock.inodes().contains(&number) {
            return Ok(None);
        }
        let next = match fs.next_orphan(number) {
            Ok(next) if next <= *superblock.inodes().end() => next,
            Ok(_) | Err(Error::Corrupt(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        match fs.inode(number) {
            Ok(inode) if can_truncate(superblock, &inode) => {
                self.0.insert(number);
                check_count(self.0.len())?;
                Ok(Some(next))
            }
            // The inode has no links, so it is removed.
            Err(Error::InodeNotInUse { .. }) => Ok(Some(next)),
            Ok(_) | Err(Error::Corrupt(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Returns the damage of a list that is wrong at inode `number`.
fn broken(inode: InodeNumber) -> Error {
    Structure::Superblock.corrupt(Problem::OrphanList { inode })
}

fn check_count(count: usize) -> Result<(), Error> {
    Problem::verify_max("count of orphans", as_u64(count), as_u64(ORPHANS_MAX))
        .map_err(|problem| Structure::Superblock.corrupt(problem))
}

/// Returns true if the kernel processes orphans when it mounts the filesystem. It does not if it
/// recorded errors, or if there are features that prevent writes.
fn is_cleaned_up(superblock: &Superblock) -> bool {
    let features = superblock.ro_compat;
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

#[cfg(test)]
mod tests {
    use crate::error::Error;
    use crate::filesystem::Filesystem;
    use crate::testing::{BLOCK, Image, extent, node};

    /// Builds inodes 12 to 14 with four blocks each and a size of two. `next` links the list, which
    /// starts at 12.
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

    /// Returns the number of mapped blocks of each inode.
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
    fn orphan_with_a_name_ends_at_its_size() {
        assert_eq!(blocks(&open([13, 14, 0], 1)), [2; 3]);
        assert_eq!(blocks(&open([14, 0, 0], 1)), [2, 4, 2]);
    }

    #[test]
    fn lists_come_to_an_end() {
        assert_eq!(blocks(&open([13, 12, 0], 1)), [2, 2, 4]);
        // The second inode is rejected, because the number after it is out of range.
        assert_eq!(blocks(&open([13, 1 << 30, 0], 1)), [2, 4, 4]);
        assert_eq!(blocks(&open([8, 0, 0], 1)), [2, 4, 4]);
    }

    #[test]
    fn orphan_without_links_is_gone() {
        let fs = open([13, 14, 0], 0);
        assert!(matches!(fs.inode(13), Err(Error::InodeNotInUse { inode }) if inode == 13));
    }
}
