//! Fast commits of names: new files and hard links, as the kernel replays them.

use std::fs;

use nvio_ext4::{Filesystem, InodeNumber, JournaledFilesystem, NewFile, RenameMode, XattrMode};
use nvio_testkit::random::Rng;

use super::fast_commit::{kernel_agrees, writes};
use super::recorder::Recorder;
use super::{check, file, image, open};
use crate::common::view::View;
use crate::common::{self, Mount, debugfs, view};

/// Variants of the filesystem: name, and options of mke2fs.
const VARIANTS: &[(&str, &str)] = &[
    ("1k", "-t ext4 -b 1024 -J size=2,fast_commit_size=256 -O fast_commit"),
    ("4k", "-t ext4 -b 4096 -J size=5,fast_commit_size=256 -O fast_commit"),
    ("no checksums", "-t ext4 -b 1024 -I 128 -J size=2 -O fast_commit,^metadata_csum,^64bit"),
    ("large inodes", "-t ext4 -b 4096 -I 1024 -J size=5 -O fast_commit,orphan_file"),
];

const ROOT: InodeNumber = InodeNumber::ROOT;

fn new() -> NewFile {
    NewFile { uid: 7, gid: 8, ..NewFile::with_permissions(0o640) }
}

/// Returns the names of a directory, each with its inode and the count of links, sorted.
fn names(fs: &Filesystem, directory: &str) -> Vec<(Vec<u8>, u32, u32)> {
    let directory = fs.lookup(directory).unwrap();
    let mut names: Vec<_> = fs
        .read_dir(&directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.name, entry.inode.get(), fs.inode(entry.inode).unwrap().links())
        })
        .collect();
    names.sort();
    names
}

/// Panics unless the device, after a loss of power, has the same names to a reader, after a recovery here, and
/// after one by the kernel. Returns the number of fast commits.
fn crash(what: &str, fs: &JournaledFilesystem, device: &Recorder, dir: &std::path::Path) -> u32 {
    let expected = ["/", "/d"].map(|directory| names(fs, directory));
    let reader = Filesystem::open(device.bytes()).unwrap();
    assert_eq!(["/", "/d"].map(|directory| names(&reader, directory)), expected, "{what}");
    let ours = Recorder::new(device.bytes());
    let recovered = open(&ours);
    assert_eq!(["/", "/d"].map(|directory| names(&recovered, directory)), expected, "{what}");
    recovered.close().unwrap();
    check(dir, &ours.bytes());
    kernel_agrees(what, &device.bytes(), &ours.bytes(), dir);
    reader.recovered().map_or(0, |done| done.fast_commits)
}

#[test]
fn new_files_and_links_are_replayed_by_the_kernel() {
    let dir = tempfile::tempdir().unwrap();
    for &(name, options) in VARIANTS {
        let device = Recorder::new(image(dir.path(), options));
        let fs = open(&device);
        let top = fs.create_dir(ROOT, "d", new()).unwrap().number();
        fs.sync().unwrap();
        let (mut fast, mut most) = (0, 0);
        for round in 0..60u64 {
            let what = format!("{name}, round {round}");
            let mut last = ROOT;
            // Files with and without data, some with several names, or with the name of an older one.
            for step in 0..=round % 3 {
                let inode = fs.create_file(top, format!("file-{round}-{step}"), new()).unwrap();
                last = inode.number();
                if round % 2 == 0 {
                    fs.write_at(last, step * 8192, &[7; 5000]).unwrap();
                }
                if round % 4 < 2 {
                    fs.hard_link(last, ROOT, format!("link-{round}-{step}")).unwrap();
                }
            }
            if round % 5 == 3 {
                let old = file(&fs, round as usize % 16).number();
                fs.hard_link(old, top, format!("old-{round}")).unwrap();
            }
            let synced = if round % 7 == 0 { top } else { last };
            fast += u32::from(writes(&device, || fs.sync_inode(synced).unwrap()) == 1);
            if round % 6 == 5 {
                most = most.max(crash(&what, &fs, &device, dir.path()));
            }
            if round % 16 == 15 {
                fs.sync().unwrap();
            }
        }
        println!("{name}: {fast} of 60 syncs were fast commits, {most} in one replay");
        // The first inode of each block of a table that was not zeroed needs a full commit.
        assert!(fast >= 25 && most >= 2, "{name}: {fast} fast commits, {most} in one replay");
        fs.close().unwrap();
        check(dir.path(), &device.bytes());
    }
}

