//! A FUSE server that does nothing: the limit of every other.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request,
    Session,
};
use nvio_mount::{Options, negotiate};
use nvio_tests::walk::Result;

use crate::{FILE_BYTES, FILES, THREADS};

const VALID: Duration = Duration::from_secs(3600);
/// Most bytes of a read.
const READ_MAX: usize = 16 << 20;

/// Files of zeroes. The inode of file `n` is `n + 2`.
struct Nothing {
    zeroes: Vec<u8>,
}

/// Serves files of zeroes, with the settings of `nvio mount`, until they are unmounted.
pub(crate) fn serve(directory: &Path) -> Result<()> {
    let options = Options {
        device: "nothing".into(),
        threads: THREADS,
        direct: false,
        allow_other: false,
        devices: false,
        set_user: false,
        access_times: false,
    };
    let server = Nothing { zeroes: vec![0; READ_MAX] };
    Ok(Session::new(server, directory, &options.config(false))?.run()?)
}

fn attributes(inode: INodeNo) -> FileAttr {
    let (kind, size) = match inode {
        INodeNo::ROOT => (FileType::Directory, 4096),
        _ => (FileType::RegularFile, FILE_BYTES),
    };
    let time = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: inode,
        size,
        blocks: size / 512,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Nothing {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate(config);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = name.to_str().and_then(|name| name.parse().ok());
        match number.filter(|&number: &u64| number < FILES) {
            Some(number) => {
                reply.entry(&VALID, &attributes(INodeNo(number + 2)), Generation(0));
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&VALID, &attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(self.zeroes.get(..size as usize).unwrap_or(&self.zeroes));
    }
}
