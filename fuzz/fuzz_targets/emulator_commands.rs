//! Hostile hosts against the embedded controller's decoding of commands.
#![no_main]

#[path = "../../driver/emulator/tests/attack/mod.rs"]
mod attack;

libfuzzer_sys::fuzz_target!(|program: &[u8]| attack::run(program));
