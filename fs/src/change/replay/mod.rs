//! Replay on the device of the fast commits that a crash left.
//!
//! Fast commits are valid as long as their transaction is the next one of the log. Their changes are
//! written as that transaction, so that a loss of power leaves either of them, and the recovery begins
//! anew.

mod names;

use std::collections::HashSet;
use std::ops::Range;

use crate::alloc;
use crate::change::extents::{Found, Tree};
use crate::change::names::check_map;
use crate::change::space::free;
use crate::change::time::now;
use crate::change::xattr_store;
use crate::error::Error;
use crate::error::reasons::NotWritable;
use crate::file::system_zone::{SystemZone, system_files};
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::file_type::FileType;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::format::superblock::Superblock;
use crate::format::time::Timestamp;
use crate::journal::Journal;
use crate::journal::handle::{Handle, Stop};
use crate::number::{BlockRun, InodeNumber, LogicalBlock};
use crate::recovery::fast_commit::changes::{FastCommit, Patch};

/// Makes the changes of fast commits in a transaction of `journal`, which is in memory: nothing is
/// written. `fs` is the filesystem as it is after the transactions in the log, and `orphans` are those in
/// its list. Returns `None` if the fast commits change nothing.
///
/// # Errors
/// [`NotWritable::FastCommits`] for changes that are not supported; [`Error::ChangeTooLarge`]; damage; a
/// failure of the device.
pub(super) fn prepare(
    fs: &Filesystem,
    commits: &FastCommit,
    orphans: &HashSet<InodeNumber>,
    journal: Journal,
) -> Result<Option<Journal>, Error> {
    let zone = SystemZone::of(fs)?;
    let own: Vec<InodeNumber> = system_files(fs).collect();
    let mut patches: Vec<_> =
        commits.inodes.iter().map(|(&number, patch)| (number, patch)).collect();
    patches.sort_unstable_by_key(|&(number, _)| number);
    let journal = journal.with_large_transactions();
    let time = now();
    journal.change(fs, |handle| {
        let check = Check { own: &own, orphans, commits };
        let mut changes = Vec::new();
        for &(number, patch) in &patches {
            changes.extend(check.change(handle, number, patch)?);
        }
        for change in &changes {
            change.free_old(handle, &zone, time)?;
        }
        let mut left = Vec::new();
        for change in changes {
            left.extend(change.start(handle)?);
        }
        assign_blocks(handle, &zone, &left)?;
        for (inode, change) in left {
            apply(handle, &zone, inode, &change)?;
        }
        names::apply(handle, &zone, commits, time)
    })?;
    journal.check_size()?;
    Ok((!journal.is_unchanged()).then_some(journal))
}

/// Writes the transaction that [`prepare`] has made, and empties the log. The blocks of the older
/// transactions are in their places.
pub(super) fn write(fs: &Filesystem, journal: &Journal) -> Result<(), Error> {
    journal.start()?;
    journal.end(fs)
}

/// The rules for inodes that fast commits may change.
struct Check<'c> {
    /// The files of the filesystem itself.
    own: &'c [InodeNumber],
    orphans: &'c HashSet<InodeNumber>,
    commits: &'c FastCommit,
}

/// The change of an inode.
struct Change<'p> {
    number: InodeNumber,
    /// The inode before; `None` if no file had it.
    before: Option<Inode>,
    /// The inode afterwards, but for its map; `None` if no file has it.
    after: Option<Inode>,
    /// The blocks and the attributes from before are gone.
    is_new: bool,
    /// The inode is in the list of orphans, and stays there.
    is_orphan: bool,
    patch: &'p Patch,
}

impl Check<'_> {
    /// Returns the change of an inode; `None` if no file has it, before and afterwards.
    fn change<'p>(
        &self,
        handle: &Handle<'_>,
        number: InodeNumber,
        patch: &'p Patch,
    ) -> Result<Option<Change<'p>>, Stop> {
        let superblock = handle.superblock();
        let first = superblock.geometry.first_inode;
        let is_own = number != InodeNumber::ROOT && number < first || self.own.contains(&number);
        let before = in_use(handle.orphan(number))?;
        let after = match &patch.bytes {
            None => before.clone(),
            Some(bytes) => in_use(Inode::parse(superblock, number, bytes).map_err(Stop::Fail))?,
        };
        if before.is_none() && after.is_none() {
            return Ok(None);
        }
        let has_new_names = self.commits.names(number).is_some_and(|names| names.is_new());
        let is_new = patch.is_new || before.is_none() || has_new_names;
        let is_orphan = self.orphans.contains(&number);
        let change = Change { number, before, after, is_new, is_orphan, patch };
        // The list of orphans has inodes whose truncation is not complete.
        let is_removed = is_new || change.after.is_none();
        let must_stay = is_orphan || number == InodeNumber::ROOT;
        let is_bad = is_own || must_stay && is_removed;
        match !is_bad && change.can_free(superblock) && change.can_store() {
            true => Ok(Some(change)),
            false => Err(Stop::Fail(Error::NotWritable(NotWritable::FastCommits))),
        }
    }
}

