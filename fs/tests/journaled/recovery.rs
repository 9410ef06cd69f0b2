//! Recovery on the device of filesystems that the kernel left mounted.

use std::fs::{self, File};

use nvio_ext4::{JournaledFilesystem, Options};

use crate::common::compare::compare;
use crate::common::{self, Mount, mke2fs};

/// Changes files, and makes them durable in several transactions.
fn work(mount: &std::path::Path, round: usize) {
    for at in 0..40 {
        let path = mount.join(format!("{round}-{at}"));
        fs::write(&path, vec![at as u8; 3000 * at]).unwrap();
        if at % 5 == 0 {
            File::open(&path).unwrap().sync_all().unwrap();
        }
        if at % 3 == 0 {
            fs::remove_file(path).unwrap();
        }
    }
    File::open(mount).unwrap().sync_all().unwrap();
}

#[test]
fn what_the_kernel_left_is_recovered_as_by_the_kernel() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut replayed = 0;
    for options in
        ["-t ext4 -b 4096", "-t ext4 -b 1024 -J size=1", "-t ext4 -b 1024 -O ^metadata_csum,^64bit"]
    {
        let (image, ours) = (dir.path().join("image"), dir.path().join("ours"));
        mke2fs(&image, "32M", &options.split(' ').collect::<Vec<_>>(), None);
        let mount = Mount::new(&image, &dir.path().join("mnt"), "loop,noatime").unwrap();
        for round in 0..3 {
            work(&mount.path, round);
            fs::copy(&image, &ours).unwrap();
            let theirs = dir.path().join("theirs");
            fs::copy(&ours, &theirs).unwrap();
            let device = File::options().read(true).write(true).open(&ours).unwrap();
            let fs = JournaledFilesystem::open(device, Options::default()).unwrap();
            let recovered = fs.recovered().unwrap();
            assert!(recovered.transactions > 0, "{options}: {recovered:?}");
            replayed += recovered.blocks;
            // One change, so that the kernel reads a journal that was written here.
            let root = fs.root().unwrap();
            fs.set_permissions(root.number(), root.permissions()).unwrap();
            fs.close().unwrap();
            common::assert_clean(&ours);
            let kernel =
                Mount::new(&theirs, &dir.path().join("recovered"), "loop,noatime").unwrap();
            // The time of the root's last change differs.
            let root = common::open(&ours).root().unwrap();
            filetime(&kernel.path, &root);
            drop(kernel);
            let kernel = Mount::new(&ours, &dir.path().join("recovered"), "loop,noatime").unwrap();
            compare(options, &ours, &kernel.path);
        }
    }
    assert!(replayed > 100, "{replayed}");
}

#[test]
fn files_that_were_open_without_a_name() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for options in [
        "-t ext4 -b 4096",
        "-t ext4 -b 1024 -O orphan_file",
        "-t ext4 -b 1024 -g 2048 -O ^metadata_csum,^64bit,uninit_bg",
    ] {
        let (image, ours) = (dir.path().join("image"), dir.path().join("ours"));
        mke2fs(&image, "32M", &options.split(' ').collect::<Vec<_>>(), None);
        let mount = Mount::new(&image, &dir.path().join("mnt"), "loop,noatime").unwrap();
        let mut open = Vec::new();
        for at in 0..20 {
            let path = mount.path.join(format!("file-{at}"));
            fs::write(&path, vec![at as u8; 20_000 * at]).unwrap();
            if at % 4 == 0 {
                // Attributes in a block, which two files share.
                let value = "v".repeat(600);
                let name = path.to_str().unwrap();
                common::run("setfattr", &["-n", "user.name", "-v", &value, name]);
            }
            let file = File::options().write(true).open(&path).unwrap();
            file.sync_all().unwrap();
            if at != 4 {
                open.push(file);
                fs::remove_file(&path).unwrap();
            }
        }
        File::open(&mount.path).unwrap().sync_all().unwrap();
        fs::copy(&image, &ours).unwrap();
        let device = File::options().read(true).write(true).open(&ours).unwrap();
        let state = JournaledFilesystem::open(device, Options::default()).unwrap();
        let free = state.statfs().unwrap();
        state.close().unwrap();
        common::assert_clean(&ours);
        drop(open);
        drop(mount);
        // The kernel has freed them, too.
        let theirs = common::open(&image).statfs().unwrap();
        assert_eq!((free.free_blocks, free.free_files), (theirs.free_blocks, theirs.free_files));
        let kernel = Mount::new(&ours, &dir.path().join("mnt"), "loop,noatime").unwrap();
        compare(options, &ours, &kernel.path);
    }
}

/// Checks what the kernel recovered by name.
fn filetime(kernel: &std::path::Path, root: &nvio_ext4::Inode) {
    use std::os::unix::fs::MetadataExt;
    let metadata = kernel.metadata().unwrap();
    assert_eq!((metadata.mode(), metadata.mtime()), (root.mode().into(), root.mtime().seconds));
}
