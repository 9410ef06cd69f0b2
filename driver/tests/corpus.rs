//! Replays the corpora of the fuzz targets of this crate (see `fuzz/README.md`).

use nvio_testkit::random::pattern;

use crate::hostile;

use std::path::Path;

/// Calls `run` with every file of a corpus.
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

#[test]
fn completions_of_the_corpus_break_no_promise() {
    replay("driver_completions", hostile::completions::run);
}

#[test]
fn random_completions_break_no_promise() {
    for seed in 0..500 {
        hostile::completions::run(&pattern(seed, 1024));
    }
}

#[test]
fn structures_of_the_corpus_break_no_promise() {
    replay("driver_parsing", hostile::parsing::run);
}

#[test]
fn random_structures_break_no_promise() {
    for seed in 0..2000 {
        hostile::parsing::run(&pattern(seed, 1024));
    }
}
