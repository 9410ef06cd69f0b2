//! Read-ahead of a walk: the inodes and directories that it will visit next.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::format::file_type::FileType;

use crate::filesystem::Filesystem;

use crate::format::inode::Inode;

use crate::map;
use crate::number::{BlockRun, InodeNumber, as_u64, as_usize};

/// Maximum number of directories to read ahead at a time.
const DIRECTORIES: usize = 128;
/// Levels of subdirectories to read ahead at a time.
const LEVELS: usize = 8;
/// Number of coming entries that are searched for directories.
pub(crate) const LOOKED_THROUGH: usize = 4096;
/// Bytes of a directory to read ahead. The inodes of larger directories are left to the window,
/// because their entries are not stored in the order of the walk.
const FIRST: u64 = 64 << 10;
/// Number of entries whose inodes are read ahead at a time.
const WINDOW: usize = 1024;

/// The state of the read-ahead. The data is only in the filesystem's cache: blocks that are evicted
/// are read again when they are needed.
#[derive(Default)]
pub(crate) struct Ahead {
    /// Directories that were read ahead and are not entered yet.
    directories: HashSet<InodeNumber>,
    numbers: Vec<InodeNumber>,
}

impl Ahead {
    /// Returns the number of entries whose inodes are read ahead at a time.
    pub(crate) fn window(&self, fs: &Filesystem) -> usize {
        // Each inode may be in a block of its own.
        let blocks = fs.superblock().whole_blocks(fs.read_ahead());
        as_usize(blocks).clamp(1, WINDOW)
    }

    /// Reads ahead the inodes `coming`.
    pub(crate) fn inodes(&mut self, fs: &Filesystem, coming: impl Iterator<Item = InodeNumber>) {
        if fs.read_ahead() == 0 {
            return;
        }
        self.numbers.clear();
        self.numbers.extend(coming);
        self.numbers.sort_unstable();
        fs.prefetch(fs.metadata().inode_blocks(&self.numbers));
    }

    /// Removes a directory that is being entered, and returns true if it was read ahead.
    pub(crate) fn has(&mut self, number: InodeNumber) -> bool {
        self.directories.remove(&number)
    }

    /// Reads ahead directories, the inodes of their entries, and their subdirectories.
    pub(crate) fn directories(
        &mut self,
        fs: &Filesystem,
        coming: impl Iterator<Item = InodeNumber>,
    ) {
        if fs.read_ahead() == 0 {
            return;
        }
        if self.directories.len() > DIRECTORIES.saturating_mul(4) {
            // These directories were skipped, or come much later.
            self.directories.clear();
        }
        // The directories in the order of the walk, each with a flag: already read.
        let mut order: Vec<(InodeNumber, bool)> = coming
            .filter(|number| !self.directories.contains(number))
            .take(DIRECTORIES)
            .map(|number| (number, false))
            .collect();
        let mut left = fs.superblock().whole_blocks(fs.read_ahead());
        for _ in 0..LEVELS {
            let level: Vec<InodeNumber> =
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
            // Directories far ahead are left for later.
            deeper.truncate(DIRECTORIES);
            order = deeper;
        }
    }

    /// Reads ahead the directories of one level and the inodes of their entries, and subtracts the
    /// blocks from `left`. Returns pairs of a directory and a subdirectory in it, in the order of
    /// the directories.
    fn level(
        &mut self,
        fs: &Filesystem,
        level: &[InodeNumber],
        left: &mut u64,
    ) -> Vec<(InodeNumber, InodeNumber)> {
        self.inodes(fs, level.iter().copied());
        let inodes = level.iter().filter_map(|&number| fs.inode(number).ok());
        let directories: Vec<Inode> = inodes.filter(Inode::is_dir).collect();
        fs.prefetch(directories.iter().filter_map(map::first_below));
        let first = |directory: &Inode| fs.map(directory).first_blocks(FIRST).unwrap_or_default();
        fs.prefetch(directories.iter().flat_map(first).flat_map(BlockRun::blocks));

        let (mut below, mut blocks) = (Vec::new(), Vec::new());
        for directory in &directories {
            self.directories.insert(directory.number());
            if directory.size() <= FIRST {
                self.entries(fs, directory, &mut below);
                blocks.extend(fs.metadata().inode_blocks(&self.numbers));
                if as_u64(blocks.len()) >= *left {
                    break;
                }
            }
        }
        *left = left.saturating_sub(as_u64(blocks.len()));
        fs.prefetch(blocks);
        below
    }

    /// Collects the inode numbers of a directory's entries in `self.numbers`, sorted, and appends
    /// the subdirectories to `below`.
    fn entries(
        &mut self,
        fs: &Filesystem,
        directory: &Inode,
        below: &mut Vec<(InodeNumber, InodeNumber)>,
    ) {
        self.numbers.clear();
        // Errors are reported when the directory is entered.
        let Ok(mut entries) = fs.read_dir(directory) else { return };
        let visit = |inode, _: &[u8], kind| {
            self.numbers.push(inode);
            if kind == Some(FileType::Directory) && below.len() < DIRECTORIES {
                below.push((directory.number(), inode));
            }
            ControlFlow::Continue(())
        };
        entries.each(visit, |_| ());
        self.numbers.sort_unstable();
    }
}
