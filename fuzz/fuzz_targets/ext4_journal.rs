//! Journals and lists of orphans that lie.
#![no_main]

#[allow(dead_code, reason = "other targets use the rest")]
#[path = "../../fs/tests/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::fuzz::JOURNAL.run(bytes));
