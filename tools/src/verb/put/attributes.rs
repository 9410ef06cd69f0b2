//! Owner, mode, times and extended attributes of a copy. An attribute that cannot be set is printed, and
//! the copy continues.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nvio::ext4::{Error as FsError, InodeNumber, Timestamp, XattrMode};
use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;

use super::tree::Putter;
use crate::error::Error;
use crate::name;

/// Maximum length of a value, and of the list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const XATTR_BYTES_MAX: usize = 65_536;

const ACCESS_LIST: &[u8] = b"system.posix_acl_access";
const DEFAULT_LIST: &[u8] = b"system.posix_acl_default";

/// Names and values of extended attributes.
type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

impl Putter<'_> {
    /// Sets the attributes in this order: a change of the owner clears bits of the mode, a list changes the
    /// mode and is changed by it, and times are last.
    pub(super) fn set_attributes(
        &mut self,
        source: &Path,
        metadata: &Metadata,
        inode: InodeNumber,
        path: &[u8],
    ) {
        let set = self.try_set_attributes(source, metadata, inode, path);
        self.report(set.map_err(Error::path(path)));
    }

    fn try_set_attributes(
        &mut self,
        source: &Path,
        metadata: &Metadata,
        number: InodeNumber,
        path: &[u8],
    ) -> Result<(), FsError> {
        let fs = self.volume.filesystem();
        let mut now = fs.inode(number)?;
        if (now.uid(), now.gid()) != (metadata.uid(), metadata.gid()) {
            now = fs.set_owner(number, Some(metadata.uid()), Some(metadata.gid()))?;
        }
        let attributes = self.attributes_of(source);
        let (lists, others): (Attributes, Attributes) =
            attributes.into_iter().partition(|(name, _)| name.starts_with(b"system.posix_acl_"));
        self.set_xattrs(number, path, &others);
        if !metadata.is_symlink() {
            // Lists that the copy inherited, or that the directory had before.
            for list in [ACCESS_LIST, DEFAULT_LIST] {
                let is_kept = lists.iter().any(|(name, _)| name == list);
                if !is_kept && fs.xattr(&now, list)?.is_some() {
                    now = fs.remove_xattr(number, list)?;
                }
            }
            let permissions = u16::try_from(metadata.mode() & 0o7777).unwrap_or(0);
            if now.permissions() != permissions {
                fs.set_permissions(number, permissions)?;
            }
        }
        self.set_xattrs(number, path, &lists);
        let atime = timestamp(metadata.atime(), metadata.atime_nsec());
        let mtime = timestamp(metadata.mtime(), metadata.mtime_nsec());
        fs.set_times(number, Some(atime), Some(mtime))?;
        Ok(())
    }

    fn set_xattrs(&mut self, inode: InodeNumber, path: &[u8], attributes: &Attributes) {
        for (name, value) in attributes {
            let fs = self.volume.filesystem();
            if let Err(error) = fs.set_xattr(inode, name, value, XattrMode::Either) {
                let (path, name) = (name::escaped(path), name::escaped(name));
                let line = format!("{path}: the attribute {name} is not copied: {error}");
                self.report(Err(Error::Usage(line)));
            }
        }
    }

    /// Reads the extended attributes of a file of this machine. Those that cannot be read are printed.
    fn attributes_of(&mut self, source: &Path) -> Attributes {
        let mut buffer = vec![0; XATTR_BYTES_MAX];
        let names = match llistxattr(source, &mut buffer) {
            Ok(length) => buffer.get(..length).unwrap_or_default().to_vec(),
            Err(Errno::OPNOTSUPP) => Vec::new(),
            Err(errno) => {
                self.report(Err(Error::host("list the attributes of", source, errno)));
                Vec::new()
            }
        };
        let mut attributes = Vec::new();
        for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            match lgetxattr(source, OsStr::from_bytes(name), &mut buffer) {
                Ok(length) => {
                    let value = buffer.get(..length).unwrap_or_default();
                    attributes.push((name.to_vec(), value.to_vec()));
                }
                Err(errno) => self.report(Err(Error::host("read an attribute of", source, errno))),
            }
        }
        attributes
    }
}

fn timestamp(seconds: i64, nanoseconds: i64) -> Timestamp {
    Timestamp { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or(0) }
}
