//! Replay on the device of the fast commits that a crash left.
//!
//! Fast commits are valid as long as their transaction is the next one of the log. Their changes are
//! written as that transaction, so that a loss of power leaves either of them, and the recovery begins
//! anew.

use std::ops::Range;

use crate::alloc;
use crate::change::extents::{Found, Tree};
use crate::error::Error;
use crate::error::reasons::NotWritable;
use crate::file::system_zone::{SystemZone, system_files};
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::journal::Journal;
use crate::journal::handle::{Handle, Stop};
use crate::number::{BlockRun, InodeNumber, LogicalBlock};
use crate::recovery::fast_commit::changes::{FastCommit, Patch};

/// Makes the changes of fast commits in a transaction of `journal`, which is in memory: nothing is
/// written. `fs` is the filesystem as it is after the transactions in the log. Returns `None` if the
/// fast commits change nothing.
///
/// # Errors
/// [`NotWritable::FastCommits`] for changes that are not supported; damage; a failure of the device.
pub(super) fn prepare(
    fs: &Filesystem,
    commits: &FastCommit,
    journal: Journal,
) -> Result<Option<Journal>, Error> {
    if commits.has_names {
        return Err(Error::NotWritable(NotWritable::FastCommits));
    }
    let zone = SystemZone::of(fs)?;
    let own: Vec<InodeNumber> = system_files(fs).collect();
    let mut patches: Vec<_> =
        commits.inodes.iter().map(|(&number, patch)| (number, patch)).collect();
    patches.sort_unstable_by_key(|&(number, _)| number);
    let journal = journal.with_large_transactions();
    journal.change(fs, |handle| {
        let inodes = check_all(handle, &own, &patches)?;
        assign_blocks(handle, &zone, &inodes)?;
        for (inode, patch) in inodes {
            apply(handle, &zone, inode, patch)?;
        }
        Ok(())
    })?;
    Ok((!journal.is_unchanged()).then_some(journal))
}

/// Writes the transaction that [`prepare`] has made, and empties the log. The blocks of the older
/// transactions are in their places.
pub(super) fn write(fs: &Filesystem, journal: &Journal) -> Result<(), Error> {
    journal.start()?;
    journal.end(fs)
}

