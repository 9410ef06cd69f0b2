//! From a path to an inode.

use crate::error::{Error, Subject};
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::dir_entry::NAME_MAX;
use crate::format::inode::Inode;

/// Symbolic links that one lookup follows.
pub const MAX_SYMLINKS: u32 = 40;

impl Filesystem {
    /// The inode that `path` is for. Paths start at the root, with or without a slash; symbolic
    /// links are followed, also the last; ".." at the root stays there; after a trailing slash
    /// there must be a directory.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`], [`Error::SymlinkLoop`],
    /// [`Error::NameTooLong`]; [`Error::UnsupportedInode`] if the way leads through something that
    /// is not supported; damage; a failure of the source.
    pub fn lookup(&self, path: &[u8]) -> Result<Inode, Error> {
        self.resolve(path, true)
    }

    /// The inode that `path` is for, where a symbolic link as the last component is not followed,
    /// unless a slash comes after it.
    ///
    /// # Errors
    /// As [`Filesystem::lookup`].
    pub fn lookup_no_follow(&self, path: &[u8]) -> Result<Inode, Error> {
        self.resolve(path, false)
    }

    fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Inode, Error> {
        let mut trail = Trail { above: Vec::new(), here: self.root()? };
        let mut links = 0u32;
        let mut todo = path.to_vec();
        loop {
            let Some(start) = todo.iter().position(|&byte| byte != b'/') else {
                if !todo.is_empty() && !trail.here.is_dir() {
                    return Err(Error::NotADirectory { subject: Subject::Path(path.into()) });
                }
                return Ok(trail.here);
            };
            let (name, rest) = split_component(todo.get(start..).unwrap_or_default());
            if !trail.here.is_dir() {
                return Err(Error::NotADirectory { subject: Subject::Path(path.into()) });
            }
            match name {
                b"." => (),
                b".." => trail.up(),
                _ => {
                    let child = self.child(&trail, name, path)?;
                    if child.is_symlink() && (follow_last || !rest.is_empty()) {
                        links = links.saturating_add(1);
                        if links > MAX_SYMLINKS {
                            return Err(Error::SymlinkLoop { path: path.into() });
                        }
                        let mut target = self.read_link(&child)?;
                        if target.starts_with(b"/") {
                            trail.restart();
                        }
                        target.extend_from_slice(rest);
                        todo = target;
                        continue;
                    }
                    trail.down(child);
                }
            }
            todo = rest.to_vec();
        }
    }

    fn child(&self, trail: &Trail, name: &[u8], path: &[u8]) -> Result<Inode, Error> {
        if name.len() > NAME_MAX {
            return Err(Error::NameTooLong { length: name.len() });
        }
        let directory = &trail.here;
        let Some(number) = self.find(directory, name)? else {
            return Err(Error::NotFound { path: path.into() });
        };
        let structure = Structure::Directory(directory.number());
        // A directory that is inside itself.
        if trail.contains(number) {
            return Err(structure.corrupt(Problem::DirectoryLoop { inode: number }));
        }
        self.named_inode(number, structure)
    }
}

/// The first component of a path that does not start with a slash, and what comes after it.
fn split_component(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().position(|&byte| byte == b'/').unwrap_or(path.len());
    path.split_at_checked(end).unwrap_or((path, &[]))
}

/// Where a lookup is, and the directories above. ".." goes by this and not by what a directory
/// says of its parent.
struct Trail {
    above: Vec<Inode>,
    here: Inode,
}

impl Trail {
    fn contains(&self, number: u32) -> bool {
        self.here.number() == number || self.above.iter().any(|inode| inode.number() == number)
    }

    fn down(&mut self, child: Inode) {
        self.above.push(std::mem::replace(&mut self.here, child));
    }

    fn up(&mut self) {
        if let Some(parent) = self.above.pop() {
            self.here = parent;
        }
    }

    fn restart(&mut self) {
        self.above.truncate(1);
        self.up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components() {
        assert_eq!(split_component(b"a/b"), (&b"a"[..], &b"/b"[..]));
        assert_eq!(split_component(b"a"), (&b"a"[..], &b""[..]));
        assert_eq!(split_component(b"a//"), (&b"a"[..], &b"//"[..]));
    }
}
