//! Mounts that are read, and the times that they show.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use nvio_testkit::image::{self, mkfs_of_folder};

use super::{MIB, Mounted, assert_same, listing, mkfs, run};

#[test]
#[ignore = "needs root and FUSE; in the suite mount"]
fn a_mount_shows_the_tree_that_the_kernel_shows() {
    let work = image::work_folder("nvio-mount");
    let (image, tree) = (work.path().join("image"), work.path().join("tree"));
    fs::create_dir_all(tree.join("dir/sub")).unwrap();
    for at in 0..300 {
        fs::write(tree.join(format!("dir/file-{at}")), vec![at as u8; at * 50]).unwrap();
    }
    let sparse = File::create(tree.join("sparse")).unwrap();
    sparse.write_all_at(b"at the end", 50 * MIB).unwrap();
    sparse.write_all_at(&vec![7; 100_000], 20 * MIB).unwrap();
    symlink("dir/file-1", tree.join("link")).unwrap();
    symlink("x".repeat(200), tree.join("long link")).unwrap();
    fs::hard_link(tree.join("dir/file-2"), tree.join("second")).unwrap();
    run("mkfifo", Command::new("mkfifo").arg(tree.join("pipe")));
    run("mknod", Command::new("mknod").arg(tree.join("null")).args(["c", "1", "3"]));
    run("setfattr", Command::new("setfattr").args(["-n", "user.a", "-v", "b"]).arg(&tree));
    run("setfacl", Command::new("setfacl").args(["-m", "u:77:r"]).arg(tree.join("dir/file-3")));
    mkfs_of_folder(&image, 128 * MIB, &tree, &[]);
    let before = fs::read(&image).unwrap();
    let theirs = super::by_kernel(&image, &work.path().join("kernel"));
    for options in [&[][..], &["--direct"], &["--threads", "1"]] {
        let mounted = Mounted::new(&image, &work.path().join("mnt"), options);
        assert_same(&format!("{options:?}"), &listing(&mounted.path), &theirs);
        let sparse = File::open(mounted.path.join("sparse")).unwrap();
        let seek = |from| rustix::fs::seek(&sparse, from).ok();
        assert_eq!(seek(rustix::fs::SeekFrom::Data(0)), Some(20 * MIB), "{options:?}");
        assert!(seek(rustix::fs::SeekFrom::Hole(20 * MIB)) > Some(20 * MIB + 99_999));
        assert_eq!(seek(rustix::fs::SeekFrom::Data(51 * MIB)), None);
        let error = fs::write(mounted.path.join("new"), "new").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
        drop(sparse);
        mounted.unmount();
    }
    assert!(fs::read(&image).unwrap() == before, "nothing is written");
}

/// Reads a file, a directory and a link, and returns which of them have another time of access.
fn read_and_compare(top: &Path) -> [bool; 3] {
    let paths = ["file", "directory", "link"].map(|name| top.join(name));
    let times = || {
        paths.each_ref().map(|path| {
            let found = fs::symlink_metadata(path).unwrap();
            (found.atime(), found.atime_nsec())
        })
    };
    let before = times();
    assert_eq!(fs::read(&paths[0]).unwrap(), b"text");
    assert_eq!(fs::read_dir(&paths[1]).unwrap().count(), 1);
    assert_eq!(fs::read_link(&paths[2]).unwrap(), Path::new("file"));
    let after = times();
    [0, 1, 2].map(|at| before[at] != after[at])
}

