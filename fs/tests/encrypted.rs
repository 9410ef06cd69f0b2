//! Encrypted directories and links without the key, compared with the kernel. Needs root, loop
//! devices and a kernel with encryption; skipped with a reason otherwise.

use crate::common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirEntryExt, MetadataExt, symlink};
use std::path::Path;

use common::{Mount, mke2fs};
use nvio_ext4::{Error, FileType, Filesystem, Inode};

const VARIANTS: &[&str] = &[
    "-t ext4 -b 1024 -O encrypt",
    "-t ext4 -b 4096 -O encrypt,^metadata_csum -E hash_seed=01234567-89ab-cdef-0123-456789abcdef",
    "-t ext4 -b 1024 -O encrypt,^dir_index",
];

#[test]
fn the_kernel_shows_the_same() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, mount) = (dir.path().join("image"), dir.path().join("mnt"));
    for options in VARIANTS {
        println!("{options}");
        mke2fs(&image, "64M", &options.split(' ').collect::<Vec<_>>(), None);
        let mounted = match Mount::new(&image, &mount, "loop,noatime,test_dummy_encryption") {
            Ok(mounted) => mounted,
            Err(reason) => {
                println!("SKIPPED: {reason}");
                return;
            }
        };
        populate(&mounted.path);
        drop(mounted);
        let mounted = Mount::new(&image, &mount, "loop,ro,noatime").unwrap();
        compare(&image, &mounted.path);
    }
}

fn populate(top: &Path) {
    let one = top.join("one");
    fs::create_dir(&one).unwrap();
    for length in [1, 15, 16, 17, 140, 144, 145, 149, 150, 160, 200, 254, 255] {
        fs::write(one.join("n".repeat(length)), b"contents").unwrap();
    }
    fs::create_dir(one.join("inside")).unwrap();
    fs::write(one.join("inside/file"), b"contents").unwrap();
    for length in [1, 16, 20, 32, 33, 55, 60, 148, 149, 150, 300, 900] {
        symlink("t".repeat(length), one.join(format!("link-{length}"))).unwrap();
    }
    let many = top.join("many");
    fs::create_dir(&many).unwrap();
    for index in 0..1500 {
        fs::write(many.join(format!("{index}-{}", "m".repeat(index % 240))), b"").unwrap();
    }
}

fn compare(image: &Path, mount: &Path) {
    let fs = common::open(image);
    let mut links = 0;
    for path in common::walk(mount) {
        let what = format!("/{}", path.display());
        let inode = fs.lookup_no_follow(path.as_os_str().as_bytes()).unwrap_or_else(|error| {
            panic!("{what}: {error}");
        });
        let metadata = mount.join(&path).symlink_metadata().unwrap();
        assert_eq!(u64::from(inode.number()), metadata.ino(), "{what}");
        match inode.kind() {
            FileType::Directory => compare_names(&fs, &mount.join(&path), &inode),
            FileType::Symlink => {
                let theirs = fs::read_link(mount.join(&path)).unwrap();
                let ours = fs.read_link(&inode).unwrap();
                assert_eq!(ours, theirs.as_os_str().as_bytes(), "{what}");
                assert_eq!(ours.len() as u64, metadata.len(), "{what}");
                links += 1;
            }
            _ => {
                assert_eq!(inode.size(), metadata.len(), "{what}");
                assert!(fs::read(mount.join(&path)).is_err(), "{what}: the kernel has a key");
                let refused = fs.file(&inode);
                assert!(matches!(refused, Err(Error::UnsupportedInode { .. })), "{what}");
            }
        }
    }
    assert_eq!(links, 12);
    for name in ["one/inside", "one/n", "many/AAAA", "many/AAAAAAAAAAAAAAAAAAAA"] {
        assert!(fs::symlink_metadata(mount.join(name)).is_err());
        assert!(matches!(fs.lookup(name.as_bytes()), Err(Error::NotFound { .. })), "{name}");
    }
}

fn compare_names(fs: &Filesystem, path: &Path, inode: &Inode) {
    let theirs: BTreeMap<Vec<u8>, u64> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_vec(), entry.ino()))
        .collect();
    let ours: BTreeMap<Vec<u8>, u64> = fs
        .read_dir(inode)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.name, u64::from(entry.inode)))
        .collect();
    assert_eq!(ours, theirs, "{}", path.display());
}
