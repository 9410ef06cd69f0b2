//! Hostile devices against the driver: what they say of themselves.
#![no_main]

#[allow(dead_code, reason = "other targets use the rest")]
#[path = "../../driver/tests/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::parsing::run(bytes));
