//! Losses of power among random changes of several files, on a disk whose free blocks have a pattern.
//!
//! `NVIO_SEED` plays one workload again, `NVIO_LONG` plays 1,000 of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nvio_ext4::{
    BadAttribute, Error, Filesystem, InodeNumber, JournaledFile, JournaledFilesystem, XattrMode,
};
use nvio_iomap::{CachedFile, FileQueue, ImageQueue, PageCache};
use nvio_testkit::random::Rng;

use super::open;
use super::open_files::Disk as Image;
use super::recorder::{Disk, Event, Recorder, SECTOR, cut_disks};
use crate::common::compare::compare_with;
use crate::common::{self, Mount};

/// Variants of the filesystem: name, size, and options of mke2fs.
const VARIANTS: &[(&str, &str, &str)] = &[
    ("1k", "6M", "-t ext4 -b 1024 -J size=1"),
    ("1k, groups of 1 MiB", "8M", "-t ext4 -b 1024 -g 1024 -J size=1"),
    ("2k, no 64bit", "10M", "-t ext4 -b 2048 -J size=2 -O ^64bit"),
    ("4k", "16M", "-t ext4 -b 4096 -J size=4"),
    ("4k, no checksums, no 64bit", "16M", "-t ext4 -b 4096 -J size=4 -O ^metadata_csum,^64bit"),
    ("1k, no checksums", "6M", "-t ext4 -b 1024 -J size=1 -O ^metadata_csum"),
    ("1k, uninit_bg", "8M", "-t ext4 -b 1024 -g 1024 -J size=1 -O ^metadata_csum,^64bit,uninit_bg"),
    ("2k, no flex_bg", "10M", "-t ext4 -b 2048 -g 2048 -J size=2 -O ^flex_bg"),
    ("1k, meta_bg", "8M", "-t ext4 -b 1024 -g 1024 -J size=1 -O meta_bg,^resize_inode"),
    ("1k, fast commit", "8M", "-t ext4 -b 1024 -J size=2,fast_commit_size=64 -O fast_commit"),
    ("1k, fast commit", "8M", "-t ext4 -b 1024 -J size=2,fast_commit_size=256 -O fast_commit"),
    ("4k, fast commit", "18M", "-t ext4 -b 4096 -J size=5,fast_commit_size=512 -O fast_commit"),
    ("1k, orphan file", "6M", "-t ext4 -b 1024 -J size=1 -O orphan_file,metadata_csum_seed"),
];

/// Number of files that are changed.
const FILES: usize = 6;

/// Number of extents of the last file, which a truncation frees in several steps.
const PIECES: u64 = 80;

/// Makes a filesystem with six files on a disk of a pattern.
fn image(dir: &Path, size: &str, options: &str) -> Vec<u8> {
    let (image, source) = (dir.join("image"), dir.join("source"));
    if !source.exists() {
        fs::create_dir(&source).unwrap();
        for at in 0..FILES as u64 {
            let file = File::create(source.join(format!("file-{at}"))).unwrap();
            let pieces = if at as usize == FILES - 1 { PIECES } else { at };
            for piece in 0..pieces {
                let data = common::pattern(at * 1000 + piece, 900);
                file.write_all_at(&data, piece * 8192).unwrap();
            }
        }
    }
    let mib: usize = size.trim_end_matches('M').parse().unwrap();
    fs::write(&image, b"left from another file. ".repeat(mib * 43_691)).unwrap();
    let mut arguments = vec!["-q", "-F", "-E", "nodiscard", "-d", source.to_str().unwrap()];
    arguments.extend(options.split(' '));
    common::run("mke2fs", &[&arguments[..], &[image.to_str().unwrap(), size]].concat());
    let mut bytes = fs::read(image).unwrap();
    bytes.truncate(mib << 20);
    bytes
}

/// Size, permissions and attributes of a file.
type Metadata = (usize, u16, Arc<BTreeMap<Vec<u8>, Vec<u8>>>);

