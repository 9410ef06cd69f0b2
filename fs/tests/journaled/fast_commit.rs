//! Fast commits that are written here: their commands, losses of power, and damage.

use std::fs;
use std::path::Path;

use nvio_ext4::{Error, Filesystem, JournaledFilesystem, NotWritable, Options, Timestamp};
use nvio_iomap::{ImageQueue, PageCache};
use nvio_testkit::random::Rng;

use super::open_files::Disk;
use super::recorder::{Event, Recorder, cuts};
use super::{check, file, image, open};
use crate::common::{self, Mount, debugfs, view};
use crate::hostile::bytes::{crc32c, get, put};

/// Variants of the filesystem: name, and options of mke2fs.
const VARIANTS: &[(&str, &str)] = &[
    ("1k", "-t ext4 -b 1024 -J size=2,fast_commit_size=256 -O fast_commit"),
    ("4k", "-t ext4 -b 4096 -J size=5,fast_commit_size=256 -O fast_commit"),
    ("no checksums", "-t ext4 -b 1024 -I 128 -J size=2 -O fast_commit,^metadata_csum,^64bit"),
    ("large inodes", "-t ext4 -b 4096 -I 1024 -J size=5 -O fast_commit,orphan_file"),
];

/// Returns the number of writes of a call, each of which must be durable.
pub(super) fn writes(device: &Recorder, call: impl FnOnce()) -> usize {
    let before = device.calls();
    call();
    let of = |event: &Event| match event {
        Event::Write { ranges, durable: true } => ranges.len(),
        Event::Write { .. } => panic!("a write that is not durable"),
        Event::Flush => panic!("a flush"),
    };
    device.events()[before..].iter().map(of).sum()
}

#[test]
fn commands_of_each_call() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), VARIANTS[1].1));
    let fs = open(&device);
    let (number, other) = (file(&fs, 0).number(), file(&fs, 1).number());
    fs.truncate(number, 0).unwrap();
    fs.allocate(other, 0, 1 << 16, false).unwrap();
    fs.sync().unwrap();
    let page = [7; 4096];
    for round in 0..20u64 {
        let append = writes(&device, || {
            fs.write_at(number, round * 4096, &page).unwrap();
            fs.sync_inode(number).unwrap();
        });
        assert_eq!(append, 2, "round {round}: append and fsync: data, fast commit");
        let again = writes(&device, || fs.sync_inode(number).unwrap());
        assert_eq!(again, 0, "durable already");
    }
    let overwrite = writes(&device, || {
        fs.write_at(number, 0, &page).unwrap();
        fs.sync_data(number).unwrap();
    });
    assert_eq!(overwrite, 1, "overwrite and fdatasync: data");
    let preallocated = writes(&device, || {
        fs.write_at(other, 8192, &page).unwrap();
        fs.sync_data(other).unwrap();
    });
    assert_eq!(preallocated, 2, "write to preallocated blocks and fdatasync");
    let attributes = writes(&device, || {
        fs.punch_hole(number, 4096, 8192).unwrap();
        fs.set_owner(number, Some(1), None).unwrap();
        fs.set_permissions(other, 0o600).unwrap();
        fs.truncate(other, 4096).unwrap();
        fs.sync_inode(number).unwrap();
        fs.sync_inode(other).unwrap();
    });
    assert_eq!(attributes, 1, "changes of two files");
    let full = writes(&device, || fs.sync().unwrap());
    assert_eq!(full, 2, "a full commit has all changes: log, commit block");
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
    let clean = Filesystem::open(device.bytes()).unwrap();
    assert_eq!((file_of(&clean, 0).uid(), file_of(&clean, 1).size()), (1, 4096));
}

fn file_of(fs: &Filesystem, at: usize) -> nvio_ext4::Inode {
    fs.lookup(format!("/file-{at}")).unwrap()
}

