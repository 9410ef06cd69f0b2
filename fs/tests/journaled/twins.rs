//! Two equal images with the same random changes: one is changed by this crate, one by the kernel.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nvio_testkit::random::Rng;

use super::changes::Change;
use super::open;
use super::recorder::Recorder;
use crate::common::extents::filefrag;
use crate::common::{self, Mount, mke2fs};

const VARIANTS: &[(&str, &str)] = &[
    ("1k", "-t ext4 -b 1024 -J size=1"),
    ("2k, no flex_bg", "-t ext4 -b 2048 -g 2048 -J size=2 -O ^flex_bg"),
    ("4k", "-t ext4 -b 4096 -J size=4"),
    ("1k, no checksums", "-t ext4 -b 1024 -g 1024 -J size=1 -O ^metadata_csum,^64bit,uninit_bg"),
];

const FILES: usize = 6;

/// A state of a mapped range of a file: first block, number of blocks, unwritten.
type State = (u64, u64, bool);

/// The files of an image, and its free blocks, as the kernel has them.
struct View {
    contents: Vec<Vec<u8>>,
    states: Vec<Vec<State>>,
    /// Free blocks, and those that hold nodes of extent trees.
    free_and_nodes: u64,
}

fn view(mount: &Path) -> View {
    let paths: Vec<PathBuf> = (0..FILES).map(|at| mount.join(format!("file-{at}"))).collect();
    paths.iter().for_each(|path| File::open(path).unwrap().sync_all().unwrap());
    let statvfs = rustix::fs::statvfs(mount).unwrap();
    let states: Vec<_> = filefrag(&paths).into_iter().map(states).collect();
    let mapped: u64 = states.iter().flatten().map(|state| state.1).sum();
    let blocks = |path| std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path).unwrap());
    let used: u64 = paths.iter().map(blocks).sum::<u64>() * 512 / statvfs.f_frsize;
    assert!(used >= mapped, "{used} blocks, {mapped} mapped");
    let contents = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    View { contents, states, free_and_nodes: statvfs.f_bfree + used - mapped }
}

/// Joins the extents that differ in their places only.
fn states(extents: Vec<common::extents::Record>) -> Vec<State> {
    let mut states: Vec<State> = Vec::new();
    for (logical, _, length, unwritten) in extents {
        match states.last_mut() {
            Some(last) if last.0 + last.1 == logical && last.2 == unwritten => last.1 += length,
            _ => states.push((logical, length, unwritten)),
        }
    }
    states
}

/// Lets the kernel split unwritten extents as often as it is asked to. Otherwise it writes zeroes to
/// up to 32 KiB beside a write instead, and calls them written.
fn split_always(mount: &Path) {
    let device = common::run("findmnt", &["-n", "-o", "SOURCE", mount.to_str().unwrap()]);
    let device = String::from_utf8(device).unwrap();
    let name = device.trim().trim_start_matches("/dev/");
    fs::write(format!("/sys/fs/ext4/{name}/extent_max_zeroout_kb"), "0").unwrap();
}

/// Leaves the blocks after the end of a file out of a hole. The kernel does not free them, up to the
/// end of a page, and this crate does.
fn comparable(change: Change, model: &[u8]) -> Change {
    let most = (model.len() as u64).saturating_sub(1);
    match change {
        Change::Punch { pos, length } => {
            let pos = pos.min(most.saturating_sub(1));
            Change::Punch { pos, length: length.min(most.saturating_sub(pos)).max(1) }
        }
        change => change,
    }
}

/// Sizes, contents, and the state of each block of each file (written, unwritten, none) are the same.
/// The sum of free blocks and of nodes of trees is, too: the trees differ because blocks have other places.
/// e2fsck proves the blocks of each inode and the counts of groups.
#[test]
fn random_changes_are_those_of_the_kernel() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let seed = std::env::var("NVIO_SEED").map_or(1, |seed| seed.parse().unwrap());
    let (rounds, batch) =
        if std::env::var_os("NVIO_LONG").is_some() { (50, 500) } else { (4, 125) };
    let dir = tempfile::tempdir().unwrap();
    let [source, ours, theirs] = ["source", "ours", "theirs"].map(|name| dir.path().join(name));
    fs::create_dir(&source).unwrap();
    for at in 0..FILES {
        fs::write(source.join(format!("file-{at}")), vec![at as u8 + 1; 7000 * at]).unwrap();
    }
    for (seed, &(name, options)) in (seed..).zip(VARIANTS) {
        mke2fs(&theirs, "48M", &options.split(' ').collect::<Vec<_>>(), Some(&source));
        let device = Recorder::new(fs::read(&theirs).unwrap());
        let mut models: Vec<_> = (0..FILES).map(|at| vec![at as u8 + 1; 7000 * at]).collect();
        let mut random = Rng::new(seed);
        let options = "loop,noatime";
        for round in 0..rounds {
            let what = format!("NVIO_SEED={seed}: {name}, round {round}");
            let fs = open(&device);
            let mount = Mount::new(&theirs, &dir.path().join("theirs.mnt"), options).unwrap();
            split_always(&mount.path);
            let mut made = vec![String::new(); FILES];
            for _ in 0..batch {
                let at = random.below(FILES as u64) as usize;
                let change =
                    comparable(Change::draw(&mut random, models[at].len() as u64), &models[at]);
                made[at] += &format!(" {change} of {},", models[at].len());
                change.here(&fs, &format!("file-{at}"));
                change.by_kernel(&mount.path, &format!("file-{at}"));
                change.apply_to(&mut models[at]);
            }
            fs.close().unwrap();
            fs::write(&ours, device.bytes()).unwrap();
            let their_view = view(&mount.path);
            drop(mount);
            let mount = Mount::new(&ours, &dir.path().join("ours.mnt"), "loop,ro,noatime").unwrap();
            let our_view = view(&mount.path);
            drop(mount);
            for (at, model) in models.iter().enumerate() {
                let what = format!("{what}, file {at}:{}", made[at]);
                assert!(our_view.contents[at] == *model, "{what}: contents");
                assert!(their_view.contents[at] == *model, "{what}: contents by the kernel");
                assert_eq!(our_view.states[at], their_view.states[at], "{what}");
            }
            assert_eq!(our_view.free_and_nodes, their_view.free_and_nodes, "{what}: free blocks");
            common::assert_clean(&ours);
            common::assert_clean(&theirs);
        }
    }
}
