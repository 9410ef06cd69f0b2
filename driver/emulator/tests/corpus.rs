//! Replays the corpus of the fuzz target `emulator_commands` (see `fuzz/README.md`).

use nvio_testkit::random::pattern;

use crate::attack;

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

#[test]
fn random_programs_do_not_break_it_either() {
    attack::run(&[]);
    for seed in 1..=2000 {
        attack::run(&pattern(seed, 1024));
    }
}