#[test]
fn a_full_area_and_other_changes_are_committed_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("attributes");
    fs::write(&path, image(dir.path(), VARIANTS[0].1)).unwrap();
    let value = dir.path().join("value");
    fs::write(&value, [7; 600]).unwrap();
    debugfs(&path, &[&format!("ea_set /file-3 user.large -f {}", value.display())]);
    let device = Recorder::new(fs::read(&path).unwrap());
    let fs = open(&device);
    let number = file(&fs, 0).number();
    let (mut fast, mut full, mut before) = (0, 0, Vec::new());
    for round in 0..600 {
        fs.set_owner(number, Some(round), None).unwrap();
        match writes(&device, || fs.sync_inode(number).unwrap()) {
            1 => fast += 1,
            2 => {
                full += 1;
                // The kernel replays a full area, too.
                let found = Filesystem::open(before.clone()).unwrap();
                assert_eq!(found.recovered().unwrap().fast_commits, 254);
                let ours = Recorder::new(before.clone());
                open(&ours).close().unwrap();
                kernel_agrees("a full area", &before, &ours.bytes(), dir.path());
            }
            calls => panic!("{calls} writes"),
        }
        if fast % 254 == 0 {
            before = device.bytes();
        }
    }
    // An area of 256 blocks, without the first and the last.
    assert_eq!((fast, full), (254 + 254 + 90, 2));
    // A directory, and a file with a block of attributes.
    for inode in [fs.root().unwrap().number(), file(&fs, 3).number()] {
        fs.sync().unwrap();
        fs.set_times(inode, None, Some(Timestamp { seconds: 1, nanoseconds: 0 })).unwrap();
        assert_eq!(writes(&device, || fs.sync_inode(inode).unwrap()), 2, "{inode}");
    }
    // Moved blocks.
    fs.write_at(number, 0, &[1; 9000]).unwrap();
    fs.sync().unwrap();
    fs.collapse_range(number, 0, 4096).unwrap();
    assert_eq!(writes(&device, || fs.sync_inode(number).unwrap()), 2, "collapse");
    fs.insert_range(number, 0, 4096).unwrap();
    assert_eq!(writes(&device, || fs.sync_inode(number).unwrap()), 2, "insert");
    // The program crashes after a change that no fast commit can have, and a fast commit before.
    fs.set_owner(number, Some(5), None).unwrap();
    assert_eq!(writes(&device, || fs.sync_inode(number).unwrap()), 1);
    fs.set_permissions(fs.root().unwrap().number(), 0o700).unwrap();
    fs.set_owner(number, Some(6), None).unwrap();
    assert_eq!(writes(&device, || fs.sync_inode(number).unwrap()), 2);
    let found = Filesystem::open(device.bytes()).unwrap();
    let inode = file_of(&found, 0);
    assert_eq!((inode.uid(), found.root().unwrap().permissions()), (6, 0o700));
}

/// The state of a file: size, owner, permissions, times, and extents.
type State = (u64, u32, u16, [Timestamp; 2], Vec<(u64, u64, u64, bool)>);

const FILES: usize = 8;

fn states(fs: &Filesystem) -> Vec<State> {
    let of = |at| {
        let inode = file_of(fs, at);
        let extents = fs.extents(&inode).unwrap().map(|extent| {
            let extent = extent.unwrap();
            (extent.logical, extent.physical, extent.length, extent.unwritten)
        });
        // Small inodes store no nanoseconds.
        let is_small = fs.superblock().inode_size() == 128;
        let stored = |time: Timestamp| Timestamp {
            nanoseconds: if is_small { 0 } else { time.nanoseconds },
            ..time
        };
        let times = [inode.mtime(), inode.ctime()].map(stored);
        (inode.size(), inode.uid(), inode.permissions(), times, extents.collect())
    };
    (0..FILES).map(of).collect()
}

/// The byte at `pos` of a file, whenever it is written.
fn byte(at: usize, pos: u64) -> u8 {
    1 + ((pos / 100).wrapping_mul(31) as usize + at) as u8 % 250
}

