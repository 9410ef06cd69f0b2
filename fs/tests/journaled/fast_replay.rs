//! Fast commits: those that the kernel left are replayed on the device.

use std::fs::{self, File};
use std::path::Path;

use nvio_ext4::{Error, JournaledFilesystem, NotWritable, Options};
use nvio_testkit::random::Rng;

use super::open;
use super::recorder::{Recorder, cuts};
use crate::common::view::View;
use crate::common::{self, Mount, mke2fs, view};
use crate::fast_commit::{Bed, STEPS, VARIANTS, full_commit, populate};

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
        let (mut replayed, mut refused) = (0, 0);
        for (step, make) in STEPS {
            full_commit(&mounted.path);
            make(&bed, &mounted.path);
            let what = format!("{name}: {step}");
            let (dirty, theirs) = bed.copy(&what);
            let before = common::sum(&dirty);
            let fs = match open_image(&dirty) {
                Ok(fs) => fs,
                Err(Error::NotWritable(NotWritable::FastCommits)) => {
                    assert_eq!(common::sum(&dirty), before, "{what}: nothing is written");
                    refused += 1;
                    continue;
                }
                Err(error) => panic!("{what}: {error}"),
            };
            let commits = fs.recovered().unwrap().fast_commits;
            println!("{what}: {commits} fast commits");
            replayed += u32::from(commits > 0);
            fs.close().unwrap();
            common::assert_clean(&dirty);
            let mut ours = view::of_image(&dirty);
            // The kernel's trees have other nodes. e2fsck has checked the counts.
            view::ignore_recounted_blocks(&mut ours, &theirs, |_| true);
            view::assert_same(&what, &ours, &theirs, |path| {
                ours.get(path).is_some_and(|entry| entry.mode & 0o170_000 == 0o040_000)
            });
        }
        assert!(replayed >= 9 && refused >= 5, "{name}: {replayed}, {refused} refused");
    }
}

fn contents(path: &Path) -> View {
    view::settled(view::of_image(path))
}

#[test]
fn cuts_of_the_replay() {
    let Some(mut bed) = Bed::new() else { return };
    let mut random = Rng::new(5);
    let (name, options, block) = VARIANTS[2];
    mke2fs(&bed.image, "24M", &options.split(' ').collect::<Vec<_>>(), None);
    bed.block = block;
    let mounted = Mount::new(&bed.image, &bed.mount, "loop,noatime,commit=900").unwrap();
    populate(&mounted.path, block);
    let path = bed.dir.path().join("cut");
    let long = std::env::var_os("NVIO_LONG").is_some();
    let mut states = 0;
    for (step, make) in STEPS.iter().filter(|step| step.0.contains("tree")) {
        full_commit(&mounted.path);
        make(&bed, &mounted.path);
        let (dirty, theirs) = bed.copy(step);
        let base = fs::read(&dirty).unwrap();
        let expected = contents(&dirty);
        view::assert_same(step, &expected, &view::settled(theirs), |_| false);
        let device = Recorder::new(base.clone());
        let recovered = open(&device);
        assert!(recovered.recovered().unwrap().fast_commits > 0, "{name}: {step}");
        recovered.close().unwrap();
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
            if !long && states % 4 != 0 {
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
    assert!(states > 20, "{states}");
}