/// Returns the inodes as they are before the changes.
fn check_all<'a>(
    handle: &Handle<'_>,
    own: &[InodeNumber],
    patches: &[(InodeNumber, &'a Patch)],
) -> Result<Vec<(Inode, &'a Patch)>, Stop> {
    let first = handle.superblock().geometry.first_inode;
    let checked = patches.iter().map(|&(number, patch)| {
        let is_own = number != InodeNumber::ROOT && number < first || own.contains(&number);
        let inode = match handle.orphan(number) {
            // The tag of a new inode comes with that of its name.
            Err(Stop::Fail(Error::InodeNotInUse { .. })) => None,
            found => Some(found?),
        };
        let can_map =
            |inode: &Inode| inode.is_file() && inode.flags().contains(InodeFlags::EXTENTS);
        inode
            .filter(|inode| !is_own && (patch.ranges.is_empty() || can_map(inode)))
            .map(|inode| (inode, patch))
            .ok_or(Stop::Fail(Error::NotWritable(NotWritable::FastCommits)))
    });
    checked.collect()
}

/// Marks the blocks that files have got as used, and those that they have lost as free. All of them are
/// marked before a node of a tree is allocated.
fn assign_blocks(
    handle: &mut Handle<'_>,
    zone: &SystemZone,
    inodes: &[(Inode, &Patch)],
) -> Result<(), Stop> {
    let (mut lost, mut got) = (Vec::new(), Vec::new());
    for (inode, patch) in inodes {
        let number = inode.number();
        let mut inode = inode.clone();
        let tree = Tree { handle: &mut *handle, zone, inode: &mut inode, is_changed: false };
        for (range, with) in patch.ranges.ranges() {
            let mut at = range.start.into();
            while at < range.end.into() {
                at = match tree.find(at)? {
                    Found::Hole { end } => end,
                    Found::Extent(extent) => {
                        lost.extend(extent.part(numbers(&range)).map(|part| part.blocks));
                        extent.end()
                    }
                };
            }
            got.extend(with.map(|(blocks, _)| blocks));
        }
        got.sort_unstable_by_key(|run| run.start());
        let is_shared = |pair: &[BlockRun]| matches!(pair, [a, b] if a.end() > b.start());
        if let Some([_, run]) = got.windows(2).find(|pair| is_shared(pair)) {
            let problem = Problem::Bit { block: run.start(), used: true };
            return Err(Structure::BlockMap { inode: number }.corrupt(problem).into());
        }
    }
    lost.sort_unstable_by_key(|run| run.start());
    for run in difference(&got, &lost) {
        alloc::take(handle, zone, run)?;
    }
    for run in difference(&lost, &got) {
        alloc::free(handle, zone, run)?;
    }
    Ok(())
}

/// Changes one inode and its tree. Its blocks were assigned.
fn apply(
    handle: &mut Handle<'_>,
    zone: &SystemZone,
    before: Inode,
    patch: &Patch,
) -> Result<(), Stop> {
    let number = before.number();
    if let Some(bytes) = &patch.bytes {
        handle.set_inode_bytes(number, bytes)?;
    }
    let superblock = handle.superblock();
    let mut inode = handle.orphan(number)?;
    // The count in the tag has the nodes of another tree.
    inode.set_blocks_of(&before);
    let mut tree = Tree { handle, zone, inode: &mut inode, is_changed: false };
    for (range, with) in patch.ranges.ranges() {
        let removed = tree.replace(numbers(&range), with)?;
        let removed = removed.iter().map(|extent| extent.blocks.count()).sum();
        tree.inode.remove_blocks(superblock, removed);
        tree.inode.add_blocks(superblock, with.map_or(0, |(blocks, _)| blocks.count()));
    }
    handle.set_inode(inode)
}

fn numbers(range: &Range<LogicalBlock>) -> Range<u64> {
    range.start.into()..range.end.into()
}

/// Returns the parts of runs that are not in `other`. Both are sorted; the runs of `other` may overlap.
fn difference(runs: &[BlockRun], other: &[BlockRun]) -> Vec<BlockRun> {
    let mut left = Vec::new();
    let mut first = 0;
    for &run in runs {
        // Runs before this one are before all that follow, too.
        let skipped = other.get(first..).unwrap_or_default();
        let skipped = skipped.iter().take_while(|other| other.end() <= run.start()).count();
        first = first.saturating_add(skipped);
        let mut rest = run;
        for &other in other.get(first..).unwrap_or_default() {
            if other.start() >= rest.end() {
                break;
            }
            let index = |block: u64| block.saturating_sub(rest.start().get());
            let before = rest.part(0, index(other.start().get()));
            let after = rest.part(index(other.end().get()), u64::MAX);
            left.extend(Some(before).filter(|before| before.count() > 0));
            rest = after;
        }
        left.extend(Some(rest).filter(|rest| rest.count() > 0));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_that_of_single_blocks() {
        let mut random = 9u64;
        let mut below = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % limit
        };
        for _ in 0..500 {
            let mut draw = |most: u64| {
                let (mut runs, mut at) = (Vec::new(), 0);
                for _ in 0..below(6) {
                    let start = at + below(8);
                    let run = BlockRun::new(start.into(), 1 + below(9)).unwrap();
                    runs.push(run);
                    at = run.end().get().saturating_sub(below(most));
                }
                runs.sort_unstable_by_key(|run| run.start());
                runs
            };
            let (runs, other) = (draw(1), draw(4));
            let blocks = |runs: &[BlockRun]| -> Vec<u64> {
                runs.iter().flat_map(|run| run.blocks()).map(|block| block.get()).collect()
            };
            let others = blocks(&other);
            let expected: Vec<u64> =
                blocks(&runs).into_iter().filter(|block| !others.contains(block)).collect();
            assert_eq!(blocks(&difference(&runs, &other)), expected, "{runs:?} {other:?}");
        }
    }
}
