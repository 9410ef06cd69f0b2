//! Allocation, truncation and holes, as e2fsck and the kernel see them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nvio_ext4::{BadRange, BlockSource, Error, Filesystem};
use nvio_testkit::random::Rng;

use super::recorder::{Recorder, cuts};
use super::{check, file, open};
use crate::common::compare::compare;
use crate::common::{self, Mount, mke2fs};

const VARIANTS: &[(&str, &str)] = &[
    ("1k", "-t ext4 -b 1024 -J size=1"),
    ("2k, no 64bit", "-t ext4 -b 2048 -J size=4 -O ^64bit"),
    ("4k", "-t ext4 -b 4096 -J size=4"),
    ("no checksums", "-t ext4 -b 1024 -J size=1 -O ^metadata_csum"),
    ("uninit_bg", "-t ext4 -b 1024 -g 1024 -J size=1 -O ^metadata_csum,^64bit,uninit_bg"),
    ("no flex_bg", "-t ext4 -b 1024 -g 2048 -J size=1 -O ^flex_bg"),
    ("meta_bg", "-t ext4 -b 1024 -g 1024 -J size=1 -O meta_bg,^resize_inode"),
];

/// Returns a filesystem of 32 MiB with eight files of a pattern, some of them long, some with holes.
fn image(dir: &Path, options: &str) -> Vec<u8> {
    let (image, source) = (dir.join("image"), dir.join("source"));
    if !source.exists() {
        fs::create_dir(&source).unwrap();
        for at in 0..8u64 {
            let file = File::create(source.join(format!("file-{at}"))).unwrap();
            for piece in 0..at * at {
                file.write_all_at(&[at as u8 + 1; 3000], piece * 5000 * (at % 3 + 1)).unwrap();
            }
        }
    }
    mke2fs(&image, "32M", &options.split(' ').collect::<Vec<_>>(), Some(&source));
    fs::read(image).unwrap()
}

/// Returns the contents of a file by its map.
fn contents(fs: &Filesystem, bytes: &Path, at: usize) -> Vec<u8> {
    let inode = fs.lookup(format!("/file-{at}")).unwrap();
    common::read_file(fs, &File::open(bytes).unwrap(), &inode)
}

/// Number of the kinds of changes, and of those that move no blocks.
const KINDS: u64 = 10;
const IN_PLACE: u64 = 8;

/// A random change of one of the first `kinds`, and its effect on a model of the contents.
fn change(
    fs: &nvio_ext4::JournaledFilesystem,
    random: &mut Rng,
    models: &mut [Vec<u8>],
    kinds: u64,
) -> Result<(), Error> {
    let at = random.below(8) as usize;
    let number = file(fs, at).number();
    let (pos, length) = (random.below(400_000), 1 + random.below(200_000));
    let model = &mut models[at];
    let block = u64::from(fs.superblock().block_size());
    let (inside, moved) = (pos / block * block, length.next_multiple_of(block));
    match random.below(kinds) {
        0 => {
            fs.allocate(number, pos, length, true)?;
        }
        1 => {
            fs.allocate(number, pos, length, false)?;
            let end = (pos + length) as usize;
            model.resize(model.len().max(end), 0);
        }
        2 => {
            fs.truncate(number, pos)?;
            model.resize(pos as usize, 0);
        }
        3 | 4 => {
            let data = random.bytes(length);
            fs.write_at(number, pos, &data)?;
            let end = (pos + length) as usize;
            model.resize(model.len().max(end), 0);
            model[pos as usize..end].copy_from_slice(&data);
        }
        5 => {
            fs.punch_hole(number, pos, length)?;
            let end = (pos + length).min(model.len() as u64) as usize;
            model.get_mut(pos as usize..end).unwrap_or_default().fill(0);
        }
        6 | 7 => {
            let keep_size = random.below(2) == 0;
            let inode = fs.zero_range(number, pos, length, keep_size)?;
            let end = (pos + length) as usize;
            if !keep_size {
                model.resize(model.len().max(end), 0);
            }
            assert_eq!(inode.size(), model.len() as u64);
            let end = end.min(model.len());
            model.get_mut(pos as usize..end).unwrap_or_default().fill(0);
        }
        8 => {
            let collapsed = fs.collapse_range(number, inside, moved);
            if ((inside + moved) as usize) < model.len() {
                assert_eq!(collapsed?.size(), model.len() as u64 - moved);
                model.drain(inside as usize..(inside + moved) as usize);
            } else {
                assert_bad_range(collapsed, model.len());
            }
        }
        _ => {
            let inserted = fs.insert_range(number, inside, moved);
            if (inside as usize) < model.len() {
                assert_eq!(inserted?.size(), model.len() as u64 + moved);
                let at = inside as usize;
                model.splice(at..at, std::iter::repeat_n(0, moved as usize));
            } else {
                assert_bad_range(inserted, model.len());
            }
        }
    }
    Ok(())
}