/// Panics unless the written blocks of all files have their bytes.
fn check_contents(what: &str, device: &[u8], states: &[State]) {
    for (at, (size, .., extents)) in states.iter().enumerate() {
        for &(logical, physical, length, unwritten) in extents {
            let end = (logical + length).min(*size);
            for pos in (logical..end).step_by(64).filter(|_| !unwritten) {
                let found = device[(physical + pos - logical) as usize];
                assert_eq!(found, byte(at, pos), "{what}: file {at}, byte {pos}");
            }
        }
    }
}

/// A recorded workload: see [`record`].
struct Workload {
    base: Vec<u8>,
    device: Recorder,
    /// The states of the files after each change.
    states: Vec<Vec<State>>,
    /// Calls of the device, and the number of changes that are durable from then on.
    promises: Vec<(usize, usize)>,
    /// Calls of the device before each change.
    made: Vec<usize>,
}

/// Changes one file, by whole blocks, so that all written blocks have their bytes.
fn change(fs: &JournaledFilesystem, random: &mut Rng) -> nvio_ext4::InodeNumber {
    let at = random.below(FILES as u64) as usize;
    let inode = file(fs, at);
    let (number, size) = (inode.number(), inode.size());
    let block = u64::from(fs.superblock().block_size());
    let blocks = |random: &mut Rng| random.below(40) * block;
    match random.below(8) {
        0 => drop(fs.set_owner(number, Some(random.below(1 << 20) as u32), None).unwrap()),
        1 => drop(fs.set_permissions(number, random.below(0o1000) as u16).unwrap()),
        2 => drop(fs.truncate(number, blocks(random).min(size)).unwrap()),
        3 => {
            let (pos, length) = (blocks(random), blocks(random) + block);
            match random.below(2) {
                0 => fs.punch_hole(number, pos, length).unwrap(),
                _ => fs.zero_range(number, pos, length, random.below(2) == 0).unwrap(),
            };
        }
        4 => {
            let (pos, length) = (blocks(random), blocks(random) + block);
            fs.allocate(number, pos, length, random.below(2) == 0).unwrap();
        }
        which => {
            let pos = if which == 5 { blocks(random) } else { size };
            let data: Vec<u8> =
                (pos..pos + (1 + random.below(9)) * block).map(|pos| byte(at, pos)).collect();
            fs.write_at(number, pos, &data).unwrap();
        }
    }
    number
}

/// Makes changes, most of them followed by a sync of the file, and closes the filesystem.
fn record(base: Vec<u8>, random: &mut Rng, changes: usize) -> Workload {
    let device = Recorder::new(base);
    let fs = open(&device);
    for at in 0..FILES {
        fs.truncate(file(&fs, at).number(), 0).unwrap();
    }
    fs.close().unwrap();
    let base = device.bytes();
    let device = Recorder::new(base.clone());
    let fs = open(&device);
    let (mut all, mut promises, mut made) = (vec![states(&fs)], Vec::new(), Vec::new());
    for _ in 0..changes {
        made.push(device.calls());
        let number = change(&fs, random);
        all.push(states(&fs));
        match random.below(12) {
            0 => fs.sync().unwrap(),
            1..4 => continue,
            _ => fs.sync_inode(number).unwrap(),
        }
        promises.push((device.calls(), all.len() - 1));
    }
    fs.close().unwrap();
    promises.push((device.calls(), all.len() - 1));
    Workload { base, device, states: all, promises, made }
}

impl Workload {
    /// Panics unless the states after a cut before call `at` are some that the files may have.
    fn check(&self, what: &str, at: usize, found: &[State]) {
        let least = self.promises.iter().rev().find(|promise| promise.0 <= at);
        let least = least.map_or(0, |promise| promise.1);
        let most = self.made.iter().filter(|&&calls| calls <= at).count();
        // A state may come again: the last one counts.
        let last = self.states[..=most].iter().rposition(|states| states == found);
        let last = last.unwrap_or_else(|| panic!("{what}: no state up to {most}: {found:?}"));
        assert!(last >= least, "{what}: state {last}, but {least} was durable");
    }
}

