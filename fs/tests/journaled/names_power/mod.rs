//! Losses of power among changes of names: every sequence of one and two operations, sampled ones of three,
//! and files that are open without a name. The free blocks of the disk have a pattern.
//!
//! The tree after a cut is the one after some operation between the last durable one and the last one that
//! was begun. `NVIO_SEED` plays one sequence again, `NVIO_LONG` plays all of them, and `NVIO_SHARE=n` one of
//! `n` pairs, `NVIO_FROM=n` those from number `n` on.

mod model;
mod ops;
mod session;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nvio_ext4::Filesystem;
use nvio_testkit::image::work_folder;
use nvio_testkit::random::Rng;

use super::open;
use super::recorder::{Disk, Event, Recorder, SECTOR, cut_disks};
use crate::common::{self, Mount};
use model::Tree;
use ops::{Sequence, Sync};
use session::Workload;

/// Variants of the filesystem: name, size, and options of mke2fs.
const VARIANTS: &[(&str, &str, &str)] = &[
    ("1k", "3M", "-t ext4 -b 1024 -N 64 -J size=1"),
    ("4k", "9M", "-t ext4 -b 4096 -N 64 -J size=4"),
    ("1k, no checksums", "3M", "-t ext4 -b 1024 -N 64 -J size=1 -O ^metadata_csum,^64bit"),
    ("1k, orphan file", "3M", "-t ext4 -b 1024 -N 64 -J size=1 -O orphan_file"),
    ("1k, fast commit", "5M", "-t ext4 -b 1024 -N 64 -J size=2,fast_commit_size=64 -O fast_commit"),
    ("4k, fast commit, zeroed tables", "11M", ZEROED),
];

const ZEROED: &str = "-t ext4 -b 4096 -N 64 -J size=5,fast_commit_size=256 -O fast_commit \
    -E nodiscard,lazy_itable_init=0";

/// A filesystem with the directories "A" and "B".
struct Image {
    name: &'static str,
    disk: Disk,
    /// A file with the filesystem.
    path: PathBuf,
    /// Sectors that differ after each recovery: those of the log and of the superblock.
    ignored: Vec<std::ops::Range<usize>>,
}

impl Image {
    fn all(dir: &Path) -> Vec<Self> {
        let source = dir.join("source");
        for name in ["A", "B"] {
            fs::create_dir_all(source.join(name)).unwrap();
        }
        VARIANTS.iter().map(|variant| Self::new(dir, &source, variant)).collect()
    }

    fn new(dir: &Path, source: &Path, &(name, size, options): &(&'static str, &str, &str)) -> Self {
        let mib: usize = size.trim_end_matches('M').parse().unwrap();
        let path = dir.join(name);
        let mut bytes = b"left from another file. ".repeat(mib * 43_691);
        bytes.truncate(mib << 20);
        fs::write(&path, bytes).unwrap();
        let mut arguments = vec!["-q", "-F", "-E", "nodiscard", "-d", source.to_str().unwrap()];
        arguments.extend(options.split_whitespace());
        common::run("mke2fs", &[&arguments[..], &[path.to_str().unwrap(), size]].concat());
        let disk = Disk::from(fs::read(&path).unwrap());
        let fs = Filesystem::open(disk.clone()).unwrap();
        let log = fs.extents(&fs.inode(8).unwrap()).unwrap().map(Result::unwrap);
        let sectors = |at: u64| at as usize / SECTOR;
        let mut ignored: Vec<_> = log
            .map(|extent| sectors(extent.physical)..sectors(extent.physical + extent.length))
            .collect();
        ignored.push(2..4);
        Self { name, disk, path, ignored }
    }
}

impl Image {
    fn has_fast_commits(&self) -> bool {
        self.name.contains("fast commit")
    }
}

/// Counts of a run.
#[derive(Default)]
struct Seen {
    sequences: AtomicU64,
    cuts: AtomicU64,
    again: AtomicU64,
    checked: AtomicU64,
    kernel: AtomicU64,
    /// Cuts that left fast commits.
    fast: AtomicU64,
    /// Cuts after which the tree is not the one after the last operation.
    older: AtomicU64,
}

fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed)
}

/// Sequences that differ in the way in which they are played.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Sequences of which some differ only in the last sync.
    Pairs,
    Random,
    /// Operations that cannot be made are left out.
    Lenient,
    /// As `Lenient`, on filesystems with fast commits.
    FastCommits,
}

/// A test: where the sequences come from, and how much of it is done.
struct Plan<'p> {
    images: &'p [Image],
    dir: &'p Path,
    seen: &'p Seen,
    /// Number of cuts of which one is also given to the kernel.
    kernel_every: u64,
}

