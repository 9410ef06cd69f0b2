//! The loads that are measured on a mounted directory.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nvio_testkit::random::Rng;
use nvio_tests::walk::Result;

use crate::{FILE_BYTES, FILES};

/// Bytes of a direct read.
pub(crate) const BLOCK: u64 = 4096;
/// Bytes of a read of a stream.
const STREAM: usize = 128 << 10;
/// Time of random reads that are measured, and of those before.
const TIME: Duration = Duration::from_millis(500);
const WARM_UP: Duration = Duration::from_millis(100);

/// Random reads a second by 1 and by 8 threads, and MiB a second of a stream.
pub(crate) type Rates = [f64; 3];

/// Measures the files in `directory`. With `check`, the blocks must have the contents of [`block`].
pub(crate) fn measure(directory: &Path, check: bool) -> Result<Rates> {
    let one = random(&directory.join("0"), 1, check)?;
    let eight = random(&directory.join("0"), 8, check)?;
    let mut streams = Vec::new();
    for file in 1..FILES {
        streams.push(stream(&directory.join(file.to_string()), check)?);
    }
    streams.sort_by(f64::total_cmp);
    Ok([one, eight, streams[streams.len() / 2]])
}

/// Returns the contents of a block.
pub(crate) fn block(number: u64) -> [u8; BLOCK as usize] {
    let mut block = [number as u8; BLOCK as usize];
    block[..8].copy_from_slice(&number.to_le_bytes());
    block
}

/// Returns the reads a second of random blocks by some threads.
fn random(path: &Path, threads: u64, check: bool) -> Result<f64> {
    let (counts, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let reader = |seed| {
            let (counts, stop) = (&counts, &stop);
            scope.spawn(move || reads(path, seed, check, counts, stop))
        };
        let readers: Vec<_> = (0..threads).map(reader).collect();
        thread::sleep(WARM_UP);
        let start = Instant::now();
        counts.store(true, Ordering::Relaxed);
        thread::sleep(TIME);
        stop.store(true, Ordering::Relaxed);
        let time = start.elapsed().as_secs_f64();
        let mut reads = 0;
        for reader in readers {
            reads += reader.join().map_err(|_| "a reader has panicked")??;
        }
        Ok(reads as f64 / time)
    })
}

/// Reads random blocks until `stop`, and returns the number of those since `counts`.
fn reads(
    path: &Path,
    seed: u64,
    check: bool,
    counts: &AtomicBool,
    stop: &AtomicBool,
) -> io::Result<u64> {
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let mut rng = Rng::new(seed);
    let mut memory = vec![0; 2 * BLOCK as usize];
    let unaligned = memory.as_ptr().align_offset(BLOCK as usize);
    let buf = &mut memory[unaligned..][..BLOCK as usize];
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        let number = rng.next_u64() % (FILE_BYTES / BLOCK);
        file.read_exact_at(buf, number * BLOCK)?;
        if check && buf[..8] != number.to_le_bytes() {
            let other = format!("block {number} of {} is another", path.display());
            return Err(io::Error::other(other));
        }
        reads += u64::from(counts.load(Ordering::Relaxed));
    }
    Ok(reads)
}

/// Returns the MiB a second of a file from its start to its end.
fn stream(path: &Path, check: bool) -> Result<f64> {
    let file = File::open(path)?;
    let mut buf = vec![0; STREAM];
    let start = Instant::now();
    for pos in (0..FILE_BYTES).step_by(STREAM) {
        file.read_exact_at(&mut buf, pos)?;
        if check && buf[..8] != (pos / BLOCK).to_le_bytes() {
            return Err(format!("byte {pos} of {} is another", path.display()).into());
        }
    }
    Ok((FILE_BYTES >> 20) as f64 / start.elapsed().as_secs_f64())
}