/// `NVIO_SEED` plays one workload.
#[test]
fn every_cut_leaves_what_was_synced() {
    let only: Option<u64> = std::env::var("NVIO_SEED").ok().map(|seed| seed.parse().unwrap());
    let long = std::env::var_os("NVIO_LONG").is_some();
    let dir = tempfile::tempdir().unwrap();
    for (seed, &(name, options)) in (0..).zip(VARIANTS) {
        let seeds = (seed..).step_by(VARIANTS.len()).take(if long { 12 } else { 1 });
        for seed in seeds.filter(|&seed| only.is_none_or(|only| only == seed)) {
            let mut random = Rng::new(seed);
            let workload = record(image(dir.path(), options), &mut random, 40);
            let what = format!("{name}, seed {seed}");
            let (mut count, mut fast, mut longest) = (0, 0, 0);
            let each = if long { 2 } else { 1 };
            let events = workload.device.events();
            cuts(&workload.base, &events, &mut random.clone(), each, |at, state| {
                count += 1;
                let what = format!("{what}, cut at {at}");
                let found = Filesystem::open(state.clone()).unwrap();
                let commits = found.recovered().map_or(0, |done| done.fast_commits);
                fast += u32::from(commits > 0);
                longest = longest.max(commits);
                cut(
                    &workload,
                    &what,
                    at,
                    &state,
                    dir.path(),
                    count % if long { 3 } else { 12 } == 0,
                );
            });
            assert!(count > 50 && fast > 20 && longest > 4, "{what}: {count} {fast} {longest}");
        }
    }
}

/// Checks the state that a cut left: in memory, recovered on the device, by e2fsck, and, with
/// `kernel`, as the kernel recovers it.
fn cut(workload: &Workload, what: &str, at: usize, state: &[u8], dir: &Path, kernel: bool) {
    let in_memory = states(&Filesystem::open(state.to_vec()).unwrap());
    workload.check(what, at, &in_memory);
    check_contents(what, state, &in_memory);
    let device = Recorder::new(state.to_vec());
    let fs = open(&device);
    assert_eq!(states(&fs), in_memory, "{what}");
    fs.close().unwrap();
    if !kernel {
        return;
    }
    check(dir, &device.bytes());
    kernel_agrees(what, state, &device.bytes(), dir);
}

/// Compares what the kernel recovers with the recovered filesystem `ours`.
pub(super) fn kernel_agrees(what: &str, state: &[u8], ours: &[u8], dir: &Path) {
    if !common::is_root() {
        return;
    }
    let (path, closed) = (dir.join("cut"), dir.join("closed"));
    fs::write(&path, state).unwrap();
    fs::write(&closed, ours).unwrap();
    let mount = Mount::new(&path, &dir.join("mnt"), "loop,noatime");
    let mount = mount.unwrap_or_else(|error| panic!("{what}: {error}"));
    // Trees that were built anew may have other nodes.
    let [ours, theirs] = [view::of_image(&closed), view::of_kernel(&mount.path)];
    view::assert_same(what, &view::settled(ours), &view::settled(theirs), |_| false);
    drop(mount);
    common::assert_clean(&path);
}

