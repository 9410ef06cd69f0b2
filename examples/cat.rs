//! Writes a file of a filesystem to standard output.
//!
//!     cargo run --release -p nvio --example cat -- DEVICE PATH

use std::error::Error;
use std::io;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, path] = &arguments[..] else { return Err("usage: cat DEVICE PATH".into()) };
    let volume = nvio::Volume::open(device)?;
    io::copy(&mut volume.open_file(path)?, &mut io::stdout())?;
    Ok(())
}
