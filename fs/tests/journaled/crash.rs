//! Losses of power: the filesystem is cut at each write and flush of a recorded workload.

use std::fs;

use nvio_ext4::{BlockSource, Filesystem, JournaledFilesystem, Options};
use nvio_testkit::random::Rng;

use super::recorder::{Recorder, cuts};
use super::{VARIANTS, file, image, open};
use crate::common::compare::compare_with;
use crate::common::{self, Mount};

/// The fields of the files that the workload changes.
type Tree = Vec<(u16, u32, i64)>;

fn tree(fs: &Filesystem) -> Tree {
    let fields = |at| {
        let inode = fs.lookup(format!("/file-{at}")).unwrap();
        (inode.permissions(), inode.uid(), inode.mtime().seconds)
    };
    (0..8).map(fields).collect()
}

/// A workload: the states of the tree after each change, and for each number of calls of the device
/// how many changes were made, and how many of them were promised to be durable.
struct Workload {
    base: Vec<u8>,
    device: Recorder,
    trees: Vec<Tree>,
    /// Calls of the device, changes that are durable from then on.
    promises: Vec<(usize, usize)>,
    /// Calls of the device before each change.
    made: Vec<usize>,
}

impl Workload {
    /// Makes `changes` changes, with syncs among them, and closes the filesystem.
    fn record(base: Vec<u8>, random: &mut Rng, changes: usize) -> Self {
        let device = Recorder::new(base.clone());
        let fs = open(&device);
        let (mut trees, mut promises, mut made) = (vec![tree(&fs)], Vec::new(), Vec::new());
        let numbers: Vec<_> = (0..8).map(|at| file(&fs, at).number()).collect();
        for _ in 0..changes {
            made.push(device.calls());
            let number = *random.pick(&numbers);
            match random.below(3) {
                0 => drop(fs.set_permissions(number, random.below(0o1000) as u16).unwrap()),
                1 => drop(fs.set_owner(number, Some(random.below(1 << 20) as u32), None).unwrap()),
                _ => {
                    let seconds = random.below(1 << 31) as i64;
                    let time = nvio_ext4::Timestamp { seconds, nanoseconds: 0 };
                    fs.set_times(number, None, Some(time)).unwrap();
                }
            }
            trees.push(tree(&fs));
            if random.below(3) == 0 {
                fs.sync().unwrap();
                promises.push((device.calls(), trees.len() - 1));
            } else if random.below(4) == 0 {
                fs.sync_inode(number).unwrap();
                promises.push((device.calls(), trees.len() - 1));
            }
        }
        fs.close().unwrap();
        promises.push((device.calls(), trees.len() - 1));
        Self { base, device, trees, promises, made }
    }

    /// Panics unless the tree after a cut before call `at` is one that it may be.
    fn check(&self, what: &str, at: usize, found: &Tree) {
        let least = self.promises.iter().rev().find(|promise| promise.0 <= at);
        let least = least.map_or(0, |promise| promise.1);
        let most = self.made.iter().filter(|&&calls| calls <= at).count();
        let states = &self.trees[least..=most];
        assert!(states.contains(found), "{what}, cut at {at}: not a state {least} to {most}");
    }
}

#[test]
fn every_cut_leaves_a_state_between_promise_and_last_change() {
    let long = std::env::var_os("NVIO_LONG").is_some();
    let dir = tempfile::tempdir().unwrap();
    for (seed, &(name, options)) in (0..).zip(VARIANTS) {
        for seed in (seed..).step_by(VARIANTS.len()).take(if long { 20 } else { 1 }) {
            let mut random = Rng::new(seed);
            let base = image(dir.path(), options);
            let workload = Workload::record(base, &mut random, 40);
            let (events, mut states) = (workload.device.events(), 0);
            let (what, count) = (format!("{name}, seed {seed}"), if long { 3 } else { 1 });
            cuts(&workload.base, &events, &mut random.clone(), count, |at, state| {
                states += 1;
                cut(&workload, &what, at, state, dir.path(), states % 8 == 0);
            });
            assert!(states > 30, "{what}: {states}");
        }
    }
}

