//! The commands of changes of names, on a device with Force Unit Access.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nvio_ext4::{
    BlockDevice, BlockSource, InodeNumber, JournaledFilesystem, NewFile, Options, RenameMode,
    SourceError, WriteRange,
};

use super::check;
use super::recorder::{Event, Recorder};
use crate::common::mke2fs;

/// Maximum number of bytes of a command of many drives.
const COMMAND_BYTES: usize = 512 << 10;

const ROOT: InodeNumber = InodeNumber::ROOT;

/// A recorder that counts reads.
#[derive(Clone)]
struct Counted {
    device: Recorder,
    reads: Arc<AtomicUsize>,
}

impl Counted {
    fn new(bytes: Vec<u8>) -> Self {
        Self { device: Recorder::new(bytes), reads: Arc::default() }
    }

    fn open(&self) -> JournaledFilesystem {
        JournaledFilesystem::open(self.clone(), Options::default()).unwrap()
    }

    /// Returns the numbers of write commands, of flushes, and of reads of a call.
    fn count(&self, call: impl FnOnce()) -> (usize, usize, usize) {
        let (calls, reads) = (self.device.calls(), self.reads.load(Ordering::Relaxed));
        call();
        let events = &self.device.events()[calls..];
        let writes = events.iter().map(|event| -> usize {
            match event {
                Event::Write { ranges, .. } => {
                    ranges.iter().map(|(_, bytes)| bytes.len().div_ceil(COMMAND_BYTES)).sum()
                }
                Event::Flush => 0,
            }
        });
        let flushes = events.iter().filter(|event| matches!(event, Event::Flush)).count();
        (writes.sum(), flushes, self.reads.load(Ordering::Relaxed) - reads)
    }
}

impl BlockSource for Counted {
    fn size(&self) -> u64 {
        BlockSource::size(&self.device)
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.device.read(offset, buf)
    }
}

impl BlockDevice for Counted {
    fn write_many(&self, ranges: &[WriteRange<'_>], durable: bool) -> Result<(), SourceError> {
        self.device.write_many(ranges, durable)
    }

    fn flush(&self) -> Result<(), SourceError> {
        self.device.flush()
    }
}

fn image(size: &str, options: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    mke2fs(&path, size, &options.split(' ').collect::<Vec<_>>(), None);
    std::fs::read(path).unwrap()
}

/// The commands of each call are those of the table in ARCHITECTURE.md.
#[test]
fn commands_of_each_call() {
    let dir = tempfile::tempdir().unwrap();
    let new = NewFile::with_permissions(0o644);
    for options in ["-t ext4 -b 4096 -J size=8", "-t ext4 -b 4096 -J size=8 -O fast_commit"] {
        let device = Counted::new(image("48M", options));
        let fs = device.open();
        let top = fs.create_dir(ROOT, "directory", new).unwrap().number();
        fs.create_file(top, "old", new).unwrap();
        // The first blocks of this journal are in two pieces.
        for owner in 0..12 {
            fs.set_owner(top, Some(owner), None).unwrap();
            fs.sync().unwrap();
        }
        let has_fast_commits = options.contains("fast_commit");
        let is = |what: &str, (full, fast): (usize, usize), call: &dyn Fn()| {
            let commands = if has_fast_commits { fast } else { full };
            let (writes, flushes, _) = device.count(call);
            assert_eq!((writes, flushes), (commands, 0), "{options}: {what}");
        };
        for round in 0..10 {
            let name = |what: &str| format!("{what}-{round}");
            is("create, fsync", (2, 1), &|| {
                let inode = fs.create_file(top, name("file"), new).unwrap();
                fs.sync_inode(inode.number()).unwrap();
            });
            is("rename, fsync of the directory", (2, 2), &|| {
                fs.rename(top, name("file"), top, name("moved"), RenameMode::Replace).unwrap();
                fs.sync_inode(top).unwrap();
            });
            is("rename to another directory, fsync of it", (2, 2), &|| {
                fs.rename(top, name("moved"), ROOT, name("moved"), RenameMode::Replace).unwrap();
                fs.sync_inode(ROOT).unwrap();
            });
            is("link, fsync", (2, 1), &|| {
                let inode = fs.lookup("/directory/old").unwrap().number();
                fs.hard_link(inode, ROOT, name("link")).unwrap();
                fs.sync_inode(inode).unwrap();
            });
            is("unlink, fsync of the directory", (2, 2), &|| {
                fs.remove_file(ROOT, name("link")).unwrap();
                fs.sync_inode(ROOT).unwrap();
            });
            is("unlink of a last name, fsync of the directory", (2, 2), &|| {
                fs.remove_file(ROOT, name("moved")).unwrap();
                fs.sync_inode(ROOT).unwrap();
            });
            is("mkdir, fsync of the parent", (2, 2), &|| {
                fs.create_dir(top, name("directory"), new).unwrap();
                fs.sync_inode(top).unwrap();
            });
            is("create, write, fsync", (3, 2), &|| {
                let inode = fs.create_file(top, name("data"), new).unwrap().number();
                fs.write_at(inode, 0, &[7; 4096]).unwrap();
                fs.sync_inode(inode).unwrap();
            });
            is("fsync of the directory", (0, 0), &|| fs.sync_inode(top).unwrap());
            is("replace: create, write, fsync, rename, fsync of the directory", (5, 4), &|| {
                let inode = fs.create_file(top, "new", new).unwrap().number();
                fs.write_at(inode, 0, &[7; 4096]).unwrap();
                fs.sync_inode(inode).unwrap();
                fs.rename(top, "new", top, "old", RenameMode::Replace).unwrap();
                fs.sync_inode(top).unwrap();
            });
        }
        fs.close().unwrap();
        check(dir.path(), &device.device.bytes());
    }
}

#[test]
fn ten_thousand_files_without_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let new = NewFile::with_permissions(0o644);
    for (size, options) in [
        ("64M", "-t ext4 -b 4096 -N 16384 -J size=4"),
        ("128M", "-t ext4 -b 4096 -N 16384 -J size=32"),
        ("128M", "-t ext4 -b 4096 -N 16384 -J size=16 -O fast_commit"),
        ("64M", "-t ext4 -b 1024 -N 16384 -J size=4"),
    ] {
        let device = Counted::new(image(size, options));
        let fs = device.open();
        let top = fs.create_dir(ROOT, "directory", new).unwrap().number();
        fs.sync().unwrap();
        let (writes, flushes, reads) = device.count(|| {
            for at in 0..10_000 {
                fs.create_file(top, format!("name-{at:06}"), new).unwrap();
            }
            fs.sync().unwrap();
        });
        println!("{options}: {writes} writes, {flushes} flushes, {reads} reads");
        assert!(writes + flushes + reads <= 10_000 / 200, "{options}");
        fs.close().unwrap();
        check(dir.path(), &device.device.bytes());
    }
}
