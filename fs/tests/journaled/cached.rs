//! Files that grow through the page cache, beside direct writes and changes by inode number.

use std::fs;

use nvio_ext4::{
    Error, Filesystem, InodeNumber, JournaledFile, JournaledFilesystem, NewFile, RenameMode,
};
use nvio_iomap::{CachedFile, FileQueue, ImageQueue, PageCache, Tag};
use nvio_testkit::random::Rng;

use super::open_files::Disk;
use super::recorder::{Event, Recorder, cut_disks};
use super::{check, file, image, open};
use crate::common::compare::compare;
use crate::common::{self, Mount};

const FILES: usize = 4;

type Queue =
    nvio_iomap::FileQueue<ImageQueue<Disk, Tag<nvio_ext4::OpenInode>>, nvio_ext4::OpenInode>;

/// A filesystem with open files, and a model of their contents.
struct World {
    fs: JournaledFilesystem,
    cache: PageCache,
    queue: Queue,
    cached: Vec<Option<CachedFile<JournaledFile>>>,
    models: Vec<Vec<u8>>,
}

impl World {
    fn open(device: &Recorder, limit: usize, models: Vec<Vec<u8>>) -> Self {
        let image = || ImageQueue::new(Disk(device.clone()), 32).unwrap();
        let cache = PageCache::new(ImageQueue::new(Disk(device.clone()), 32).unwrap(), limit);
        let queue = FileQueue::new(image());
        let cached = (0..FILES).map(|_| None).collect();
        Self { fs: open(device), cache, queue, cached, models }
    }

    fn cached(&mut self, at: usize) -> &mut CachedFile<JournaledFile> {
        let inode = file(&self.fs, at);
        let cached = &mut self.cached[at];
        cached.get_or_insert_with(|| self.fs.cached_file(&inode, &self.cache).unwrap())
    }

    fn direct(&self, at: usize) -> JournaledFile {
        self.fs.open_file(&file(&self.fs, at)).unwrap()
    }

    /// Makes a random call, and its effect on the model.
    fn step(&mut self, random: &mut Rng) -> Result<(), Error> {
        let at = random.below(FILES as u64) as usize;
        let number = file(&self.fs, at).number();
        let most = self.models[at].len() as u64 + 50_000;
        let (mut pos, mut length) = (random.below(most.min(500_000)), 1 + random.below(60_000));
        if random.below(2) == 0 {
            (pos, length) = (pos & !511, length.next_multiple_of(512));
        }
        let data = random.bytes(length);
        let end = (pos + length) as usize;
        match random.below(19) {
            0..=3 => {
                let mut done = 0;
                while done < data.len() {
                    let rest = &data[done..];
                    done += self.cached(at).write_at(pos + done as u64, rest)?;
                }
                self.overwrite(at, pos, &data);
            }
            4 => {
                let size = self.models[at].len() as u64;
                self.cached(at).write_at(size, &data[..100.min(data.len())])?;
                self.overwrite(at, size, &data[..100.min(data.len())]);
            }
            5 | 6 => {
                let n = self.direct(at).write_at(&mut self.queue, pos, &data)?;
                assert_eq!(n, data.len());
                self.overwrite(at, pos, &data);
            }
            7 => {
                self.fs.write_at(number, pos, &data)?;
                self.overwrite(at, pos, &data);
            }
            8 => {
                self.fs.truncate(number, pos)?;
                self.models[at].resize(pos as usize, 0);
            }
            9 | 10 => {
                self.fs.punch_hole(number, pos, length)?;
                let end = end.min(self.models[at].len());
                self.models[at].get_mut(pos as usize..end).unwrap_or_default().fill(0);
            }
            11 => {
                let keep = random.below(2) == 0;
                self.fs.allocate(number, pos, length, keep)?;
                if !keep {
                    let size = self.models[at].len().max(end);
                    self.models[at].resize(size, 0);
                }
            }
            16 => {
                let keep = random.below(2) == 0;
                self.fs.zero_range(number, pos, length, keep)?;
                let model = &mut self.models[at];
                let size = if keep { model.len() } else { model.len().max(end) };
                model.resize(size, 0);
                model.get_mut(pos as usize..end.min(size)).unwrap_or_default().fill(0);
            }
            17 | 18 => self.move_blocks(at, pos, length, random.below(2) == 0)?,
            12 => self.cached(at).sync_data()?,
            13 => self.cached(at).sync_all()?,
            14 => self.cached[at] = None,
            _ => self.fs.sync()?,
        }
        Ok(())
    }

