//! Owner, mode, times and extended attributes of a new file. An attribute that cannot be set is printed,
//! and the file stays.

use nvio::ext4::{Error as FsError, InodeNumber, Timestamp, XattrMode};

use super::Creator;
use crate::error::Error;
use crate::name;

/// Access control lists, by the names of their attributes.
pub const ACCESS_LIST: &[u8] = b"system.posix_acl_access";
pub const DEFAULT_LIST: &[u8] = b"system.posix_acl_default";

/// The attributes of a file.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The permissions with set-user-ID, set-group-ID and sticky bit. A symbolic link has none.
    pub permissions: u16,
    /// Names and values of extended attributes, also of access control lists.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The time of the last access, if it is known.
    pub atime: Option<Timestamp>,
    /// The time of the last change of the data.
    pub mtime: Option<Timestamp>,
}

impl Creator<'_> {
    /// Sets the attributes in this order: a change of the owner clears bits of the mode, a list changes the
    /// mode and is changed by it. Times are left to [`set_times`](Self::set_times), because each new entry
    /// of a directory changes them.
    pub fn set_attributes(&mut self, inode: InodeNumber, path: &[u8], attributes: &Attributes) {
        let set = self.try_set_attributes(inode, path, attributes);
        self.report(set.map_err(Error::path(path)));
    }

    /// Sets the times.
    pub fn set_times(&mut self, inode: InodeNumber, path: &[u8], attributes: &Attributes) {
        let set = self.fs().set_times(inode, attributes.atime, attributes.mtime);
        self.report(set.map(drop).map_err(Error::path(path)));
    }

    fn try_set_attributes(
        &mut self,
        number: InodeNumber,
        path: &[u8],
        attributes: &Attributes,
    ) -> Result<(), FsError> {
        let fs = self.fs();
        let &Attributes { uid, gid, permissions, .. } = attributes;
        let mut now = fs.inode(number)?;
        if (now.uid(), now.gid()) != (uid, gid) {
            now = fs.set_owner(number, Some(uid), Some(gid))?;
        }
        let is_list = |name: &[u8]| name.starts_with(b"system.posix_acl_");
        let others = attributes.xattrs.iter().filter(|(name, _)| !is_list(name));
        self.set_xattrs(number, path, others);
        if !now.is_symlink() {
            // Lists that the file inherited, or that the directory had before.
            for list in [ACCESS_LIST, DEFAULT_LIST] {
                let is_kept = attributes.xattrs.iter().any(|(name, _)| name == list);
                if !is_kept && fs.xattr(&now, list)?.is_some() {
                    now = fs.remove_xattr(number, list)?;
                }
            }
            if now.permissions() != permissions {
                fs.set_permissions(number, permissions)?;
            }
        }
        let lists = attributes.xattrs.iter().filter(|(name, _)| is_list(name));
        self.set_xattrs(number, path, lists);
        Ok(())
    }

    fn set_xattrs<'a>(
        &mut self,
        inode: InodeNumber,
        path: &[u8],
        attributes: impl Iterator<Item = &'a (Vec<u8>, Vec<u8>)>,
    ) {
        for (name, value) in attributes {
            if let Err(error) = self.fs().set_xattr(inode, name, value, XattrMode::Either) {
                let (path, name) = (name::escaped(path), name::escaped(name));
                let line = format!("{path}: the attribute {name} is not set: {error}");
                self.report(Err(Error::Usage(line)));
            }
        }
    }
}
