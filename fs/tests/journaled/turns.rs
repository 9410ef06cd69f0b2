//! The kernel and this crate take turns on one image.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nvio_ext4::{JournaledFilesystem, Options};
use nvio_testkit::random::Rng;

use crate::common::{self, Mount, mke2fs};

const VARIANTS: &[(&str, &str)] = &[
    ("1k", "-t ext4 -b 1024 -J size=1"),
    ("4k, orphan file", "-t ext4 -b 4096 -O orphan_file"),
    ("1k, no checksums, uninit_bg", "-t ext4 -b 1024 -g 2048 -O ^metadata_csum,^64bit,uninit_bg"),
    ("2k, no flex_bg", "-t ext4 -b 2048 -O ^flex_bg"),
    ("4k, nothing", "-t ext4 -b 4096 -O ^metadata_csum,^64bit"),
    ("1k, meta_bg", "-t ext4 -b 1024 -g 1024 -O meta_bg,^resize_inode"),
    ("1k, csum seed", "-t ext4 -b 1024 -O metadata_csum_seed"),
];

/// A change of a file, for both sides.
enum Change {
    Write { pos: u64, data: Vec<u8> },
    Truncate { size: u64 },
    Punch { pos: u64, length: u64 },
    Allocate { pos: u64, length: u64, keep_size: bool },
}

impl Change {
    fn draw(random: &mut Rng, size: u64) -> Self {
        let (pos, length) = (random.below(size + 60_000), 1 + random.below(80_000));
        match random.below(6) {
            0 => Self::Truncate { size: pos },
            1 => Self::Punch { pos, length },
            2 => Self::Allocate { pos, length, keep_size: random.below(2) == 0 },
            3 => Self::Write { pos: size, data: random.bytes(length) },
            _ => Self::Write { pos, data: random.bytes(length) },
        }
    }

    fn apply_to(&self, model: &mut Vec<u8>) {
        match self {
            Self::Write { pos, data } => {
                let (pos, end) = (*pos as usize, *pos as usize + data.len());
                model.resize(model.len().max(end), 0);
                model[pos..end].copy_from_slice(data);
            }
            Self::Truncate { size } => model.resize(*size as usize, 0),
            Self::Punch { pos, length } => {
                let end = (pos + length).min(model.len() as u64) as usize;
                model.get_mut(*pos as usize..end).unwrap_or_default().fill(0);
            }
            Self::Allocate { keep_size: true, .. } => (),
            Self::Allocate { pos, length, .. } => {
                model.resize(model.len().max((pos + length) as usize), 0);
            }
        }
    }

    fn here(&self, fs: &JournaledFilesystem, name: &str) {
        let number = fs.lookup(format!("/{name}")).unwrap().number();
        match self {
            Self::Write { pos, data } => fs.write_at(number, *pos, data),
            Self::Truncate { size } => fs.truncate(number, *size),
            Self::Punch { pos, length } => fs.punch_hole(number, *pos, *length),
            Self::Allocate { pos, length, keep_size } => {
                fs.allocate(number, *pos, *length, *keep_size)
            }
        }
        .unwrap();
    }

    fn by_kernel(&self, mount: &Path, name: &str) {
        let path = mount.join(name);
        let file = File::options().write(true).open(&path).unwrap();
        let fallocate = |pos: u64, length: u64, options: &[&str]| {
            let (pos, length) = (pos.to_string(), length.to_string());
            let arguments = ["-o", &pos, "-l", &length, path.to_str().unwrap()];
            common::run("fallocate", &[options, &arguments].concat());
        };
        match self {
            Self::Write { pos, data } => file.write_all_at(data, *pos).unwrap(),
            Self::Truncate { size } => file.set_len(*size).unwrap(),
            Self::Punch { pos, length } => fallocate(*pos, *length, &["-p"]),
            Self::Allocate { pos, length, keep_size } => {
                fallocate(*pos, *length, if *keep_size { &["-n"] } else { &[] });
            }
        }
    }
}

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
        fs.sync().unwrap();
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
    let variants = if long { VARIANTS } else { &VARIANTS[..3] };
    for (seed, &(name, options)) in (0..).zip(variants) {
        let image = dir.path().join("image");
        mke2fs(&image, "32M", &options.split(' ').collect::<Vec<_>>(), Some(&source));
        let mut models: Vec<Vec<u8>> = (0..5).map(|at| vec![at; 3000]).collect();
        let mut random = Rng::new(seed);
        for round in 0..if long { 50 } else { 6 } {
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