    /// Takes a range of whole blocks out of the file, or puts one in.
    fn move_blocks(&mut self, at: usize, pos: u64, length: u64, insert: bool) -> Result<(), Error> {
        let number = file(&self.fs, at).number();
        let block = u64::from(self.fs.superblock().block_size());
        let (pos, length) = (pos / block * block, length.next_multiple_of(block));
        let model = &mut self.models[at];
        let (first, last) = (pos as usize, (pos + length) as usize);
        if insert && first < model.len() {
            self.fs.insert_range(number, pos, length)?;
            model.splice(first..first, std::iter::repeat_n(0, length as usize));
        } else if !insert && last < model.len() {
            self.fs.collapse_range(number, pos, length)?;
            model.drain(first..last);
        }
        Ok(())
    }

    fn overwrite(&mut self, at: usize, pos: u64, data: &[u8]) {
        let (pos, model) = (pos as usize, &mut self.models[at]);
        model.resize(model.len().max(pos + data.len()), 0);
        model[pos..pos + data.len()].copy_from_slice(data);
    }

    /// Compares the contents, through the cache and past it.
    fn compare(&mut self, what: &str) {
        for at in 0..FILES {
            let model = self.models[at].clone();
            let mut bytes = vec![0xee; model.len() + 10];
            if self.cached[at].is_some() {
                let n = self.cached(at).read_at(0, &mut bytes).unwrap();
                differ(&format!("{what}, file {at}, cached"), &bytes[..n], &model);
                assert_eq!(self.cached(at).size(), model.len() as u64);
            }
            let n = self.direct(at).read_at(&mut self.queue, 0, &mut bytes).unwrap();
            differ(&format!("{what}, file {at}, direct"), &bytes[..n], &model);
        }
    }
}

fn differ(what: &str, found: &[u8], model: &[u8]) {
    let wrong = found.iter().zip(model).position(|(a, b)| a != b);
    assert_eq!((found.len(), wrong), (model.len(), None), "{what}");
}

#[test]
fn random_calls_are_those_of_a_model_and_the_kernel_agrees() {
    let rounds = if std::env::var_os("NVIO_LONG").is_some() { 50 } else { 3 };
    let first = std::env::var("NVIO_SEED").map_or(0, |seed| seed.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("now");
    let variants = super::VARIANTS.iter().filter(|(name, _)| *name != "ext3, small inodes");
    for (seed, &(name, options)) in (first..).zip(variants) {
        let mut random = Rng::new(seed);
        let device = Recorder::new(image(dir.path(), options));
        let mut models: Vec<_> = (0..FILES).map(|at| format!("file {at}").into_bytes()).collect();
        for round in 0..rounds {
            let limit = [256 << 10, 4 << 20][round % 2];
            let mut world = World::open(&device, limit, models);
            for step in 0..60 {
                let what = format!("{name}, seed {seed}, round {round}, step {step}");
                world.step(&mut random).unwrap_or_else(|error| panic!("{what}: {error}"));
                if step % 5 == 4 {
                    world.compare(&what);
                }
            }
            let World { fs, cached, models: after, .. } = world;
            drop(cached);
            models = after;
            fs.close().unwrap();
            fs::write(&path, device.bytes()).unwrap();
            common::assert_clean(&path);
            if common::is_root() {
                let mount = Mount::new(&path, &dir.path().join("mnt"), "loop,ro,noatime").unwrap();
                compare(name, &path, &mount.path);
                for (at, model) in models.iter().enumerate() {
                    let found = fs::read(mount.path.join(format!("file-{at}"))).unwrap();
                    differ(
                        &format!("{name}, seed {seed}, round {round}, file {at}"),
                        &found,
                        model,
                    );
                }
            }
        }
    }
}

#[test]
fn a_full_disk_is_an_error_of_the_write_and_not_of_the_writeback() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), "-t ext4 -b 1024 -J size=1"));
    let mut world = World::open(&device, 32 << 20, vec![Vec::new(); FILES]);
    let free = world.fs.statfs().unwrap().free_blocks;
    let mut sizes = [0; FILES];
    let mut full = [false; FILES];
    // Every second block, so that the extents need nodes.
    while full.iter().any(|full| !full) {
        for at in 0..FILES {
            match world.cached(at).write_at(sizes[at], &[at as u8 + 1; 1024][..]) {
                Ok(_) => sizes[at] += 2048,
                Err(error) => {
                    assert!(matches!(error, Error::NoSpace), "{error}");
                    full[at] = true;
                }
            }
        }
    }
    let written: u64 = sizes.iter().map(|size| size / 2048).sum();
    assert!(written > free * 8 / 10 && written <= free, "{written} blocks of {free}");
    for at in 0..FILES {
        world.cached(at).sync_all().unwrap();
    }
    let left = world.fs.statfs().unwrap().free_blocks;
    // Blocks that were reserved for nodes and are not needed can be allocated.
    world.fs.allocate(file(&world.fs, 5).number(), 0, left * 1024, true).unwrap();
    for (at, size) in sizes.into_iter().enumerate() {
        let mut block = [0; 1024];
        let last = size - 2048;
        world.cached(at).read_at(last, &mut block).unwrap();
        assert_eq!(block, [at as u8 + 1; 1024]);
    }
    let World { fs, cached, .. } = world;
    drop(cached);
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
}