impl Plan<'_> {
    /// Plays a sequence, and cuts the power at each call of the device.
    fn play(&self, seed: u64, sequence: &Sequence, files: &[usize], what: Kind) -> Option<()> {
        let mut random = Rng::new(seed);
        let is_wanted = |image: &&Image| what != Kind::FastCommits || image.has_fast_commits();
        let images: Vec<_> = self.images.iter().filter(is_wanted).collect();
        let image = *random.pick(&images);
        // Some begin where the log wraps, and some go on until the filesystem is closed.
        let rounds = if random.below(24) == 0 { 300 + random.below(50) as u32 } else { 0 };
        let ends = random.below(4) == 0;
        let lenient = matches!(what, Kind::Lenient | Kind::FastCommits);
        let workload = Workload::record(&image.disk, rounds, sequence, files, (lenient, ends))?;
        // Another sequence, with a sync of the file, has the cuts before the last sync.
        let is_variant = what == Kind::Pairs && sequence.last().unwrap().1 != Sync::File;
        let first = if is_variant { workload.before_last } else { 0 };
        count(&self.seen.sequences);
        let mut checked = HashSet::new();
        let (base, mut chance) = (&workload.base, Rng::new(seed));
        cut_disks(base, &workload.events, &mut random, 2, |at, disk| {
            if at < first {
                return;
            }
            let what = format!("NVIO_SEED={seed}: {}, {sequence:?}, cut at {at}", image.name);
            let cut = Cut { plan: self, image, what, disk };
            let fs = Filesystem::open(cut.disk.clone())
                .unwrap_or_else(|error| panic!("{}: {error}", cut.what));
            let found = Tree::read(&fs, &cut.disk);
            let state = workload.check(&cut.what, at, &found);
            if state + 1 < workload.states.len() {
                count(&self.seen.older);
            }
            let number = count(&self.seen.cuts);
            let closed = cut.recover(&found, chance.below(4) == 0);
            if checked.insert(closed.digest(&image.ignored)) {
                count(&self.seen.checked);
                cut.check(&closed);
            }
            let fast = fs.recovered().map_or(0, |done| done.fast_commits);
            // The kernel replays fast commits by code of its own.
            let every = if fast > 0 { self.kernel_every / 50 } else { self.kernel_every };
            let number = if fast > 0 { count(&self.seen.fast) } else { number };
            if number.is_multiple_of(every) && common::is_root() {
                count(&self.seen.kernel);
                cut.judge(&found);
            }
        });
        Some(())
    }
}

/// A state of the disk that a cut left.
struct Cut<'p> {
    plan: &'p Plan<'p>,
    image: &'p Image,
    what: String,
    disk: Disk,
}

impl Cut<'_> {
    /// Recovers the disk, and with `again` once more after a second crash. Returns it as it is after a close.
    fn recover(&self, found: &Tree, again: bool) -> Disk {
        let device = Recorder::new(self.disk.clone());
        let fs = open(&device);
        self.same("recovery", &Tree::read(&fs, &device.disk()), found);
        if again {
            // The program crashes: nothing more is written.
            let device = Recorder::new(device.disk());
            let fs = open(&device);
            self.same("second recovery", &Tree::read(&fs, &device.disk()), found);
            count(&self.plan.seen.again);
        }
        fs.close().unwrap();
        if again {
            self.cut_recovery(&device.events(), found);
        }
        device.disk()
    }

    /// Cuts the power while the disk is recovered and closed: the tree is the one of an undisturbed recovery.
    fn cut_recovery(&self, events: &[Event], found: &Tree) {
        let mut random = Rng::new(events.len() as u64);
        cut_disks(&self.disk, events, &mut random, 1, |at, disk| {
            let fs = Filesystem::open(disk.clone());
            let fs = fs.unwrap_or_else(|error| panic!("{}, recovery at {at}: {error}", self.what));
            self.same("a recovery that was cut", &Tree::read(&fs, &disk), found);
        });
    }

    fn same(&self, by: &str, tree: &Tree, found: &Tree) {
        assert!(tree == found, "{}: {by}\n{tree:?}\n{found:?}", self.what);
    }

    /// Lets e2fsck check the disk.
    fn check(&self, disk: &Disk) {
        let file = fs::File::options().write(true).open(&self.image.path).unwrap();
        disk.in_file(&file, || self.check_file(&self.image.path));
    }

    fn check_file(&self, path: &Path) {
        let output = std::process::Command::new("e2fsck").arg("-fn").arg(path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {text}", self.what);
    }

    /// Compares the tree with the one that the kernel finds, and lets e2fsck check its recovery.
    fn judge(&self, found: &Tree) {
        let path = self.plan.dir.join("cut");
        fs::write(&path, self.disk.bytes()).unwrap();
        let mount = Mount::new(&path, &self.plan.dir.join("mnt"), "loop,noatime");
        let mount = mount.unwrap_or_else(|error| panic!("{}: {error}", self.what));
        self.same("the kernel", &Tree::by_kernel(&mount.path), found);
        drop(mount);
        self.check_file(&path);
    }
}

