//! Changes of a filesystem with each number of free blocks, from none to as many as they need.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nvio_ext4::{BadAttribute, Error, Filesystem, JournaledFilesystem, XattrMode};

use super::recorder::{Disk, Recorder};
use super::{file, open};
use crate::common::{self, mke2fs};

/// The files that leave few free blocks; the others are changed.
const FILLERS: usize = 2;
const FILES: usize = 5;

fn image(dir: &Path, options: &str) -> Vec<u8> {
    let (image, source) = (dir.join("image"), dir.join("source"));
    if !source.exists() {
        fs::create_dir(&source).unwrap();
        for at in 0..FILES {
            fs::write(source.join(format!("file-{at}")), "").unwrap();
        }
    }
    mke2fs(&image, "3M", &options.split(' ').collect::<Vec<_>>(), Some(&source));
    fs::read(image).unwrap()
}

/// Fills a filesystem, and calls `visit` with disks that have more and more free blocks, until it
/// returns false. The free blocks are contiguous, or single ones if `scattered`.
fn disks(bytes: Vec<u8>, scattered: bool, mut visit: impl FnMut(u64, Disk) -> bool) {
    let device = Recorder::new(bytes);
    let fs = open(&device);
    let fillers: Vec<_> = (0..FILLERS).map(|at| file(&fs, at).number()).collect();
    let block = u64::from(fs.superblock().block_size());
    let mut blocks = 0;
    let step = if scattered { 1 } else { 1 << 20 };
    while fillers.iter().all(|&filler| {
        let allocated = fs.allocate(filler, blocks * block, step * block, false);
        assert!(matches!(allocated, Ok(_) | Err(Error::NoSpace)), "{allocated:?}");
        allocated.is_ok()
    }) {
        blocks += step;
    }
    // The first filler is the longer one.
    let end = fs.extents(&fs.inode(fillers[0]).unwrap()).unwrap().last().unwrap().unwrap();
    let mut size = end.logical + end.length;
    loop {
        fs.sync().unwrap();
        if !visit(fs.statfs().unwrap().free_blocks, device.disk()) {
            return;
        }
        size -= block;
        fs.truncate(fillers[0], size).unwrap();
    }
}

