//! Inodes that are allocated and freed: files without names.

use std::fs;
use std::path::Path;

use nvio_ext4::{BlockSource, Error, Filesystem, InodeNumber, NewFile};
use nvio_testkit::random::Rng;

use super::recorder::{Recorder, cut_disks};
use super::{VARIANTS, check, open};
use crate::common::{self, Mount, assert_clean};

/// Returns a filesystem whose blocks had other contents before mke2fs, which initialises no more than it
/// must.
fn image(dir: &Path, options: &str) -> Vec<u8> {
    let path = dir.join("image");
    fs::write(&path, vec![0xa5; 24 << 20]).unwrap();
    let lazy = ["-q", "-F", "-E", "nodiscard,lazy_itable_init=1"];
    let path_text = path.to_str().unwrap();
    let all: Vec<&str> = lazy.into_iter().chain(options.split(' ')).chain([path_text]).collect();
    common::run("mke2fs", &all);
    fs::read(path).unwrap()
}

fn free(fs: &Filesystem) -> (u64, u64) {
    let found = fs.statfs().unwrap();
    (found.free_blocks, found.free_files)
}

#[test]
fn all_inodes_can_be_used_and_freed() {
    let dir = tempfile::tempdir().unwrap();
    for &(name, options) in VARIANTS {
        let device = Recorder::new(image(dir.path(), options));
        let fs = open(&device);
        let new = NewFile { uid: 7, gid: 8, ..NewFile::with_permissions(0o640) };
        if name.starts_with("ext3") {
            let error = fs.create_unnamed(InodeNumber::ROOT, new).unwrap_err();
            assert!(matches!(error, Error::UnsupportedInode { .. }), "{error}");
            continue;
        }
        let before = free(&fs);
        let mut files = Vec::new();
        let full = loop {
            match fs.create_unnamed(InodeNumber::ROOT, new) {
                Ok(file) => files.push(file),
                Err(error) => break error,
            }
        };
        assert!(matches!(full, Error::NoInodes), "{name}: {full}");
        assert_eq!(files.len() as u64, before.1, "{name}");
        let mut numbers: Vec<_> = files.iter().map(|file| file.inode().number()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(
            (numbers.len(), numbers[0] > InodeNumber::from(10)),
            (files.len(), true),
            "{name}"
        );
        for file in files.iter().step_by(50) {
            fs.write_at(file.inode().number(), 5000, b"text").unwrap();
            let inode = fs.inode(file.inode().number()).unwrap();
            assert_eq!((inode.size(), inode.links(), inode.mode()), (5004, 0, 0o100_640));
            assert_eq!((inode.uid(), inode.gid()), (7, 8));
            assert_eq!(inode.crtime().is_some(), fs.superblock().inode_size() > 128);
        }
        // A half of them is closed, and inodes are free at once, but for a commit.
        let kept = files.split_off(files.len() / 2);
        files.into_iter().rev().for_each(drop);
        drop(fs.create_unnamed(InodeNumber::ROOT, new).unwrap());
        fs.sync().unwrap();
        crash(dir.path(), name, &device, before);
        kept.into_iter().rev().for_each(drop);
        assert_eq!(free(&fs), before, "{name}");
        fs.close().unwrap();
        check(dir.path(), &device.bytes());
        assert_eq!(free(&Filesystem::open(device.bytes()).unwrap()), before, "{name}");
    }
}

/// Checks that the kernel and nvio free the files without names after a loss of power.
fn crash(dir: &Path, name: &str, device: &Recorder, free_before: (u64, u64)) {
    let again = Recorder::new(device.bytes());
    let fs = open(&again);
    assert_eq!(free(&fs), free_before, "{name}: the orphans are freed");
    fs.close().unwrap();
    check(dir, &again.bytes());
    if common::is_root() {
        let path = dir.join("cut");
        fs::write(&path, device.bytes()).unwrap();
        drop(Mount::new(&path, &dir.join("mnt"), "loop,noatime").unwrap());
        assert_clean(&path);
        let found = free(&Filesystem::open(fs::read(&path).unwrap()).unwrap());
        assert_eq!(found, free_before, "{name}: the kernel frees the orphans");
    }
}

#[test]
fn a_file_is_not_opened_after_it_was_freed() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), VARIANTS[0].1));
    let fs = open(&device);
    let new = NewFile::with_permissions(0o600);
    let file = fs.create_unnamed(InodeNumber::ROOT, new).unwrap();
    let inode = fs.inode(file.inode().number()).unwrap();
    // Another handle keeps it.
    let other = fs.open_file(&inode).unwrap();
    drop(file);
    fs.sync().unwrap();
    fs.write_at(inode.number(), 0, b"still there").unwrap();
    drop(other);
    let gone = fs.open_file(&inode).unwrap_err();
    assert!(matches!(gone, Error::InodeNotInUse { .. }), "{gone}");
    let gone = fs.write_at(inode.number(), 0, b"lost").unwrap_err();
    assert!(matches!(gone, Error::InodeNotInUse { .. }), "{gone}");
    // The next file has the same number when the transaction is durable, but not before.
    let next = fs.create_unnamed(InodeNumber::ROOT, new).unwrap();
    assert_ne!(next.inode().number(), inode.number());
    drop(next);
    fs.sync().unwrap();
    let next = fs.create_unnamed(InodeNumber::ROOT, new).unwrap();
    assert_eq!(next.inode().number(), inode.number());
    let gone = fs.open_file(&inode).unwrap_err();
    assert!(matches!(gone, Error::InodeNotInUse { .. }), "{gone}");
    drop(next);
    fs.close().unwrap();
    assert!(BlockSource::size(&device.bytes()) > 0);
    check(dir.path(), &device.bytes());
}