/// A file as it should be.
#[derive(Clone)]
struct Model {
    contents: Arc<Vec<u8>>,
    permissions: u16,
    attributes: Arc<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Model {
    fn metadata(&self) -> Metadata {
        (self.contents.len(), self.permissions, Arc::clone(&self.attributes))
    }

    /// Returns true if a sector of the file is `found`; there are zeroes after the end.
    fn has(&self, sector: usize, found: &[u8]) -> bool {
        let rest = self.contents.get(sector * SECTOR..).unwrap_or_default();
        let (inside, after) = found.split_at(rest.len().min(found.len()));
        inside == &rest[..inside.len()] && after.iter().all(|&byte| byte == 0)
    }
}

/// Returns the files of a filesystem on `disk`.
fn files(fs: &Filesystem, disk: &Disk) -> Vec<Model> {
    let model = |at| {
        let inode = fs.lookup(format!("/file-{at}")).unwrap();
        let contents = Arc::new(common::read_file(fs, disk, &inode));
        let attributes = fs.xattrs(&inode).unwrap().map(Result::unwrap);
        let attributes = attributes.map(|xattr| (xattr.name, xattr.value)).collect();
        Model { contents, permissions: inode.permissions(), attributes: Arc::new(attributes) }
    };
    (0..FILES).map(model).collect()
}

/// Durability that a sync promised.
struct Promise {
    /// Calls of the device when it returned.
    calls: usize,
    /// The state of sizes and permissions that is the oldest one from then on.
    metadata: usize,
    /// The state of each file whose contents are the oldest from then on.
    contents: [usize; FILES],
}

/// A recorded workload, with the files after each change.
struct Workload {
    /// Data went through a cache, so that sizes and contents arrive later than the change was made.
    is_cached: bool,
    base: Disk,
    events: Vec<Event>,
    states: Vec<Vec<Model>>,
    /// Calls of the device before each change.
    made: Vec<usize>,
    promises: Vec<Promise>,
}

/// The changes of files that a later sync has to make durable, by their numbers.
#[derive(Default)]
struct Last {
    change: [usize; FILES],
    /// The last one of the size.
    size: [usize; FILES],
}

impl Workload {
    fn record(bytes: Vec<u8>, is_cached: bool, random: &mut Rng) -> Self {
        let device = Recorder::new(bytes);
        let fs = open(&device);
        let mut cached = is_cached.then(|| Cached::new(&device));
        let numbers: Vec<_> =
            (0..FILES).map(|at| fs.lookup(format!("/file-{at}")).unwrap().number()).collect();
        // The place in the log at which the workload begins: near its end, so that it full_logs, or not.
        let rounds = *random.pick(&[5, 290, 305, 320, 335]) + random.below(20);
        for round in 0..rounds as u32 {
            fs.set_owner(numbers[0], Some(round), None).unwrap();
            fs.sync().unwrap();
        }
        let (base, before) = (device.disk(), device.calls());
        let calls = || device.calls() - before;
        let mut now = files(&fs, &base);
        let (mut states, mut made, mut promises) = (vec![now.clone()], Vec::new(), Vec::new());
        let mut last = Last::default();
        for change in 1..=1 + random.below(40) as usize {
            let at = random.below(FILES as u64) as usize;
            made.push(calls());
            let size = now[at].contents.len();
            let is_made = match &mut cached {
                Some(cached) if random.below(2) == 0 => {
                    cached.write(&fs, (at, numbers[at]), &mut now[at], random);
                    true
                }
                _ => apply(&fs, numbers[at], &mut now[at], random),
            };
            states.push(now.clone());
            if is_made {
                last.change[at] = change;
            }
            if now[at].contents.len() != size {
                last.size[at] = change;
            }
            let at = random.below(FILES as u64) as usize;
            let mut contents = [0; FILES];
            let metadata = match random.below(6) {
                0 => {
                    for file in
                        cached.iter_mut().flat_map(|cached| cached.files.iter_mut().flatten())
                    {
                        file.sync_data().unwrap();
                    }
                    fs.sync().unwrap();
                    contents = [change; FILES];
                    change
                }
                1 | 2 => {
                    match cached.as_mut().and_then(|cached| cached.files[at].as_mut()) {
                        Some(file) => file.sync_all().unwrap(),
                        None => fs.sync_inode(numbers[at]).unwrap(),
                    }
                    contents[at] = last.change[at];
                    last.change[at]
                }
                3 => {
                    match cached.as_mut().and_then(|cached| cached.files[at].as_mut()) {
                        Some(file) => file.sync_data().unwrap(),
                        None => fs.sync_data(numbers[at]).unwrap(),
                    }
                    contents[at] = last.change[at];
                    last.size[at]
                }
                _ => continue,
            };
            promises.push(Promise { calls: calls(), metadata, contents });
        }
        drop(cached);
        fs.close().unwrap();
        let all = states.len() - 1;
        promises.push(Promise { calls: calls(), metadata: all, contents: [all; FILES] });
        let events = device.events()[before..].to_vec();
        Self { is_cached, base, events, states, made, promises }
    }