#[test]
fn a_failure_at_each_call_loses_nothing_that_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = image(dir.path(), "-t ext4 -b 1024 -J size=1");
    let (mut failures, mut calls) = (0, 0);
    loop {
        let device = Recorder::new(bytes.clone());
        let mut world = World::open(&device, 128 << 10, vec![Vec::new(); FILES]);
        device.fail_after(calls);
        let mut synced = vec![Vec::new(); FILES];
        let failed = appends(&mut world, &mut synced);
        let World { fs, cached, .. } = world;
        drop(cached);
        let closed = fs.close();
        // The device works again after a restart.
        let after = Recorder::new(device.bytes());
        let fs = open(&after);
        let path = dir.path().join("after");
        fs::write(&path, after.bytes()).unwrap();
        for (at, synced) in synced.iter().enumerate() {
            let found = common::read_file(&fs, &fs::File::open(&path).unwrap(), &file(&fs, at));
            assert!(found.starts_with(synced), "call {calls}, file {at}: {} bytes", found.len());
        }
        fs.close().unwrap();
        check(dir.path(), &after.bytes());
        if failed.is_none() && closed.is_ok() {
            break;
        }
        failures += 1;
        calls += 1;
    }
    assert!(failures > 50, "{failures}");
}

/// Appends to files, and syncs some of them, up to the first error. `synced` is what a sync promised.
fn appends(world: &mut World, synced: &mut [Vec<u8>]) -> Option<Error> {
    let mut random = Rng::new(7);
    let mut models: Vec<_> = (0..FILES).map(|at| format!("file {at}").into_bytes()).collect();
    for step in 0..30 {
        let at = step % FILES;
        let length = 1 + random.below(30_000);
        let data = random.bytes(length);
        let end = models[at].len() as u64;
        match world.cached(at).write_at(end, &data[..]) {
            Ok(n) => models[at].extend(&data[..n]),
            Err(error) => return Some(error),
        }
        if random.below(2) == 0 {
            if let Err(error) = world.cached(at).sync_data() {
                // The error is reported once, and the data is still dirty.
                return Some(error);
            }
            synced[at].clone_from(&models[at]);
        }
    }
    None
}

#[test]
fn appended_data_is_written_back_in_runs() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), "-t ext4 -b 4096 -J size=4"));
    let mut world = World::open(&device, 32 << 20, vec![Vec::new(); FILES]);
    let before = device.calls();
    for at in 0..1536 {
        let end = world.cached(0).size();
        world.cached(0).write_at(end, &[at as u8; 4096][..]).unwrap();
    }
    assert_eq!(device.calls(), before, "it is only in the cache");
    world.cached(0).sync_all().unwrap();
    let events = device.events();
    let sizes = events[before..].iter().map(|event| match event {
        Event::Write { ranges, .. } => ranges.iter().map(|(_, bytes)| bytes.len()).sum(),
        Event::Flush => 0,
    });
    let data: Vec<usize> = sizes.filter(|&bytes| bytes >= 64 << 10).collect();
    // 6 MiB after a few bytes.
    assert!(data.len() <= 7 && data.iter().sum::<usize>() >= (6 << 20) - 4096, "{data:?}");
    // The first block is where it was.
    assert!(world.fs.extents(&file(&world.fs, 0)).unwrap().count() <= 2);
    let World { fs, cached, .. } = world;
    drop(cached);
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
}

#[test]
fn nothing_is_changed_after_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), "-t ext4 -b 1024 -J size=1"));
    let mut world = World::open(&device, 1 << 20, vec![Vec::new(); FILES]);
    let number = file(&world.fs, 1).number();
    world.cached(0).write_at(0, &[1; 5000][..]).unwrap();
    world.fs.clone().close().unwrap();
    let closed = device.bytes();
    assert!(matches!(world.fs.truncate(number, 0), Err(Error::Closed)));
    assert!(matches!(world.cached(1).write_at(9000, &[1; 10][..]), Err(Error::Closed)));
    assert!(world.cached(0).sync_all().is_err());
    assert_eq!(file(&world.fs, 1).size(), 6, "it can be read");
    drop(world);
    assert!(device.bytes() == closed);
    check(dir.path(), &closed);
}

