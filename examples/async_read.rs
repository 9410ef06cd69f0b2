//! Reads 256 blocks of a file at once as futures, on a tokio runtime of one thread.
//!
//!     cargo run --release -p nvio --example async_read -- DEVICE PATH

use std::error::Error;

use futures_util::future::try_join_all;
use nvio::Volume;
use nvio::iomap::IoArgs;

const BLOCK: u64 = 4096;
const READS: u64 = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, path] = &arguments[..] else { return Err("usage: async_read DEVICE PATH".into()) };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(read(device, path))
}

async fn read(device: &str, path: &str) -> Result<(), Box<dyn Error>> {
    let volume = Volume::open(device)?;
    let queue = volume.async_queue()?;
    let file = volume.open_file(path)?;
    let blocks = file.size().div_ceil(BLOCK).max(1);
    let file = file.into_async();
    let mut reads = Vec::new();
    for number in 0..READS {
        let args = IoArgs::at(number % blocks * BLOCK);
        // Futures beyond the depth of the queue wait for their turn.
        reads.push(file.read(&queue, args, vec![0; 4096]));
    }
    // `drive` polls the queue whenever the reads are pending.
    let read = queue.drive(try_join_all(reads)).await?;
    let bytes: usize = read.iter().map(|(_, bytes)| bytes).sum();
    let sum = read.into_iter().filter_map(|(memory, bytes)| {
        let data = memory.into_bytes()?;
        Some(data.iter().take(bytes).map(|&byte| u64::from(byte)).sum::<u64>())
    });
    println!("{READS} reads, {bytes} bytes, sum {}", sum.sum::<u64>());
    Ok(())
}
