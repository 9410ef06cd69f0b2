//! Reads 4 KiB blocks at random positions of a file, 32 at a time, through a queue that is polled.
//!
//!     cargo run --release -p nvio --example random_read -- DEVICE PATH [READS]

use std::error::Error;

use nvio::Volume;
use nvio::iomap::DmaBuf;

const BLOCK: u64 = 4096;
const IN_FLIGHT: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (device, path, reads) = match &arguments[..] {
        [device, path] => (device, path, 10_000),
        [device, path, reads] => (device, path, reads.parse()?),
        _ => return Err("usage: random_read DEVICE PATH [READS]".into()),
    };
    let volume = Volume::open(device)?;
    let mut file = volume.open_file(path)?;
    let mut queue = volume.queue()?;
    let blocks = file.size() / BLOCK;
    if blocks == 0 {
        return Err("the file has less than a block".into());
    }

    let buffers: Result<Vec<DmaBuf>, _> = (0..IN_FLIGHT).map(|_| queue.alloc(4096)).collect();
    let mut free = buffers?;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut submitted, mut done, mut sum) = (0, 0, 0_u64);
    while done < reads {
        while submitted < reads {
            let Some(buf) = free.pop() else { break };
            // The token tells which block a completion belongs to.
            let block = random % blocks;
            if let Err(rejected) = queue.submit_read(&mut file, block * BLOCK, buf, block) {
                // A full queue returns the buffer: poll, and submit again.
                free.extend(rejected.payload.into_dma());
                break;
            }
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            submitted += 1;
        }
        // One doorbell for the batch; `wait` returns after at least one completion.
        let mut failed = None;
        done += queue.wait(|read| match (read.result, read.memory.and_then(|m| m.into_dma())) {
            (Ok(_), Some(buf)) => {
                let bytes: u64 = buf.iter().map(|&byte| u64::from(byte)).sum();
                sum = sum.wrapping_add(bytes.wrapping_mul(read.token + 1));
                free.push(buf);
            }
            (Err(error), _) => failed = Some(error),
            (Ok(_), None) => {}
        })? as u64;
        if let Some(error) = failed {
            return Err(error.into());
        }
    }
    println!("{done} reads of {BLOCK} bytes, sum {sum:#018x}");
    Ok(())
}
