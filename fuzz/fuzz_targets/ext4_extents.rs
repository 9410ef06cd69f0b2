//! Extent trees and block pointers that lie.
#![no_main]

#[allow(dead_code, reason = "other targets use the rest")]
#[path = "../../fs/tests/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::fuzz::EXTENTS.run(bytes));
