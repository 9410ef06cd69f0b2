//! The answers to the kernel's calls.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, KernelConfig, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};
use nvio_ext4::{RenameMode, XattrMode};

use crate::attributes::{from_kernel, generation, to_kernel};
use crate::backend::Backend;
use crate::config::negotiate;
use crate::directories::{Directory, Entry};
use crate::errno::{errno, errno_of};
use crate::files::File;
use crate::name::{self, bytes};
use crate::server::{Server, Set, VALID, new_file};
use crate::space;

/// Returns the entries of a listing that are not returned yet, each with the place after it.
fn rest(entries: &[Entry], from: u64) -> impl Iterator<Item = (u64, &Entry)> {
    (1..).zip(entries).skip(usize::try_from(from).unwrap_or(usize::MAX))
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
        negotiate(config);
        Ok(())
    }

    fn destroy(&mut self) {
        self.files.clear();
        self.directories.clear();
        self.known.clear();
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _turn = self.turns.begin();
        self.entry(self.find(parent, name), reply);
    }

    fn forget(&self, _: &Request, number: INodeNo, count: u64) {
        // Several come in one call, so that none of them is a turn.
        self.known.forget(from_kernel(number), count);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let _turn = self.turns.begin();
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
        let _turn = self.turns.begin();
        let set = Set { mode, uid, gid, size, atime, mtime };
        match self.set_attributes(number, &set) {
            Ok(inode) => reply.attr(&VALID, &self.attr(&inode)),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let _turn = self.turns.begin();
        let target = self.inode(number).and_then(|inode| {
            let target = self.backend.filesystem().read_link(&inode);
            let target = target.map_err(|error| errno(&error))?;
            self.backend.record_access(&inode);
            Ok(target)
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
        let _turn = self.turns.begin();
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
        let _turn = self.turns.begin();
        let new = new_file(request, mode, umask);
        self.entry(
            self.change(parent, |fs, parent| fs.create_dir(parent, bytes(name), new)),
            reply,
        );
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.turns.begin();
        done(self.change(parent, |fs, parent| fs.remove_file(parent, bytes(name))), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.turns.begin();
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
        let _turn = self.turns.begin();
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
        let _turn = self.turns.begin();
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
        let _turn = self.turns.begin();
        let to = u32::try_from(from_kernel(new_parent)).unwrap_or(0);
        let made = self.change(number, |fs, number| {
            fs.hard_link(number, to, bytes(new_name))?;
            fs.inode_now(number)
        });
        self.entry(made, reply);
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _turn = self.turns.begin();
        let writes = flags.0 & libc::O_ACCMODE != libc::O_RDONLY;
        match self.inode(number).and_then(|inode| File::open(&self.backend, inode, writes)) {
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
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _turn = self.turns.begin();
        let direct = self.is_direct(flags);
        // Replied to while the data is in the memory that it was read to.
        let mut reply = Some(reply);
        let mut send = |bytes: &[u8]| {
            if let Some(reply) = reply.take() {
                reply.data(bytes);
            }
        };
        let read = self.files.get(handle).and_then(|file| {
            file.with(&self.backend, |file| file.read(direct, (pos, size as usize), &mut send))
        });
        if let (Err(error), Some(reply)) = (read, reply) {
            reply.error(error);
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
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _turn = self.turns.begin();
        let direct = self.is_direct(flags);
        let written = self
            .files
            .get(handle)
            .and_then(|file| file.with(&self.backend, |file| file.write(direct, pos, data)));
        match written {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let _turn = self.turns.begin();
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
        let _turn = self.turns.begin();
        drop(self.files.remove(handle));
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, data: bool, reply: ReplyEmpty) {
        let _turn = self.turns.begin();
        let file = self.files.get(handle);
        done(file.and_then(|file| file.with(&self.backend, |file| file.sync(data))), reply);
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let _turn = self.turns.begin();
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
        let _turn = self.turns.begin();
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
        let _turn = self.turns.begin();
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
        let _turn = self.turns.begin();
        drop(self.directories.remove(handle));
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let _turn = self.turns.begin();
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
        let _turn = self.turns.begin();
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
        let _turn = self.turns.begin();
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
        let _turn = self.turns.begin();
        value(self.read_attribute(number, name), size, reply);
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let _turn = self.turns.begin();
        value(self.list_attributes(number), size, reply);
    }

    fn removexattr(&self, _: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _turn = self.turns.begin();
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
        let _turn = self.turns.begin();
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
        let _turn = self.turns.begin();
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
        let _turn = self.turns.begin();
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
