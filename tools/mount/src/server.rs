//! The filesystem that the kernel calls: its inodes, and the parts of calls.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    Errno, FileAttr, FileHandle, FopenFlags, INodeNo, OpenFlags, ReplyEntry, Request, TimeOrNow,
};
use nvio_ext4::{FileType, Inode, NewFile, SpecialFile};

use crate::attributes::{attributes, from_kernel, generation, timestamp};
use crate::backend::Backend;
use crate::directories::{Directory, Entry};
use crate::errno::errno;
use crate::files::{File, Handles};
use crate::known::Known;
use crate::name::{NAME_MAX, bytes};
use crate::turns::Turns;

/// How long the kernel may use a name or attributes: nobody else changes them.
pub(crate) const VALID: Duration = Duration::from_secs(3600);

/// A FUSE filesystem.
pub struct Server {
    pub(crate) backend: Backend,
    pub(crate) direct: bool,
    pub(crate) block_size: u32,
    pub(crate) known: Known,
    pub(crate) files: Handles<File>,
    pub(crate) directories: Handles<Directory>,
    pub(crate) turns: Arc<Turns>,
}

impl Server {
    /// Creates a filesystem; with `direct`, reads and writes go past all caches.
    pub(crate) fn new(backend: Backend, direct: bool, turns: Arc<Turns>) -> Self {
        let block_size = backend.filesystem().superblock().block_size();
        let (known, files, directories) =
            (Known::default(), Handles::default(), Handles::default());
        Self { backend, direct, block_size, known, files, directories, turns }
    }

    pub(crate) fn attr(&self, inode: &Inode) -> FileAttr {
        attributes(inode, self.block_size)
    }

    pub(crate) fn inode(&self, number: INodeNo) -> Result<Inode, Errno> {
        self.backend.inode(from_kernel(number))
    }

    /// Returns the attributes of an inode that a reply tells of, and that the kernel knows from then on.
    pub(crate) fn tell(&self, inode: &Inode) -> Result<FileAttr, Errno> {
        self.known.add(&self.backend, inode)?;
        Ok(self.attr(inode))
    }

