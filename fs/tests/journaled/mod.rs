//! Filesystems that are open for changes, with e2fsck and the kernel as oracles.

mod access;
mod append_only;
mod attributes;
mod cached;
mod changes;
mod concurrent_names;
mod crash;
mod damaged_names;
mod directories;
mod error_record;
mod errors;
mod fast_commit;
mod fast_names;
mod fast_replay;
mod features;
mod full;
mod group_commit;
mod hostile;
mod many_names;
mod mmp;
mod name_commands;
mod name_twins;
mod names_power;
mod open_files;
mod power;
mod quality;
mod ranges;
mod recorder;
mod recovery;
mod renames;
mod space;
mod trees;
mod turns;
mod twins;
mod unnamed;
mod xattr;

use std::fs;
use std::path::Path;

use nvio_ext4::{Inode, JournaledFilesystem, Options};

use crate::common::{assert_clean, mke2fs};
use recorder::Recorder;

/// Variants of the filesystem: name, and options of mke2fs.
const VARIANTS: &[(&str, &str)] = &[
    ("1k", "-t ext4 -b 1024 -J size=1"),
    ("2k, no 64bit", "-t ext4 -b 2048 -J size=4 -O ^64bit"),
    ("4k", "-t ext4 -b 4096 -J size=4"),
    ("no checksums", "-t ext4 -b 1024 -J size=1 -O ^metadata_csum"),
    ("no checksums, no 64bit", "-t ext4 -b 4096 -J size=4 -O ^metadata_csum,^64bit,uninit_bg"),
    ("meta_bg", "-t ext4 -b 1024 -g 1024 -J size=1 -O meta_bg,^resize_inode"),
    ("checksum seed, orphan file", "-t ext4 -b 4096 -J size=4 -O metadata_csum_seed,orphan_file"),
    ("fast commit", "-t ext4 -b 1024 -J size=2,fast_commit_size=256 -O fast_commit"),
    ("ext3, small inodes", "-t ext3 -b 1024 -I 128 -J size=1"),
];

/// Returns the bytes of a filesystem with 16 files.
fn image(dir: &Path, options: &str) -> Vec<u8> {
    let (image, source) = (dir.join("image"), dir.join("source"));
    if !source.exists() {
        fs::create_dir(&source).unwrap();
        for at in 0..16 {
            fs::write(source.join(format!("file-{at}")), format!("file {at}")).unwrap();
        }
    }
    let options: Vec<&str> = options.split(' ').collect();
    mke2fs(&image, "16M", &options, Some(&source));
    fs::read(image).unwrap()
}

fn open(device: &Recorder) -> JournaledFilesystem {
    JournaledFilesystem::open(device.clone(), Options::default()).unwrap()
}

fn file(fs: &JournaledFilesystem, at: usize) -> Inode {
    fs.lookup(format!("/file-{at}")).unwrap()
}

/// Runs e2fsck on the bytes of a filesystem.
fn check(dir: &Path, bytes: &[u8]) {
    let image = dir.join("checked");
    fs::write(&image, bytes).unwrap();
    assert_clean(&image);
}
