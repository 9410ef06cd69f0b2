//! Mounts that are only read.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, symlink};
use std::process::Command;

use nvio_testkit::image::{self, mkfs_of_folder};

use super::{MIB, Mounted, assert_same, listing, run};

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
