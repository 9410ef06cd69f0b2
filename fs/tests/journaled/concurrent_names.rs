//! Lookups and listings in one thread while another one changes the directory.

use std::collections::HashSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nvio_ext4::{InodeNumber, JournaledFilesystem, RenameMode};

use super::recorder::Recorder;
use super::{check, open};
use crate::common::mke2fs;

/// Number of names that stay.
const STAY: usize = 30;
/// Number of names that are added.
const ADDED: usize = 1000;

fn name(at: usize) -> String {
    format!("stays-{at:0>60}")
}

/// Adds names to a directory, so that it grows, and renames some.
fn change(fs: &JournaledFilesystem, file: InodeNumber, directory: InodeNumber) {
    let name = |at: usize| format!("new-{at:0>150}");
    for at in 0..ADDED {
        fs.hard_link(file, directory, name(at)).unwrap();
        if at % 5 == 4 {
            fs.rename(directory, name(at - 3), directory, format!("{at}"), RenameMode::Replace)
                .unwrap();
        }
        if at % 256 == 255 {
            fs.sync().unwrap();
        }
    }
}

/// Looks up all names that stay, and lists the directory.
fn read(fs: &JournaledFilesystem, file: InodeNumber) {
    for at in 0..STAY {
        let found = fs.lookup(format!("/d/{}", name(at)));
        assert_eq!(found.map(|inode| inode.number()).map_err(|error| error.to_string()), Ok(file));
    }
    let directory = fs.lookup("/d").unwrap();
    // The second time, the inode is an old one.
    for _ in 0..2 {
        let mut seen = HashSet::new();
        for entry in fs.read_dir(&directory).unwrap() {
            let entry = entry.unwrap_or_else(|error| panic!("{error}"));
            assert!(seen.insert(entry.name), "a name twice");
        }
        for at in 0..STAY {
            assert!(seen.contains(name(at).as_bytes()), "name {at} is not listed");
        }
        thread::yield_now();
    }
}

#[test]
fn readers_see_all_names_that_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (image, source) = (dir.path().join("image"), dir.path().join("source"));
    fs::create_dir_all(source.join("d")).unwrap();
    fs::write(source.join("a"), "a").unwrap();
    let options = ["-t ext4 -b 1024 -J size=1", "-t ext4 -b 1024 -J size=1 -O ^metadata_csum"];
    let (mut rounds, mut during) = (0, 0);
    for options in options.iter().cycle().take(20) {
        mke2fs(&image, "8M", &options.split(' ').collect::<Vec<_>>(), Some(&source));
        let device = Recorder::new(fs::read(&image).unwrap());
        let fs = open(&device);
        let [file, directory] = ["/a", "/d"].map(|path| fs.lookup(path).unwrap().number());
        for at in 0..STAY {
            fs.hard_link(file, directory, name(at)).unwrap();
        }
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            let readers = scope.spawn(|| {
                let mut rounds = 0;
                while !is_done.load(Ordering::Acquire) {
                    read(&fs, file);
                    rounds += 1;
                }
                read(&fs, file);
                rounds
            });
            change(&fs, file, directory);
            is_done.store(true, Ordering::Release);
            let found = readers.join().unwrap();
            rounds += found;
            during += usize::from(found > 0);
        });
        fs.close().unwrap();
        check(dir.path(), &device.bytes());
    }
    println!("{rounds} rounds of a reader");
    assert!(during > 0, "no reader ran while names were added");
}
