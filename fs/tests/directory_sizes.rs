//! Directories of every size, created by the kernel: the listing matches the kernel's, and every
//! name is found. Needs root and loop devices; skipped with a reason otherwise.

use crate::common;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;

use common::{Mount, Rng, mke2fs};
use nvio_ext4::{Filesystem, InodeFlags};

/// Creates and mounts an empty filesystem. If that is impossible, prints the reason and returns
/// `None`.
fn mounted(image: &Path, size: &str, options: &str) -> Option<Mount> {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return None;
    }
    mke2fs(image, size, &options.split(' ').collect::<Vec<_>>(), None);
    Mount::new(image, &image.with_extension("mnt"), "loop,noatime")
        .map_err(|reason| println!("SKIPPED: {reason}"))
        .ok()
}

/// Returns a name of `length` bytes that begins with a number. Most names are not UTF-8.
fn name(random: &mut Rng, index: usize, length: usize) -> Vec<u8> {
    let mut name = format!("{index}-").into_bytes();
    while name.len() < length {
        let byte = random.next_u64() as u8;
        name.push(if matches!(byte, 0 | b'/') { b'x' } else { byte });
    }
    name
}

/// Compares the directory "d" with the kernel's listing, and looks up every `step`th name.
fn compare(image: &Path, step: usize) -> Filesystem {
    let mount = Mount::new(image, &image.with_extension("mnt"), "loop,ro,noatime").unwrap();
    let mut theirs: HashMap<Vec<u8>, u64> = fs::read_dir(mount.path.join("d"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_vec(), entry.ino()))
        .collect();
    let fs = common::open(image);
    let directory = fs.lookup(b"d").unwrap();
    let metadata = fs::metadata(mount.path.join("d")).unwrap();
    assert_eq!(
        (directory.size(), u64::from(directory.links())),
        (metadata.len(), metadata.nlink())
    );
    for (index, entry) in fs.read_dir(&directory).unwrap().enumerate() {
        let entry = entry.unwrap();
        assert_eq!(theirs.remove(&entry.name), Some(u64::from(entry.inode)), "{entry:?}");
        if index % step == 0 {
            let found = fs.lookup([b"d/", entry.name.as_slice()].concat()).unwrap();
            assert_eq!(found.number(), entry.inode, "{entry:?}");
        }
    }
    assert!(theirs.is_empty(), "{} names are missing", theirs.len());
    fs
}

#[test]
fn sixty_thousand_names_some_gone() {
    for options in ["-t ext4 -b 4096", "-t ext3 -b 1024", "-t ext4 -b 1024 -O ^dir_index"] {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let Some(mount) = mounted(&image, "128M", options) else { return };
        let directory = mount.path.join("d");
        fs::create_dir(&directory).unwrap();
        let mut random = Rng::new(1);
        // Fewer names, because the kernel searches all blocks for each new name if there is no
        // index.
        let count = if options.contains("^dir_index") { 3000 } else { 61_000 };
        let names: Vec<_> = (0..count).map(|index| name(&mut random, index, 20)).collect();
        let path = |name: &[u8]| directory.join(OsStr::from_bytes(name));
        File::create(path(b"first")).unwrap();
        let mut last = b"first".to_vec();
        for (index, name) in names.iter().enumerate() {
            // A new file every 30,000 names, because a file has at most 65,000 links.
            if index % 30_000 == 0 {
                File::create(path(name)).unwrap();
                last = name.clone();
            } else {
                fs::hard_link(path(&last), path(name)).unwrap();
            }
        }
        // Remove single names, and all names of some blocks.
        for name in names.iter().step_by(9).chain(&names[1..2000]) {
            let _ = fs::remove_file(path(name));
        }
        drop(mount);
        compare(&image, 13);
    }
}

#[test]
fn more_subdirectories_than_links() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let Some(mount) = mounted(&image, "512M", "-t ext4 -b 1024 -N 70000 -I 128") else { return };
    let directory = mount.path.join("d");
    fs::create_dir(&directory).unwrap();
    for index in 0..65_010 {
        fs::create_dir(directory.join(format!("{index}"))).unwrap();
    }
    drop(mount);
    let fs = compare(&image, 97);
    assert_eq!(fs.lookup(b"d").unwrap().links(), 1, "too many to be counted");
}

#[test]
fn three_levels() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let Some(mount) = mounted(&image, "192M", "-t ext4 -b 1024 -O large_dir") else { return };
    let directory = mount.path.join("d");
    fs::create_dir(&directory).unwrap();
    let mut random = Rng::new(3);
    let first = directory.join("0");
    File::create(&first).unwrap();
    for index in 1..45_000 {
        let name = name(&mut random, index, 255);
        fs::hard_link(&first, directory.join(OsStr::from_bytes(&name))).unwrap();
    }
    drop(mount);
    let fs = compare(&image, 11);
    assert!(fs.lookup(b"d").unwrap().flags().contains(InodeFlags::INDEX));
    let shown = common::run("debugfs", &["-R", "htree_dump d", image.to_str().unwrap()]);
    let shown = String::from_utf8_lossy(&shown);
    let levels = shown.lines().find(|line| line.contains("Indirect levels")).unwrap();
    assert!(levels.ends_with(": 2"), "{levels}");
}

#[test]
fn holes() {
    for options in ["-t ext4 -b 1024 -O ^dir_index", "-t ext2 -b 1024 -O ^dir_index"] {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let Some(mount) = mounted(&image, "16M", options) else { return };
        let directory = mount.path.join("d");
        fs::create_dir(&directory).unwrap();
        let mut random = Rng::new(4);
        for index in 0..200 {
            let name = name(&mut random, index, 100);
            File::create(directory.join(OsStr::from_bytes(&name))).unwrap();
        }
        drop(mount);
        let count = || {
            let fs = compare(&image, 1);
            fs.read_dir(&fs.lookup(b"d").unwrap()).unwrap().count()
        };
        let whole = count();
        common::debugfs(&image, &["punch d 3 4", "punch d 9 9"]);
        assert_eq!((whole, count()), (200, 200 - 3 * 9));
        // A size with unmapped blocks at the end.
        common::debugfs(&image, &["sif d size 81920"]);
        assert_eq!(count(), 200 - 3 * 9);
        common::debugfs(&image, &["sif d size 8192"]);
        assert_eq!(count(), 6 * 9);
    }
}
