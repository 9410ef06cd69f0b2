//! The answers to the kernel's calls.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use nvio_ext4::{FileType, Inode, NewFile, RenameMode, SpecialFile, XattrMode};

use crate::attributes::{attributes, from_kernel, generation, timestamp, to_kernel};
use crate::backend::Backend;
use crate::directories::{Directory, Entry};
use crate::errno::{errno, errno_of};
use crate::files::{File, Handles};
use crate::known::Known;
use crate::name::{self, NAME_MAX, bytes};
use crate::space;

/// How long the kernel may use a name or attributes: nobody else changes them.
const VALID: Duration = Duration::from_secs(3600);

/// Largest number of calls in the background, such as reads ahead.
const BACKGROUND: u16 = 64;

/// A FUSE filesystem.
pub struct Server {
    backend: Backend,
    direct: bool,
    block_size: u32,
    known: Known,
    files: Handles<File>,
    directories: Handles<Directory>,
}

impl Server {
    /// Creates a filesystem; with `direct`, reads and writes go past all caches.
    pub fn new(backend: Backend, direct: bool) -> Self {
        let block_size = backend.filesystem().superblock().block_size();
        let (known, files, directories) =
            (Known::default(), Handles::default(), Handles::default());
        Self { backend, direct, block_size, known, files, directories }
    }

    fn attr(&self, inode: &Inode) -> FileAttr {
        attributes(inode, self.block_size)
    }

    fn inode(&self, number: INodeNo) -> Result<Inode, Errno> {
        self.backend.inode(from_kernel(number))
    }

    /// Returns the attributes of an inode that a reply tells of, and that the kernel knows from then on.
    fn tell(&self, inode: &Inode) -> Result<FileAttr, Errno> {
        self.known.add(&self.backend, inode)?;
        Ok(self.attr(inode))
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> Result<Inode, Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let directory = self.inode(parent)?;
        let found = self.backend.filesystem().lookup_in(&directory, bytes(name));
        let found = found.map_err(|error| errno(&error))?.ok_or(Errno::ENOENT)?;
        self.backend.inode(found.number().get().into())
    }

    /// Replies with an inode that was found or created.
    fn entry(&self, inode: Result<Inode, Errno>, reply: ReplyEntry) {
        match inode.and_then(|inode| Ok((self.tell(&inode)?, inode))) {
            Ok((attr, inode)) => reply.entry(&VALID, &attr, generation(&inode)),
            Err(error) => reply.error(error),
        }
    }

    /// Calls `change` with the filesystem, and the number of an inode.
    fn change<T>(
        &self,
        number: INodeNo,
        change: impl FnOnce(&nvio_ext4::JournaledFilesystem, u32) -> Result<T, nvio_ext4::Error>,
    ) -> Result<T, Errno> {
        let fs = self.backend.writable()?.filesystem();
        let number = u32::try_from(from_kernel(number)).map_err(|_| Errno::ENOENT)?;
        change(fs, number).map_err(|error| errno(&error))
    }

    fn open_flags(&self) -> FopenFlags {
        match self.direct {
            true => FopenFlags::FOPEN_DIRECT_IO,
            false => FopenFlags::FOPEN_KEEP_CACHE,
        }
    }

