//! `cp`: a tree comes to this machine as it is, and nowhere else.

use crate::common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use common::{Disk, must, pattern};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};

fn fill(folder: &Path) {
    fs::create_dir_all(folder.join("a/b/c")).unwrap();
    fs::write(folder.join("a/file"), pattern(1_234_567, 3)).unwrap();
    fs::hard_link(folder.join("a/file"), folder.join("a/b/second")).unwrap();
    symlink("/etc/passwd", folder.join("a/absolute")).unwrap();
    symlink("../..", folder.join("a/up")).unwrap();
    fs::write(folder.join(OsStr::from_bytes(b"a/\xfe\xff\n")), "odd").unwrap();
    let sparse = File::create(folder.join("a/sparse")).unwrap();
    sparse.write_all_at(&pattern(70_000, 4), 30 << 20).unwrap();
    sparse.set_len(300 << 20).unwrap();
    must("mkfifo", &[folder.join("a/pipe").as_ref()]);
    for (name, mode) in
        [("a/file", 0o640), ("a/b", 0o2711), ("a/sparse", 0o4511), ("a/pipe", 0o6611)]
    {
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_007);
    File::open(folder.join("a/b")).unwrap().set_modified(time).unwrap();
}

fn copy(disk: &Disk, sources: &[&str], target: &Path) -> common::Outcome {
    let mut args = vec!["-r"];
    args.extend(sources);
    args.push(target.to_str().unwrap());
    disk.run("cp", &args)
}

/// Everything below `expected` is below `found`.
fn assert_same(expected: &Path, found: &Path) {
    for entry in fs::read_dir(expected).unwrap() {
        let entry = entry.unwrap();
        let (left, right) = (entry.path(), found.join(entry.file_name()));
        let (a, b) = (left.symlink_metadata().unwrap(), right.symlink_metadata().unwrap());
        assert_eq!((a.mode(), a.uid(), a.gid()), (b.mode(), b.uid(), b.gid()), "{right:?}");
        // mke2fs -d keeps seconds.
        assert_eq!((a.mtime(), 0), (b.mtime(), b.mtime_nsec()), "{right:?}");
        if a.is_dir() {
            assert_same(&left, &right);
        } else if a.is_symlink() {
            assert_eq!(fs::read_link(&left).unwrap(), fs::read_link(&right).unwrap());
        } else if a.is_file() {
            assert_eq!((a.len(), a.nlink()), (b.len(), b.nlink()), "{right:?}");
            assert!(fs::read(&left).unwrap() == fs::read(&right).unwrap(), "{right:?}");
        }
    }
}

#[test]
fn a_tree_is_copied_with_all_that_it_has() {
    let disk = Disk::new(fill, &[]);
    let target = disk.path("copy");
    // The second time everything is there already.
    for _ in 0..2 {
        assert_eq!(copy(&disk, &["/a"], &target).ok(), b"");
        assert_same(&disk.folder().join("a"), &target);
        let inode = |name: &str| target.join(name).metadata().unwrap().ino();
        assert_eq!(inode("file"), inode("b/second"));
        let sparse = target.join("sparse").metadata().unwrap();
        assert!(sparse.blocks() * 512 < 1 << 20, "{} blocks", sparse.blocks());
        assert!(target.join("pipe").symlink_metadata().unwrap().file_type().is_fifo());
        fs::rename(&target, disk.path("moved")).unwrap();
        fs::create_dir(&target).unwrap();
        // Into a directory, under its own name.
        copy(&disk, &["/a"], &target).ok();
        assert_same(&disk.folder(), &target);
        fs::remove_dir_all(&target).unwrap();
        fs::rename(disk.path("moved"), &target).unwrap();
        fs::rename(&target, disk.path("a")).unwrap();
        copy(&disk, &["/a"], disk.dir.path()).ok();
        fs::rename(disk.path("a"), &target).unwrap();
        assert_same(&disk.folder().join("a"), &target);
        fs::remove_dir_all(&target).unwrap();
    }
}

#[test]
fn times_have_nanoseconds() {
    let disk = Disk::new(fill, &["-I", "256"]);
    let extra = 987_654_321_u32 << 2;
    disk.debugfs(&format!("set_inode_field a/file mtime_extra {extra:#x}"));
    disk.debugfs(&format!("set_inode_field a/absolute mtime_extra {extra:#x}"));
    disk.debugfs(&format!("set_inode_field a/b atime_extra {extra:#x}"));
    let target = disk.path("copy");
    copy(&disk, &["/a"], &target).ok();
    assert_eq!(target.join("file").metadata().unwrap().mtime_nsec(), 987_654_321);
    assert_eq!(target.join("absolute").symlink_metadata().unwrap().mtime_nsec(), 987_654_321);
    assert_eq!(target.join("b").metadata().unwrap().mtime(), 1_000_000_007);
}

