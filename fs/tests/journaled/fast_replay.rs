//! Fast commits: those that the kernel left are replayed on the device.

use std::fs::{self, File};
use std::path::Path;

use nvio_ext4::{Error, Filesystem, JournaledFilesystem, NotWritable, Options};
use nvio_testkit::random::Rng;

use super::recorder::{Recorder, cuts};
use super::{fast_commit, open};
use crate::common::view::View;
use crate::common::{self, Mount, mke2fs, view};
use crate::fast_commit::{Bed, ORPHAN, STEPS, VARIANTS, full_commit, populate};

fn open_image(path: &Path) -> Result<JournaledFilesystem, Error> {
    let device = File::options().read(true).write(true).open(path).unwrap();
    JournaledFilesystem::open(device, Options::default())
}

#[test]
fn fast_commits_of_the_kernel_are_replayed_on_the_device() {
    let Some(mut bed) = Bed::new() else { return };
    let long = std::env::var_os("NVIO_LONG").is_some();
    let variants = VARIANTS.iter().filter(|variant| variant.0 != "bigalloc");
    for &(name, options, block) in variants.take(if long { VARIANTS.len() } else { 2 }) {
        mke2fs(&bed.image, "40M", &options.split(' ').collect::<Vec<_>>(), None);
        bed.block = block;
        let mounted = Mount::new(&bed.image, &bed.mount, "loop,noatime,commit=900").unwrap();
        populate(&mounted.path, block);
        let mut replayed = 0;
        for (step, make) in STEPS {
            full_commit(&mounted.path);
            make(&bed, &mounted.path);
            let what = format!("{name}: {step}");
            let (dirty, theirs) = bed.copy(&what);
            let in_memory = view::of_image(&dirty);
            let fs = open_image(&dirty).unwrap_or_else(|error| panic!("{what}: {error}"));
            let commits = fs.recovered().unwrap().fast_commits;
            println!("{what}: {commits} fast commits");
            replayed += u32::from(commits > 0);
            // The program crashes, and the filesystem is recovered once more.
            let crashed = bed.dir.path().join("crashed");
            fs::copy(&dirty, &crashed).unwrap();
            fs.close().unwrap();
            common::assert_clean(&dirty);
            let again = open_image(&crashed).unwrap();
            assert_eq!(again.recovered().unwrap().fast_commits, 0, "{what}");
            again.close().unwrap();
            common::assert_clean(&crashed);
            let ours = view::of_image(&dirty);
            let [settled, before, twice] =
                [ours.clone(), in_memory, view::of_image(&crashed)].map(view::settled);
            view::assert_same(&what, &settled, &before, |_| false);
            view::assert_same(&what, &twice, &before, |_| false);
            let mut ours = ours;
            // The kernel's trees have other nodes. e2fsck has checked the counts.
            view::ignore_recounted_blocks(&mut ours, &theirs, |_| true);
            if step.starts_with("a directory") {
                view::ignore_links_of_directories(&mut ours, &theirs);
            }
            view::assert_same(&what, &ours, &theirs, |path| {
                ours.get(path).is_some_and(|entry| entry.mode & 0o170_000 == 0o040_000)
            });
        }
        assert!(replayed >= 17, "{name}: {replayed}");
        // The inode is in the list of orphans, from which a replay would have to take it.
        ORPHAN.1(&bed, &mounted.path);
        let refused = open_image(&bed.copy(ORPHAN.0).0).map(drop);
        let is_refused = matches!(refused, Err(Error::NotWritable(NotWritable::FastCommits)));
        assert!(is_refused, "{name}: {refused:?}");
    }
}

/// Steps whose replay is cut in every run.
const CUT: &[&str] = &[
    "create",
    "more extents in a tree",
    "tree cut short",
    "unlink",
    "rename over another",
    "created and deleted",
    "a directory",
    "a directory removed",
];

fn contents(path: &Path) -> View {
    view::settled(view::of_image(path))
}

/// On a busy machine the kernel may make a full commit while its journal's superblock is waited for. There is
/// no fast commit to replay then, and the steps are made on another filesystem.
#[test]
fn cuts_of_the_replay() {
    let Some(mut bed) = Bed::new() else { return };
    let states = (0..5).find_map(|_| cut_steps(&mut bed));
    let states = states.expect("a kernel that makes fast commits");
    assert!(states > 20, "{states}");
}

