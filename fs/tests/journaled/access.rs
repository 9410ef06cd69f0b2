//! Times of access, beside those of a mount by the kernel with relatime.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use nvio_ext4::{Filesystem, JournaledFilesystem, Options, Timestamp};
use nvio_testkit::image::work_folder;

use super::recorder::Recorder;
use super::{check, open};
use crate::common::{self, Mount, debugfs, mke2fs};

const A_DAY: i64 = 24 * 60 * 60;

/// A name; the ages in seconds of the times of access, of the last write and of the last change; flags.
type Case = (&'static str, [i64; 3], &'static str);

const CASES: &[Case] = &[
    ("newest", [100, 200, 200], "0x80000"),
    ("written", [100, 50, 200], "0x80000"),
    ("changed", [100, 200, 50], "0x80000"),
    ("as old as the write", [100, 100, 200], "0x80000"),
    ("of yesterday", [A_DAY + 100, A_DAY + 200, A_DAY + 200], "0x80000"),
    ("of today", [A_DAY - 1000, A_DAY, A_DAY], "0x80000"),
    ("in the future", [-1000, 200, 200], "0x80000"),
    ("NOATIME", [100, 50, 50], "0x80080"),
    ("IMMUTABLE", [100, 50, 50], "0x80010"),
    ("old directory", [100, 50, 200], "0x80000"),
    ("new directory", [100, 200, 200], "0x80000"),
    ("old link", [100, 50, 200], "0"),
    ("new link", [100, 200, 200], "0"),
];

fn image(dir: &Path) -> Vec<u8> {
    let (source, image) = (dir.join("source"), dir.join("image"));
    fs::create_dir(&source).unwrap();
    for &(name, ..) in CASES {
        match name {
            _ if name.contains("directory") => fs::create_dir(source.join(name)).unwrap(),
            _ if name.contains("link") => {
                std::os::unix::fs::symlink("target", source.join(name)).unwrap();
            }
            _ => fs::write(source.join(name), name).unwrap(),
        }
    }
    mke2fs(&image, "8M", &["-t", "ext4", "-b", "1024"], Some(&source));
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = i64::try_from(since.as_secs()).unwrap();
    let mut lines = Vec::new();
    for (name, ages, flags) in CASES {
        for (field, age) in ["atime", "mtime", "ctime"].into_iter().zip(ages) {
            lines.push(format!("set_inode_field \"/{name}\" {field} @{}", now - age));
            lines.push(format!("set_inode_field \"/{name}\" {field}_extra 0"));
        }
        lines.push(format!("set_inode_field \"/{name}\" flags {flags}"));
    }
    debugfs(&image, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    fs::read(image).unwrap()
}

/// Returns the three times of each case.
fn times(fs: &Filesystem) -> Vec<[Timestamp; 3]> {
    let inodes = CASES.iter().map(|(name, ..)| fs.lookup_no_follow(format!("/{name}")).unwrap());
    inodes.map(|inode| [inode.atime(), inode.mtime(), inode.ctime()]).collect()
}

/// Returns the names whose time of access is another one. The other times are as before.
fn read(before: &[[Timestamp; 3]], after: &[[Timestamp; 3]]) -> Vec<&'static str> {
    let mut read = Vec::new();
    for ((&(name, ..), before), after) in CASES.iter().zip(before).zip(after) {
        assert_eq!(before[1..], after[1..], "{name}");
        if before[0] != after[0] {
            assert!(after[0] > before[1], "{name}");
            read.push(name);
        }
    }
    read
}

/// Reads all files, directories and links.
fn read_all(fs: &JournaledFilesystem) {
    for (name, ..) in CASES {
        let inode = fs.lookup_no_follow(format!("/{name}")).unwrap();
        if !inode.is_file() {
            fs.record_access(inode.number()).unwrap();
            continue;
        }
        let files =
            [fs.open_file_for_reading(&inode).unwrap(), fs.open_file_for_reading(&inode).unwrap()];
        files[0].note_read();
        let now = fs.inode_now(inode.number()).unwrap();
        assert_eq!(fs.inode(inode.number()).unwrap().atime(), inode.atime(), "{name}: it is open");
        drop(files);
        let closed = fs.inode(inode.number()).unwrap();
        assert_eq!(closed.atime(), now.atime(), "{name}: inode_now told");
    }
}

#[test]
fn reads_record_the_times_that_the_kernel_records_with_relatime() {
    let dir = work_folder("access");
    let bytes = image(dir.path());
    let before = times(&Filesystem::open(bytes.clone()).unwrap());

    let device = Recorder::new(bytes.clone());
    let fs = open(&device);
    read_all(&fs);
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
    let ours = times(&Filesystem::open(device.bytes()).unwrap());

    let path = dir.path().join("kernel");
    fs::write(&path, &bytes).unwrap();
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let mount = Mount::new(&path, &dir.path().join("mnt"), "loop,relatime").unwrap();
    for (name, ..) in CASES {
        let path = mount.path.join(name);
        match name {
            _ if name.contains("directory") => {
                assert!(fs::read_dir(path).unwrap().next().is_none())
            }
            _ if name.contains("link") => drop(fs::read_link(path).unwrap()),
            _ => drop(fs::read(path).unwrap()),
        }
    }
    drop(mount);
    let theirs = times(&common::open(&path));

    let expected = read(&before, &theirs);
    assert!(expected.len() > 5 && expected.len() < CASES.len(), "{expected:?}");
    assert_eq!(read(&before, &ours), expected);
}

#[test]
fn nothing_is_recorded_without_times_of_access() {
    let dir = work_folder("access");
    let bytes = image(dir.path());
    let before = times(&Filesystem::open(bytes.clone()).unwrap());
    let device = Recorder::new(bytes);
    let options = Options::default().access_times(false);
    let fs = JournaledFilesystem::open(device.clone(), options).unwrap();
    read_all(&fs);
    fs.close().unwrap();
    assert_eq!(times(&Filesystem::open(device.bytes()).unwrap()), before);
}

#[test]
fn a_time_that_was_set_is_not_replaced_by_that_of_an_earlier_read() {
    let dir = work_folder("access");
    let device = Recorder::new(image(dir.path()));
    let fs = open(&device);
    let inode = fs.lookup("/written").unwrap();
    let file = fs.open_file(&inode).unwrap();
    file.note_read();
    let set = Timestamp { seconds: 1_000_000_000, nanoseconds: 0 };
    fs.set_times(inode.number(), Some(set), None).unwrap();
    drop(file);
    assert_eq!(fs.inode(inode.number()).unwrap().atime(), set);
    fs.close().unwrap();
}
