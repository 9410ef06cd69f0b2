//! Path resolution.

use crate::error::{Error, Subject};
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::dir_entry::NAME_MAX;
use crate::format::inode::Inode;
use crate::number::InodeNumber;

/// Maximum number of symbolic links that one lookup follows.
///
/// See the [example](crate::Filesystem#examples).
pub const MAX_SYMLINKS: u32 = 40;

impl Filesystem {
    /// Returns the inode of `path`. Paths start at the root, with or without a leading slash.
    /// Symbolic links are followed, the last component included; ".." at the root is the root; a
    /// path with a trailing slash must be a directory. A path is text or any other bytes.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`], [`Error::SymlinkLoop`],
    /// [`Error::NameTooLong`]; [`Error::UnsupportedInode`] if a component needs an unsupported
    /// feature; damage; a failure of the source.
    pub fn lookup(&self, path: impl AsRef<[u8]>) -> Result<Inode, Error> {
        self.resolve(path.as_ref(), true)
    }

    /// Returns the inode of `path`. If the last component is a symbolic link, it is not followed,
    /// unless a slash comes after it.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`Filesystem::lookup`].
    pub fn lookup_no_follow(&self, path: impl AsRef<[u8]>) -> Result<Inode, Error> {
        self.resolve(path.as_ref(), false)
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

    /// Returns the inode of the entry `name` in the directory `directory`; `None` if there is no such
    /// entry. The names "." and ".." are not entries here.
    ///
    /// # Errors
    /// As [`lookup`](Self::lookup).
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// # let fs = nvio_ext4::Filesystem::open(std::fs::File::open(sample.path())?)?;
    /// let root = fs.root()?;
    /// let file = fs.lookup_in(&root, "hello.txt")?.ok_or("missing")?;
    /// assert_eq!(file.size(), 12);
    /// assert!(fs.lookup_in(&root, "missing")?.is_none());
    /// assert_eq!(fs.parent_of(&root), Some(root.number()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lookup_in(
        &self,
        directory: &Inode,
        name: impl AsRef<[u8]>,
    ) -> Result<Option<Inode>, Error> {
        let name = name.as_ref();
        let structure = Structure::Directory(directory.number());
        // The loop ends, because a name is not replaced each time that its inode is looked for.
        loop {
            let Some(number) = self.find(directory, name)? else { return Ok(None) };
            let inode = self.named_inode(number, structure);
            // The name may have been removed meanwhile, and then the inode.
            let is_old = || Ok::<_, Error>(self.find(directory, name)? != Some(number));
            if inode.is_err() && self.metadata().can_change() && is_old()? {
                continue;
            }
            return inode.map(Some);
        }
    }

    /// Returns the number of the directory above, according to the entry ".." of the directory
    /// `directory`; `None` if it cannot be read.
    ///
    /// See the [example](Self::lookup_in).
    pub fn parent_of(&self, directory: &Inode) -> Option<InodeNumber> {
        self.parent(directory)
    }

    fn child(&self, trail: &Trail, name: &[u8], path: &[u8]) -> Result<Inode, Error> {
        if name.len() > NAME_MAX {
            return Err(Error::NameTooLong { length: name.len() });
        }
        let directory = &trail.here;
        let found = self.lookup_in(directory, name)?;
        let inode = found.ok_or_else(|| Error::NotFound { path: path.into() })?;
        // The directory is one of its own ancestors.
        if trail.contains(inode.number()) {
            let problem = Problem::DirectoryLoop { inode: inode.number() };
            return Err(Structure::Directory(directory.number()).corrupt(problem));
        }
        Ok(inode)
    }
}

/// Splits a path that does not start with a slash after its first component.
fn split_component(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().position(|&byte| byte == b'/').unwrap_or(path.len());
    path.split_at_checked(end).unwrap_or((path, &[]))
}

/// The current directory of a lookup and its ancestors. ".." is resolved with this list and not
/// with the entry "..", which may be damaged.
struct Trail {
    above: Vec<Inode>,
    here: Inode,
}

impl Trail {
    fn contains(&self, number: InodeNumber) -> bool {
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
