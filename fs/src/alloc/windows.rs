//! Free blocks that are left to files that grow.

use std::collections::VecDeque;

use crate::number::{BlockRun, InodeNumber};

/// Maximum number of files with a window.
const WINDOWS_MAX: usize = 64;

/// Maximum size of a window in bytes.
pub(crate) const WINDOW_BYTES_MAX: u32 = 8 << 20;

/// The blocks after the last ones of files that grew lately. Other files get blocks elsewhere, as long as
/// there are any, so that files that grow by turns do not divide each other's extents.
///
/// A window is a hint in memory: its blocks are free on the device, and count as free.
#[derive(Default)]
pub(crate) struct Windows {
    /// The window of each file, the newest one last.
    windows: VecDeque<(InodeNumber, BlockRun)>,
}

impl Windows {
    /// Updates the window of a file that got blocks: `after` are as many blocks after them as it wants.
    /// The old window is used up first, and the new one ends before those of others.
    pub(crate) fn advance(&mut self, inode: InodeNumber, after: BlockRun) {
        let old = self.windows.iter().position(|&(other, _)| other == inode);
        let old = old.and_then(|at| self.windows.remove(at)).map(|(_, window)| window);
        let left = old.filter(|old| old.start() < after.start());
        let left = left.and_then(|old| old.end().get().checked_sub(after.start().get()));
        let next = self.of_others(Some(inode), after).map(|window| window.start()).min();
        let free = next.map(|next| next.get().saturating_sub(after.start().get()));
        let count = left.filter(|&left| left > 0).or(free).unwrap_or(after.count());
        if self.windows.len() == WINDOWS_MAX {
            self.windows.pop_front();
        }
        if let Some(window) = BlockRun::new(after.start(), count) {
            self.windows.push_back((inode, window));
        }
    }

    /// Returns the parts of `run` that are in windows of files other than `owner`.
    pub(crate) fn of_others(
        &self,
        owner: Option<InodeNumber>,
        run: BlockRun,
    ) -> impl Iterator<Item = BlockRun> {
        let others = self.windows.iter().filter(move |&&(inode, _)| Some(inode) != owner);
        others.filter_map(move |(_, window)| window.intersection(run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u64, count: u64) -> BlockRun {
        BlockRun::new(start.into(), count).unwrap()
    }

    fn found(windows: &Windows, owner: Option<u32>, all: BlockRun) -> Vec<BlockRun> {
        windows.of_others(owner.map(Into::into), all).collect()
    }

    #[test]
    fn windows_of_others() {
        let mut windows = Windows::default();
        for inode in 1..=70u32 {
            windows.advance(inode.into(), run(u64::from(inode) * 100, 10));
        }
        windows.advance(70.into(), run(5, 20));
        assert_eq!(found(&windows, None, run(0, 20)), [run(5, 15)]);
        assert!(found(&windows, Some(70), run(0, 20)).is_empty());
        let all = run(0, 1 << 20);
        assert_eq!(found(&windows, Some(70), all).len(), WINDOWS_MAX - 1, "old ones are gone");
    }

    #[test]
    fn a_window_is_used_up_and_ends_before_the_next_one() {
        let (mut windows, all) = (Windows::default(), run(0, 1000));
        windows.advance(1.into(), run(100, 50));
        windows.advance(2.into(), run(200, 50));
        windows.advance(1.into(), run(120, 70));
        assert_eq!(found(&windows, Some(2), all), [run(120, 30)]);
        windows.advance(1.into(), run(150, 90));
        assert_eq!(found(&windows, Some(2), all), [run(150, 50)], "up to 200");
        windows.advance(1.into(), run(500, 90));
        assert_eq!(found(&windows, Some(2), all), [run(500, 90)], "elsewhere");
    }
}