    fn set_attributes(&self, number: INodeNo, set: &Set) -> Result<Inode, Errno> {
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

    fn create_node(
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

    fn create_and_open(
        &self,
        parent: INodeNo,
        name: &OsStr,
        new: NewFile,
    ) -> Result<(FileAttr, Inode, FileHandle), Errno> {
        let inode = self.change(parent, |fs, parent| fs.create_file(parent, bytes(name), new))?;
        let attr = self.tell(&inode)?;
        match File::open(&self.backend, inode.clone()) {
            Ok(file) => Ok((attr, inode, self.files.add(file))),
            Err(error) => {
                self.known.forget(inode.number().get().into(), 1);
                Err(error)
            }
        }
    }

    /// Writes cached data of a file, so that its map is known.
    fn settle(&self, handle: FileHandle) -> Result<(), Errno> {
        match self.backend.is_writable() {
            true => self.files.get(handle)?.with(&self.backend, |file| file.sync(true)),
            false => Ok(()),
        }
    }

    /// Returns the entries of an open directory.
    fn entries(&self, handle: FileHandle, from: u64) -> Result<Arc<Vec<Entry>>, Errno> {
        self.directories.get(handle)?.entries(&self.backend, from)
    }

    fn read_attribute(&self, number: INodeNo, name: &OsStr) -> Result<Vec<u8>, Errno> {
        let value = self.backend.filesystem().xattr(&self.inode(number)?, bytes(name));
        value.map_err(|error| errno(&error))?.ok_or(Errno::ENODATA)
    }

    fn list_attributes(&self, number: INodeNo) -> Result<Vec<u8>, Errno> {
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

/// Returns the entries of a listing that are not returned yet, each with the place after it.
fn rest(entries: &[Entry], from: u64) -> impl Iterator<Item = (u64, &Entry)> {
    (1..).zip(entries).skip(usize::try_from(from).unwrap_or(usize::MAX))
}

/// The attributes that a call sets.
struct Set {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
}

/// Returns the lower half, which has all bits of a mode.
fn low(mode: u32) -> u16 {
    u16::try_from(mode & 0xffff).unwrap_or(0)
}

/// Returns the owner and the permissions of a new file.
fn new_file(request: &Request, mode: u32, umask: u32) -> NewFile {
    let (permissions, umask) = (low(mode & 0o7777), low(umask & 0o777));
    NewFile { permissions, umask, uid: request.uid(), gid: request.gid() }
}

fn done(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

/// Replies with a value, or with its size if `size` is 0.
fn value(result: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match result {
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_DONT_MASK;
        for flag in wanted.iter() {
            // An older kernel does without.
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_background(BACKGROUND);
        Ok(())
    }

    fn destroy(&mut self) {
        self.files.clear();
        self.directories.clear();
        self.known.clear();
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(self.find(parent, name), reply);
    }

    fn forget(&self, _: &Request, number: INodeNo, count: u64) {
        self.known.forget(from_kernel(number), count);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.inode(number) {
            Ok(inode) => reply.attr(&VALID, &self.attr(&inode)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = Set { mode, uid, gid, size, atime, mtime };
        match self.set_attributes(number, &set) {
            Ok(inode) => reply.attr(&VALID, &self.attr(&inode)),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let target = self.inode(number).and_then(|inode| {
            self.backend.filesystem().read_link(&inode).map_err(|error| errno(&error))
        });
        match target {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let new = new_file(request, mode, umask);
        self.entry(self.create_node(parent, name, (mode, rdev), new), reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let new = new_file(request, mode, umask);
        self.entry(
            self.change(parent, |fs, parent| fs.create_dir(parent, bytes(name), new)),
            reply,
        );
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.change(parent, |fs, parent| fs.remove_file(parent, bytes(name))), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.change(parent, |fs, parent| fs.remove_dir(parent, bytes(name))), reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let new = new_file(request, 0o777, 0);
        let target = bytes(target.as_os_str());
        let made =
            self.change(parent, |fs, parent| fs.create_symlink(target, parent, bytes(name), new));
        self.entry(made, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            _ if flags.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return reply.error(Errno::EINVAL),
        };
        let to = u32::try_from(from_kernel(new_parent)).unwrap_or(0);
        let rename = |fs: &nvio_ext4::JournaledFilesystem, from: u32| {
            fs.rename(from, bytes(name), to, bytes(new_name), mode)
        };
        done(self.change(parent, rename), reply);
    }

    fn link(
        &self,
        _: &Request,
        number: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let to = u32::try_from(from_kernel(new_parent)).unwrap_or(0);
        let made = self.change(number, |fs, number| {
            fs.hard_link(number, to, bytes(new_name))?;
            fs.inode_now(number)
        });
        self.entry(made, reply);
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.inode(number).and_then(|inode| File::open(&self.backend, inode)) {
            Ok(file) => reply.opened(self.files.add(file), self.open_flags()),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        pos: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut buf = vec![0; size as usize];
        let read = self.files.get(handle).and_then(|file| {
            file.with(&self.backend, |file| file.read(self.direct, pos, &mut buf))
        });
        match read {
            Ok(read) => reply.data(buf.get(..read).unwrap_or_default()),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        pos: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self
            .files
            .get(handle)
            .and_then(|file| file.with(&self.backend, |file| file.write(self.direct, pos, data)));
        match written {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        drop(self.files.remove(handle));
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, data: bool, reply: ReplyEmpty) {
        let file = self.files.get(handle);
        done(file.and_then(|file| file.with(&self.backend, |file| file.sync(data))), reply);
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = match self.backend.is_writable() {
            true => FopenFlags::empty(),
            false => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
        };
        reply.opened(self.directories.add(Directory::new(from_kernel(number))), flags);
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        from: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = match self.entries(handle, from) {
            Ok(entries) => entries,
            Err(error) => return reply.error(error),
        };
        for (at, entry) in rest(&entries, from) {
            let name = name::name(&entry.name);
            if reply.add(to_kernel(entry.inode), at, entry.kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        from: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let entries = match self.entries(handle, from) {
            Ok(entries) => entries,
            Err(error) => return reply.error(error),
        };
        for (at, entry) in rest(&entries, from) {
            let name = name::name(&entry.name);
            // An entry that was removed meanwhile is left out.
            let Ok(inode) = self.backend.inode(entry.inode.get().into()) else { continue };
            let is_dot = matches!(&entry.name[..], b"." | b"..");
            let Ok(attr) = (if is_dot { Ok(self.attr(&inode)) } else { self.tell(&inode) }) else {
                continue;
            };
            let number = to_kernel(entry.inode);
            if reply.add(number, at, name, &VALID, &attr, generation(&inode)) {
                if !is_dot {
                    self.known.forget(inode.number().get().into(), 1);
                }
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        drop(self.directories.remove(handle));
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = match &self.backend {
            Backend::Read(_) => Ok(()),
            // The protocol has no call for sync(2). A sync of the root takes its place.
            Backend::Write(volume) if number == INodeNo::ROOT => {
                volume.sync().map_err(|error| errno_of(&error))
            }
            Backend::Write(_) => self.change(number, |fs, number| fs.sync_inode(number)),
        };
        done(synced, reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.backend.filesystem().statfs() {
            Ok(found) => reply.statfs(
                found.blocks,
                found.free_blocks,
                found.available_blocks,
                found.files.into(),
                found.free_files,
                found.block_size,
                found.name_max,
                found.block_size,
            ),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setxattr(
        &self,
        _: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => XattrMode::Either,
        };
        let set = |fs: &nvio_ext4::JournaledFilesystem, number: u32| {
            fs.set_xattr(number, bytes(name), value, mode).map(drop)
        };
        done(self.change(number, set), reply);
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        value(self.read_attribute(number, name), size, reply);
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        value(self.list_attributes(number), size, reply);
    }

    fn removexattr(&self, _: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = |fs: &nvio_ext4::JournaledFilesystem, number: u32| {
            fs.remove_xattr(number, bytes(name)).map(drop)
        };
        done(self.change(number, remove), reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.create_and_open(parent, name, new_file(request, mode, umask)) {
            Ok((attr, inode, handle)) => {
                reply.created(&VALID, &attr, generation(&inode), handle, self.open_flags());
            }
            Err(error) => reply.error(error),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        pos: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let number = u32::try_from(from_kernel(number)).unwrap_or(0);
        done(space::allocate(&self.backend, number, pos, length, mode), reply);
    }

    fn lseek(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        pos: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let found = self.settle(handle).and_then(|()| self.inode(number)).and_then(|inode| {
            let pos = u64::try_from(pos).map_err(|_| Errno::ENXIO)?;
            space::seek(&self.backend, &inode, pos, whence)
        });
        match found.and_then(|at| i64::try_from(at).map_err(|_| Errno::EOVERFLOW)) {
            Ok(at) => reply.offset(at),
            Err(error) => reply.error(error),
        }
    }
}