    /// Panics unless a file whose data was cached is as it may be: of some size, and each sector of one of
    /// the `states`.
    fn check_cached(&self, what: &str, file: usize, states: &[Vec<Model>], found: &Model) {
        let sizes = || states.iter().map(|state| state[file].contents.len());
        let size = found.contents.len();
        assert!(
            sizes().min() <= Some(size) && Some(size) <= sizes().max(),
            "{what}: file {file} has {size} bytes"
        );
        let rest = |model: &Model| (model.permissions, Arc::clone(&model.attributes));
        let has = |state: &Vec<Model>| rest(&state[file]) == rest(found);
        assert!(self.states.iter().any(has), "{what}: permissions, attributes of file {file}");
        for (index, sector) in found.contents.chunks(SECTOR).enumerate() {
            let known = states.iter().any(|state| state[file].has(index, sector));
            assert!(known, "{what}: file {file}, sector {index} is of none of the states");
        }
    }

    /// Panics unless the files after a cut before call `at` are as they may be: sizes and permissions
    /// are those after one of the changes, and each sector is that one's or newer.
    fn check(&self, what: &str, at: usize, found: &[Model]) {
        let most = self.made.iter().filter(|&&calls| calls <= at).count();
        let promises = || self.promises.iter().filter(|promise| promise.calls <= at);
        if self.is_cached {
            for (file, found) in found.iter().enumerate() {
                let least = promises().map(|promise| promise.contents[file]).max().unwrap_or(0);
                self.check_cached(what, file, &self.states[least..=most], found);
            }
            return;
        }
        let least = promises().map(|promise| promise.metadata).max().unwrap_or(0);
        let metadata = |files: &[Model]| files.iter().map(Model::metadata).collect::<Vec<_>>();
        let known = metadata(found);
        let prefix = (least..=most).find(|&state| metadata(&self.states[state]) == known);
        let Some(prefix) = prefix else {
            panic!("{what}: {known:?} is none of the states {least} to {most}");
        };
        for (file, found) in found.iter().enumerate() {
            let least = promises().map(|promise| promise.contents[file]).max().unwrap_or(0);
            let states = &self.states[least.max(prefix)..=most];
            for (index, sector) in found.contents.chunks(SECTOR).enumerate() {
                assert!(
                    states.iter().any(|state| state[file].has(index, sector)),
                    "{what}: file {file}, sector {index} is of no state {} to {most}",
                    least.max(prefix),
                );
            }
        }
    }
}

/// Files that are open in a cache.
struct Cached {
    device: Recorder,
    cache: PageCache,
    files: Vec<Option<CachedFile<JournaledFile>>>,
}

impl Cached {
    fn new(device: &Recorder) -> Self {
        let queue = ImageQueue::new(Image(device.clone()), 32).unwrap();
        let cache = PageCache::new(queue, 512 << 10);
        Self { device: device.clone(), cache, files: (0..FILES).map(|_| None).collect() }
    }

