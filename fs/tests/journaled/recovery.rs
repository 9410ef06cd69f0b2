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

/// Checks what the kernel recovered by name.
fn filetime(kernel: &std::path::Path, root: &nvio_ext4::Inode) {
    use std::os::unix::fs::MetadataExt;
    let metadata = kernel.metadata().unwrap();
    assert_eq!((metadata.mode(), metadata.mtime()), (root.mode().into(), root.mtime().seconds));
}
