//! Reads 256 blocks of a file as futures. Between completions the thread sleeps in tokio's event
//! loop until the device signals an eventfd.
//!
//!     cargo run --release -p nvio --example async_fd -- DEVICE PATH

use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::try_join_all;
use nvio::OpenOptions;
use nvio::driver::Wait;
use nvio::iomap::IoArgs;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

const BLOCK: u64 = 4096;
const READS: u64 = 256;
/// Longest sleep while reads are in flight: afterwards a poll checks the health of the controller.
const SLEEP_MAX: Duration = Duration::from_millis(100);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, path] = &arguments[..] else { return Err("usage: async_fd DEVICE PATH".into()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(read(device, path))
}

async fn read(device: &str, path: &str) -> Result<(), Box<dyn Error>> {
    // An image has interrupts only behind the embedded controller.
    let options = OpenOptions::new().emulate(true).wait(Wait::Interrupt { spin: Duration::ZERO });
    let volume = options.open(device)?;
    let queue = volume.async_queue()?;
    let eventfd = queue.event_fd().ok_or("the device has no interrupt for this queue")?;
    // SAFETY: the descriptor is owned: it stays open, and the same, until it is deregistered.
    let eventfd = unsafe { AsyncFd::register_with_interest(eventfd, Interest::READABLE) }?;
    let file = volume.open_file(path)?;
    let blocks = file.size().div_ceil(BLOCK).max(1);
    let file = file.into_async();
    let reads = (0..READS).map(|number| {
        let args = IoArgs::at(number % blocks * BLOCK);
        file.read(&queue, args, vec![0; 4096])
    });
    let mut reads = pin!(try_join_all(reads));
    let mut sleeps = 0;
    let read = loop {
        if let Poll::Ready(read) =
            poll_fn(|context| Poll::Ready(reads.as_mut().poll(context))).await
        {
            break read?;
        }
        if queue.poll() == 0 && queue.prepare_to_sleep() {
            sleeps += 1;
            if let Ok(readable) = timeout(SLEEP_MAX, eventfd.readable()).await {
                readable?.clear_ready();
            }
        }
    };
    let bytes: usize = read.iter().map(|(_, bytes)| bytes).sum();
    let sum = read.into_iter().filter_map(|(memory, bytes)| {
        let data = memory.into_bytes()?;
        Some(data.iter().take(bytes).map(|&byte| u64::from(byte)).sum::<u64>())
    });
    println!("{READS} reads, {bytes} bytes, sum {}", sum.sum::<u64>());
    eprintln!("slept {sleeps} times");
    Ok(())
}
