//! Replays the corpus of the fuzz target `emulator_commands` (see `fuzz/README.md`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

mod attack;

use std::path::Path;

#[test]
fn nothing_in_the_corpus_breaks_the_controller() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/emulator_commands");
    let mut replayed = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        attack::run(&std::fs::read(path).unwrap());
        replayed += 1;
    }
    assert!(replayed > 50, "only {replayed} files in {}", corpus.display());
}

/// xorshift64*: the same numbers every time.
fn random(count: usize, mut state: u64) -> Vec<u8> {
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn random_programs_do_not_break_it_either() {
    attack::run(&[]);
    for seed in 1..=2000 {
        attack::run(&random(1024, seed * 0x9e37_79b9));
    }
}
