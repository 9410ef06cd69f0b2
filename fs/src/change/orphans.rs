//! The lists of orphans: inodes whose truncation is not complete, and inodes that lost their last name
//! while they were open.
//!
//! The superblock has the first inode of a list, and each inode the next one in its field of the time of
//! deletion. The kernel may list them in the orphan file instead.

use crate::change::features;
use crate::format::corrupt::{Problem, Structure};
use crate::journal::handle::{Handle, Stop};
use crate::number::InodeNumber;
use crate::recovery::orphan_file;
use crate::recovery::orphan_file::Place;

/// Maximum number of inodes in the list that are followed.
pub(super) const ORPHANS_MAX: usize = 1 << 20;

/// Adds an inode to the list, unless it is there.
pub(super) fn add(handle: &mut Handle<'_>, inode: InodeNumber) -> Result<(), Stop> {
    if handle.is_orphan(inode) {
        return Ok(());
    }
    handle.changes.orphans.push(inode);
    let first = replace_first(handle, inode)?;
    handle.changes.is_fast = false;
    handle.set_next_orphan(inode, first)
}

/// Removes an inode from the list.
fn remove(handle: &mut Handle<'_>, inode: InodeNumber) -> Result<(), Stop> {
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
    Ok(features::read(handle)?.last_orphan.into())
}

/// Replaces the first inode of the list, and returns the one before.
fn replace_first(handle: &mut Handle<'_>, inode: InodeNumber) -> Result<InodeNumber, Stop> {
    let before = first(handle)?;
    features::edit(handle, |raw| raw.last_orphan = inode.get().into())?;
    Ok(before)
}

/// The place where an orphan is listed.
#[derive(Clone, Copy)]
pub(super) enum Entry {
    /// The list that begins in the superblock.
    List,
    /// The orphan file, whose inode has the seed of its checksums.
    File { place: Place, seed: u32 },
}

impl Entry {
    /// Removes the entry of an inode.
    pub(super) fn remove(self, handle: &mut Handle<'_>, inode: InodeNumber) -> Result<(), Stop> {
        handle.changes.is_fast = false;
        handle.changes.completed.push(inode);
        match self {
            Self::List => remove(handle, inode),
            Self::File { place, seed } => {
                let superblock = handle.superblock();
                orphan_file::clear(superblock, seed, place, handle.block_mut(place.0)?);
                Ok(())
            }
        }
    }
}
