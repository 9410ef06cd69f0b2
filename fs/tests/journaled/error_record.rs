//! Errors that a session meets, as the superblock records them, read by dumpe2fs, e2fsck and the kernel.

use std::fs;
use std::path::Path;

use nvio_ext4::{
    BlockSource, Error, Filesystem, InodeNumber, JournaledFilesystem, NotWritable, Options,
    XattrMode,
};
use nvio_testkit::random::Rng;

use super::recorder::{Recorder, cut_disks};
use super::{VARIANTS, file, image, open};
use crate::common::{self, Mount, debugfs};

/// Returns the bytes of a filesystem in which the map of `/file-1` is damaged, and the number of this
/// inode.
fn damaged(dir: &Path, options: &str) -> (Vec<u8>, InodeNumber) {
    let path = dir.join("damaged");
    fs::write(&path, image(dir, options)).unwrap();
    let number = common::open(&path).lookup("/file-1").unwrap().number();
    debugfs(&path, &["set_inode_field /file-1 block[0] 7"]);
    (fs::read(&path).unwrap(), number)
}

/// Meets the damage by a change, which is dropped.
fn meet(fs: &JournaledFilesystem, number: InodeNumber) {
    let error = fs.truncate(number, 1).unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
}

/// Returns the value of a field of `dumpe2fs -h`.
fn field(image: &Path, name: &str) -> String {
    let output = common::run("dumpe2fs", &["-h", image.to_str().unwrap()]);
    let output = String::from_utf8(output).unwrap();
    let value = output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}

fn e2fsck(image: &Path, option: &str) -> Option<i32> {
    let mut command = nvio_testkit::image::command("e2fsck");
    command.args([option, image.to_str().unwrap()]).output().unwrap().status.code()
}

#[test]
fn damage_is_recorded_once_and_e2fsck_repairs_it() {
    let dir = tempfile::tempdir().unwrap();
    for &(name, options) in VARIANTS.iter().filter(|(name, _)| !name.starts_with("ext3")) {
        let (bytes, number) = damaged(dir.path(), options);
        let device = Recorder::new(bytes);
        let fs = open(&device);
        meet(&fs, number);
        let calls = device.calls();
        meet(&fs, number);
        fs.sync().unwrap();
        assert_eq!(device.calls(), calls, "{name}: recorded once, and nothing was changed");
        // Other files can be changed.
        fs.set_permissions(file(&fs, 0).number(), 0o640).unwrap();
        fs.close().unwrap();
        let path = dir.path().join("recorded");
        fs::write(&path, device.bytes()).unwrap();
        assert_eq!(field(&path, "Filesystem state"), "clean with errors", "{name}");
        assert_eq!(field(&path, "FS Error count"), "1", "{name}");
        for which in ["First", "Last"] {
            let field = |what: &str| field(&path, &format!("{which} error {what}"));
            assert_eq!(field("inode #"), number.to_string(), "{name}");
            assert_eq!(field("err"), "EFSCORRUPTED", "{name}");
            assert!(field("function").starts_with("nvio:"), "{name}: {}", field("function"));
            assert!(!field("time").is_empty(), "{name}");
        }
        let again = JournaledFilesystem::open(Recorder::new(device.disk()), Options::default());
        let why = again.unwrap_err();
        assert!(matches!(why, Error::NotWritable(NotWritable::HasErrors)), "{name}: {why}");
        kernel_tells(name, dir.path(), &path, number);
        assert_eq!(e2fsck(&path, "-fn"), Some(4), "{name}");
        // Without -f: the state asks for the check.
        assert_eq!(e2fsck(&path, "-p").map(|code| code & 4), Some(4), "{name}: not by itself");
        assert_eq!(e2fsck(&path, "-y"), Some(1), "{name}");
        assert_eq!(field(&path, "Filesystem state"), "clean", "{name}");
        assert_eq!(e2fsck(&path, "-fn"), Some(0), "{name}");
    }
}

/// The kernel shows the error of a mounted filesystem in sysfs.
fn kernel_tells(name: &str, dir: &Path, image: &Path, number: InodeNumber) {
    if !common::is_root() {
        return;
    }
    let mount = Mount::new(image, &dir.join("mnt"), "loop,ro").unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let is_it = |line: &&str| line.split(' ').nth(1) == mount.path.to_str();
    let device = mounts.lines().find(is_it).unwrap().split(' ').next().unwrap();
    let folder = Path::new("/sys/fs/ext4").join(device.trim_start_matches("/dev/"));
    let value = |file: &str| fs::read_to_string(folder.join(file)).unwrap().trim().to_owned();
    assert_eq!(value("errors_count"), "1", "{name}");
    assert_eq!(value("first_error_ino"), number.to_string(), "{name}");
    assert_eq!(value("last_error_errcode"), "5", "{name}");
    assert!(value("last_error_func").starts_with("nvio:"), "{name}");
}

