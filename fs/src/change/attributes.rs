//! Changes of an inode's own fields: permissions, owner, times.

use crate::change::time::now;
use crate::change::{JournaledFilesystem, acl};
use crate::error::Error;
use crate::error::reasons::Protected;
use crate::file::system_zone::system_files;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::format::time::Timestamp;
use crate::number::InodeNumber;

/// `S_ISUID`.
const SET_USER: u16 = 0o4000;
/// `S_ISGID`.
const SET_GROUP: u16 = 0o2000;
/// `S_IXGRP`, without which `S_ISGID` of a file does not mean another group.
const GROUP_EXECUTES: u16 = 0o0010;

impl JournaledFilesystem {
    /// Sets the lower twelve bits of an inode's mode, and returns the inode. If it has an access control
    /// list, the entries of the owner, the mask (or else the group) and the others change with the mode.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Protected`] if the inode is immutable, append-only or the filesystem's own;
    /// [`Error::NoSpace`] if its access control list is in a block that other inodes share, and no block is
    /// free;
    /// [`Error::NoSuchInode`], [`Error::InodeNotInUse`]; damage; a failure of the device.
    pub fn set_permissions(
        &self,
        inode: impl Into<InodeNumber>,
        permissions: u16,
    ) -> Result<Inode, Error> {
        let (number, now) = (inode.into(), now());
        self.journal().change(self, |handle| {
            let mut inode = handle.inode(number)?;
            self.check(&inode)?;
            let attributes = acl::set_permissions(handle, self.zone(), &mut inode, permissions)?;
            inode.set_ctime(now);
            match attributes {
                Some(attributes) => attributes.store(handle, self.zone(), &mut inode)?,
                None => {
                    handle.set_inode(inode.clone())?;
                    handle.changes.is_fast = true;
                }
            }
            Ok(inode)
        })
    }

    /// Sets the owner, the group, or both, and returns the inode. A file that runs with the rights of
    /// its owner or group no longer does.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`set_permissions`](Self::set_permissions), but an access control list does not change.
    pub fn set_owner(
        &self,
        inode: impl Into<InodeNumber>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<Inode, Error> {
        self.edit(inode.into(), |inode| {
            inode.set_owner(uid.unwrap_or(inode.uid()), gid.unwrap_or(inode.gid()));
            if !inode.is_dir() {
                let permissions = inode.permissions();
                let group = if permissions & GROUP_EXECUTES != 0 { SET_GROUP } else { 0 };
                inode.set_permissions(permissions & !(SET_USER | group));
            }
        })
    }

    /// Sets the time of the last access, of the last change of the contents, or both, and returns the
    /// inode. Times that an inode cannot store become the first or the last that it can.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`set_owner`](Self::set_owner).
    pub fn set_times(
        &self,
        inode: impl Into<InodeNumber>,
        atime: Option<Timestamp>,
        mtime: Option<Timestamp>,
    ) -> Result<Inode, Error> {
        let number = inode.into();
        // The time of an earlier read or write does not replace this one.
        if let Some(open) = self.open_inodes().find(number) {
            if mtime.is_some() {
                open.state().modified.take();
            }
            if atime.is_some() {
                open.state().accessed.take();
            }
        }
        self.edit(number, |inode| {
            inode.set_atime(atime.unwrap_or(inode.atime()));
            inode.set_mtime(mtime.unwrap_or(inode.mtime()));
        })
    }

    /// Sets the times of the last change of a file's contents.
    pub(super) fn set_modified(&self, number: InodeNumber, time: Timestamp) -> Result<(), Error> {
        self.journal().change(self, |handle| {
            let mut inode = handle.inode(number)?;
            inode.set_mtime(time);
            inode.set_ctime(time);
            handle.set_inode(inode)
        })
    }

    /// Changes the fields of an inode, and the time of its last change.
    fn edit(&self, number: InodeNumber, edit: impl Fn(&mut Inode)) -> Result<Inode, Error> {
        let now = now();
        self.journal().change(self, |handle| {
            let mut inode = handle.inode(number)?;
            self.check(&inode)?;
            edit(&mut inode);
            inode.set_ctime(now);
            handle.changes.is_fast = true;
            handle.set_inode(inode.clone())?;
            Ok(inode)
        })
    }

    /// Rejects a directory that gets no new names. One that is append-only gets some, and loses none.
    pub(super) fn check_adding(&self, directory: &Inode) -> Result<(), Error> {
        match self.check(directory) {
            Err(Error::Protected { why: Protected::AppendOnly, .. }) if directory.is_dir() => {
                Ok(())
            }
            checked => checked,
        }
    }

    /// Rejects inodes that must not be changed.
    pub(super) fn check(&self, inode: &Inode) -> Result<(), Error> {
        let number = inode.number();
        let flags = inode.flags();
        let is_own = number != InodeNumber::ROOT && !self.superblock().inodes().contains(&number);
        let why = match () {
            () if is_own || system_files(self).any(|file| file == number) => Protected::System,
            () if flags.contains(InodeFlags::IMMUTABLE) => Protected::Immutable,
            () if flags.contains(InodeFlags::APPEND) => Protected::AppendOnly,
            () => return Ok(()),
        };
        Err(Error::Protected { inode: number, why })
    }
}
