//! Appends lines from standard input to a file, each of them durable before the next is read.
//!
//!     cargo run --release -p nvio --example append -- DEVICE PATH

use std::error::Error;
use std::io::{BufRead, stdin};

use nvio::iomap::{IoArgs, IoFlags};
use nvio::{IoMode, JournaledVolume};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, path] = &arguments[..] else {
        return Err("usage: append DEVICE PATH".into());
    };
    // A filesystem that was not unmounted is recovered first.
    let volume = JournaledVolume::open(device)?;
    let mut file = volume.open_file(path)?;
    for line in stdin().lock().lines() {
        let (end, line) = (file.size(), line? + "\n");
        // The block of the line, its place in the file, and the size.
        let durably = IoArgs::at(end).flags(IoFlags::DSYNC);
        file.write_at_with(IoMode::Writethrough, durably, line.as_bytes())?;
        println!("{} bytes at {end} are durable", line.len());
    }
    drop(file);
    // Marks the filesystem as clean. Without it, the next open replays the journal.
    volume.close()?;
    Ok(())
}
