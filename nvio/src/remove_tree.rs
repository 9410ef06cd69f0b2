//! Directories that are removed with all their entries.

use std::collections::VecDeque;

use nvio_ext4::{Error as FsError, FileType, InodeNumber, JournaledFilesystem};

use crate::error::Error;
use crate::journaled::JournaledVolume;
use crate::place::{at, place_of_directory, split};

/// Maximum number of entries that are read from a directory before they are removed.
const BATCH: usize = 4096;

/// Maximum number of directories on the current path that are remembered. Above a deeper one, the walk
/// begins again at the top.
const LEVELS_MAX: usize = 1024;

/// Maximum number of names of subdirectories that are remembered in all levels. Those of the upper levels
/// are read again.
const NAMES_MAX: usize = 1 << 16;

/// A directory that is being emptied.
struct Level {
    /// The directory that has its name.
    parent: InodeNumber,
    name: Vec<u8>,
    inode: InodeNumber,
    /// Subdirectories of the last batch that are left, with their names.
    todo: Vec<(InodeNumber, Vec<u8>)>,
}

/// The removal of a tree.
struct Removal<'v> {
    fs: &'v JournaledFilesystem,
    levels: VecDeque<Level>,
    /// Number of names in all levels.
    names: usize,
    /// Levels were forgotten.
    is_cut: bool,
    /// Number of directories that were entered since the last one was removed.
    entered: usize,
}

/// An error, and the name of the entry that it concerns.
type Failed = (Vec<u8>, FsError);

impl JournaledVolume {
    /// Removes the directory `path` with all its entries. Symbolic links are removed, not followed, `path`
    /// included.
    ///
    /// The memory is bounded, whatever the depth and the size of the tree. No space is needed, so that a full
    /// filesystem can be emptied. Other threads must not rename, remove or create directories in the tree
    /// meanwhile.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// [`Error::Path`], with the path of the entry: the first one that cannot be removed ends the call, and
    /// those that were removed before are gone.
    pub fn remove_dir_all(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let (fs, path) = (self.filesystem(), path.as_ref());
        let place = place_of_directory(fs, path).map_err(at(path))?;
        let (above, name, _) = split(path);
        let trimmed = [above, name].concat();
        let inode = fs.lookup_no_follow(&trimmed).map_err(at(path))?;
        if inode.is_symlink() {
            return self.remove_file(trimmed);
        }
        if !inode.is_dir() {
            return self.remove_dir(trimmed);
        }
        let levels = VecDeque::new();
        let mut removal = Removal { fs, levels, names: 0, is_cut: false, entered: 0 };
        loop {
            let entered = removal.enter(place.parent, place.name.to_vec(), inode.number());
            match entered.and_then(|()| removal.run(inode.number())) {
                Ok(true) => return Ok(()),
                // The upper levels were forgotten.
                Ok(false) => {}
                Err((name, error)) => {
                    let path = removal.path(&trimmed, &name);
                    return Err(at(&path)(error));
                }
            }
        }
    }
}

impl Removal<'_> {
    fn enter(
        &mut self,
        parent: InodeNumber,
        name: Vec<u8>,
        inode: InodeNumber,
    ) -> Result<(), Failed> {
        // A damaged directory may be in itself.
        let limit = usize::try_from(self.fs.superblock().inodes_count).unwrap_or(usize::MAX);
        self.entered += 1;
        if self.entered > limit || self.levels.iter().any(|level| level.inode == inode) {
            return Err((name, FsError::TooDeep { inode, limit }));
        }
        self.levels.push_back(Level { parent, name, inode, todo: Vec::new() });
        if self.levels.len() > LEVELS_MAX
            && let Some(level) = self.levels.pop_front()
        {
            self.names = self.names.saturating_sub(level.todo.len());
            self.is_cut = true;
        }
        Ok(())
    }

    /// Removes the levels from the deepest one on. Returns true if `top` was removed, and false if the
    /// level above the last one was forgotten.
    fn run(&mut self, top: InodeNumber) -> Result<bool, Failed> {
        while let Some(level) = self.levels.back_mut() {
            let inode = level.inode;
            if let Some((child, name)) = level.todo.pop() {
                self.names = self.names.saturating_sub(1);
                self.enter(inode, name, child)?;
                continue;
            }
            if self.read(inode)? {
                continue;
            }
            // The directory is empty.
            let Some(Level { parent, name, .. }) = self.levels.pop_back() else { break };
            let removed = self.fs.remove_dir(parent, &name);
            gone_is_fine(removed).map_err(|error| (name, error))?;
            self.entered = 0;
            if inode == top {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes the files among the first entries of the directory of the last level, and remembers the
    /// subdirectories. Returns false if it has no entries.
    fn read(&mut self, directory: InodeNumber) -> Result<bool, Failed> {
        let failed = |error| (Vec::new(), error);
        let inode = self.fs.inode(directory).map_err(failed)?;
        let entries = self.fs.read_dir(&inode).map_err(failed)?.take(BATCH);
        let batch = entries.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let is_empty = batch.is_empty();
        let mut todo = Vec::new();
        for entry in batch {
            if entry.kind == Some(FileType::Directory) {
                todo.push((entry.inode, entry.name));
                continue;
            }
            match gone_is_fine(self.fs.remove_file(directory, &entry.name)) {
                Ok(()) => {}
                // The entry does not say the type.
                Err(FsError::IsADirectory { .. }) => todo.push((entry.inode, entry.name)),
                Err(error) => return Err((entry.name, error)),
            }
        }
        self.names += todo.len();
        if let Some(level) = self.levels.back_mut() {
            level.todo = todo;
        }
        // The last level keeps its names, so that the walk gets on.
        let upper = self.levels.len().saturating_sub(1);
        for level in self.levels.iter_mut().take(upper) {
            if self.names <= NAMES_MAX {
                break;
            }
            self.names = self.names.saturating_sub(level.todo.len());
            level.todo = Vec::new();
        }
        Ok(!is_empty)
    }

    /// Returns the path of an entry of the last level.
    fn path(&self, top: &[u8], name: &[u8]) -> Vec<u8> {
        let mut path = top.to_vec();
        if self.is_cut {
            path.extend_from_slice(b"/...");
        }
        let below = self.levels.iter().skip(usize::from(!self.is_cut));
        for name in below.map(|level| &level.name[..]).chain([name]).filter(|name| !name.is_empty())
        {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }
}

/// Accepts a name that another thread has removed.
fn gone_is_fine(removed: Result<(), FsError>) -> Result<(), FsError> {
    match removed {
        Err(FsError::NotFound { .. }) => Ok(()),
        removed => removed,
    }
}
