//! Hostile hosts against the embedded controller's decoding of commands.
#![no_main]

#[path = "../../driver/emulator/tests/hostile/program.rs"]
mod program;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    program::run(bytes);
});