#[test]
#[ignore = "needs root and FUSE; in the suite mount"]
fn a_writable_mount_records_times_of_access_as_with_relatime() {
    let work = image::work_folder("nvio-atime");
    let (image, tree, mnt) =
        (work.path().join("image"), work.path().join("tree"), work.path().join("mnt"));
    fs::create_dir_all(tree.join("directory/sub")).unwrap();
    fs::write(tree.join("file"), "text").unwrap();
    symlink("file", tree.join("link")).unwrap();
    for path in ["directory", "file", "link"] {
        let mut touch = Command::new("touch");
        run("touch", touch.args(["-h", "-a", "-d", "2001-01-01"]).arg(tree.join(path)));
    }
    mkfs_of_folder(&image, 16 * MIB, &tree, &[]);
    for (options, expected) in [
        (&[][..], [false; 3]),
        (&["--writable", "--noatime"], [false; 3]),
        (&["--writable"], [true; 3]),
        // The time is newer than the last change.
        (&["--writable"], [false; 3]),
    ] {
        let mounted = Mounted::new(&image, &mnt, options);
        assert_eq!(read_and_compare(&mounted.path), expected, "{options:?}");
        mounted.unmount();
    }
    let theirs = image::Mount::new(&image, &work.path().join("kernel"), "loop,relatime");
    assert_eq!(read_and_compare(theirs.path()), [false; 3], "the kernel");
    theirs.unmount().unwrap();
    super::check(&image);
}

#[test]
#[ignore = "needs root and FUSE; in the suite mount"]
fn files_that_may_not_be_written_to_are_read_through_a_writable_mount() {
    let work = image::work_folder("nvio-protected");
    let (image, tree) = (work.path().join("image"), work.path().join("tree"));
    fs::create_dir(&tree).unwrap();
    for (name, size) in [("block pointers", 3_000_000), ("immutable", 5000), ("append-only", 10)] {
        let byte = |at: usize| (at / 1000) as u8;
        fs::write(tree.join(name), (0..size).map(byte).collect::<Vec<u8>>()).unwrap();
    }
    mkfs_of_folder(&image, 32 * MIB, &tree, &["-O", "^extents,^64bit"]);
    for (name, flags) in [("immutable", "0x10"), ("append-only", "0x20")] {
        let set = format!("set_inode_field {name} flags {flags}");
        run("debugfs", Command::new("debugfs").args(["-w", "-R", &set]).arg(&image));
    }
    let theirs = super::by_kernel(&image, &work.path().join("kernel"));
    for options in [&["--writable"][..], &["--writable", "--direct"]] {
        let mounted = Mounted::new(&image, &work.path().join("mnt"), options);
        assert_same(&format!("{options:?}"), &listing(&mounted.path), &theirs);
        for (name, expected) in [
            ("block pointers", ErrorKind::Unsupported),
            ("immutable", ErrorKind::PermissionDenied),
            ("append-only", ErrorKind::PermissionDenied),
        ] {
            let path = mounted.path.join(name);
            let error = File::options().write(true).open(&path).unwrap_err();
            assert_eq!(error.kind(), expected, "{name}");
            File::open(&path).unwrap().sync_all().unwrap();
        }
        mounted.unmount();
    }
    super::check(&image);
    assert_same("at the end", &super::by_kernel(&image, &work.path().join("kernel")), &theirs);
}

#[test]
#[ignore = "needs root and FUSE; in the suite mount"]
fn times_are_those_that_inodes_of_each_size_store() {
    let work = image::work_folder("nvio-times");
    let image = work.path().join("image");
    for size in ["128", "256"] {
        mkfs(&image, 16, &["-I", size]);
        let mounted = Mounted::new(&image, &work.path().join("mnt"), &["--writable"]);
        for (name, date) in [
            ("now", "now"),
            ("before 1970", "1960-02-03 04:05:06.789"),
            ("after 2038", "2100-02-03 04:05:06.789"),
            ("after 2446", "2500-01-01"),
        ] {
            let path = mounted.path.join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("file"), name).unwrap();
            let mut touch = Command::new("touch");
            run("touch", touch.args(["-d", date]).arg(path.join("file")).arg(&path));
        }
        let ours = listing(&mounted.path);
        mounted.unmount();
        super::check(&image);
        let theirs = super::by_kernel(&image, &work.path().join("kernel"));
        assert_same(&format!("inodes of {size} bytes"), &ours, &theirs);
    }
}