    /// Writes to a file through the cache or past it, or closes it.
    fn write(
        &mut self,
        fs: &JournaledFilesystem,
        (file, number): (usize, InodeNumber),
        model: &mut Model,
        random: &mut Rng,
    ) {
        let size = model.contents.len() as u64;
        let kind = random.below(8);
        let pos = if kind < 3 { size } else { random.below(size + 20_000) };
        let length = 1 + random.below(60_000);
        let data = random.bytes(length);
        let inode = fs.inode(number).unwrap();
        let (mut at, mut data) = (pos, &data[..]);
        match kind {
            7 => {
                self.files[file] = None;
                return;
            }
            6 if data.len() >= SECTOR => {
                at &= !(SECTOR as u64 - 1);
                data = &data[..data.len() & !(SECTOR - 1)];
                let queue = ImageQueue::new(Image(self.device.clone()), 32).unwrap();
                let mut direct = fs.open_file(&inode).unwrap();
                direct.write_at(&mut FileQueue::new(queue), at, data).unwrap();
            }
            _ => {
                let cached = self.files[file]
                    .get_or_insert_with(|| fs.cached_file(&inode, &self.cache).unwrap());
                let mut done = 0;
                while done < data.len() {
                    done += cached.write_at(at + done as u64, &data[done..]).unwrap();
                }
            }
        }
        let (at, contents) = (at as usize, Arc::make_mut(&mut model.contents));
        contents.resize(contents.len().max(at + data.len()), 0);
        contents[at..at + data.len()].copy_from_slice(data);
    }
}

/// Makes a random change of a file, and of its model. Returns false if there was nothing to change.
fn apply(
    fs: &JournaledFilesystem,
    number: InodeNumber,
    model: &mut Model,
    random: &mut Rng,
) -> bool {
    let size = model.contents.len();
    let (pos, length) = (random.below(size as u64 + 20_000), 1 + random.below(60_000));
    let (at, end) = (pos as usize, (pos + length) as usize);
    match random.below(10) {
        8 => return set_attribute(fs, number, model, random),
        9 => {
            let name = *random.pick(&NAMES);
            let is_there = Arc::make_mut(&mut model.attributes).remove(name.as_bytes()).is_some();
            assert_eq!(fs.remove_xattr(number, name).is_ok(), is_there);
            return is_there;
        }
        0 => {
            model.permissions = random.below(0o1000) as u16;
            fs.set_permissions(number, model.permissions).unwrap();
        }
        kind @ (1 | 2) => {
            let data = random.bytes(length);
            let at = if kind == 1 { size } else { at };
            fs.write_at(number, at as u64, &data).unwrap();
            let contents = Arc::make_mut(&mut model.contents);
            contents.resize(contents.len().max(at + data.len()), 0);
            contents[at..at + data.len()].copy_from_slice(&data);
        }
        kind @ (3 | 4) => {
            let size = if kind == 3 { random.below(pos + 1) } else { pos };
            fs.truncate(number, size).unwrap();
            Arc::make_mut(&mut model.contents).resize(size as usize, 0);
        }
        5 => {
            // A range without a block, a small one, or a large one.
            let length = *random.pick(&[400, length, length * 8]);
            fs.punch_hole(number, pos, length).unwrap();
            let contents = Arc::make_mut(&mut model.contents);
            let end = (at + length as usize).min(contents.len());
            contents.get_mut(at..end).unwrap_or_default().fill(0);
        }
        kind => {
            fs.allocate(number, pos, length, kind == 6).unwrap();
            if kind == 7 && end > size {
                Arc::make_mut(&mut model.contents).resize(end, 0);
            }
        }
    }
    true
}

/// Names of attributes.
const NAMES: [&str; 3] = ["user.a", "user.bb", "trusted.c"];

/// Sets an attribute of a file, in the inode or the block. Returns false if it has no room.
fn set_attribute(
    fs: &JournaledFilesystem,
    number: InodeNumber,
    model: &mut Model,
    random: &mut Rng,
) -> bool {
    let name = *random.pick(&NAMES);
    let most = *random.pick(&[40, 300, 800]);
    let length = random.below(most);
    let value = random.bytes(length);
    match fs.set_xattr(number, name, &value, XattrMode::Either) {
        // The value may be there already, and is no change then.
        Ok(_) => {
            Arc::make_mut(&mut model.attributes).insert(name.into(), value.clone()) != Some(value)
        }
        Err(Error::BadAttribute { why: BadAttribute::NoRoom, .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// A state of the disk that a cut left.
struct Cut<'w> {
    workload: &'w Workload,
    what: String,
    at: usize,
    disk: Disk,
}

impl Cut<'_> {
    /// Checks the files, as recovery in memory finds them.
    fn check(&self) -> (Filesystem, Vec<Model>) {
        let fs = Filesystem::open(self.disk.clone()).unwrap();
        let found = files(&fs, &self.disk);
        self.workload.check(&self.what, self.at, &found);
        (fs, found)
    }

    /// Recovers the disk, and again after a second crash. Returns it as it is after a close.
    fn recover(&self, found: &[Model]) -> Disk {
        let mut disk = self.disk.clone();
        for round in 1..=2 {
            let device = Recorder::new(disk);
            let fs = open(&device);
            // The program crashes: nothing more is written.
            disk = device.disk();
            self.compare(&format!("recovery {round}"), &files(&fs, &disk), found);
            if round == 2 {
                fs.close().unwrap();
                disk = device.disk();
            }
        }
        disk
    }

    /// Compares the disk with what the kernel makes of it, and lets e2fsck check both.
    fn judge(&self, dir: &Path, has_other_trees: bool, found: &[Model]) {
        let [ours, theirs] = ["ours", "theirs"].map(|name| dir.join(name));
        let bytes = self.recover(found).bytes();
        fs::write(&ours, &bytes).unwrap();
        common::assert_clean(&ours);
        if !common::is_root() {
            return;
        }
        fs::write(&theirs, self.disk.bytes()).unwrap();
        for mounts in 1..=2 {
            let mount = Mount::new(&theirs, &dir.join("mnt"), "loop,noatime");
            let mount = mount.unwrap_or_else(|error| panic!("{}: {error}", self.what));
            let read = |at| fs::read(mount.path.join(format!("file-{at}"))).unwrap();
            let contents: Vec<Vec<u8>> = (0..FILES).map(read).collect();
            let same = contents.iter().zip(found).all(|(theirs, found)| *theirs == *found.contents);
            assert!(same, "{}: mount {mounts} of the kernel", self.what);
            if !has_other_trees {
                compare_with(&self.what, &common::open(&ours), &ours, &mount.path);
            }
        }
        common::assert_clean(&theirs);
    }

    fn compare(&self, by: &str, files: &[Model], found: &[Model]) {
        for (at, (file, found)) in files.iter().zip(found).enumerate() {
            let (what, same) = (&self.what, file.contents == found.contents);
            assert!(same && file.metadata() == found.metadata(), "{what}: file {at} by {by}");
        }
    }
}

/// Counts of a run.
#[derive(Default)]
struct Seen {
    cuts: AtomicU64,
    recovered: AtomicU64,
    judged: AtomicU64,
    full_logs: AtomicU64,
}

/// Plays a workload, and cuts the power at each call of the device.
fn play(seed: u64, is_cached: bool, dir: &Path, long: bool, seen: &Seen) {
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    let mut random = Rng::new(seed);
    let &(name, size, options) = random.pick(VARIANTS);
    let workload = Workload::record(image(dir, size, options), is_cached, &mut random);
    // Without a cache, a flush is a part of a checkpoint: the log was full, or the filesystem was closed.
    let flushes = workload.events.iter().filter(|event| matches!(event, Event::Flush)).count();
    seen.full_logs.fetch_add(flushes as u64 - 1, Ordering::Relaxed);
    let cuts = workload.events.len() as u64 + 1;
    let (base, mut chance) = (&workload.base, Rng::new(seed));
    cut_disks(base, &workload.events, &mut random, if long { 4 } else { 2 }, |at, disk| {
        let what = format!("NVIO_SEED={seed}: {name}, cut at {at}");
        let cut = Cut { workload: &workload, what, at, disk };
        let (fs, found) = cut.check();
        count(&seen.cuts);
        // The kernel may keep a node of a tree that has room in the inode: of an orphan, or of a file whose
        // extents fast commits have removed and added.
        let has_fast_commits = fs.recovered().is_some_and(|replay| replay.fast_commits > 0);
        let has_other_trees = fs.superblock().last_orphan != 0 || has_fast_commits;
        if chance.below(cuts) < 3 {
            cut.judge(dir, has_other_trees, &found);
            count(&seen.judged);
        } else if chance.below(4) == 0 {
            cut.recover(&found);
            count(&seen.recovered);
        }
    });
}

#[test]
fn random_changes_of_several_files_survive_every_cut() {
    play_all(false);
}

#[test]
fn writes_through_the_cache_and_past_it_survive_every_cut() {
    play_all(true);
}

fn play_all(is_cached: bool) {
    let long = std::env::var_os("NVIO_LONG").is_some();
    let seen = Seen::default();
    if let Ok(seed) = std::env::var("NVIO_SEED") {
        play(seed.parse().unwrap(), is_cached, tempfile::tempdir().unwrap().path(), long, &seen);
        return;
    }
    let (seeds, next) = (if long { 1000 } else { 30 }, AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let dir = tempfile::tempdir().unwrap();
                while let seed = next.fetch_add(1, Ordering::Relaxed)
                    && seed < seeds
                {
                    play(seed, is_cached, dir.path(), long, &seen);
                }
            });
        }
    });
    let [cuts, recovered, judged, full] =
        [&seen.cuts, &seen.recovered, &seen.judged, &seen.full_logs]
            .map(|counter| counter.load(Ordering::Relaxed));
    println!("{cuts} cuts, {recovered} recovered, {judged} by the kernel; {full} full logs");
    assert!(cuts > 1500 && recovered > 300 && judged > 100 && full > 1, "too few");
}