/// Checks the state that a cut left: in memory, recovered on the device, by e2fsck, and, with
/// `kernel`, as the kernel recovers it.
fn cut(
    workload: &Workload,
    what: &str,
    at: usize,
    state: Vec<u8>,
    dir: &std::path::Path,
    kernel: bool,
) {
    let in_memory = tree(&Filesystem::open(state.clone()).unwrap());
    workload.check(what, at, &in_memory);
    let device = Recorder::new(state.clone());
    let fs = open(&device);
    assert_eq!(tree(&fs), in_memory, "{what}, cut at {at}");
    // The program crashes: nothing more is written.
    let crashed = device.bytes();
    drop(fs);
    let again = Recorder::new(crashed);
    let fs = open(&again);
    assert_eq!(tree(&fs), in_memory, "{what}, cut at {at}: the second recovery");
    fs.close().unwrap();
    if !kernel {
        return;
    }
    super::check(dir, &again.bytes());
    if common::is_root() {
        let path = dir.join("cut");
        fs::write(&path, state).unwrap();
        let mount = Mount::new(&path, &dir.join("mnt"), "loop,noatime").unwrap();
        let ours = Filesystem::open(again.bytes()).unwrap();
        let closed = dir.join("closed");
        fs::write(&closed, again.bytes()).unwrap();
        compare_with(what, &ours, &closed, &mount.path);
        drop(mount);
        common::assert_clean(&path);
    }
}

#[test]
fn a_log_that_wraps() {
    let dir = tempfile::tempdir().unwrap();
    let base = image(dir.path(), VARIANTS[0].1);
    let device = Recorder::new(base.clone());
    let fs = open(&device);
    let number = file(&fs, 0).number();
    let mut checkpoints = 0;
    // Each sync writes three blocks to a log of 1,024.
    for round in 0..1000u32 {
        let before = device.calls();
        fs.set_owner(number, Some(round), None).unwrap();
        fs.sync().unwrap();
        checkpoints += usize::from(device.calls() > before + 2);
        if round % 20 == 0 || device.calls() > before + 2 {
            let found = Filesystem::open(device.bytes()).unwrap();
            assert_eq!(found.inode(number).unwrap().uid(), round);
            let again = Recorder::new(device.bytes());
            assert_eq!(open(&again).inode(number).unwrap().uid(), round);
            super::check(dir.path(), &again.bytes());
        }
    }
    assert_eq!(checkpoints, 2, "the log was full twice");
    fs.close().unwrap();
    super::check(dir.path(), &device.bytes());
}

#[test]
fn cuts_of_recovery_and_of_the_next_session() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Rng::new(77);
    let base = image(dir.path(), VARIANTS[2].1);
    let workload = Workload::record(base, &mut random, 12);
    let events = workload.device.events();
    let mut crashed = Vec::new();
    cuts(&workload.base, &events, &mut random.clone(), 1, |at, state| crashed.push((at, state)));
    for (at, state) in crashed.into_iter().step_by(5) {
        let before = tree(&Filesystem::open(state.clone()).unwrap());
        let device = Recorder::new(state.clone());
        let fs = JournaledFilesystem::open(device.clone(), Options::default()).unwrap();
        fs.close().unwrap();
        let what = format!("cut of the recovery at {at}");
        cuts(&state, &device.events(), &mut random.clone(), 2, |step, state| {
            assert!(BlockSource::size(&state) > 0);
            let found = tree(&Filesystem::open(state.clone()).unwrap());
            assert_eq!(found, before, "{what}, {step}");
            let again = Recorder::new(state);
            let fs = open(&again);
            assert_eq!(tree(&fs), before, "{what}, {step}");
            fs.close().unwrap();
            super::check(dir.path(), &again.bytes());
        });
    }
}
