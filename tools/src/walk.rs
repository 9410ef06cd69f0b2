//! Walking directories that nobody vouches for: every directory once, to a bounded depth.

use std::collections::HashSet;

use nvio_ext4::Inode;

use crate::error::Error;
use crate::name;
use crate::volume::Volume;

/// Deepest nesting that is followed.
const DEPTH_MAX: usize = 4096;

/// A name in a directory, and what it is.
pub struct Named {
    /// The name: not empty, no `.` or `..`, no slash and no NUL.
    pub name: Vec<u8>,
    /// The inode.
    pub inode: Inode,
}

/// Directories that were seen: each has one parent, or the filesystem is damaged.
#[derive(Default)]
pub struct Seen(HashSet<u32>);

impl Seen {
    /// Notes a directory.
    ///
    /// # Errors
    /// [`Error::DirectoryTwice`] and [`Error::TooDeep`].
    pub fn enter(&mut self, path: &[u8], inode: u32, depth: usize) -> Result<(), Error> {
        if !self.0.insert(inode) {
            return Err(Error::DirectoryTwice { path: name::escaped(path), inode });
        }
        if depth > DEPTH_MAX {
            // The path itself would fill pages.
            let path = name::escaped(path.get(..200).unwrap_or(path));
            return Err(Error::TooDeep { path, limit: DEPTH_MAX });
        }
        Ok(())
    }
}

/// `directory` and `name` joined.
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend(directory.strip_suffix(b"/").unwrap_or(directory));
    path.push(b'/');
    path.extend(name);
    path
}

/// Whether a directory may have an entry of this name, besides `.` and `..`.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&b'/') && !name.contains(&0) && name != b"." && name != b".."
}

/// A directory and what is in it.
pub struct Directory {
    /// Its path.
    pub path: Vec<u8>,
    /// Its entries, sorted by name.
    pub entries: Vec<Named>,
}

/// A directory that is to be listed.
struct Pending {
    path: Vec<u8>,
    inode: Inode,
    depth: usize,
}

/// The directories of a tree, each before those below it, in the order of their names.
pub struct Walk {
    pending: Vec<Pending>,
    seen: Seen,
    recursive: bool,
}

impl Walk {
    /// Starts at the directory `inode`, and ends there too unless `recursive`.
    pub fn new(path: Vec<u8>, inode: Inode, recursive: bool) -> Self {
        let pending = vec![Pending { path, inode, depth: 0 }];
        Self { pending, seen: Seen::default(), recursive }
    }

    /// The next directory.
    ///
    /// # Errors
    /// As [`Volume::entries`] and [`Seen::enter`].
    pub fn next(&mut self, volume: &Volume) -> Result<Option<Directory>, Error> {
        let Some(Pending { path, inode, depth }) = self.pending.pop() else { return Ok(None) };
        self.seen.enter(&path, inode.number(), depth)?;
        let found = volume.entries(&path, &inode)?;
        if self.recursive {
            // The last that is pushed comes next.
            for Named { name, inode } in found.iter().rev().filter(|named| named.inode.is_dir()) {
                let path = join(&path, name);
                self.pending.push(Pending { path, inode: inode.clone(), depth: depth + 1 });
            }
        }
        Ok(Some(Directory { path, entries: found }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_a_directory() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", b"\0"] {
            assert!(!is_name(name), "{name:?}");
        }
        for name in [&b"a"[..], b"...", b".a", b"\xff", b" ", b"-r", b"\n"] {
            assert!(is_name(name), "{name:?}");
        }
    }

    #[test]
    fn circles_and_depths_end() {
        let mut seen = Seen::default();
        seen.enter(b"/", 2, 0).unwrap();
        assert!(matches!(seen.enter(b"/a", 2, 1), Err(Error::DirectoryTwice { inode: 2, .. })));
        assert!(matches!(seen.enter(b"/b", 3, DEPTH_MAX + 1), Err(Error::TooDeep { .. })));
    }

    #[test]
    fn paths_are_joined_with_one_slash() {
        assert_eq!(join(b"/", b"a"), b"/a");
        assert_eq!(join(b"/a", b"b"), b"/a/b");
        assert_eq!(join(b"/a/", b"b"), b"/a/b");
    }
}