fn assert_bad_range(result: Result<nvio_ext4::Inode, Error>, length: usize) {
    let length = length as u64;
    match result {
        Err(Error::BadRange {
            why: BadRange::EndsAfter { size } | BadRange::BeginsAfter { size },
            ..
        }) => assert_eq!(size, length),
        other => panic!("{other:?}, of a file of {length} bytes"),
    }
}

#[test]
fn random_changes_are_those_of_a_model_and_the_kernel_agrees() {
    let long = std::env::var_os("NVIO_LONG").is_some();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("now");
    for (seed, &(name, options)) in (0..).zip(VARIANTS) {
        let mut random = Rng::new(seed);
        let device = Recorder::new(image(dir.path(), options));
        fs::write(&path, device.bytes()).unwrap();
        let before = common::open(&path);
        let mut models: Vec<_> = (0..8).map(|at| contents(&before, &path, at)).collect();
        for round in 0..if long { 40 } else { 4 } {
            let fs = open(&device);
            for _ in 0..60 {
                change(&fs, &mut random, &mut models, KINDS)
                    .unwrap_or_else(|error| panic!("{error}"));
                if random.below(10) == 0 {
                    fs.sync().unwrap();
                }
            }
            fs.close().unwrap();
            fs::write(&path, device.bytes()).unwrap();
            common::assert_clean(&path);
            let found = common::open(&path);
            for (at, model) in models.iter().enumerate() {
                let what = format!("{name}, round {round}, file {at}");
                let contents = contents(&found, &path, at);
                let wrong = contents.iter().zip(model).position(|(a, b)| a != b);
                assert_eq!((contents.len(), wrong), (model.len(), None), "{what}");
            }
            if common::is_root() {
                let mount = Mount::new(&path, &dir.path().join("mnt"), "loop,ro,noatime").unwrap();
                compare(name, &path, &mount.path);
            }
        }
    }
}

#[test]
fn a_full_filesystem_and_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    for &(name, options) in VARIANTS {
        let device = Recorder::new(image(dir.path(), options));
        let fs = open(&device);
        let free = fs.statfs().unwrap().free_blocks;
        let number = file(&fs, 0).number();
        let error = fs.allocate(number, 0, 1 << 30, false).unwrap_err();
        assert!(matches!(error, Error::NoSpace), "{name}: {error}");
        let full = fs.inode(number).unwrap();
        assert_eq!(full.size(), 0, "{name}");
        assert_eq!(fs.statfs().unwrap().free_blocks, 0, "{name}");
        assert!(matches!(fs.allocate(number, 1 << 30, 1, true), Err(Error::NoSpace)), "{name}");
        fs.sync().unwrap();
        check(dir.path(), &Recorder::new(device.bytes()).bytes());
        let error = fs.allocate(file(&fs, 1).number(), 1 << 20, 1, true).unwrap_err();
        assert!(matches!(error, Error::NoSpace), "{name}: {error}");
        // Freed blocks can be used again when that is durable.
        fs.truncate(number, 0).unwrap();
        assert_eq!(fs.statfs().unwrap().free_blocks, free, "{name}");
        let calls = device.calls();
        fs.allocate(file(&fs, 1).number(), 1 << 20, 1, true).unwrap();
        assert!(device.calls() > calls, "{name}: the truncation was committed first");
        fs.close().unwrap();
        check(dir.path(), &device.bytes());
    }
}