/// Returns an inode that a file has; `None` for a free one, or one without names.
fn in_use(inode: Result<Inode, Stop>) -> Result<Option<Inode>, Stop> {
    match inode {
        Err(Stop::Fail(Error::InodeNotInUse { .. })) => Ok(None),
        inode => Ok(Some(inode?).filter(|inode| inode.links() > 0)),
    }
}

impl Change<'_> {
    /// Returns false if the blocks of an inode that is removed cannot be freed.
    fn can_free(&self, superblock: &Superblock) -> bool {
        match &self.before {
            Some(before) if self.is_new || self.after.is_none() => {
                check_map(superblock, before).is_ok()
            }
            _ => true,
        }
    }

    /// Returns false for an inode whose tag does not have all of it.
    fn can_store(&self) -> bool {
        let Some(after) = &self.after else { return true };
        let has_extents = |inode: &Inode| inode.flags().contains(InodeFlags::EXTENTS);
        let has_map = has_extents(after) && after.is_file();
        let is_whole = match (&self.before, after.kind()) {
            (Some(before), kind) if !self.is_new => {
                kind == before.kind()
                    && has_extents(after) == has_extents(before)
                    && after.attribute_block == before.attribute_block
            }
            (_, FileType::Regular | FileType::Directory) => {
                has_extents(after) && after.attribute_block == 0
            }
            // A tag has no device number, and no target of a link.
            (_, kind) => {
                matches!(kind, FileType::Fifo | FileType::Socket) && after.attribute_block == 0
            }
        };
        is_whole && (has_map || self.patch.ranges.is_empty())
    }

    /// Frees the inode as it was, with its blocks, if nothing of it is left.
    fn free_old(
        &self,
        handle: &mut Handle<'_>,
        zone: &SystemZone,
        time: Timestamp,
    ) -> Result<(), Stop> {
        let Some(before) = self.before.as_ref().filter(|_| self.is_new || self.after.is_none())
        else {
            return Ok(());
        };
        let mut inode = before.clone();
        if inode.flags().contains(InodeFlags::EXTENTS) {
            let mut tree = Tree { handle, zone, inode: &mut inode, is_changed: false };
            free(&mut tree, 0..LogicalBlock::END_NUMBER)?;
        }
        xattr_store::release(handle, zone, &inode)?;
        alloc::inodes::free(handle, &inode)?;
        inode.clear();
        handle.set_inode(inode)?;
        let seconds = u32::try_from(time.seconds).unwrap_or(u32::MAX);
        handle.set_next_orphan(self.number, seconds.into())
    }

    /// Stores a new inode, without blocks. Returns the inode whose map is to be changed.
    fn start(mut self, handle: &mut Handle<'_>) -> Result<Option<(Inode, Self)>, Stop> {
        let Some(after) = self.after.take() else { return Ok(None) };
        if !self.is_new {
            return Ok(self.before.take().map(|before| (before, self)));
        }
        alloc::inodes::take(handle, self.number, after.is_dir())?;
        let mut inode = after.clone();
        inode.clear();
        inode.set_links(u16::try_from(after.links()).unwrap_or(u16::MAX));
        inode.set_size(if after.is_dir() { 0 } else { after.size() });
        let bytes = self.patch.bytes.as_deref().unwrap_or_default();
        handle.create_inode(inode.clone(), bytes)?;
        Ok(Some((inode, self)))
    }
}

/// Marks the blocks that files have got as used, and those that they have lost as free. All of them are
/// marked before a node of a tree is allocated.
fn assign_blocks(
    handle: &mut Handle<'_>,
    zone: &SystemZone,
    inodes: &[(Inode, Change<'_>)],
) -> Result<(), Stop> {
    let (mut lost, mut got) = (Vec::new(), Vec::new());
    for (inode, Change { number, patch, .. }) in inodes {
        let number = *number;
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
    change: &Change<'_>,
) -> Result<(), Stop> {
    let (number, patch) = (change.number, change.patch);
    if let Some(bytes) = patch.bytes.as_ref().filter(|_| !change.is_new) {
        let next = handle.next_orphan(number)?;
        handle.set_inode_bytes(number, bytes)?;
        if change.is_orphan {
            handle.set_next_orphan(number, next)?;
        }
    }
    let superblock = handle.superblock();
    let mut inode = handle.orphan(number)?;
    // The count in the tag has the nodes of another tree.
    inode.set_blocks_of(&before);
    if inode.is_dir() {
        inode.set_size(before.size());
    }
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
