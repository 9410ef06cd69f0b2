//! Replays the corpora of the fuzz targets of this crate (see `fuzz/README.md`).

use crate::hostile;

use std::path::Path;

use hostile::fuzz::{self, Target};
use nvio_testkit::random::Rng;

/// Runs a target on every file of its corpus, and on random bytes.
fn replay(name: &str, target: &Target) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut files: Vec<_> =
        std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 20, "only {} files in {}", files.len(), corpus.display());
    for file in files {
        println!("{}", file.display());
        target.run(&std::fs::read(file).unwrap());
    }
    let mut random = Rng::new(7);
    for _ in 0..100 {
        let bytes: Vec<u8> = (0..random.below(64)).map(|_| random.next_u64() as u8).collect();
        target.run(&bytes);
    }
}

#[test]
fn superblock() {
    replay("ext4_superblock", &fuzz::SUPERBLOCK);
}

#[test]
fn extents() {
    replay("ext4_extents", &fuzz::EXTENTS);
}

#[test]
fn directories() {
    replay("ext4_directories", &fuzz::DIRECTORIES);
}

#[test]
fn journal() {
    replay("ext4_journal", &fuzz::JOURNAL);
}

#[test]
fn xattrs() {
    replay("ext4_xattrs", &fuzz::XATTRS);
}

#[test]
fn inline_data() {
    replay("ext4_inline", &fuzz::INLINE);
}