#[test]
fn a_tree_that_grows_and_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), VARIANTS[0].1));
    let fs = open(&device);
    let number = file(&fs, 0).number();
    // Every second block, so that each is an extent: 84 in a node of 1 KiB.
    let mut order: Vec<u64> = (0..8000).collect();
    let mut random = Rng::new(3);
    for at in (1..order.len()).rev() {
        order.swap(at, random.below(at as u64 + 1) as usize);
    }
    for (done, &at) in order.iter().enumerate() {
        fs.allocate(number, at * 2048, 1024, false).unwrap();
        if done % 2000 == 1999 {
            fs.sync().unwrap();
            let again = Recorder::new(device.bytes());
            let state = open(&again);
            assert_eq!(state.extents(&state.inode(number).unwrap()).unwrap().count(), done + 1);
            state.close().unwrap();
            check(dir.path(), &again.bytes());
        }
    }
    let nodes = fs.inode(number).unwrap().blocks_512() / 2 - 8000;
    assert!((96..200).contains(&nodes), "{nodes} nodes");
    for &at in &order[..7999] {
        fs.punch_hole(number, at * 2048, 1024).unwrap();
    }
    assert_eq!(fs.inode(number).unwrap().blocks_512(), 2, "one block, and no nodes");
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
}

#[test]
fn cuts_of_allocation_and_truncation() {
    let dir = tempfile::tempdir().unwrap();
    let long = std::env::var_os("NVIO_LONG").is_some();
    let variants = if long { VARIANTS } else { &VARIANTS[..2] };
    for (seed, &(name, options)) in (0..).zip(variants) {
        let mut random = Rng::new(seed);
        let base = image(dir.path(), options);
        let device = Recorder::new(base.clone());
        let fs = open(&device);
        let path = dir.path().join("checked");
        fs::write(&path, &base).unwrap();
        let before = common::open(&path);
        let mut models: Vec<_> = (0..8).map(|at| contents(&before, &path, at)).collect();
        for _ in 0..12 {
            change(&fs, &mut random, &mut models, KINDS).unwrap();
            if random.below(2) == 0 {
                fs.sync().unwrap();
            }
        }
        fs.close().unwrap();
        let mut states = 0;
        cuts(&base, &device.events(), &mut random.clone(), 2, |at, state| {
            assert!(BlockSource::size(&state) > 0);
            states += 1;
            if states % 3 != 0 {
                return;
            }
            let again = Recorder::new(state);
            open(&again).close().unwrap();
            fs::write(&path, again.bytes()).unwrap();
            println!("{name}, cut at {at}");
            common::assert_clean(&path);
        });
        assert!(states > 20, "{name}: {states}");
    }
}

/// Makes a file of `count` extents of a block each.
fn fragmented(
    fs: &nvio_ext4::JournaledFilesystem,
    at: usize,
    count: u64,
) -> nvio_ext4::InodeNumber {
    let number = file(fs, at).number();
    fs.truncate(number, 0).unwrap();
    for at in 0..count {
        fs.allocate(number, at * 2048, 1024, false).unwrap();
    }
    fs.sync().unwrap();
    number
}

