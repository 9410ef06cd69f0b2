//! The allocation of inodes: the inode bitmap of a group, and the counts and checksums that go with it.

use std::ops::Range;

use crate::alloc::bitmap;
use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::format::group::{self, GroupDescriptor};
use crate::format::inode::Inode;
use crate::format::superblock::Superblock;
use crate::journal::handle::{Handle, Stop};
use crate::number::{InodeNumber, PhysicalBlock, as_usize};

/// `bg_flags`: the inode bitmap was never written, because no inode of the group is in use.
const INODE_UNINIT: u16 = 0x1;

/// `bg_flags`: the inode table was zeroed.
const INODE_ZEROED: u16 = 0x4;

/// Number of groups among which the one for a directory under the root is chosen.
const GROUPS_FOR_DIRECTORY: u32 = 128;

/// The kind of inode that is allocated, for the choice of its group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Anything but a directory: near its directory.
    File,
    /// A directory: near its parent, if there is enough room for what it will contain.
    Directory,
    /// A directory at the top of a hierarchy: where few directories are.
    TopDirectory,
}

/// An inode that was allocated.
#[derive(Clone, Copy)]
pub(crate) struct Allocated {
    pub number: InodeNumber,
    /// The device has the block of the inode table with it as a handle reads it, but for changes of the
    /// running transaction.
    pub is_initialised: bool,
}

/// Allocates an inode near the inode of its directory. The block of the inode table that has it is zeroed, if
/// no other inode there is in use, because it may never have been written.
///
/// # Errors
/// [`Error::NoInodes`] if none is free.
pub(crate) fn allocate(
    handle: &mut Handle<'_>,
    directory: InodeNumber,
    wanted: Wanted,
) -> Result<Allocated, Stop> {
    let superblock = handle.superblock();
    let groups = superblock.groups_count().max(1);
    let near = place(superblock, directory).0.min(groups.saturating_sub(1));
    let near = if wanted == Wanted::TopDirectory { spread(handle, near)? } else { near };
    // Groups without free blocks, and crowded ones for directories, come last.
    for has_room in [true, false] {
        for step in 0..groups {
            let number = u64::from(near).saturating_add(step.into());
            let number = number.checked_rem(groups.into()).unwrap_or(0);
            let number = u32::try_from(number).unwrap_or(0);
            let found = try_group(handle, number, wanted, has_room);
            match found {
                Ok(Some(inode)) => return Ok(inode),
                Ok(None) => (),
                // A damaged group is left as it is.
                Err(Stop::Fail(Error::Corrupt(damage))) => {
                    log::warn!("{damage}: no inodes are allocated there");
                }
                Err(stop) => return Err(stop),
            }
        }
    }
    Err(Error::NoInodes.into())
}

/// Allocates an inode in a group, if there is one, and with `has_room` only if the group also has room
/// for its data.
fn try_group(
    handle: &mut Handle<'_>,
    number: u32,
    wanted: Wanted,
    has_room: bool,
) -> Result<Option<Allocated>, Stop> {
    let superblock = handle.superblock();
    let descriptor = handle.group(number)?;
    let (inodes, blocks) = match wanted {
        Wanted::File => (0, 0),
        _ => (superblock.inodes_per_group >> 3, superblock.blocks_per_group >> 4),
    };
    let is_crowded = descriptor.free_inodes <= inodes || descriptor.free_clusters <= blocks;
    if descriptor.free_inodes == 0 || has_room && is_crowded {
        return Ok(None);
    }
    let group = Group::load(handle, number)?;
    match group.first_free(handle) {
        Some(bit) => group.take(handle, bit, wanted != Wanted::File).map(Some),
        None => Ok(None),
    }
}

/// Returns the group with the fewest directories, among some that are spread over the device and have at
/// least half as many free blocks as the emptiest one.
fn spread(handle: &Handle<'_>, near: u32) -> Result<u32, Stop> {
    let groups = handle.superblock().groups_count().max(1);
    let step = as_usize(groups.div_ceil(GROUPS_FOR_DIRECTORY).max(1));
    let mut candidates = Vec::new();
    for number in (0..groups).step_by(step) {
        match handle.group(number) {
            Ok(descriptor) => candidates.push((number, descriptor)),
            Err(Stop::Fail(error)) => log::warn!("{error}: no inodes are allocated there"),
            Err(stop) => return Err(stop),
        }
    }
    let most = candidates.iter().map(|(_, group)| group.free_clusters).max().unwrap_or(0);
    let with_room = candidates.iter().filter(|(_, group)| group.free_clusters >= most >> 1);
    let best = with_room.min_by_key(|(_, group)| (group.free_inodes == 0, group.used_dirs));
    Ok(best.map_or(near, |&(number, _)| number))
}

