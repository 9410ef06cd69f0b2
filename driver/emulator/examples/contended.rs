//! Measures the commands a second of the emulator, quiet and with busy loops in other processes.
//!
//! ```text
//! cargo run --release -p nvio-emulator --example contended -- [BUSY_LOOPS] [SECONDS]
//! ```

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_spec::Sqe;
use nvio_testkit::host::{DATA, Host};

/// Completes reads of 4 KiB for `time` with `depth` commands in flight, and returns their rate.
fn rate(depth: u32, time: Duration) -> Result<f64, Box<dyn std::error::Error>> {
    let namespace = NamespaceConfig::new(Backing::memory(64 << 20)).block_size(4096);
    let emulator = Emulator::builder().namespace(namespace).start()?;
    let mut host = Host::connect(emulator.socket());
    let mut queue = host.create_queue(1, 256, None);
    let (mut submitted, mut completed) = (0u32, 0u32);
    let began = Instant::now();
    while began.elapsed() < time {
        while submitted - completed < depth {
            let mut sqe = Sqe::read(1, u64::from(submitted % 1024), 1);
            sqe.prp1 = DATA.into();
            host.push(&mut queue, sqe);
            submitted += 1;
        }
        host.ring(&queue);
        let before = completed;
        while let Some(cqe) = host.poll(&mut queue) {
            assert!(cqe.status().is_success());
            completed += 1;
        }
        if completed != before {
            host.release(&queue);
        }
    }
    Ok(f64::from(completed) / began.elapsed().as_secs_f64())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let first = args.next().unwrap_or_default();
    if first == "busy" {
        loop {
            std::hint::spin_loop();
        }
    }
    let count = first.parse().unwrap_or(0);
    let seconds = args.next().and_then(|text| text.parse().ok()).unwrap_or(3);
    let program = std::env::current_exe()?;
    let start = |_| Command::new(&program).arg("busy").spawn();
    let loops: std::io::Result<Vec<Child>> = (0..count).map(start).collect();
    for depth in [1, 32] {
        let rate = rate(depth, Duration::from_secs(seconds))?;
        println!("{count} busy loops, depth {depth}: {rate:.0} commands a second");
    }
    for mut child in loops? {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}