#[test]
fn a_torn_fast_commit_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Rng::new(8);
    let device = Recorder::new(image(dir.path(), VARIANTS[0].1));
    let fs = open(&device);
    let set_all = |owner| {
        for at in 0..FILES {
            fs.set_owner(file(&fs, at).number(), Some(owner), None).unwrap();
        }
    };
    let owners = |fs: &Filesystem| (0..FILES).map(|at| file_of(fs, at).uid()).collect::<Vec<_>>();
    let (mut old, mut new) = (0, 0);
    // The first fast commit after a full one, and the second, with eight inodes.
    for owner in 1..5 {
        if owner % 2 == 1 {
            fs.sync().unwrap();
        }
        let before = device.bytes();
        set_all(owner);
        assert_eq!(writes(&device, || fs.sync_inode(file(&fs, 3).number()).unwrap()), 1);
        let event = device.events().pop().unwrap();
        cuts(&before, &[event], &mut random, 6, |at, state| {
            let found = owners(&Filesystem::open(state.clone()).unwrap());
            let is_new = found == vec![owner; FILES];
            assert!(is_new || at == 0 && found == vec![owner - 1; FILES], "{at}: {found:?}");
            (old, new) = (old + u32::from(!is_new), new + u32::from(is_new));
            let ours = Recorder::new(state.clone());
            open(&ours).close().unwrap();
            kernel_agrees("torn", &state, &ours.bytes(), dir.path());
        });
    }
    assert!(old > 5 && new > 24, "{old} {new}");
}

/// Stores the checksum in the tail of a fast commit of one block. Returns false if its tags do not lead
/// to a tail.
pub(super) fn seal(block: &mut [u8]) -> bool {
    let mut at = 0;
    while at + 12 <= block.len() {
        if get(block, at, 2) == 8 {
            let checksum = crc32c(0, &block[..at + 8]);
            put(block, at + 8, 4, checksum.into());
            return true;
        }
        at += 4 + get(block, at + 2, 2) as usize;
    }
    false
}

/// `NVIO_MUTANTS` sets the number of mutants.
#[test]
fn damaged_fast_commits_are_refused_or_replayed_inside() {
    let count = std::env::var("NVIO_MUTANTS").map_or(300, |value| value.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut random = Rng::new(4);
    let device = Recorder::new(image(dir.path(), VARIANTS[0].1));
    let fs = open(&device);
    fs.sync().unwrap();
    let mut commits = Vec::new();
    while commits.len() < 12 {
        let number = change(&fs, &mut random);
        if writes(&device, || fs.sync_inode(number).unwrap()) == 1
            && let Some(Event::Write { ranges, .. }) = device.events().pop()
        {
            commits.push(ranges[0].0);
        }
    }
    let sound = device.bytes();
    let (mut opened, mut refused, mut sealed) = (0, 0, 0);
    for _ in 0..count {
        let mut bytes = sound.clone();
        let at = *random.pick(&commits);
        // The numbers of inodes and blocks, or anything else.
        let lengths = if random.below(2) == 0 { 48 } else { 240 };
        for _ in 0..=random.below(3) {
            let byte = &mut bytes[at + random.below(lengths) as usize];
            *byte =
                random.pick(&[0, 1, 0x7f, 0x80, 0xff, *byte ^ 1, byte.wrapping_add(8)]).to_owned();
        }
        let has_tail = random.below(8) == 0 || seal(&mut bytes[at..at + 1024]);
        sealed += u32::from(has_tail);
        // In memory, and on the device.
        let reader = Filesystem::open(bytes.clone()).map(|fs| {
            for number in 1..40 {
                let extents = fs.inode(number).and_then(|inode| Ok(fs.extents(&inode)?.count()));
                drop(extents);
            }
        });
        let device = Recorder::new(bytes);
        match JournaledFilesystem::open(device.clone(), Options::default()) {
            Ok(fs) => {
                assert!(reader.is_ok());
                opened += 1;
                for at in 0..FILES {
                    if let Ok(inode) = fs.lookup(format!("/file-{at}")) {
                        let _ = fs.truncate(inode.number(), 1000);
                    }
                }
                let _ = fs.close();
            }
            Err(Error::Corrupt(_) | Error::NotWritable(NotWritable::FastCommits)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        for event in device.events() {
            let Event::Write { ranges, .. } = event else { continue };
            assert!(ranges.iter().all(|(at, bytes)| at + bytes.len() <= sound.len()));
        }
    }
    println!("{opened} opened, {refused} refused, {sealed} of {count} with a tail");
    assert!(opened * 10 > count && refused * 20 > count, "{opened} {refused} of {count}");
}

#[test]
fn threads_that_sync_files_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), VARIANTS[0].1));
    let fs = open(&device);
    let numbers: Vec<_> = (0..FILES).map(|at| file(&fs, at).number()).collect();
    for &number in &numbers {
        fs.truncate(number, 0).unwrap();
    }
    fs.sync().unwrap();
    const ROUNDS: u64 = 60;
    std::thread::scope(|scope| {
        for &number in &numbers {
            let (fs, device) = (fs.clone(), device.clone());
            scope.spawn(move || {
                for round in 1..=ROUNDS {
                    fs.write_at(number, (round - 1) * 1024, &[7; 1024]).unwrap();
                    fs.sync_inode(number).unwrap();
                    if round % 20 == 0 {
                        // A loss of power now.
                        let found = Filesystem::open(device.bytes()).unwrap();
                        assert_eq!(found.inode(number).unwrap().size(), round * 1024);
                    }
                }
            });
        }
    });
    let crashed = Recorder::new(device.bytes());
    open(&crashed).close().unwrap();
    check(dir.path(), &crashed.bytes());
    let found = Filesystem::open(crashed.bytes()).unwrap();
    for number in numbers {
        assert_eq!(found.inode(number).unwrap().size(), ROUNDS * 1024);
    }
}