/// Marks an inode as used that a file has got already.
///
/// # Errors
/// Damage to the bitmap, or if the inode is in use.
pub(crate) fn take(handle: &mut Handle<'_>, inode: InodeNumber, is_dir: bool) -> Result<(), Stop> {
    let (number, bit) = place(handle.superblock(), inode);
    let group = Group::load(handle, number)?;
    let is_free = !bitmap::is_set(&group.bits, bit);
    let rule = "must be free according to the bitmap";
    Structure::InodeBitmap(number).ensure(is_free, "inode", inode.get(), rule)?;
    group.zero_table_before(handle, bit)?;
    group.take(handle, bit, is_dir).map(drop)
}

/// Marks an inode as free. Its other blocks were freed before.
///
/// # Errors
/// Damage to the bitmap, or if the inode is free already.
pub(crate) fn free(handle: &mut Handle<'_>, inode: &Inode) -> Result<(), Stop> {
    let (number, bit) = place(handle.superblock(), inode.number());
    let group = Group::load(handle, number)?;
    group.give_back(handle, bit, inode)
}

/// Returns the group of an inode, and its index there.
fn place(superblock: &Superblock, inode: InodeNumber) -> (u32, u32) {
    let index = inode.get().saturating_sub(1);
    let per_group = superblock.inodes_per_group;
    (index.checked_div(per_group).unwrap_or(0), index.checked_rem(per_group).unwrap_or(0))
}

/// A group whose inode bitmap agrees with its descriptor.
struct Group {
    number: u32,
    descriptor: GroupDescriptor,
    bits: Vec<u8>,
}

impl Group {
    /// Reads the inode bitmap of a group, or builds it if it was never written.
    fn load(handle: &Handle<'_>, number: u32) -> Result<Self, Stop> {
        let superblock = handle.superblock();
        let descriptor = handle.group(number)?;
        let place = superblock.data_blocks(descriptor.bitmaps[1], 1u32);
        let place = place.map_err(|problem| Structure::GroupDescriptor(number).corrupt(problem))?;
        let per_group = superblock.inodes_per_group;
        let bits = if group::counts_unused(superblock) && descriptor.flags & INODE_UNINIT != 0 {
            let mut bits = vec![0; as_usize(superblock.block_size())];
            bitmap::fill(&mut bits, per_group..u32::MAX, true);
            bits
        } else {
            let bits = handle.block(place.start())?.to_vec();
            bitmap::verify(superblock, &bits, per_group, descriptor.bitmap_checksums[1])
                .map_err(|problem| Structure::InodeBitmap(number).corrupt(problem))?;
            bits
        };
        let (stored, computed) = (descriptor.free_inodes, bitmap::count_free(&bits, per_group));
        let rule = "must be that of the clear bits in the bitmap";
        let structure = Structure::GroupDescriptor(number);
        structure.ensure(stored == computed, "count of free inodes", stored, rule)?;
        Ok(Self { number, descriptor, bits })
    }

    /// Returns the number of the inode at an index.
    fn inode(&self, superblock: &Superblock, bit: u32) -> InodeNumber {
        let before = self.number.saturating_mul(superblock.inodes_per_group);
        InodeNumber::from(before.saturating_add(bit).saturating_add(1))
    }

    /// Returns the index of the first free inode that may be used.
    fn first_free(&self, handle: &Handle<'_>) -> Option<u32> {
        let superblock = handle.superblock();
        let free = bitmap::runs(&self.bits, 0..superblock.inodes_per_group).flatten();
        let mut free = free.map(|bit| (bit, self.inode(superblock, bit)));
        let inodes = superblock.inodes();
        let found = free.find(|(_, inode)| inodes.contains(inode) && !handle.is_freed(*inode));
        found.map(|(bit, _)| bit)
    }

    /// Marks a free inode as used.
    fn take(mut self, handle: &mut Handle<'_>, bit: u32, is_dir: bool) -> Result<Allocated, Stop> {
        let superblock = handle.superblock();
        let number = self.inode(superblock, bit);
        let is_zeroed = self.zero_table_block(handle, bit)?;
        let is_initialised = self.is_initialised(superblock, bit, is_zeroed)?;
        bitmap::fill(&mut self.bits, bit..bit.saturating_add(1), true);
        let descriptor = &mut self.descriptor;
        descriptor.free_inodes = descriptor.free_inodes.saturating_sub(1);
        descriptor.used_dirs = descriptor.used_dirs.saturating_add(is_dir.into());
        let after = superblock.inodes_per_group.saturating_sub(bit.saturating_add(1));
        descriptor.unused_inodes = descriptor.unused_inodes.min(after);
        self.store(handle)?;
        Ok(Allocated { number, is_initialised })
    }

