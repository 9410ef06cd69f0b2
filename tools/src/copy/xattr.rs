//! Extended attributes of copied files. Not every filesystem stores all of them, and not every user
//! may set them: a refusal is printed, and the copy continues.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nvio_ext4::{Filesystem, Inode, Xattr};
use rustix::io::Errno;

use crate::name;

/// The refusals that were printed, each once: the part of the name before the dot, and the error.
#[derive(Default)]
pub struct Refused(RefCell<HashSet<(Vec<u8>, Errno)>>);

/// The attributes of a file that is copied.
pub struct Attributes<'a> {
    all: Vec<Xattr>,
    refused: &'a Refused,
}

impl<'a> Attributes<'a> {
    /// Reads the attributes of an inode. Returns those that can be read, and the errors of the
    /// others.
    pub fn read(
        filesystem: &Filesystem,
        inode: &Inode,
        refused: &'a Refused,
    ) -> (Self, Vec<nvio_ext4::Error>) {
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        match filesystem.xattrs(inode) {
            Ok(xattrs) => xattrs.for_each(|xattr| match xattr {
                Ok(xattr) => all.push(xattr),
                Err(error) => errors.push(error),
            }),
            Err(error) => errors.push(error),
        }
        (Self { all, refused }, errors)
    }

    /// Calls `set` for each attribute of the file at `path`: for the access control lists, or for
    /// all others.
    pub fn set(
        &self,
        path: &Path,
        lists: bool,
        mut set: impl FnMut(&OsStr, &[u8]) -> Result<(), Errno>,
    ) {
        let is_chosen = |name: &[u8]| name.starts_with(b"system.posix_acl_") == lists;
        for Xattr { name, value } in self.all.iter().filter(|xattr| is_chosen(&xattr.name)) {
            if let Err(errno) = set(OsStr::from_bytes(name), value) {
                self.refused.report(name, errno, path);
            }
        }
    }
}

impl Refused {
    fn report(&self, name: &[u8], errno: Errno, path: &Path) {
        let space = name.split(|&byte| byte == b'.').next().unwrap_or_default().to_vec();
        let (name, path) = (name::escaped(name), name::escaped(path.as_os_str().as_bytes()));
        if self.0.borrow_mut().insert((space, errno)) {
            log::warn!("{path}: the attribute {name} is not copied, as others may not be: {errno}");
        } else {
            log::debug!("{path}: the attribute {name} is not copied: {errno}");
        }
    }
}
