//! The kernel and this crate take turns on one image.

use std::fs::{self, File};
use std::path::Path;

use nvio_ext4::{JournaledFilesystem, Options};
use nvio_testkit::random::Rng;

use super::changes::Change;
use crate::common::{self, Mount, mke2fs};

const VARIANTS: &[(&str, &str)] = &[
    ("1k", "-t ext4 -b 1024 -J size=1"),
    ("4k, orphan file", "-t ext4 -b 4096 -O orphan_file"),
    ("1k, no checksums, uninit_bg", "-t ext4 -b 1024 -g 2048 -O ^metadata_csum,^64bit,uninit_bg"),
    ("1k, fast commit", "-t ext4 -b 1024 -J size=4 -O fast_commit"),
    ("2k, no flex_bg", "-t ext4 -b 2048 -O ^flex_bg"),
    ("4k, nothing", "-t ext4 -b 4096 -O ^metadata_csum,^64bit"),
    ("1k, meta_bg", "-t ext4 -b 1024 -g 1024 -O meta_bg,^resize_inode"),
    ("1k, csum seed", "-t ext4 -b 1024 -O metadata_csum_seed"),
    (
        "4k, meta_bg, no flex_bg, orphan file",
        "-t ext4 -O meta_bg,^resize_inode,^flex_bg,orphan_file",
    ),
    ("1k, uninit_bg, no flex_bg", "-t ext4 -b 1024 -g 1024 -O ^metadata_csum,uninit_bg,^flex_bg"),
];

/// Makes changes here, and leaves the filesystem closed, or as a crash after a sync does.
fn our_turn(image: &Path, random: &mut Rng, models: &mut [Vec<u8>], crash: bool) {
    let device = File::options().read(true).write(true).open(image).unwrap();
    let fs = JournaledFilesystem::open(device, Options::default()).unwrap();
    for _ in 0..12 {
        let at = random.below(models.len() as u64) as usize;
        let change = Change::draw(random, models[at].len() as u64);
        change.here(&fs, &format!("file-{at}"));
        change.apply_to(&mut models[at]);
    }
    if crash {
        for at in 0..models.len() {
            fs.sync_inode(fs.lookup(format!("/file-{at}")).unwrap().number()).unwrap();
        }
        // The image as it is now is the one to go on with.
        let crashed = image.with_extension("crashed");
        fs::copy(image, &crashed).unwrap();
        fs.close().unwrap();
        fs::rename(crashed, image).unwrap();
    } else {
        fs.close().unwrap();
    }
}

/// Lets the kernel make changes, and leaves the filesystem unmounted, or as a crash after a sync does.
fn kernels_turn(image: &Path, random: &mut Rng, models: &mut [Vec<u8>], crash: bool) {
    let mount = Mount::new(image, &image.with_extension("mnt"), "loop,noatime").unwrap();
    for _ in 0..12 {
        let at = random.below(models.len() as u64) as usize;
        let change = Change::draw(random, models[at].len() as u64);
        change.by_kernel(&mount.path, &format!("file-{at}"));
        change.apply_to(&mut models[at]);
    }
    for (at, model) in models.iter().enumerate() {
        let path = mount.path.join(format!("file-{at}"));
        assert!(fs::read(&path).unwrap() == *model, "the kernel reads file {at}");
        File::open(path).unwrap().sync_all().unwrap();
    }
    if crash {
        let crashed = image.with_extension("crashed");
        fs::copy(image, &crashed).unwrap();
        drop(mount);
        fs::rename(crashed, image).unwrap();
    }
}

#[test]
fn turns_with_crashes() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let long = std::env::var_os("NVIO_LONG").is_some();
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    for at in 0..5 {
        fs::write(source.join(format!("file-{at}")), [at; 3000]).unwrap();
    }
    for (seed, &(name, options)) in (0..).zip(VARIANTS) {
        let image = dir.path().join("image");
        mke2fs(&image, "32M", &options.split(' ').collect::<Vec<_>>(), Some(&source));
        let mut models: Vec<Vec<u8>> = (0..5).map(|at| vec![at; 3000]).collect();
        let mut random = Rng::new(seed);
        for round in 0..if long { 50 } else { 4 } {
            let crash = random.below(2) == 0;
            match round % 2 {
                0 => our_turn(&image, &mut random, &mut models, crash),
                _ => kernels_turn(&image, &mut random, &mut models, crash),
            }
            let what = format!("{name}, round {round}, crash: {crash}");
            if !crash {
                common::assert_clean(&image);
            }
            // In memory, without a change of the image.
            let found = common::open(&image);
            let device = File::open(&image).unwrap();
            for (at, model) in models.iter().enumerate() {
                let inode = found.lookup(format!("/file-{at}")).unwrap();
                assert_eq!(inode.size(), model.len() as u64, "{what}: file {at}");
                let contents = common::read_file(&found, &device, &inode);
                assert!(contents == *model, "{what}: file {at}");
            }
        }
    }
}