#[test]
fn a_checksum_is_another_code() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recorded");
    fs::write(&path, image(dir.path(), VARIANTS[0].1)).unwrap();
    let inode = common::open(&path).lookup("/file-1").unwrap();
    // "located at block 41, offset 0x0b00"
    let output = common::run("debugfs", &["-R", "imap /file-1", path.to_str().unwrap()]);
    let output = String::from_utf8(output).unwrap();
    let (_, place) = output.split_once("located at block ").unwrap();
    let (block, offset) = place.trim().split_once(", offset 0x").unwrap();
    let offset = usize::from_str_radix(offset, 16).unwrap();
    let at = block.parse::<usize>().unwrap() * 1024 + offset + 0x10;
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1;
    let device = Recorder::new(bytes);
    let fs = open(&device);
    assert!(matches!(fs.set_permissions(inode.number(), 0), Err(Error::Corrupt(_))));
    fs::write(&path, device.bytes()).unwrap();
    assert_eq!(field(&path, "First error err"), "EFSBADCRC");
    assert_eq!(field(&path, "First error function"), "nvio:Inode");
}

/// Images of the superblock in transactions before and after the damage do not hide the record.
#[test]
fn cuts_with_the_superblock_in_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let mut judged = 0;
    for (seed, feature) in
        [(1, "^ext_attr,^large_file,^resize_inode"), (2, "^metadata_csum,^ext_attr")]
    {
        let options = format!("-t ext4 -b 1024 -J size=1 -O {feature}");
        let (bytes, number) = damaged(dir.path(), &options);
        let device = Recorder::new(bytes);
        let base = device.disk();
        let fs = open(&device);
        let other = file(&fs, 0).number();
        fs.set_xattr(other, "user.x", "1", XattrMode::Either).unwrap();
        if seed == 1 {
            fs.sync().unwrap();
        }
        let before = device.calls();
        meet(&fs, number);
        let recorded = device.calls();
        fs.truncate(other, 1 << 31).unwrap();
        fs.sync().unwrap();
        fs.set_permissions(other, 0o600).unwrap();
        fs.close().unwrap();
        let mut random = Rng::new(seed);
        cut_disks(&base, &device.events(), &mut random, 4, |at, disk| {
            let what = format!("{feature}, cut at {at} of {before}, {recorded}");
            let found =
                Filesystem::open(disk.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
            drop(found);
            let mut raw = [0; 1024];
            disk.read(1024, &mut raw).unwrap();
            let (has_errors, count) = (raw[0x3a] & 2 != 0, raw[0x194]);
            assert!(has_errors || at < recorded, "{what}");
            assert_eq!(u8::from(has_errors), count, "{what}");
            judged += 1;
            if !common::is_root() || !at.is_multiple_of(2) {
                return;
            }
            let path = dir.path().join("theirs");
            fs::write(&path, disk.bytes()).unwrap();
            let mount = Mount::new(&path, &dir.path().join("mnt"), "loop,noatime");
            drop(mount.unwrap_or_else(|error| panic!("{what}: {error}")));
            let count = field(&path, "FS Error count");
            assert!(count == "1" || at < recorded, "{what}: {count}");
        });
    }
    assert!(judged > 50, "{judged}");
}

#[test]
fn a_failed_journal_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), VARIANTS[2].1));
    let fs = open(&device);
    let number = file(&fs, 0).number();
    fs.set_owner(number, Some(1), None).unwrap();
    device.fail_once();
    assert!(matches!(fs.sync(), Err(Error::Sink { .. })));
    assert!(matches!(fs.sync(), Err(Error::JournalAborted)));
    assert!(fs.close().is_err());
    let path = dir.path().join("recorded");
    fs::write(&path, device.bytes()).unwrap();
    assert_eq!(field(&path, "Filesystem state"), "clean with errors");
    assert_eq!(field(&path, "First error err"), "EIO");
    assert_eq!(field(&path, "First error function"), "nvio:journal");
    assert!(matches!(e2fsck(&path, "-y"), Some(0 | 1)));
    common::assert_clean(&path);
}
