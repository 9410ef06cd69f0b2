//! Features that are set by the first change that needs them, in the same transaction.

use std::fs;
use std::path::Path;

use nvio_ext4::{CompatFeatures, Error, Filesystem, InodeNumber, JournaledFilesystem, XattrMode};
use nvio_testkit::random::Rng;

use super::recorder::{Disk, Recorder, cut_disks};
use super::{check, file, image, open};
use crate::common::{self, Mount};

/// Options of mke2fs, without either feature.
const WITHOUT: &[&str] = &[
    "-t ext4 -b 1024 -J size=1 -O ^large_file,^ext_attr",
    "-t ext4 -b 4096 -J size=4 -O ^large_file,^ext_attr,^resize_inode,^metadata_csum,^64bit",
    "-t ext4 -b 4096 -J size=5,fast_commit_size=512 -O ^large_file,^ext_attr,^resize_inode,fast_commit",
];

/// The first size in bytes that needs the feature.
const LARGE: u64 = 1 << 31;

/// Returns the bits of `large_file` and `ext_attr`, as dumpe2fs reads them.
fn features(dir: &Path, bytes: &[u8]) -> (bool, bool) {
    let image = dir.join("features");
    fs::write(&image, bytes).unwrap();
    let output = common::run("dumpe2fs", &["-h", image.to_str().unwrap()]);
    let output = String::from_utf8(output).unwrap();
    let line = output.lines().find(|line| line.starts_with("Filesystem features:")).unwrap();
    let has = |feature| line.split_whitespace().any(|word| word == feature);
    (has("large_file"), has("ext_attr"))
}

type Call = fn(&JournaledFilesystem, InodeNumber) -> Result<(), Error>;

#[test]
fn each_change_that_needs_them() {
    let calls: [(Call, (bool, bool)); 8] = [
        (|fs, at| fs.truncate(at, LARGE - 1).map(drop), (false, false)),
        (|fs, at| fs.allocate(at, LARGE, 4096, true).map(drop), (false, false)),
        (|fs, at| fs.truncate(at, LARGE).map(drop), (true, false)),
        (|fs, at| fs.write_at(at, LARGE - 1, b"x").map(drop), (true, false)),
        (|fs, at| fs.allocate(at, LARGE, 4096, false).map(drop), (true, false)),
        (|fs, at| fs.zero_range(at, LARGE, 1, false).map(drop), (true, false)),
        (|fs, at| fs.set_xattr(at, "user.x", "1", XattrMode::Either).map(drop), (false, true)),
        (
            |fs, at| {
                let value = common::pattern(1, 700);
                fs.set_xattr(at, "user.x", value, XattrMode::Either).map(drop)
            },
            (false, true),
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    for options in WITHOUT {
        let bytes = image(dir.path(), options);
        assert_eq!(features(dir.path(), &bytes), (false, false));
        for (index, (call, expected)) in calls.iter().enumerate() {
            let device = Recorder::new(bytes.clone());
            let fs = open(&device);
            call(&fs, file(&fs, 0).number()).unwrap();
            fs.close().unwrap();
            let bytes = device.bytes();
            assert_eq!(features(dir.path(), &bytes), *expected, "{options}: call {index}");
            check(dir.path(), &bytes);
        }
    }
}

/// The size of a file and an attribute are there only with the features.
fn check_cut(fs: &Filesystem, what: &str) {
    let inode = fs.lookup("/file-0").unwrap();
    let (is_large, has_attribute) =
        (inode.size() >= LARGE, fs.xattrs(&inode).unwrap().next().is_some());
    let superblock = fs.superblock();
    let has_large = superblock.ro_compat.contains(nvio_ext4::RoCompatFeatures::LARGE_FILE);
    let has_attributes = superblock.compat.contains(CompatFeatures::EXT_ATTR);
    assert_eq!((is_large, has_attribute), (has_large, has_attributes), "{what}");
}

#[test]
fn cuts() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Rng::new(1);
    let mut judged = 0;
    for options in WITHOUT {
        let device = Recorder::new(image(dir.path(), options));
        let base = device.disk();
        let fs = open(&device);
        let number = file(&fs, 0).number();
        fs.set_xattr(number, "user.x", "1", XattrMode::Either).unwrap();
        fs.sync_inode(number).unwrap();
        fs.write_at(number, LARGE, b"x").unwrap();
        fs.sync_data(number).unwrap();
        fs.close().unwrap();
        cut_disks(&base, &device.events(), &mut random, 4, |at, disk| {
            let what = format!("{options}, cut at {at}");
            check_cut(&Filesystem::open(disk.clone()).unwrap(), &what);
            judge(dir.path(), &what, disk);
            judged += 1;
        });
    }
    assert!(judged > 100, "{judged}");
}

/// Lets this crate and the kernel recover the disk.
fn judge(dir: &Path, what: &str, disk: Disk) {
    if common::is_root() {
        let path = dir.join("theirs");
        fs::write(&path, disk.bytes()).unwrap();
        let mount = Mount::new(&path, &dir.join("mnt"), "loop,noatime");
        drop(mount.unwrap_or_else(|error| panic!("{what}: {error}")));
        common::assert_clean(&path);
    }
    let device = Recorder::new(disk);
    open(&device).close().unwrap();
    check(dir, &device.bytes());
    check_cut(&Filesystem::open(device.disk()).unwrap(), what);
}
