//! Damaged hash trees without checksums: a name is found exactly if the kernel finds it. Needs root
//! and loop devices; skipped with a reason otherwise.

use crate::common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use common::{Mount, Rng, mke2fs};
use nvio_ext4::{Error, Filesystem, InodeNumber};

const BLOCK: u64 = 1024;

/// A change to the tree: block of the directory, byte offset in it, and the new bytes.
type Change = (u64, u64, Vec<u8>);

/// Returns changes that set fields of the root and of nodes to wrong values.
fn changes() -> Vec<Change> {
    let mut changes = vec![
        (0, 28, vec![3]),
        (0, 28, vec![6]),
        (0, 28, vec![2]),
        (0, 29, vec![0]),
        (0, 29, vec![16]),
        (0, 30, vec![0]),
        (0, 30, vec![2]),
        (0, 30, vec![255]),
        (0, 31, vec![1]),
        (0, 31, vec![2]),
    ];
    for start in [(0, 32), (NODE, 8)] {
        let (block, at) = start;
        for value in [0u16, 1, 2, 100, 124, 126, 200, u16::MAX] {
            changes.push((block, at, value.to_le_bytes().to_vec()));
            changes.push((block, at + 2, value.to_le_bytes().to_vec()));
        }
        for entry in 0..4 {
            for value in [0u32, 1, 2, NODE as u32, 300, 100_000, 0x7000_0002, u32::MAX] {
                changes.push((block, at + 8 * entry + 4, value.to_le_bytes().to_vec()));
                if entry > 0 {
                    changes.push((block, at + 8 * entry, value.to_le_bytes().to_vec()));
                }
            }
        }
    }
    // A node that looks like a block of names.
    changes.push((NODE, 4, vec![12, 0]));
    changes.push((NODE, 0, vec![20]));
    changes
}

/// Index of a block with a node; the test verifies that it is one.
const NODE: u64 = 125;

#[test]
fn the_kernel_finds_the_same() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, mount) = (dir.path().join("image"), dir.path().join("mnt"));
    mke2fs(&image, "16M", &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^has_journal"], None);
    let mounted = match Mount::new(&image, &mount, "loop,noatime") {
        Ok(mounted) => mounted,
        Err(reason) => {
            println!("SKIPPED: {reason}");
            return;
        }
    };
    fs::create_dir(mounted.path.join("d")).unwrap();
    let mut random = Rng::new(5);
    let names: Vec<Vec<u8>> = (0..1500)
        .map(|index| {
            let length = 100 + random.below(150) as usize;
            format!("{index}-{}", "n".repeat(length)).into_bytes()
        })
        .collect();
    let first = mounted.path.join("d").join(OsStr::from_bytes(&names[0]));
    File::create(&first).unwrap();
    for name in &names[1..] {
        fs::hard_link(&first, mounted.path.join("d").join(OsStr::from_bytes(name))).unwrap();
    }
    drop(mounted);
    let place = |block: u64| {
        let fs = common::open(&image);
        let inode = fs.lookup(b"d").unwrap();
        let mut extents = fs.extents(&inode).unwrap().map(|extent| extent.unwrap());
        let pos = block * BLOCK;
        let extent =
            extents.find(|extent| (0..extent.length).contains(&(pos.wrapping_sub(extent.logical))));
        let extent = extent.unwrap();
        extent.physical + (pos - extent.logical)
    };
    let (root, node) = (place(0), place(NODE));
    let bytes = fs::read(&image).unwrap();
    let at = |pos: u64| &bytes[pos as usize..];
    assert_eq!(at(root + 30)[0], 1, "levels");
    assert_eq!(at(node)[..8], [0, 0, 0, 0, 0, 4, 0, 0], "a node");

    let damaged = dir.path().join("damaged");
    let mut differs = 0;
    for (block, offset, value) in changes() {
        fs::write(&damaged, &bytes).unwrap();
        let file = File::options().write(true).open(&damaged).unwrap();
        file.write_all_at(&value, if block == 0 { root } else { node } + offset).unwrap();
        let what = format!("{value:?} at byte {offset} of block {block}");
        differs += compare(&what, &damaged, &mount, &names);
    }
    assert!(differs > 100, "only {differs} lookups are not as in the sound tree");
}

/// Returns the inode of the first entry in `d`, which is that of all.
fn first_inode(fs: &Filesystem) -> Option<InodeNumber> {
    let directory = fs.lookup("d").unwrap();
    fs.read_dir(&directory).unwrap().find_map(|entry| entry.ok().map(|entry| entry.inode))
}

/// Compares lookups, and returns the number of names that are not found.
fn compare(what: &str, image: &Path, mount: &Path, names: &[Vec<u8>]) -> usize {
    let fs = common::open(image);
    let mounted = Mount::new(image, mount, "loop,ro,noatime,errors=continue").unwrap();
    let first = first_inode(&fs);
    let (mut missing, mut reported) = (0, false);
    for name in names.iter().step_by(23) {
        let theirs = fs::symlink_metadata(mounted.path.join("d").join(OsStr::from_bytes(name)));
        let ours = fs.lookup([b"d/", name.as_slice()].concat());
        match (&theirs, &ours) {
            (Ok(theirs), Ok(ours)) => assert_eq!(theirs.ino(), u64::from(ours.number()), "{what}"),
            (Err(error), Err(Error::NotFound { .. })) if error.kind() == ErrorKind::NotFound => {
                missing += 1;
            }
            (Err(error), Err(Error::Corrupt(_))) if error.kind() != ErrorKind::NotFound => {
                missing += 1;
            }
            // The kernel fails, but the blocks of names are sound. All names are one inode's.
            (Err(error), Ok(ours)) if error.kind() != ErrorKind::NotFound => {
                assert_eq!(Some(ours.number()), first, "{what}");
                reported |= !fs.take_damage().is_empty();
                assert!(reported, "{what}: not reported");
                missing += 1;
            }
            _ => panic!("{what}: {theirs:?}, but here {ours:?}"),
        }
    }
    missing
}
