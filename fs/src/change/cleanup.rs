//! Orphans that a crash left: the open frees the blocks after the ends of inodes with links, and the
//! whole inodes without, as the kernel does.

use std::collections::HashSet;

use crate::alloc;
use crate::change::JournaledFilesystem;
use crate::change::extents::Tree;
use crate::change::names::check_map;
use crate::change::orphans::{Entry, ORPHANS_MAX};
use crate::change::space::{EXTENTS_MAX, free};
use crate::change::time::now;
use crate::change::xattr_store;
use crate::error::Error;
use crate::error::reasons::NotWritable;
use crate::file::system_zone::SystemZone;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::features::{CompatFeatures, RoCompatFeatures};
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::journal::handle::{Handle, Stop};
use crate::number::{InodeNumber, LogicalBlock};
use crate::recovery::orphan_file;

/// Maximum number of blocks of a directory that one change frees, because the transaction has a revoke of
/// each.
const REVOKES_MAX: u64 = 1024;

/// An inode to be truncated or, without links, to be freed.
pub(super) struct Orphan {
    number: InodeNumber,
    entry: Entry,
    has_links: bool,
}

impl Orphan {
    /// Returns the number of the inode.
    pub(super) fn number(&self) -> InodeNumber {
        self.number
    }
}

/// Returns the orphans. Nothing is changed if one of them cannot be processed.
pub(super) fn listed(fs: &Filesystem) -> Result<Vec<Orphan>, Error> {
    let superblock = fs.superblock();
    let has_file = superblock.compat.contains(CompatFeatures::ORPHAN_FILE)
        && superblock.ro_compat.contains(RoCompatFeatures::ORPHAN_PRESENT);
    let mut orphans = Vec::new();
    if has_file {
        let seed = fs.inode(superblock.orphan_file_inode)?.checksum_seed;
        orphan_file::read(fs, |number, place| {
            orphans.push(orphan(fs, number, Entry::File { place, seed })?);
            Ok(())
        })?;
    }
    let mut seen = HashSet::new();
    let mut number = superblock.last_orphan;
    while number != 0 {
        let is_damaged = orphans.len() >= ORPHANS_MAX || !seen.insert(number);
        if is_damaged {
            return Err(Structure::Superblock.corrupt(Problem::OrphanList { inode: number }));
        }
        orphans.push(orphan(fs, number, Entry::List)?);
        number = fs.next_orphan(number)?;
    }
    Ok(orphans)
}

/// Returns an orphan, if it can be processed.
fn orphan(fs: &Filesystem, number: InodeNumber, entry: Entry) -> Result<Orphan, Error> {
    let superblock = fs.superblock();
    let damage = || Structure::Superblock.corrupt(Problem::OrphanList { inode: number });
    if !superblock.inodes().contains(&number) {
        return Err(damage());
    }
    let inode = Inode::parse_orphan(superblock, number, &fs.inode_bytes(number)?);
    let inode = inode.map_err(|error| match error {
        Error::InodeNotInUse { .. } => damage(),
        error => error,
    })?;
    let has_links = inode.links() > 0;
    let wrong = InodeFlags::IMMUTABLE.union(InodeFlags::APPEND).union(InodeFlags::VERITY);
    let flags = inode.flags();
    let can_truncate = inode.is_file() && !flags.intersects(wrong);
    match check_map(superblock, &inode).is_ok() && (can_truncate || !has_links) {
        true => Ok(Orphan { number, entry, has_links }),
        false => Err(Error::NotWritable(NotWritable::HasOrphans)),
    }
}

impl JournaledFilesystem {
    /// Completes the truncations of inodes, and frees those without links.
    pub(super) fn process_orphans(&self, orphans: &[Orphan]) -> Result<(), Error> {
        for &Orphan { number, entry, has_links } in orphans {
            if has_links {
                let size = self.inode(number)?.size();
                self.zero_tail(number, u64::MAX)?;
                self.free_after(number, size, Some(entry))?;
            } else {
                self.free_inode(number, entry, |_| true)?;
            }
        }
        match orphans.len() {
            0 => Ok(()),
            count => {
                log::info!("{count} orphan(s) were truncated or freed");
                self.sync()
            }
        }
    }

    /// Frees the inodes without names whose last handle was closed.
    pub(super) fn free_closed(&self) -> Result<(), Error> {
        let closed = self.open_inodes().take_closed();
        closed.into_iter().try_for_each(|inode| self.free_unlinked(inode))
    }

    /// Frees an inode that has lost its last name in a change, if there is one, and those that were closed
    /// since. Errors are left to the next open of the filesystem.
    pub(super) fn free_unnamed(&self, inode: Option<InodeNumber>) {
        let inode = inode.map_or(Ok(()), |inode| self.free_unlinked(inode));
        if let Err(error) = inode.and_then(|()| self.free_closed()) {
            log::warn!("an inode without a name is freed at the next open: {error}");
        }
    }

    /// Frees an inode that has lost its last name, now or when its last handle is closed.
    fn free_unlinked(&self, number: InodeNumber) -> Result<(), Error> {
        let is_open = || self.open_inodes().set_unlinked(number);
        if is_open() {
            return Ok(());
        }
        // A thread may open the inode again, or free it, until this one has the journal.
        let _lock = self.lock(number);
        self.free_inode(number, Entry::List, |handle| handle.is_orphan(number) && !is_open())
    }

    /// Frees an inode without links, and its blocks, in as many steps as are needed, as long as it
    /// `is_wanted`.
    fn free_inode(
        &self,
        number: InodeNumber,
        entry: Entry,
        is_wanted: impl Fn(&Handle<'_>) -> bool,
    ) -> Result<(), Error> {
        let time = now();
        loop {
            let is_done = self.journal().change(self, |handle| {
                if !is_wanted(handle) {
                    return Ok(true);
                }
                let mut inode = handle.orphan(number)?;
                if inode.links() > 0 {
                    return Ok(true);
                }
                let is_done = free_blocks(handle, self.zone(), &mut inode)?;
                if is_done {
                    xattr_store::release(handle, self.zone(), &inode)?;
                    alloc::inodes::free(handle, &inode)?;
                    entry.remove(handle, number)?;
                    inode.clear();
                    handle.set_inode(inode)?;
                    // The field links the list no longer: it has the time of the deletion.
                    let seconds = u32::try_from(time.seconds).unwrap_or(u32::MAX);
                    handle.set_next_orphan(number, seconds.into())?;
                } else {
                    handle.set_inode(inode)?;
                }
                Ok(is_done)
            })?;
            if is_done {
                return Ok(());
            }
        }
    }
}

/// Frees blocks of an inode from its end. Returns true if none is left.
fn free_blocks(
    handle: &mut Handle<'_>,
    zone: &SystemZone,
    inode: &mut Inode,
) -> Result<bool, Stop> {
    if !inode.flags().contains(InodeFlags::EXTENTS) {
        return Ok(true);
    }
    let mut tree = Tree { handle, zone, inode, is_changed: false };
    let mut start = tree.last_extents(EXTENTS_MAX)?;
    if !tree.inode.is_file() {
        start = start.max(tree.end()?.saturating_sub(REVOKES_MAX));
    }
    free(&mut tree, start..LogicalBlock::END_NUMBER)?;
    Ok(tree.end()? == 0)
}