#[test]
fn a_truncation_of_many_steps_is_completed_after_a_cut() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), VARIANTS[0].1));
    let fs = open(&device);
    let files: Vec<_> = (0..3).map(|at| fragmented(&fs, at, 3000)).collect();
    let (base, before) = (device.bytes(), device.calls());
    // Commits between the steps, from another thread.
    std::thread::scope(|scope| {
        let syncs = scope.spawn(|| {
            while files.iter().any(|&file| fs.inode(file).unwrap().blocks_512() > 4) {
                fs.sync().unwrap();
            }
        });
        // The last one begins when a commit was seen, so that steps and commits overlap.
        for (at, &file) in files.iter().enumerate() {
            while at == 2 && device.calls() == before {
                std::thread::yield_now();
            }
            let fs = fs.clone();
            scope.spawn(move || fs.truncate(file, 500 + at as u64).unwrap());
        }
        syncs.join().unwrap();
    });
    fs.sync().unwrap();
    let events = &device.events()[before..];
    let (mut random, mut orphans, mut kernel) = (Rng::new(1), 0, 0);
    cuts(&base, events, &mut random, 1, |at, state| {
        let is_listed = state[1024 + 0xe8..1024 + 0xec] != [0; 4];
        let in_log = Filesystem::open(state.clone()).unwrap();
        let has_orphans = in_log.superblock().last_orphan != 0;
        orphans += usize::from(is_listed || has_orphans);
        let again = Recorder::new(state.clone());
        open(&again).close().unwrap();
        let path = dir.path().join("checked");
        fs::write(&path, again.bytes()).unwrap();
        common::assert_clean(&path);
        let found = common::open(&path);
        for (at_file, &file) in files.iter().enumerate() {
            let inode = found.inode(file).unwrap();
            let sizes = [2999 * 2048 + 1024, 500 + at_file as u64];
            assert!(sizes.contains(&inode.size()), "cut at {at}: {}", inode.size());
            if inode.size() < 1000 {
                assert_eq!(inode.blocks_512(), 2, "cut at {at}");
            }
        }
        // The kernel completes it, too.
        if has_orphans && kernel < 8 && common::is_root() {
            kernel += 1;
            let theirs = dir.path().join("theirs");
            fs::write(&theirs, state).unwrap();
            let mount = Mount::new(&theirs, &dir.path().join("mnt"), "loop,noatime").unwrap();
            // The kernel may leave a node of the tree that has room in the inode.
            for (at_file, &file) in files.iter().enumerate() {
                let theirs = fs::read(mount.path.join(format!("file-{at_file}"))).unwrap();
                assert_eq!(theirs.len() as u64, found.inode(file).unwrap().size(), "cut at {at}");
                assert!(theirs.iter().all(|&byte| byte == 0), "cut at {at}");
            }
            drop(mount);
            common::assert_clean(&theirs);
        }
    });
    println!("{orphans} cuts between the steps");
}

#[test]
fn truncations_that_were_not_completed() {
    let dir = tempfile::tempdir().unwrap();
    for &(name, options) in VARIANTS {
        let path = dir.path().join("orphans");
        fs::write(&path, image(dir.path(), options)).unwrap();
        let before = common::open(&path);
        let [first, second] = [6, 7].map(|at| before.lookup(format!("/file-{at}")).unwrap());
        let mut models = [contents(&before, &path, 6), contents(&before, &path, 7)];
        // The list: 7, then 6. Both have blocks after their new ends.
        let fields = [
            format!("set_inode_field <{}> dtime {}", second.number(), first.number()),
            format!("set_inode_field <{}> size 5001", second.number()),
            format!("set_inode_field <{}> size 0", first.number()),
            format!("set_super_value last_orphan {}", second.number()),
        ];
        common::debugfs(&path, &fields.each_ref().map(String::as_str));
        let device = Recorder::new(fs::read(&path).unwrap());
        let state = open(&device);
        assert_eq!(state.inode(first.number()).unwrap().blocks_512(), 0, "{name}");
        state.close().unwrap();
        fs::write(&path, device.bytes()).unwrap();
        common::assert_clean(&path);
        let found = common::open(&path);
        assert_eq!(found.superblock().last_orphan, 0, "{name}");
        models[0].clear();
        models[1].truncate(5001);
        assert!(models == [contents(&found, &path, 6), contents(&found, &path, 7)], "{name}");
    }
}