#[test]
fn modes_and_owners_do_not_depend_on_the_umask() {
    let modes =
        [0, 0o004, 0o400, 0o444, 0o600, 0o644, 0o664, 0o777, 0o1644, 0o2755, 0o4755, 0o6711];
    let fill = |folder: &Path| {
        for mode in modes {
            let path = folder.join(format!("{mode:o}"));
            fs::write(&path, "data").unwrap();
            // Owners of files, if root runs the test.
            let owner = (mode % 3 == 0).then_some(1234);
            let _ = std::os::unix::fs::chown(&path, owner, owner);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    let disk = Disk::new(fill, &[]);
    disk.debugfs("ea_set /444 user.kept value");
    for umask in ["000", "022", "077"] {
        let target = disk.path(umask);
        fs::create_dir(&target).unwrap();
        let script = format!("umask {umask}; exec \"$0\" cp -r \"$1\" / \"$2\"");
        let nvio = OsStr::new(env!("CARGO_BIN_EXE_nvio"));
        let image = disk.image();
        let args = [script.as_ref(), nvio, image.as_ref(), target.as_ref()];
        must("sh", &[&[OsStr::new("-c")], &args[..]].concat());
        assert_same(&disk.folder(), &target);
        let probe = target.join("probe");
        fs::write(&probe, "").unwrap();
        if lsetxattr(&probe, "user.kept", b"value", XattrFlags::empty()).is_ok() {
            let mut value = [0; 5];
            lgetxattr(target.join("444"), "user.kept", &mut value).unwrap();
            assert_eq!(&value, b"value");
        }
    }
}

#[test]
fn operands_and_targets() {
    let disk = Disk::new(fill, &[]);
    let target = disk.path("target");
    let to = target.to_str().unwrap();
    disk.run("cp", &["/a", to]).refused(&["/a is a directory", "cp -r"]);
    disk.run("cp", &["/a/file", "/a/sparse", to])
        .refused(&["target does not exist; several paths"]);
    disk.run("cp", &["/none", to]).refused(&["/none"]);
    assert!(!target.exists());
    disk.run("cp", &["/a/b/second", to]).ok();
    assert!(fs::read(&target).unwrap() == pattern(1_234_567, 3));
    // What was longer is shorter now.
    disk.debugfs("symlink to-odd a/sparse");
    fs::remove_file(&target).unwrap();
    fs::create_dir(&target).unwrap();
    disk.run("cp", &["/a/file", "/to-odd", to]).ok();
    assert_eq!(target.join("to-odd").symlink_metadata().unwrap().len(), 300 << 20);
    copy(&disk, &["/to-odd", "/a/b", "/a"], &target).refused(&["to-odd", "is a file"]);
}

#[test]
fn copy_stays_inside_the_target() {
    let disk = Disk::new(fill, &[]);
    let (target, outside) = (disk.path("copy"), disk.path("outside"));
    fs::create_dir(&target).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "precious").unwrap();
    // Where a directory and a file are to go, links lead elsewhere.
    symlink(&outside, target.join("a")).unwrap();
    copy(&disk, &["/a"], &target).refused(&["copy/a", "symbolic link, which is not followed"]);
    fs::remove_file(target.join("a")).unwrap();
    fs::create_dir(target.join("a")).unwrap();
    symlink(outside.join("file"), target.join("a/file")).unwrap();
    let outcome = copy(&disk, &["/a"], &target);
    outcome.refused(&["copy/a/", "symbolic link, which is not followed"]);
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "precious");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

/// Two entries of the same name, a link out of the target and then a directory.
#[test]
fn a_name_that_is_there_twice_is_no_way_out() {
    let outside = tempfile::tempdir().unwrap();
    let to = outside.path().to_owned();
    let disk = Disk::new(
        |folder| {
            symlink(&to, folder.join("trap1")).unwrap();
            fs::create_dir(folder.join("trap2")).unwrap();
            fs::write(folder.join("trap2/evil"), "evil").unwrap();
        },
        &["-O", "^metadata_csum,^dir_index"],
    );
    let mut image = fs::read(disk.image()).unwrap();
    let at = image.windows(5).position(|part| part == b"trap2").unwrap();
    image[at + 4] = b'1';
    fs::write(disk.image(), &image).unwrap();
    let target = disk.path("copy");
    copy(&disk, &["/"], &target).refused(&["trap1"]);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}
