//! The allocation of blocks: which are free, and which of them a file gets.

pub(crate) mod bitmap;
mod group;
pub(crate) mod inode_bitmap;

use std::ops::Range;

use crate::alloc::group::Group;
use crate::error::Error;
use crate::file::system_zone::SystemZone;
use crate::journal::handle::{Handle, Stop};
use crate::number::{BlockRun, PhysicalBlock};

/// Number of groups that are searched for a run of the wanted length. If none has one, the longest
/// run that was found is taken.
const GROUPS_FOR_LENGTH: u32 = 32;

/// Allocates at most `want` contiguous blocks, as near to `goal` as there are so many, and marks them
/// as used. A free block at `goal` is always taken, because it extends the blocks before it.
///
/// # Errors
/// [`Error::NoSpace`] if no block is free.
pub(crate) fn allocate(
    handle: &mut Handle<'_>,
    zone: &SystemZone,
    goal: PhysicalBlock,
    want: u32,
) -> Result<BlockRun, Stop> {
    let available = u32::try_from(handle.available()).unwrap_or(u32::MAX);
    if available == 0 {
        return Err(Error::NoSpace.into());
    }
    let want = want.clamp(1, available);
    let groups = handle.superblock().groups_count().max(1);
    let first = group_of(handle, goal).min(groups.saturating_sub(1));
    let mut best: Option<BlockRun> = None;
    for step in 0..groups {
        if step >= GROUPS_FOR_LENGTH && best.is_some() {
            break;
        }
        let number = u64::from(first).saturating_add(step.into());
        let number = number.checked_rem(groups.into()).unwrap_or(0);
        let number = u32::try_from(number).unwrap_or(0);
        let found = match search(handle, zone, number, goal, want.max(1)) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            // A damaged group is left as it is.
            Err(Stop::Fail(Error::Corrupt(damage))) => {
                log::warn!("{damage}: no blocks are allocated there");
                continue;
            }
            Err(stop) => return Err(stop),
        };
        if found.start() == goal || found.count() >= want.into() {
            best = Some(found);
            break;
        }
        if best.is_none_or(|best| found.count() > best.count()) {
            best = Some(found);
        }
    }
    let run = best.ok_or(Error::NoSpace)?;
    mark(handle, zone, run, true)?;
    handle.changes.allocated = handle.changes.allocated.saturating_add(run.count());
    Ok(run)
}

/// Marks free blocks as used that a file has got already.
pub(crate) fn take(handle: &mut Handle<'_>, zone: &SystemZone, run: BlockRun) -> Result<(), Stop> {
    mark(handle, zone, run, true)
}

/// Frees blocks. They can be allocated again when the transaction is durable.
pub(crate) fn free(handle: &mut Handle<'_>, zone: &SystemZone, run: BlockRun) -> Result<(), Stop> {
    mark(handle, zone, run, false)?;
    handle.changes.freed.push(run);
    Ok(())
}

/// Marks a run, which may reach into several groups.
fn mark(handle: &mut Handle<'_>, zone: &SystemZone, run: BlockRun, used: bool) -> Result<(), Stop> {
    let mut rest = run;
    while rest.count() > 0 {
        let group = Group::load(handle, zone, group_of(handle, rest.start()))?;
        let count = group.blocks.end().min(rest.end()).get().saturating_sub(rest.start().get());
        // At least one, so that the loop ends even if the block is in no group.
        let count = count.max(1);
        group.mark(handle, zone, rest.part(0, count), used)?;
        rest = rest.part(count, u64::MAX);
    }
    Ok(())
}

/// Returns the group of a block.
fn group_of(handle: &Handle<'_>, block: PhysicalBlock) -> u32 {
    let superblock = handle.superblock();
    let index = block.get().saturating_sub(superblock.first_data_block.into());
    let group = index.checked_div(superblock.blocks_per_group.into()).unwrap_or(0);
    u32::try_from(group).unwrap_or(u32::MAX)
}

/// Returns the run of free blocks in a group that fits best: the one at `goal`, else the first with
/// `want` blocks after it, else the first with so many, else the longest.
fn search(
    handle: &Handle<'_>,
    zone: &SystemZone,
    number: u32,
    goal: PhysicalBlock,
    want: u32,
) -> Result<Option<BlockRun>, Stop> {
    if handle.group(number)?.free_clusters == 0 {
        return Ok(None);
    }
    let mut group = Group::load(handle, zone, number)?;
    for run in handle.excluded(group.blocks) {
        let range = group.range(run);
        bitmap::fill(&mut group.bits, range, true);
    }
    let all = group.range(group.blocks);
    let goal_bit = group.range(BlockRun::new(goal, 0).unwrap_or_default()).start;
    let is_here = goal >= group.blocks.start() && goal < group.blocks.end();
    let from = if is_here { goal_bit } else { all.start };
    let cut = |range: Range<u32>| range.start..range.end.min(range.start.saturating_add(want));
    let length = |range: &Range<u32>| range.end.saturating_sub(range.start);
    let mut longest: Option<Range<u32>> = None;
    for run in bitmap::runs(&group.bits, from..all.end) {
        if is_here && run.start == goal_bit || length(&run) >= want {
            return Ok(Some(group.run(cut(run))));
        }
        if longest.as_ref().is_none_or(|longest| length(&run) > length(longest)) {
            longest = Some(run);
        }
    }
    for run in bitmap::runs(&group.bits, all.start..from) {
        if length(&run) >= want {
            return Ok(Some(group.run(cut(run))));
        }
        if longest.as_ref().is_none_or(|longest| length(&run) > length(longest)) {
            longest = Some(run);
        }
    }
    Ok(longest.map(|range| group.run(cut(range))))
}