/// Cuts the replay of the steps, and returns the number of cuts. `None` if a step left no fast commits.
fn cut_steps(bed: &mut Bed) -> Option<u64> {
    let mut random = Rng::new(5);
    let (name, options, block) = VARIANTS[2];
    mke2fs(&bed.image, "24M", &options.split(' ').collect::<Vec<_>>(), None);
    bed.block = block;
    let mounted = Mount::new(&bed.image, &bed.mount, "loop,noatime,commit=900").unwrap();
    populate(&mounted.path, block);
    let path = bed.dir.path().join("cut");
    let long = std::env::var_os("NVIO_LONG").is_some();
    let mut states = 0;
    for (step, make) in STEPS {
        full_commit(&mounted.path);
        make(bed, &mounted.path);
        if !long && !CUT.contains(step) {
            continue;
        }
        let (dirty, theirs) = bed.copy(step);
        let base = fs::read(&dirty).unwrap();
        let expected = contents(&dirty);
        let has_directories = step.starts_with("a directory");
        let mut ours = expected.clone();
        if has_directories {
            view::ignore_links_of_directories(&mut ours, &theirs);
        }
        view::assert_same(step, &ours, &view::settled(theirs), |_| false);
        let device = Recorder::new(base.clone());
        let recovered = open(&device);
        let commits = recovered.recovered().unwrap().fast_commits;
        recovered.close().unwrap();
        if commits == 0 && !long {
            println!("{name}: {step}: no fast commits");
            return None;
        }
        cuts(&base, &device.events(), &mut random, if long { 3 } else { 1 }, |at, state| {
            states += 1;
            let what = format!("{step}, cut at {at}");
            fs::write(&path, &state).unwrap();
            view::assert_same(&what, &contents(&path), &expected, |_| false);
            let again = Recorder::new(state);
            open(&again).close().unwrap();
            fs::write(&dirty, again.bytes()).unwrap();
            common::assert_clean(&dirty);
            view::assert_same(&what, &contents(&dirty), &expected, |_| false);
            if !long && states % 4 != 0 || has_directories {
                return;
            }
            let kernel = Mount::new(&path, &bed.dir.path().join("mnt2"), "loop,noatime");
            let kernel = kernel.unwrap_or_else(|error| panic!("{what}: {error}"));
            let theirs = view::settled(view::of_kernel(&kernel.path));
            view::assert_same(&what, &theirs, &expected, |_| false);
            drop(kernel);
            common::assert_clean(&path);
        });
    }
    Some(states)
}

/// `NVIO_MUTANTS` sets the number of mutants of each step.
#[test]
fn damaged_fast_commits_of_the_kernel_are_refused_or_replayed_inside() {
    let Some(mut bed) = Bed::new() else { return };
    let count = std::env::var("NVIO_MUTANTS").map_or(60, |value| value.parse().unwrap());
    let mut random = Rng::new(6);
    let (_, options, block) = VARIANTS[2];
    mke2fs(&bed.image, "24M", &options.split(' ').collect::<Vec<_>>(), None);
    bed.block = block;
    let mounted = Mount::new(&bed.image, &bed.mount, "loop,noatime,commit=900").unwrap();
    populate(&mounted.path, block);
    let (mut opened, mut refused) = (0, 0);
    for (step, make) in STEPS {
        full_commit(&mounted.path);
        make(&bed, &mounted.path);
        if !DAMAGED.contains(step) {
            continue;
        }
        let (dirty, _) = bed.copy(step);
        let sound = fs::read(&dirty).unwrap();
        let size = block as usize;
        // The head is the first tag of the area, and the first fast commits have a block each.
        let head =
            sound.chunks(size).position(|block| block.starts_with(&[9, 0, 8, 0, 0, 0, 0, 0]));
        let head = head.unwrap() * size;
        let blocks: Vec<usize> = (head..sound.len())
            .step_by(size)
            .take_while(|&at| fast_commit::seal(&mut sound[at..at + size].to_vec()))
            .collect();
        for mutant in 0..count {
            let mut bytes = sound.clone();
            let at = *random.pick(&blocks);
            for _ in 0..=random.below(3) {
                let byte = &mut bytes[at + random.below(400) as usize];
                let values = [0, 1, 2, 11, 12, 0x2f, 0xff, *byte ^ 1, byte.wrapping_add(1)];
                *byte = *random.pick(&values);
            }
            fast_commit::seal(&mut bytes[at..at + size]);
            let reader = Filesystem::open(bytes.clone());
            let device = Recorder::new(bytes);
            match JournaledFilesystem::open(device.clone(), Options::default()) {
                Ok(fs) => {
                    assert!(reader.is_ok(), "{step}, {mutant}");
                    opened += 1;
                    let _ = fs.close();
                }
                Err(Error::Corrupt(_) | Error::NotWritable(NotWritable::FastCommits)) => {
                    refused += 1;
                }
                Err(error) => panic!("{step}, {mutant}: {error}"),
            }
        }
    }
    println!("{opened} opened, {refused} refused");
    assert!(opened > count && refused > count / 4, "{opened} {refused}");
}

/// Steps whose fast commits are damaged.
const DAMAGED: &[&str] = &["create", "unlink", "rename", "rename over another", "a directory"];