/// A file without a name is written, gets two names and becomes durable. After each cut it is there as a
/// whole under the first, or also the second, or it is gone.
#[test]
fn a_file_without_a_name_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    let data = vec![7; 5000];
    for &(name, options) in VARIANTS.iter().filter(|(name, _)| !name.starts_with("ext3")) {
        let device = Recorder::new(image(dir.path(), options));
        let fs = open(&device);
        let before = free(&fs);
        let (base, first) = (device.disk(), device.calls());
        let new = NewFile::with_permissions(0o600);
        let others = [1, 2].map(|_| fs.create_unnamed(InodeNumber::ROOT, new).unwrap());
        let file = fs.create_unnamed(InodeNumber::ROOT, new).unwrap();
        let number = file.inode().number();
        fs.write_at(number, 0, &data).unwrap();
        assert_eq!(fs.hard_link(number, InodeNumber::ROOT, "name").unwrap().links(), 1, "{name}");
        fs.sync_inode(number).unwrap();
        let synced = device.calls() - first;
        drop(file);
        assert_eq!(fs.hard_link(number, InodeNumber::ROOT, "second").unwrap().links(), 2, "{name}");
        fs.sync().unwrap();

        let events = device.events()[first..].to_vec();
        let (mut gone, mut there) = (0, 0);
        cut_disks(&base, &events, &mut Rng::new(1), 1, |at, disk| {
            let again = Recorder::new(disk);
            let fs = open(&again);
            match fs.lookup("/name") {
                Ok(inode) => {
                    there += 1;
                    let links = 1 + u32::from(fs.lookup("/second").is_ok());
                    assert_eq!((inode.size(), inode.links()), (5000, links), "{name}: cut at {at}");
                }
                Err(Error::NotFound { .. }) if at < synced => {
                    gone += 1;
                    assert_eq!(free(&fs), before, "{name}: cut at {at}");
                }
                Err(error) => panic!("{name}: cut at {at}: {error}"),
            }
            fs.close().unwrap();
            check(dir.path(), &again.bytes());
        });
        assert!(gone > 0 && there > 0, "{name}: {gone} {there}");

        // A name that was removed does not come back.
        let file = fs.open_file(&fs.lookup("/name").unwrap()).unwrap();
        fs.remove_file(InodeNumber::ROOT, "name").unwrap();
        fs.remove_file(InodeNumber::ROOT, "second").unwrap();
        let error = fs.hard_link(number, InodeNumber::ROOT, "third").unwrap_err();
        assert!(matches!(error, Error::InodeNotInUse { .. }), "{name}: {error}");
        drop((file, others));
        assert_eq!(free(&fs), before, "{name}");
        fs.close().unwrap();
        check(dir.path(), &device.bytes());
    }
}