#[test]
fn threads_that_change_files_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), VARIANTS[2].1));
    let path = dir.path().join("now");
    fs::write(&path, device.bytes()).unwrap();
    let before = common::open(&path);
    let fs = open(&device);
    let models: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|at| {
                let (fs, model) = (fs.clone(), contents(&before, &path, at));
                scope.spawn(move || one_file(&fs, at, model))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    fs.close().unwrap();
    fs::write(&path, device.bytes()).unwrap();
    common::assert_clean(&path);
    let found = common::open(&path);
    for (at, model) in models.iter().enumerate() {
        assert!(contents(&found, &path, at) == *model, "file {at}");
    }
}

/// Changes one file 150 times. Returns its contents.
fn one_file(fs: &nvio_ext4::JournaledFilesystem, at: usize, mut model: Vec<u8>) -> Vec<u8> {
    let mut random = Rng::new(at as u64 + 100);
    let number = file(fs, at).number();
    for _ in 0..150 {
        let (pos, length) = (random.below(300_000) as usize, 1 + random.below(100_000) as usize);
        match random.below(4) {
            0 => {
                fs.truncate(number, pos as u64).unwrap();
                model.resize(pos, 0);
            }
            1 => {
                fs.punch_hole(number, pos as u64, length as u64).unwrap();
                let end = (pos + length).min(model.len());
                model.get_mut(pos..end).unwrap_or_default().fill(0);
            }
            _ => {
                let data = random.bytes(length as u64);
                fs.write_at(number, pos as u64, &data).unwrap();
                model.resize(model.len().max(pos + length), 0);
                model[pos..pos + length].copy_from_slice(&data);
            }
        }
        if random.below(8) == 0 {
            fs.sync_inode(number).unwrap();
        }
    }
    model
}

/// The contents of all files after each change, and what was promised.
struct History {
    states: Vec<Vec<Vec<u8>>>,
    /// Calls of the device, and the number of changes that are durable from then on.
    promises: Vec<(usize, usize)>,
    /// Calls of the device before each change.
    made: Vec<usize>,
}

impl History {
    /// Returns the states that a cut before call `at` may leave parts of.
    fn range(&self, at: usize) -> &[Vec<Vec<u8>>] {
        let least = self.promises.iter().rev().find(|promise| promise.0 <= at);
        let most = self.made.iter().filter(|&&calls| calls <= at).count();
        &self.states[least.map_or(0, |promise| promise.1)..=most]
    }
}

#[test]
fn each_sector_is_old_or_new_after_a_cut() {
    const SECTOR: usize = 512;
    let long = std::env::var_os("NVIO_LONG").is_some();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut");
    for seed in 0..if long { 30 } else { 2 } {
        let (name, options) = VARIANTS[seed as usize % VARIANTS.len()];
        let mut random = Rng::new(seed);
        let base = image(dir.path(), options);
        fs::write(&path, &base).unwrap();
        let before = common::open(&path);
        let mut models: Vec<_> = (0..8).map(|at| contents(&before, &path, at)).collect();
        let device = Recorder::new(base.clone());
        let fs = open(&device);
        let mut history =
            History { states: vec![models.clone()], promises: Vec::new(), made: Vec::new() };
        for _ in 0..24 {
            history.made.push(device.calls());
            // An overwrite of a block that has moved is at both places.
            change(&fs, &mut random, &mut models, IN_PLACE).unwrap();
            history.states.push(models.clone());
            if random.below(3) == 0 {
                fs.sync().unwrap();
                history.promises.push((device.calls(), history.states.len() - 1));
            }
        }
        fs.close().unwrap();
        history.promises.push((device.calls(), history.states.len() - 1));
        cuts(&base, &device.events(), &mut random.clone(), 1, |at, state| {
            fs::write(&path, state).unwrap();
            let found = common::open(&path);
            let states = history.range(at);
            for file in 0..8 {
                let what = format!("{name}, seed {seed}, cut at {at}, file {file}");
                let now = contents(&found, &path, file);
                assert!(states.iter().any(|state| state[file].len() == now.len()), "{what}: size");
                for (index, sector) in now.chunks(SECTOR).enumerate() {
                    let may_be = |state: &Vec<Vec<u8>>| {
                        let old = state[file].iter().skip(index * SECTOR).copied();
                        old.chain(std::iter::repeat(0)).zip(sector).all(|(old, &new)| old == new)
                    };
                    assert!(states.iter().any(may_be), "{what}: sector {index}");
                }
            }
        });
    }
}