/// A call that needs blocks, or frees some.
type Call = (&'static str, usize, fn(&JournaledFilesystem, usize) -> Result<(), Error>);

const BLOCK: u64 = 1024;

fn write(fs: &JournaledFilesystem, at: usize, pos: u64, length: u64) -> Result<(), Error> {
    let data = common::pattern(pos ^ at as u64, length as usize);
    fs.write_at(file(fs, at).number(), pos, &data).map(drop)
}

/// The workload: calls, and the files that they change.
const CALLS: &[Call] = &[
    ("write", 2, |fs, at| write(fs, at, 0, 5000)),
    ("append", 2, |fs, at| write(fs, at, 5000, 3000)),
    // Each block is an extent: the root is full, and then nodes are.
    ("scattered", 3, |fs, at| (0..8).try_for_each(|piece| write(fs, at, piece * 4096, 700))),
    ("allocate", 4, |fs, at| fs.allocate(file(fs, at).number(), 0, 24 * BLOCK, true).map(drop)),
    // Conversions of single blocks split the extent.
    ("convert", 4, |fs, at| (0..8).try_for_each(|piece| write(fs, at, piece * 3 * BLOCK, BLOCK))),
    ("attribute", 2, |fs, at| {
        let (number, value) = (file(fs, at).number(), common::pattern(1, 700));
        fs.set_xattr(number, "user.large", value, XattrMode::Create).map(drop)
    }),
    ("punch", 2, |fs, at| fs.punch_hole(file(fs, at).number(), 2000, 3000).map(drop)),
    ("shrink", 3, |fs, at| fs.truncate(file(fs, at).number(), 9000).map(drop)),
    ("grow", 3, |fs, at| fs.truncate(file(fs, at).number(), 50_000).map(drop)),
    ("after the end", 4, |fs, at| write(fs, at, 60_000, 10_000)),
    ("no attribute", 2, |fs, at| match fs.remove_xattr(file(fs, at).number(), "user.large") {
        // An attribute that was not created, because the filesystem was full.
        Err(Error::BadAttribute { why: BadAttribute::Missing, .. }) => Ok(()),
        result => result.map(drop),
    }),
    ("more pieces", 3, |fs, at| {
        (0..90).try_for_each(|piece| write(fs, at, 60_000 + piece * 2048, 600))
    }),
];

fn contents(fs: &Filesystem, device: &Recorder, at: usize) -> Vec<u8> {
    let inode = fs.lookup(format!("/file-{at}")).unwrap();
    common::read_file(fs, device, &inode)
}

/// Makes all calls on `disk`. Returns those that failed. When all files are empty again, `total` blocks
/// are free.
fn play(dir: &Path, what: &str, disk: Disk, total: u64) -> Vec<&'static str> {
    let device = Recorder::new(disk);
    let fs = open(&device);
    let mut failed = Vec::new();
    let mut models: Vec<_> = (0..FILES).map(|at| contents(&fs, &device, at)).collect();
    for &(name, at, call) in CALLS {
        let free = fs.statfs().unwrap().free_blocks;
        match call(&fs, at) {
            Ok(()) => (),
            Err(Error::NoSpace) => failed.push(name),
            Err(error) => panic!("{what}, {name}: {error}"),
        }
        // A call that failed has changed its own file at most, and nothing that was there before.
        let new = contents(&fs, &device, at);
        if failed.last() == Some(&name) {
            let same = models[at].iter().zip(&new).all(|(old, new)| old == new || *old == 0);
            assert!(same && new.len() >= models[at].len(), "{what}, {name}: contents");
            assert!(fs.statfs().unwrap().free_blocks <= free, "{what}, {name}");
        }
        models[at] = new;
        fs.sync_inode(file(&fs, at).number()).unwrap();
    }
    // The power is cut: nothing that was acknowledged is lost.
    let crashed = device.disk();
    drop(fs);
    let device = Recorder::new(crashed);
    let fs = open(&device);
    for (at, model) in models.iter().enumerate() {
        assert!(contents(&fs, &device, at) == *model, "{what}: contents of file {at}");
    }
    fs.close().unwrap();
    let path = dir.join("checked");
    fs::write(&path, device.bytes()).unwrap();
    common::assert_clean(&path);
    assert_eq!(empty(device.disk()), total, "{what}: free blocks");
    failed
}

/// Empties all files. Returns the number of free blocks then.
fn empty(disk: Disk) -> u64 {
    let fs = open(&Recorder::new(disk));
    for at in 0..FILES {
        fs.truncate(file(&fs, at).number(), 0).unwrap();
    }
    fs.sync().unwrap();
    fs.statfs().unwrap().free_blocks
}

#[test]
fn each_number_of_free_blocks() {
    let dir = tempfile::tempdir().unwrap();
    for (scattered, options) in [
        (false, "-t ext4 -b 1024 -J size=1"),
        (true, "-t ext4 -b 1024 -g 1024 -J size=1 -O ^metadata_csum,^64bit,uninit_bg"),
    ] {
        let bytes = image(dir.path(), options);
        let total = empty(bytes.clone().into());
        let (mut runs, mut failures) = (0, BTreeMap::new());
        disks(bytes, scattered, |free, disk| {
            let failed = play(dir.path(), &format!("{options}, {free} free"), disk, total);
            assert!(free > 0 || failed.len() > 5, "{failed:?}");
            runs += 1;
            failed.iter().for_each(|&name| *failures.entry(name).or_insert(0) += 1);
            !failed.is_empty()
        });
        println!("{runs} numbers of free blocks, failures: {failures:?}");
        assert!(runs > 100 && failures.len() >= 6, "{runs} {failures:?}");
        assert!(failures.contains_key("attribute"), "{failures:?}");
        assert!(!failures.contains_key("no attribute"), "{failures:?}");
        assert!(!failures.contains_key("shrink") && !failures.contains_key("grow"), "{failures:?}");
    }
}