/// Sequences with the numbers that play them again.
type Numbered<'s> = &'s (dyn Fn(u64) -> (Sequence, Vec<usize>) + std::marker::Sync);

/// Plays sequences on some threads; `kernel_every` is the number of cuts of which one is given to the kernel.
fn play_all(seeds: Vec<u64>, sequence: Numbered<'_>, kind: Kind, kernel_every: u64) -> Seen {
    let (seen, next) = (Seen::default(), AtomicU64::new(0));
    let asked = std::env::var("NVIO_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = asked.map_or(seeds, |seed| vec![seed]);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(seeds.len()) {
            scope.spawn(|| {
                let dir = work_folder("names-power");
                let images = Image::all(dir.path());
                let plan = Plan { images: &images, dir: dir.path(), seen: &seen, kernel_every };
                while let Some(&seed) = seeds.get(count(&next) as usize) {
                    let (sequence, files) = sequence(seed);
                    plan.play(seed, &sequence, &files, kind);
                }
            });
        }
    });
    println!(
        "{} of {} sequences, {} cuts, {} of them to an older tree, {} with fast commits; {} recovered twice, \
         {} checked, {} by the kernel",
        seen.sequences.load(Ordering::Relaxed),
        seeds.len(),
        seen.cuts.load(Ordering::Relaxed),
        seen.older.load(Ordering::Relaxed),
        seen.fast.load(Ordering::Relaxed),
        seen.again.load(Ordering::Relaxed),
        seen.checked.load(Ordering::Relaxed),
        seen.kernel.load(Ordering::Relaxed),
    );
    seen
}

/// Returns true if all sequences are to be played.
fn is_long() -> bool {
    std::env::var_os("NVIO_LONG").is_some()
}

/// Panics if a run has done too little to tell anything.
fn assert_enough(seen: &Seen, sequences: u64) {
    if std::env::var_os("NVIO_SEED").is_some() {
        return;
    }
    let [found, cuts, older] =
        [&seen.sequences, &seen.cuts, &seen.older].map(|counter| counter.load(Ordering::Relaxed));
    assert!(found >= sequences && cuts > found * 6 && older > found, "too few");
    assert!(seen.fast.load(Ordering::Relaxed) > found / 10, "too few fast commits");
}

#[test]
fn sequences_of_one_and_two_operations() {
    let pairs = ops::pairs();
    let files = |sequence: &Sequence| ops::setup(sequence.iter().map(|(op, _)| *op)).unwrap();
    let step = if is_long() { 1 } else { 160 };
    let share = std::env::var("NVIO_SHARE").map_or(step, |share| share.parse().unwrap());
    let mut random = Rng::new(5);
    let from = std::env::var("NVIO_FROM").map_or(0, |from| from.parse().unwrap());
    let seeds = (from..pairs.len() as u64).filter(|_| random.below(share) == 0).collect();
    let sequence = |seed: u64| {
        let sequence = pairs[seed as usize].clone();
        let files = files(&sequence);
        (sequence, files)
    };
    println!("{} sequences", pairs.len());
    let seen = play_all(seeds, &sequence, Kind::Pairs, if is_long() { 1000 } else { 200 });
    assert_enough(&seen, 100);
}

#[test]
fn sampled_sequences_of_three_operations() {
    let sequence = |seed: u64| {
        let sequence = ops::random(&mut Rng::new(seed), 3);
        let files = ops::setup(sequence.iter().map(|(op, _)| *op)).unwrap();
        (sequence, files)
    };
    let seeds = (0..if is_long() { 2500 } else { 150 }).collect();
    let seen = play_all(seeds, &sequence, Kind::Random, 200);
    assert_enough(&seen, if is_long() { 2000 } else { 100 });
}

/// Files are opened, lose their names by unlink and rename, are written to, and closed.
#[test]
fn open_files_without_names() {
    let seeds = (0..if is_long() { 1000 } else { 60 }).collect();
    let seen = play_all(seeds, &session::without_names, Kind::Lenient, 100);
    assert_enough(&seen, 50);
}

/// New files and links, which fast commits have, among other operations.
#[test]
fn new_files_and_links_in_fast_commits() {
    let sequence = |seed: u64| (ops::random_new_names(&mut Rng::new(seed), 8), vec![0, 3]);
    let seeds = (0..if is_long() { 2000 } else { 60 }).collect();
    let seen = play_all(seeds, &sequence, Kind::FastCommits, 200);
    assert_enough(&seen, 50);
    let [cuts, fast] = [&seen.cuts, &seen.fast].map(|counter| counter.load(Ordering::Relaxed));
    assert!(fast > cuts / 4 || std::env::var_os("NVIO_SEED").is_some(), "{fast} of {cuts}");
}
