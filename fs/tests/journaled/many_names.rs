//! A directory of many files: 20,000, or 1,000,000 with `NVIO_LONG=1`. The oracles are e2fsck and the
//! kernel, which lists the names and finds each of them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;

use nvio_ext4::{Error, JournaledFilesystem, NewFile, Options};

use crate::common::{self, Mount, mke2fs};

fn name(at: u32) -> String {
    format!("file-{at:07}")
}

fn open(image: &Path) -> JournaledFilesystem {
    let device = File::options().read(true).write(true).open(image).unwrap();
    JournaledFilesystem::open(device, Options::default()).unwrap()
}

/// Returns true if the name of this number was removed.
fn is_removed(at: u32) -> bool {
    at % 2 == 1
}

#[test]
fn a_directory_of_many_files() {
    let files: u32 = if std::env::var_os("NVIO_LONG").is_some() { 1_000_000 } else { 20_000 };
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let image = dir.path().join("image");
    let inodes = format!("-t ext4 -b 4096 -J size=16 -N {}", files + files / 20 + 100);
    let mib = 64 + files / 2500;
    mke2fs(&image, &format!("{mib}M"), &inodes.split(' ').collect::<Vec<_>>(), None);

    let fs = open(&image);
    let before = fs.statfs().unwrap().free_files;
    let top = fs.create_dir(fs.root().unwrap().number(), "d", NewFile::default()).unwrap().number();
    let mut inodes = Vec::new();
    for at in 0..files {
        inodes.push(fs.create_file(top, name(at), NewFile::default()).unwrap().number());
    }
    let again = fs.create_file(top, name(files / 2), NewFile::default());
    assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
    for (at, &inode) in (0..).zip(&inodes) {
        assert_eq!(fs.lookup(format!("d/{}", name(at))).unwrap().number(), inode, "{at}");
    }
    assert_eq!(before - fs.statfs().unwrap().free_files, u64::from(files) + 1);
    fs.close().unwrap();
    common::assert_clean(&image);

    let fs = open(&image);
    for at in (0..files).filter(|&at| is_removed(at)) {
        fs.remove_file(top, name(at)).unwrap();
    }
    for at in (0..files).step_by(97) {
        let found = fs.lookup(format!("d/{}", name(at)));
        assert_eq!(found.is_err(), is_removed(at), "{at}: {found:?}");
    }
    let kept = files - files / 2;
    assert_eq!(before - fs.statfs().unwrap().free_files, u64::from(kept) + 1);
    let listed = fs.read_dir(&fs.inode(top).unwrap()).unwrap().count();
    assert_eq!(listed, kept as usize);
    fs.close().unwrap();
    common::assert_clean(&image);
    check_by_kernel(&image, files, |at| inodes[at as usize].into());
}

/// Lets the kernel list the names and look up each of them.
fn check_by_kernel(image: &Path, files: u32, inode: impl Fn(u32) -> u64) {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let mount = match Mount::new(image, &image.with_extension("mnt"), "loop,ro") {
        Ok(mount) => mount,
        Err(reason) => return println!("SKIPPED: {reason}"),
    };
    let folder = mount.path.join("d");
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap());
    let listed: HashMap<_, _> = entries.map(|entry| (entry.file_name(), entry.ino())).collect();
    let mut kept = 0;
    for at in (0..files).filter(|&at| !is_removed(at)) {
        assert_eq!(listed.get(name(at).as_ref() as &std::ffi::OsStr), Some(&inode(at)), "{at}");
        assert_eq!(fs::symlink_metadata(folder.join(name(at))).unwrap().ino(), inode(at), "{at}");
        kept += 1;
    }
    assert_eq!(listed.len(), kept);
    println!("the kernel finds {kept} names of {files}");
}