#[test]
fn extents_are_as_long_as_the_kernels() {
    const PIECES: u64 = 1024;
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours", "theirs"].map(|name| dir.path().join(name));
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file-0"), "").unwrap();
    mke2fs(&ours, "1500M", &["-t", "ext4"], Some(&source));
    common::run("cp", &["--sparse=always", ours.to_str().unwrap(), theirs.to_str().unwrap()]);
    // 1 GiB in pieces of 1 MiB.
    let device = File::options().read(true).write(true).open(&ours).unwrap();
    let state = nvio_ext4::JournaledFilesystem::open(device, Default::default()).unwrap();
    let number = file(&state, 0).number();
    for piece in 0..PIECES {
        state.allocate(number, piece << 20, 1 << 20, false).unwrap();
    }
    state.close().unwrap();
    let mount = Mount::new(&theirs, &dir.path().join("mnt"), "loop,noatime").unwrap();
    let path = mount.path.join("file-0");
    for piece in 0..PIECES {
        let offset = (piece << 20).to_string();
        let arguments = ["-o", &offset, "-l", "1048576", path.to_str().unwrap()];
        common::run("fallocate", &arguments);
    }
    drop(mount);
    common::assert_clean(&ours);
    let count = |image: &Path| {
        let found = common::open(image);
        found.extents(&found.lookup("/file-0").unwrap()).unwrap().count()
    };
    let (ours, theirs) = (count(&ours), count(&theirs));
    println!("{ours} extents, {theirs} by the kernel");
    assert!(ours <= theirs, "{ours} extents, {theirs} by the kernel");
}

#[test]
fn sizes_that_no_file_has() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), VARIANTS[0].1));
    let fs = open(&device);
    let number = file(&fs, 0).number();
    let most = u64::from(u32::MAX) * 1024;
    for error in [
        fs.truncate(number, most + 1).unwrap_err(),
        fs.truncate(number, u64::MAX).unwrap_err(),
        fs.allocate(number, u64::MAX - 5, 10, false).unwrap_err(),
        fs.allocate(number, most, 1, true).unwrap_err(),
        fs.write_at(number, most, b"x").unwrap_err(),
    ] {
        assert!(matches!(error, Error::FileTooLarge { .. }), "{error}");
    }
    assert_eq!(fs.truncate(number, most).unwrap().size(), most);
    fs.write_at(number, most - 1, b"x").unwrap();
    fs.punch_hole(number, u64::MAX - 5, u64::MAX).unwrap();
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
}

#[test]
fn block_pointers_are_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), "-t ext3 -b 1024 -J size=1"));
    let fs = open(&device);
    let number = file(&fs, 7).number();
    for error in [
        fs.truncate(number, 0).unwrap_err(),
        fs.punch_hole(number, 0, 1 << 20).unwrap_err(),
        fs.zero_range(number, 0, 1 << 20, false).unwrap_err(),
        fs.collapse_range(number, 0, 1024).unwrap_err(),
        fs.insert_range(number, 0, 1024).unwrap_err(),
        fs.allocate(number, 1 << 20, 1, false).unwrap_err(),
        fs.write_at(number, 0, b"x").unwrap_err(),
    ] {
        assert!(error.to_string().contains("block pointers"), "{error}");
    }
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
}