    pub(crate) fn find(&self, parent: INodeNo, name: &OsStr) -> Result<Inode, Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let directory = self.inode(parent)?;
        let found = self.backend.filesystem().lookup_in(&directory, bytes(name));
        let found = found.map_err(|error| errno(&error))?.ok_or(Errno::ENOENT)?;
        self.backend.inode(found.number().get().into())
    }

    /// Replies with an inode that was found or created.
    pub(crate) fn entry(&self, inode: Result<Inode, Errno>, reply: ReplyEntry) {
        match inode.and_then(|inode| Ok((self.tell(&inode)?, inode))) {
            Ok((attr, inode)) => reply.entry(&VALID, &attr, generation(&inode)),
            Err(error) => reply.error(error),
        }
    }

    /// Calls `change` with the filesystem, and the number of an inode.
    pub(crate) fn change<T>(
        &self,
        number: INodeNo,
        change: impl FnOnce(&nvio_ext4::JournaledFilesystem, u32) -> Result<T, nvio_ext4::Error>,
    ) -> Result<T, Errno> {
        let fs = self.backend.writable()?.filesystem();
        let number = u32::try_from(from_kernel(number)).map_err(|_| Errno::ENOENT)?;
        change(fs, number).map_err(|error| errno(&error))
    }

    pub(crate) fn open_flags(&self) -> FopenFlags {
        match self.direct {
            true => FopenFlags::FOPEN_DIRECT_IO,
            false => FopenFlags::FOPEN_KEEP_CACHE,
        }
    }

    /// Returns true if a call goes past the cache, because the mount or its file was opened so.
    pub(crate) fn is_direct(&self, flags: OpenFlags) -> bool {
        self.direct || flags.0 & libc::O_DIRECT != 0
    }

    pub(crate) fn set_attributes(&self, number: INodeNo, set: &Set) -> Result<Inode, Errno> {
        if let Some(size) = set.size {
            self.change(number, |fs, number| fs.truncate(number, size))?;
        }
        if set.uid.is_some() || set.gid.is_some() {
            self.change(number, |fs, number| fs.set_owner(number, set.uid, set.gid))?;
        }
        if let Some(mode) = set.mode {
            let permissions = low(mode & 0o7777);
            self.change(number, |fs, number| fs.set_permissions(number, permissions))?;
        }
        if set.atime.is_some() || set.mtime.is_some() {
            let [atime, mtime] = [set.atime, set.mtime].map(|time| time.map(timestamp));
            self.change(number, |fs, number| fs.set_times(number, atime, mtime))?;
        }
        self.inode(number)
    }

    pub(crate) fn create_node(
        &self,
        parent: INodeNo,
        name: &OsStr,
        (mode, rdev): (u32, u32),
        new: NewFile,
    ) -> Result<Inode, Errno> {
        let device = ((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00));
        let special = match FileType::from_mode(low(mode)) {
            Some(FileType::Fifo) => SpecialFile::Fifo,
            Some(FileType::Socket) => SpecialFile::Socket,
            Some(FileType::CharDevice) => SpecialFile::CharDevice(device.0, device.1),
            Some(FileType::BlockDevice) => SpecialFile::BlockDevice(device.0, device.1),
            Some(FileType::Regular) => {
                return self.change(parent, |fs, parent| fs.create_file(parent, bytes(name), new));
            }
            _ => return Err(Errno::EPERM),
        };
        self.change(parent, |fs, parent| fs.create_special(special, parent, bytes(name), new))
    }

    pub(crate) fn create_and_open(
        &self,
        parent: INodeNo,
        name: &OsStr,
        new: NewFile,
    ) -> Result<(FileAttr, Inode, FileHandle), Errno> {
        let inode = self.change(parent, |fs, parent| fs.create_file(parent, bytes(name), new))?;
        let attr = self.tell(&inode)?;
        match File::open(&self.backend, inode.clone(), true) {
            Ok(file) => Ok((attr, inode, self.files.add(file))),
            Err(error) => {
                self.known.forget(inode.number().get().into(), 1);
                Err(error)
            }
        }
    }

    /// Writes cached data of a file, so that its map is known.
    pub(crate) fn settle(&self, handle: FileHandle) -> Result<(), Errno> {
        match self.backend.is_writable() {
            true => self.files.get(handle)?.with(&self.backend, |file| file.sync(true)),
            false => Ok(()),
        }
    }

    /// Returns the entries of an open directory.
    pub(crate) fn entries(&self, handle: FileHandle, from: u64) -> Result<Arc<Vec<Entry>>, Errno> {
        self.directories.get(handle)?.entries(&self.backend, from)
    }

    pub(crate) fn read_attribute(&self, number: INodeNo, name: &OsStr) -> Result<Vec<u8>, Errno> {
        let value = self.backend.filesystem().xattr(&self.inode(number)?, bytes(name));
        value.map_err(|error| errno(&error))?.ok_or(Errno::ENODATA)
    }

    pub(crate) fn list_attributes(&self, number: INodeNo) -> Result<Vec<u8>, Errno> {
        let mut names = Vec::new();
        for attribute in
            self.backend.filesystem().xattrs(&self.inode(number)?).map_err(|e| errno(&e))?
        {
            let attribute = attribute.map_err(|error| errno(&error))?;
            names.extend_from_slice(&attribute.name);
            names.push(0);
        }
        Ok(names)
    }
}

/// The attributes that a call sets.
pub(crate) struct Set {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<TimeOrNow>,
    pub(crate) mtime: Option<TimeOrNow>,
}

/// Returns the lower half, which has all bits of a mode.
pub(crate) fn low(mode: u32) -> u16 {
    u16::try_from(mode & 0xffff).unwrap_or(0)
}

/// Returns the owner and the permissions of a new file.
pub(crate) fn new_file(request: &Request, mode: u32, umask: u32) -> NewFile {
    let (permissions, umask) = (low(mode & 0o7777), low(umask & 0o777));
    NewFile { permissions, umask, uid: request.uid(), gid: request.gid() }
}