#[test]
fn changes_that_no_fast_commit_has() {
    let dir = tempfile::tempdir().unwrap();
    let options = VARIANTS[0].1;
    let path = dir.path().join("attributes");
    fs::write(&path, image(dir.path(), options)).unwrap();
    // A file that is removed keeps its attribute in the inode, which a replay would leave to the next one.
    debugfs(&path, &["ea_set /file-3 user.a secret"]);
    let device = Recorder::new(fs::read(&path).unwrap());
    let fs = open(&device);
    let top = fs.create_dir(ROOT, "d", new()).unwrap().number();
    let old = file(&fs, 3).number();
    fs.remove_file(ROOT, "file-3").unwrap();
    fs.sync().unwrap();
    let reused = fs.create_file(ROOT, "reused", new()).unwrap().number();
    assert_eq!(reused, old);
    assert_eq!(writes(&device, || fs.sync_inode(reused).unwrap()), 2);
    assert_eq!(fs.xattr(&fs.inode(reused).unwrap(), "user.a").unwrap(), None);
    let writes_of = |what: &str, expected: usize, call: &dyn Fn()| {
        // Takes the changes before, so that they do not count.
        fs.sync().unwrap();
        assert_eq!(writes(&device, call), expected, "{what}");
    };
    let create = |name: &str| fs.create_file(top, name, new()).unwrap().number();
    // The first inode of a block may need a full commit.
    for at in 0..8 {
        create(&format!("first-{at}"));
    }
    writes_of("create", 1, &|| fs.sync_inode(create("a")).unwrap());
    writes_of("link", 1, &|| {
        let inode = fs.hard_link(reused, top, "b").unwrap();
        fs.sync_inode(inode.number()).unwrap();
    });
    let sync = || fs.sync_inode(top).unwrap();
    writes_of("rename", 2, &|| {
        fs.rename(top, "a", top, "c", RenameMode::Replace).unwrap();
        sync();
    });
    writes_of("exchange", 2, &|| {
        fs.rename(top, "c", top, "b", RenameMode::Exchange).unwrap();
        sync();
    });
    writes_of("unlink", 2, &|| {
        fs.remove_file(top, "b").unwrap();
        sync();
    });
    writes_of("mkdir", 2, &|| {
        fs.create_dir(top, "e", new()).unwrap();
        sync();
    });
    writes_of("symlink", 2, &|| {
        fs.create_symlink("target", top, "f", new()).unwrap();
        sync();
    });
    writes_of("attribute of a new file", 2, &|| {
        let inode = create("g");
        fs.set_xattr(inode, "user.b", "value", XattrMode::Create).unwrap();
        fs.sync_inode(inode).unwrap();
    });
    writes_of("permissions of the directory", 2, &|| {
        fs.set_permissions(top, 0o700).unwrap();
        create("h");
        sync();
    });
    writes_of("a file that was created after a rename", 2, &|| {
        fs.rename(top, "c", top, "i", RenameMode::Replace).unwrap();
        fs.sync_inode(create("j")).unwrap();
    });
    // A directory that grows.
    let mut full = 0;
    for at in 0..40 {
        let inode = create(&format!("a rather long name, so that a block is soon full {at}"));
        full += usize::from(writes(&device, || fs.sync_inode(inode).unwrap()) == 2);
    }
    assert!((1..30).contains(&full), "{full}");
    crash("at the end", &fs, &device, dir.path());
}

/// The kernel replays without a journal. After a loss of power any of its writes may be there, and it replays
/// all tags again.
#[test]
fn a_replay_by_the_kernel_may_be_cut() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let long = std::env::var_os("NVIO_LONG").is_some();
    let (rounds, variants): (usize, _) = if long { (200, VARIANTS.len()) } else { (20, 2) };
    let dir = tempfile::tempdir().unwrap();
    let mut random = Rng::new(3);
    for &(name, options) in &VARIANTS[..variants] {
        let device = Recorder::new(image(dir.path(), options));
        let fs = open(&device);
        let top = fs.create_dir(ROOT, "d", new()).unwrap().number();
        let other = fs.create_dir(ROOT, "e", new()).unwrap().number();
        for at in 0..40 {
            fs.create_file(top, format!("old-{at}"), new()).unwrap();
        }
        // Its log is empty then, so that it restores no blocks.
        fs.close().unwrap();
        let fs = open(&device);
        for at in 0..5u64 {
            let inode = fs.create_file(top, format!("new-{at}"), new()).unwrap().number();
            fs.write_at(inode, at * 9000, &[7; 5000]).unwrap();
            fs.hard_link(inode, other, format!("link-{at}")).unwrap();
            let old = file(&fs, at as usize).number();
            fs.hard_link(old, other, format!("old-{at}")).unwrap();
            fs.sync_inode(inode).unwrap();
        }
        let dirty = device.bytes();
        let reader = Filesystem::open(dirty.clone()).unwrap();
        assert!(reader.recovered().unwrap().fast_commits > 0, "{name}");
        let size = reader.superblock().block_size() as usize;
        let log = reader.extents(&reader.inode(8).unwrap()).unwrap().map(Result::unwrap);
        let log: Vec<_> = log.map(|run| run.physical..run.physical + run.length).collect();
        let (expected, recovered) = by_kernel(name, &dirty, dir.path());
        let written: Vec<usize> = (2048.max(size)..dirty.len())
            .step_by(size)
            .filter(|&at| !log.iter().any(|run| run.contains(&(at as u64))))
            .filter(|&at| dirty[at..at + size] != recovered[at..at + size])
            .collect();
        assert!(written.len() > 5, "{name}: {written:?}");
        for round in 0..rounds {
            let mut cut = dirty.clone();
            for &at in &written {
                // All of them first, then each alone, then some.
                let is_there = match round.checked_sub(1) {
                    None => true,
                    Some(index) if index < written.len() => written[index] == at,
                    Some(_) => random.below(2) == 0,
                };
                if is_there {
                    cut[at..at + size].copy_from_slice(&recovered[at..at + size]);
                }
            }
            let what = format!("{name}, round {round}");
            let (found, _) = by_kernel(&what, &cut, dir.path());
            view::assert_same(&what, &found, &expected, |_| false);
        }
    }
}

/// Returns what the kernel recovers, and the device after the unmount.
fn by_kernel(what: &str, bytes: &[u8], dir: &std::path::Path) -> (View, Vec<u8>) {
    let path = dir.join("recovered");
    fs::write(&path, bytes).unwrap();
    let mount = Mount::new(&path, &dir.join("mnt"), "loop,noatime");
    let mount = mount.unwrap_or_else(|error| panic!("{what}: {error}"));
    let view = view::settled(view::of_kernel(&mount.path));
    drop(mount);
    (view, fs::read(&path).unwrap())
}
