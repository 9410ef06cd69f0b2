//! The allocation of blocks: which are free, and which of them a file gets.

pub(crate) mod bitmap;
mod group;
pub(crate) mod inodes;
pub(crate) mod windows;

use std::ops::Range;

use crate::alloc::group::Group;
use crate::error::Error;
use crate::file::system_zone::SystemZone;
use crate::journal::handle::{Handle, Stop};
use crate::number::{BlockRun, InodeNumber, PhysicalBlock};

/// Number of groups that are searched for a run of the wanted length. If none has one, the longest
/// run that was found is taken.
const GROUPS_FOR_LENGTH: u32 = 32;

/// The blocks that a file wants.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    /// The first block to look at. If it is free, it is always taken, because it extends the blocks
    /// before it.
    pub goal: PhysicalBlock,
    /// Maximum number of blocks.
    pub count: u32,
    /// Number of blocks after them that are left to the file, for which it will ask next.
    pub window: u32,
    /// The file, if its blocks follow each other.
    pub owner: Option<InodeNumber>,
}

/// Allocates at most as many contiguous blocks as are wanted, as near to the goal as there are so many,
/// and marks them as used.
///
/// # Errors
/// [`Error::NoSpace`] if no block is free.
pub(crate) fn allocate(
    handle: &mut Handle<'_>,
    zone: &SystemZone,
    request: Request,
) -> Result<BlockRun, Stop> {
    let available = u32::try_from(handle.available()).unwrap_or(u32::MAX);
    if available == 0 {
        return Err(Error::NoSpace.into());
    }
    let count = request.count.clamp(1, available);
    let whole = Request { count: count.saturating_add(request.window), ..request };
    let is_enough = |run: &BlockRun| run.start() == request.goal || run.count() >= count.into();
    let mut best = find(handle, zone, whole, true)?;
    if !best.as_ref().is_some_and(is_enough) {
        // Windows of others are taken only if there is nothing as long elsewhere.
        best = longer(best, find(handle, zone, Request { count, ..request }, false)?);
    }
    let run = best.ok_or(Error::NoSpace)?.part(0, count.into());
    mark(handle, zone, run, true)?;
    handle.changes.allocated = handle.changes.allocated.saturating_add(run.count());
    if let Some(inode) = request.owner
        && let Some(window) = BlockRun::new(run.end(), request.window.into())
    {
        handle.changes.window = Some((inode, window));
    }
    Ok(run)
}

/// Returns a run of free blocks that a request is for; with `keeps_windows` none that are left to other
/// files.
fn find(
    handle: &Handle<'_>,
    zone: &SystemZone,
    request: Request,
    keeps_windows: bool,
) -> Result<Option<BlockRun>, Stop> {
    let groups = handle.superblock().groups_count().max(1);
    let first = group_of(handle, request.goal).min(groups.saturating_sub(1));
    let mut best: Option<BlockRun> = None;
    for step in 0..groups {
        if step >= GROUPS_FOR_LENGTH && best.is_some() {
            break;
        }
        let number = u64::from(first).saturating_add(step.into());
        let number = number.checked_rem(groups.into()).unwrap_or(0);
        let number = u32::try_from(number).unwrap_or(0);
        let found = match search(handle, zone, number, request, keeps_windows) {
            Ok(found) => found,
            // A damaged group is left as it is.
            Err(Stop::Fail(Error::Corrupt(damage))) => {
                log::warn!("{damage}: no blocks are allocated there");
                continue;
            }
            Err(stop) => return Err(stop),
        };
        let is_best =
            |run: &BlockRun| run.start() == request.goal || run.count() >= u64::from(request.count);
        if found.as_ref().is_some_and(is_best) {
            return Ok(found);
        }
        best = longer(best, found);
    }
    Ok(best)
}

/// Returns the longer one of two runs, and the first one if both are as long.
fn longer(first: Option<BlockRun>, second: Option<BlockRun>) -> Option<BlockRun> {
    let length = |run: Option<BlockRun>| run.map_or(0, |run| run.count());
    if length(second) > length(first) { second } else { first }
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
    request: Request,
    keeps_windows: bool,
) -> Result<Option<BlockRun>, Stop> {
    let Request { goal, count: want, owner, .. } = request;
    if handle.group(number)?.free_clusters == 0 {
        return Ok(None);
    }
    let mut group = Group::load(handle, zone, number)?;
    let mut excluded = handle.excluded(group.blocks);
    if keeps_windows {
        excluded.extend(handle.windows_of_others(owner, group.blocks));
    }
    for run in excluded {
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
