//! Permissions, owners and times, as e2fsck and the kernel read them.

use std::fs;

use nvio_ext4::{Error, Protected, Timestamp};

use super::recorder::{Event, Recorder};
use super::{VARIANTS, check, file, image, open};
use crate::common::compare::compare;
use crate::common::{self, Mount, debugfs};

#[test]
fn the_kernel_reads_what_was_set() {
    let dir = tempfile::tempdir().unwrap();
    for &(name, options) in VARIANTS {
        let device = Recorder::new(image(dir.path(), options));
        let fs = open(&device);
        for at in 0..8u16 {
            let number = file(&fs, at.into()).number();
            let inode = fs.set_permissions(number, 0o4600 | at).unwrap();
            assert_eq!(inode.permissions(), 0o4600 | at, "{name}");
            fs.set_owner(number, Some(70_000 + u32::from(at)), Some(at.into())).unwrap();
            let time = Timestamp { seconds: 1_600_000_000 + i64::from(at), nanoseconds: 12_345 };
            fs.set_times(number, Some(time), (at % 2 == 0).then_some(time)).unwrap();
            let read = fs.inode(number).unwrap();
            assert_eq!((read.permissions(), read.uid()), (0o600 | at, 70_000 + u32::from(at)));
        }
        fs.close().unwrap();
        let image = dir.path().join("closed");
        fs::write(&image, device.bytes()).unwrap();
        common::assert_clean(&image);
        let clean = common::open(&image);
        assert!(clean.recovered().is_none(), "{name}: the journal is empty");
        assert_eq!(clean.superblock().mount_count, 1, "{name}");
        if !common::is_root() {
            println!("SKIPPED: loop mounts need root");
            continue;
        }
        let mount = Mount::new(&image, &dir.path().join("mnt"), "loop,ro,noatime").unwrap();
        let count = compare(name, &image, &mount.path);
        assert!(count.files >= 8, "{name}: {count:?}");
    }
}

#[test]
fn a_program_with_the_rights_of_its_owner_loses_them_with_the_owner() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), VARIANTS[0].1));
    let fs = open(&device);
    let number = file(&fs, 0).number();
    for (before, after) in [(0o6755, 0o755), (0o6745, 0o2745), (0o4755, 0o755), (0o1777, 0o1777)] {
        fs.set_permissions(number, before).unwrap();
        let inode = fs.set_owner(number, None, Some(5)).unwrap();
        assert_eq!(inode.permissions(), after, "{before:o}");
    }
    let root = fs.root().unwrap().number();
    fs.set_permissions(root, 0o6755).unwrap();
    assert_eq!(fs.set_owner(root, Some(1), None).unwrap().permissions(), 0o6755, "a directory");
}

#[test]
fn inodes_that_must_not_be_changed() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = image(dir.path(), VARIANTS[2].1);
    let path = dir.path().join("flags");
    fs::write(&path, bytes).unwrap();
    let lines = ["set_inode_field /file-1 flags 0x80010", "set_inode_field /file-2 flags 0x80020"];
    debugfs(&path, &lines);
    let device = Recorder::new(fs::read(&path).unwrap());
    let fs = open(&device);
    let calls = device.calls();
    let why = |result: Result<_, Error>| match result {
        Err(Error::Protected { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(fs.set_permissions(file(&fs, 1).number(), 0)), Protected::Immutable);
    assert_eq!(why(fs.set_owner(file(&fs, 2).number(), Some(0), None)), Protected::AppendOnly);
    assert_eq!(why(fs.set_times(8, None, None)), Protected::System);
    assert!(matches!(fs.set_permissions(0, 0), Err(Error::NoSuchInode { .. })));
    assert!(matches!(fs.set_permissions(u32::MAX, 0), Err(Error::NoSuchInode { .. })));
    let free = fs.superblock().inodes_count;
    assert!(matches!(fs.set_permissions(free, 0), Err(Error::InodeNotInUse { .. })));
    fs.sync().unwrap();
    assert_eq!(device.calls(), calls, "nothing was changed, so nothing is written");
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
}

#[test]
fn a_change_and_a_sync_are_two_writes() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), VARIANTS[2].1));
    let fs = open(&device);
    let number = file(&fs, 0).number();
    for round in 0..20 {
        let before = device.calls();
        fs.set_permissions(number, round).unwrap();
        assert_eq!(device.calls(), before, "a change is in memory");
        fs.sync_inode(number).unwrap();
        assert_eq!(device.calls(), before + 2, "the log, and the commit block");
        fs.sync_inode(number).unwrap();
        fs.sync().unwrap();
        assert_eq!(device.calls(), before + 2, "durable already");
    }
}

/// The commands of a call, by the calls of the device: one for each range, each durable.
fn commands(device: &Recorder, before: usize) -> usize {
    let of = |event: &Event| match event {
        Event::Write { ranges, durable: true } => ranges.len(),
        Event::Write { .. } => panic!("a write that is not durable"),
        Event::Flush => panic!("a flush"),
    };
    device.events()[before..].iter().map(of).sum()
}

#[test]
fn commands_of_each_call() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), VARIANTS[2].1));
    let fs = open(&device);
    let number = file(&fs, 0).number();
    fs.truncate(number, 0).unwrap();
    fs.allocate(file(&fs, 1).number(), 0, 1 << 16, false).unwrap();
    // The first 25 blocks of this journal are in two pieces, so that a transaction there is, too.
    for owner in 0..12 {
        fs.set_owner(number, Some(owner), None).unwrap();
        fs.sync().unwrap();
    }
    let count = |call: &dyn Fn()| {
        let before = device.calls();
        call();
        commands(&device, before)
    };
    let page = [7; 4096];
    for round in 0..20u64 {
        let append = count(&|| {
            fs.write_at(number, round * 4096, &page).unwrap();
            fs.sync_inode(number).unwrap();
        });
        assert_eq!(append, 3, "round {round}: append and fsync: data, log, commit block");
        let overwrite = count(&|| {
            fs.write_at(number, round * 4096, &page).unwrap();
            fs.sync_data(number).unwrap();
        });
        assert_eq!(overwrite, 1, "overwrite and fdatasync: data");
        let overwrite = count(&|| {
            fs.write_at(number, round * 4096, &page).unwrap();
            fs.sync_inode(number).unwrap();
        });
        assert_eq!(overwrite, 3, "overwrite and fsync: data, and the time of the change");
    }
    let other = file(&fs, 1).number();
    let preallocated = count(&|| {
        fs.write_at(other, 8192, &page).unwrap();
        fs.sync_data(other).unwrap();
    });
    assert_eq!(preallocated, 3, "write to preallocated blocks and fdatasync");
    let punch = count(&|| {
        fs.punch_hole(number, 4096, 8192).unwrap();
        fs.sync_inode(number).unwrap();
    });
    assert_eq!(punch, 2, "holes, permissions and so on: log, commit block");
}
