//! The list of orphans: inodes whose truncation is not complete.
//!
//! The superblock has the first inode, and each inode the next one in its field of the time of
//! deletion. If the power fails, the next open frees the blocks after their ends, as the kernel does.

use std::collections::HashSet;

use zerocopy::FromBytes;

use crate::change::JournaledFilesystem;
use crate::error::Error;
use crate::error::reasons::NotWritable;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::features::{CompatFeatures, RoCompatFeatures};
use crate::format::inode_flags::InodeFlags;
use crate::format::raw_superblock::{RawSuperblock, SUPERBLOCK_OFFSET};
use crate::format::superblock;
use crate::journal::handle::{Handle, Stop};
use crate::number::{InodeNumber, as_usize};
use crate::recovery::orphan_file;

/// Maximum number of inodes in the list that are followed.
const ORPHANS_MAX: usize = 1 << 20;

/// Adds an inode to the list.
pub(super) fn add(handle: &mut Handle<'_>, inode: InodeNumber) -> Result<(), Stop> {
    let first = replace_first(handle, inode)?;
    handle.set_next_orphan(inode, first)
}

/// Removes an inode from the list.
pub(super) fn remove(handle: &mut Handle<'_>, inode: InodeNumber) -> Result<(), Stop> {
    let next = handle.next_orphan(inode)?;
    let mut at = first(handle)?;
    if at == inode {
        replace_first(handle, next)?;
        return handle.set_next_orphan(inode, InodeNumber::from(0));
    }
    for _ in 0..ORPHANS_MAX {
        if at == 0 {
            break;
        }
        let after = handle.next_orphan(at)?;
        if after == inode {
            handle.set_next_orphan(at, next)?;
            return handle.set_next_orphan(inode, InodeNumber::from(0));
        }
        at = after;
    }
    Err(Structure::Superblock.corrupt(Problem::OrphanList { inode }).into())
}

/// Returns the first inode of the list; 0 if it is empty.
fn first(handle: &Handle<'_>) -> Result<InodeNumber, Stop> {
    let (number, offset) = place(handle);
    let block = handle.block(number)?;
    let raw = block.get(offset..).and_then(|bytes| RawSuperblock::ref_from_prefix(bytes).ok());
    let missing = || Structure::Superblock.corrupt(Problem::Missing { logical: number.into() });
    Ok(raw.ok_or_else(missing)?.0.last_orphan.into())
}

/// Replaces the first inode of the list, and returns the one before.
fn replace_first(handle: &mut Handle<'_>, inode: InodeNumber) -> Result<InodeNumber, Stop> {
    let (number, offset) = place(handle);
    let block = handle.block_mut(number)?;
    let raw = block.get_mut(offset..).and_then(|bytes| RawSuperblock::mut_from_prefix(bytes).ok());
    let missing = || Structure::Superblock.corrupt(Problem::Missing { logical: number.into() });
    let (raw, _) = raw.ok_or_else(missing)?;
    let before = raw.last_orphan.into();
    raw.last_orphan = inode.get().into();
    superblock::seal(raw);
    Ok(before)
}

/// Returns the block of the superblock, and its byte offset there.
fn place(handle: &Handle<'_>) -> (crate::number::PhysicalBlock, usize) {
    let superblock = handle.superblock();
    let number = superblock.superblock_block();
    (number, as_usize(SUPERBLOCK_OFFSET.saturating_sub(superblock.address(number))))
}

/// Rejects a filesystem with orphans that cannot be processed: inodes without a name, and those in
/// the orphan file. Returns the inodes to be truncated.
pub(super) fn listed(fs: &Filesystem) -> Result<Vec<InodeNumber>, Error> {
    let superblock = fs.superblock();
    let refused = || Error::NotWritable(NotWritable::HasOrphans);
    let has_file = superblock.compat.contains(CompatFeatures::ORPHAN_FILE)
        && superblock.ro_compat.contains(RoCompatFeatures::ORPHAN_PRESENT);
    if has_file {
        orphan_file::read(fs, |_| Err(refused()))?;
    }
    let (mut seen, mut list) = (HashSet::new(), Vec::new());
    let mut number = superblock.last_orphan;
    while number != 0 {
        let is_damaged = list.len() >= ORPHANS_MAX || !seen.insert(number);
        if is_damaged || !superblock.inodes().contains(&number) {
            return Err(Structure::Superblock.corrupt(Problem::OrphanList { inode: number }));
        }
        let inode = fs.inode(number).map_err(|error| match error {
            Error::InodeNotInUse { .. } => refused(),
            error => error,
        })?;
        let wrong = InodeFlags::IMMUTABLE.union(InodeFlags::APPEND).union(InodeFlags::VERITY);
        let has_extents = inode.flags().contains(InodeFlags::EXTENTS);
        if !inode.is_file() || !has_extents || inode.flags().intersects(wrong) {
            return Err(refused());
        }
        list.push(number);
        number = fs.next_orphan(number)?;
    }
    Ok(list)
}

impl JournaledFilesystem {
    /// Completes the truncations of the inodes in the list.
    pub(super) fn process_orphans(&self, list: &[InodeNumber]) -> Result<(), Error> {
        for &number in list {
            let size = self.inode(number)?.size();
            self.zero_tail(number, u64::MAX)?;
            self.free_after(number, size, true)?;
        }
        match list.len() {
            0 => Ok(()),
            count => {
                log::info!("{count} truncation(s) were completed");
                self.sync()
            }
        }
    }
}
