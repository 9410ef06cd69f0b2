//! Replays the corpora of the fuzz targets of this crate (see `fuzz/README.md`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

mod hostile;

use std::path::Path;

/// Feeds `run` every file of a corpus.
fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files: Vec<_> =
        std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 20, "only {} files in {}", files.len(), corpus.display());
    for file in files {
        println!("{}", file.display());
        run(&std::fs::read(file).unwrap());
    }
}

/// SplitMix64: the same bytes every time.
fn random(count: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn completions_of_the_corpus_break_no_promise() {
    replay("driver_completions", hostile::completions::run);
}

#[test]
fn random_completions_break_no_promise() {
    for seed in 0..500 {
        hostile::completions::run(&random(1024, seed));
    }
}

#[test]
fn structures_of_the_corpus_break_no_promise() {
    replay("driver_parsing", hostile::parsing::run);
}

#[test]
fn random_structures_break_no_promise() {
    for seed in 0..2000 {
        hostile::parsing::run(&random(1024, seed));
    }
}