    /// Returns true if the device has the block of the inode table with the inode at an index as it is read
    /// now; with `is_zeroed` it was zeroed without a look at it.
    fn is_initialised(
        &self,
        superblock: &Superblock,
        bit: u32,
        is_zeroed: bool,
    ) -> Result<bool, Stop> {
        let counts_unused = group::counts_unused(superblock);
        let flags = if counts_unused { self.descriptor.flags } else { 0 };
        let used = superblock.inodes_per_group.saturating_sub(self.descriptor.unused_inodes);
        let (_, inodes) = self.table_block(superblock, bit)?;
        // Inodes that were in use once may have anything in them.
        let was_zero = counts_unused && flags & INODE_ZEROED != 0 && inodes.start >= used;
        Ok(flags & INODE_UNINIT == 0 && (!is_zeroed || was_zero))
    }

    fn give_back(mut self, handle: &mut Handle<'_>, bit: u32, inode: &Inode) -> Result<(), Stop> {
        let (structure, number) = (Structure::InodeBitmap(self.number), inode.number().get());
        let rule = "must be in use according to the bitmap";
        structure.ensure(bitmap::is_set(&self.bits, bit), "inode", number, rule)?;
        bitmap::fill(&mut self.bits, bit..bit.saturating_add(1), false);
        let descriptor = &mut self.descriptor;
        descriptor.free_inodes = descriptor.free_inodes.saturating_add(1);
        descriptor.used_dirs = descriptor.used_dirs.saturating_sub(inode.is_dir().into());
        handle.changes.freed_inodes.push(inode.number());
        self.store(handle)
    }

    /// Zeroes the blocks of the inode table that were never used before the one with the inode at an index,
    /// because they count as used with it.
    fn zero_table_before(&self, handle: &mut Handle<'_>, bit: u32) -> Result<(), Stop> {
        let superblock = handle.superblock();
        if !group::counts_unused(superblock) {
            return Ok(());
        }
        let used = superblock.inodes_per_group.saturating_sub(self.descriptor.unused_inodes);
        let (last, _) = self.table_block(superblock, bit)?;
        let mut at = used;
        while at < bit {
            let (block, inodes) = self.table_block(superblock, at)?;
            if block == last {
                break;
            }
            self.zero_table_block(handle, at)?;
            at = inodes.end.max(at.saturating_add(1));
        }
        Ok(())
    }

    /// Zeroes the block of the inode table with the inode at an index, if all its inodes are free, and returns
    /// true then. It is not read, and it may have other contents if the table was never initialised.
    ///
    /// An allocation takes the first free inode, so all blocks of the table before it are in use already.
    fn zero_table_block(&self, handle: &mut Handle<'_>, bit: u32) -> Result<bool, Stop> {
        let superblock = handle.superblock();
        let (block, inodes) = self.table_block(superblock, bit)?;
        let count = inodes.end.saturating_sub(inodes.start);
        let free = bitmap::runs(&self.bits, inodes).next();
        let is_free = free.is_some_and(|free| free.end.saturating_sub(free.start) == count);
        if is_free {
            handle.set_block(block, vec![0; as_usize(superblock.block_size())]);
        }
        Ok(is_free)
    }

    /// Returns the block of the inode table with the inode at an index, and the indices of all its inodes.
    fn table_block(
        &self,
        superblock: &Superblock,
        bit: u32,
    ) -> Result<(PhysicalBlock, Range<u32>), Stop> {
        let size = u32::from(superblock.inode_size()).max(1);
        let per_block = superblock.block_size().checked_div(size).unwrap_or(1).max(1);
        let index = bit.checked_div(per_block).unwrap_or(0);
        let first = index.saturating_mul(per_block);
        let last = first.saturating_add(per_block).min(superblock.inodes_per_group);
        let missing = Problem::Missing { logical: index.into() };
        let block = self.descriptor.inode_table.get(index.into());
        let block = block.ok_or(Structure::GroupDescriptor(self.number).corrupt(missing))?;
        Ok((block, first..last))
    }

    fn store(mut self, handle: &mut Handle<'_>) -> Result<(), Stop> {
        let superblock = handle.superblock();
        if superblock.has_metadata_csum() {
            self.descriptor.bitmap_checksums[1] =
                bitmap::checksum(superblock, &self.bits, superblock.inodes_per_group);
        }
        if group::counts_unused(superblock) {
            self.descriptor.flags &= !INODE_UNINIT;
        }
        handle.set_block(self.descriptor.bitmaps[1], self.bits);
        handle.set_group(self.number, self.descriptor)
    }
}
