//! Serves an image as an NVMe controller with the speed of a drive, and reads its root directory
//! through it.
//!
//!     cargo run --release -p nvio --example emulate -- IMAGE

use std::error::Error;
use std::time::{Duration, Instant};

use nvio::emulator::{Backing, Emulator, NamespaceConfig, Service};
use nvio::{Location, Volume};

fn main() -> Result<(), Box<dyn Error>> {
    let image = std::env::args_os().nth(1).ok_or("usage: emulate IMAGE")?;
    // Each command takes 80 microseconds, as on a flash drive.
    let emulator = Emulator::builder()
        .namespace(NamespaceConfig::new(Backing::image(image, true)))
        .service(Service::new().latency(Duration::from_micros(80)))
        .start()?;
    // Any vfio-user client can connect to the socket, one at a time.
    let device = format!("vfio-user:{}", emulator.socket().display());
    let volume = Volume::open(Location::new(device).namespace(1))?;
    let model = volume.device().map(|device| device.controller().identify().model());
    for entry in volume.read_dir("/")? {
        println!("{}", entry?.name.escape_ascii());
    }
    let begin = Instant::now();
    volume.metadata("/")?;
    eprintln!(
        "{}: the root directory was in memory ({:?})",
        model.unwrap_or_default(),
        begin.elapsed()
    );
    Ok(())
}