#[test]
fn cached_data_is_durable_before_its_fast_commit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut");
    let mut random = Rng::new(2);
    let base = image(dir.path(), VARIANTS[1].1);
    let device = Recorder::new(base.clone());
    let fs = open(&device);
    let number = file(&fs, 0).number();
    fs.truncate(number, 0).unwrap();
    fs.sync().unwrap();
    let cache = PageCache::new(ImageQueue::new(Disk(device.clone()), 32).unwrap(), 4 << 20);
    let mut cached = fs.cached_file(&fs.inode(number).unwrap(), &cache).unwrap();
    let (mut size, mut promises, mut flushes) = (0u64, vec![(device.calls(), 0)], 0);
    for length in [4096, 300_000, 100, 8192, 500_000, 5000] {
        let before = device.calls();
        let data: Vec<u8> = (size..size + length).map(|pos| byte(0, pos)).collect();
        let mut done = 0;
        while done < data.len() {
            done += cached.write_at(size + done as u64, &data[done..]).unwrap();
        }
        cached.sync_all().unwrap();
        size += length;
        promises.push((device.calls(), size));
        let events = device.events().split_off(before);
        let flush = events.iter().position(|event| matches!(event, Event::Flush));
        let plain = |event: &Event| matches!(event, Event::Write { durable: false, .. });
        assert_eq!(events.iter().rposition(plain).map(|at| at + 1), flush, "{length}");
        let last = flush.map_or(events.len() - 1, |at| at + 1);
        assert_eq!(last, events.len() - 1, "{length}: the fast commit is one write");
        flushes += u32::from(flush.is_some());
    }
    assert!(flushes >= 2, "{flushes}");
    let first = promises[0].0;
    cuts(&base, &device.events(), &mut random, 2, |at, state| {
        if at < first {
            return;
        }
        let found = Filesystem::open(state.clone()).unwrap();
        fs::write(&path, &state).unwrap();
        let contents =
            common::read_file(&found, &fs::File::open(&path).unwrap(), &file_of(&found, 0));
        let least = promises.iter().rev().find(|promise| promise.0 <= at).unwrap().1;
        let size = contents.len() as u64;
        assert!(size >= least, "cut at {at}: {size} bytes, but {least} were durable");
        let wrong = (0..).zip(&contents).find(|&(pos, &found)| found != byte(0, pos));
        assert_eq!(wrong, None, "cut at {at}");
    });
}
