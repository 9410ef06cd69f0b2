//! What a walk comes to next, read before it gets there.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::format::file_type::FileType;

use crate::filesystem::Filesystem;

use crate::format::inode::Inode;

use crate::map;

/// Directories that are read ahead at a time, at most.
const DIRECTORIES: usize = 128;
/// How far down at a time: the directories in those, the ones in them.
const LEVELS: usize = 8;
/// Entries that are looked through for directories that come next.
pub(crate) const LOOKED_THROUGH: usize = 4096;
/// Bytes of a directory that are read ahead. Of larger ones the inodes are left to the window: they
/// come in the order of names, and these are not.
const FIRST: u64 = 64 << 10;
/// Entries whose inodes are read ahead at a time.
const WINDOW: usize = 1024;

/// What has been read ahead. All of it is in the filesystem's cache: what is lost there is read
/// again.
#[derive(Default)]
pub(crate) struct Ahead {
    /// Directories that were read ahead and have not been entered since, or not long ago.
    directories: HashSet<u32>,
    numbers: Vec<u32>,
}

impl Ahead {
    /// Entries whose inodes are read ahead at a time.
    pub(crate) fn window(&self, fs: &Filesystem) -> usize {
        // Each may be in a block of its own.
        let blocks = fs.superblock().block_at(fs.read_ahead());
        usize::try_from(blocks).unwrap_or(usize::MAX).clamp(1, WINDOW)
    }

    /// Reads the inodes of entries.
    pub(crate) fn inodes(&mut self, fs: &Filesystem, coming: impl Iterator<Item = u32>) {
        if fs.read_ahead() == 0 {
            return;
        }
        self.numbers.clear();
        self.numbers.extend(coming);
        self.numbers.sort_unstable();
        fs.prefetch(fs.inode_blocks(&self.numbers));
    }

    /// Whether a directory, which is entered now, was read ahead.
    pub(crate) fn has(&mut self, number: u32) -> bool {
        self.directories.remove(&number)
    }

    /// Reads directories, the inodes of what is in them, and the directories among those.
    pub(crate) fn directories(&mut self, fs: &Filesystem, coming: impl Iterator<Item = u32>) {
        if fs.read_ahead() == 0 {
            return;
        }
        if self.directories.len() > DIRECTORIES.saturating_mul(4) {
            // They were skipped, or are far away.
            self.directories.clear();
        }
        // In the order in which they come, and whether they have been read.
        let mut order: Vec<(u32, bool)> = coming
            .filter(|number| !self.directories.contains(number))
            .take(DIRECTORIES)
            .map(|number| (number, false))
            .collect();
        let mut left = fs.superblock().block_at(fs.read_ahead());
        for _ in 0..LEVELS {
            let level: Vec<u32> =
                order.iter().filter(|(_, read)| !read).map(|&(number, _)| number).collect();
            if level.is_empty() || left == 0 {
                break;
            }
            let mut below = self.level(fs, &level, &mut left).into_iter().peekable();
            let mut deeper = Vec::with_capacity(order.len());
            for (number, _) in order {
                deeper.push((number, true));
                while let Some((_, child)) = below.next_if(|&(parent, _)| parent == number) {
                    deeper.push((child, false));
                }
            }
            // What is far away has time.
            deeper.truncate(DIRECTORIES);
            order = deeper;
        }
    }

    /// Reads some directories and the inodes of what is in them, as long as there is something `left`
    /// of the blocks that may be read ahead. Gives the directories that are in them, each
    /// behind the one that it is in.
    fn level(&mut self, fs: &Filesystem, level: &[u32], left: &mut u64) -> Vec<(u32, u32)> {
        self.inodes(fs, level.iter().copied());
        let inodes = level.iter().filter_map(|&number| fs.inode(number).ok());
        let directories: Vec<Inode> = inodes.filter(Inode::is_dir).collect();
        let one = |number: u64| number..number.saturating_add(1);
        fs.prefetch(directories.iter().filter_map(map::first_below).map(one));
        let first = |directory| map::first_blocks(fs, directory, FIRST).unwrap_or_default();
        fs.prefetch(directories.iter().flat_map(first));

        let (mut below, mut blocks) = (Vec::new(), Vec::new());
        let mut count = 0u64;
        for directory in &directories {
            self.directories.insert(directory.number());
            if directory.size() <= FIRST {
                self.entries(fs, directory, &mut below);
                for range in fs.inode_blocks(&self.numbers) {
                    count = count.saturating_add(range.end.saturating_sub(range.start));
                    blocks.push(range);
                }
                if count >= *left {
                    break;
                }
            }
        }
        *left = left.saturating_sub(count);
        fs.prefetch(blocks);
        below
    }

    /// The inodes of what is in a directory, in order; `below` gets the directories among them.
    fn entries(&mut self, fs: &Filesystem, directory: &Inode, below: &mut Vec<(u32, u32)>) {
        self.numbers.clear();
        // What is wrong with it is told when it is entered.
        let Ok(mut entries) = fs.read_dir(directory) else { return };
        let _ = entries.each(|inode, _, kind| {
            self.numbers.push(inode);
            if kind == Some(FileType::Directory) && below.len() < DIRECTORIES {
                below.push((directory.number(), inode));
            }
            ControlFlow::Continue(())
        });
        self.numbers.sort_unstable();
    }
}