/// A program that replaces a file without a sync of it has the old file or the new one after each cut.
#[test]
fn a_file_that_replaces_another_has_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), "-t ext4 -b 1024 -J size=1"));
    let fs = open(&device);
    let (base, before) = (device.disk(), device.calls());
    let new = fs.create_file(InodeNumber::ROOT, "new", NewFile::with_permissions(0o644)).unwrap();
    let cache = PageCache::new(ImageQueue::new(Disk(device.clone()), 32).unwrap(), 1 << 20);
    let mut cached = fs.cached_file(&new, &cache).unwrap();
    let data = common::pattern(9, 20_000);
    let mut done = 0;
    while done < data.len() {
        done += cached.write_at(done as u64, &data[done..]).unwrap();
    }
    let root = InodeNumber::ROOT;
    fs.rename(root, "new", root, "file-0", RenameMode::Replace).unwrap();
    fs.sync_inode(root).unwrap();
    let synced = device.calls() - before;
    drop(cached);
    fs.close().unwrap();
    let (mut old, mut replaced) = (0, 0);
    cut_disks(&base, &device.events()[before..], &mut Rng::new(3), 4, |at, disk| {
        let fs = Filesystem::open(disk.clone()).unwrap();
        let found = common::read_file(&fs, &disk, &fs.lookup("/file-0").unwrap());
        if found == data {
            replaced += 1;
        } else {
            assert_eq!(found.escape_ascii().to_string(), "file 0", "cut at {at}");
            assert!(at < synced, "cut at {at}: the rename was durable");
            old += 1;
        }
    });
    assert!(old > 5 && replaced > 5, "{old}, {replaced}");
}

/// Data that the cache wrote when its last handle was dropped is known to no handle any more.
#[test]
fn a_sync_flushes_what_a_closed_file_left_in_the_volatile_cache() {
    type Sync = fn(&mut World) -> Result<(), Error>;
    let syncs: [(&str, Sync); 5] = [
        ("sync_inode", |world| world.fs.sync_inode(file(&world.fs, 0).number())),
        ("sync_data", |world| world.fs.sync_data(file(&world.fs, 0).number())),
        ("sync", |world| world.fs.sync()),
        ("a new handle's sync_data", |world| world.cached(0).sync_data()),
        ("a new handle's sync_all", |world| world.cached(0).sync_all()),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (name, sync) in syncs {
        let device = Recorder::new(image(dir.path(), "-t ext4 -b 4096 -J size=4"));
        let mut world = World::open(&device, 1 << 20, vec![Vec::new(); FILES]);
        world.cached(0).write_at(0, &[1; 8192][..]).unwrap();
        world.cached(0).sync_all().unwrap();
        world.cached(0).write_at(0, &[2; 8192][..]).unwrap();
        // Only the time of the write is left for the sync, which takes no flush.
        world.fs.set_times(file(&world.fs, 0).number(), None, None).unwrap();
        let before = device.events().len();
        world.cached[0] = None;
        let written = device.events()[before..]
            .iter()
            .any(|event| matches!(event, Event::Write { durable: false, .. }));
        assert!(written, "{name}: the close has written");
        let before = device.events().len();
        sync(&mut world).unwrap();
        let events = &device.events()[before..];
        assert!(events.iter().any(|event| matches!(event, Event::Flush)), "{name}: no flush");
        // A second sync has nothing to flush.
        let before = device.events().len();
        sync(&mut world).unwrap();
        assert_eq!(device.events().len(), before, "{name}: a second sync");
    }
}

/// The writeback before the read allocates the blocks, of which the handle's map has nothing yet.
#[test]
fn a_direct_read_finds_cached_data_of_a_hole_that_its_handle_has_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), "-t ext4 -b 4096 -J size=4"));
    let mut world = World::open(&device, 1 << 20, vec![Vec::new(); FILES]);
    world.fs.truncate(file(&world.fs, 0).number(), 1 << 20).unwrap();
    world.fs.allocate(file(&world.fs, 0).number(), 65_536, 65_536, false).unwrap();
    let mut direct = world.direct(0);
    let mut page = [9; 4096];
    for (round, pos) in (1..).zip([8192, 16_384, 65_536, 73_728, 12_288]) {
        let mut has = |world: &mut World, value: u8, by: &str| {
            let length = direct.read_at(&mut world.queue, pos, &mut page).unwrap();
            assert!(length == 4096 && page == [value; 4096], "{by} at {pos}: {}", page[0]);
        };
        has(&mut world, 0, "before");
        world.cached(0).write_at(pos, &[round; 4096][..]).unwrap();
        has(&mut world, round, "after");
    }
}
