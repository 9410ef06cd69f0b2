//! Loads records of many files with four threads, a queue each, and compares checksums.
//!
//!     cargo run --release -p nvio --example loader -- DEVICE
//!
//! A line of the file `/records` is a record: path, position, length, and checksum (FNV-1a).
use std::collections::HashMap;
use std::error::Error;

use nvio::{File, Volume, iomap::IoArgs};

type Failure = Box<dyn Error + Send + Sync>;
const THREADS: usize = 4;
const IN_FLIGHT: usize = 32;

fn main() -> Result<(), Failure> {
    let device = std::env::args().nth(1).ok_or("usage: loader DEVICE")?;
    let volume = Volume::open(&device)?;
    let table = volume.read_to_string("/records")?;
    let lines: Vec<&str> = table.lines().collect();
    let bytes = std::thread::scope(|scope| {
        let parts = lines.chunks(lines.len().div_ceil(THREADS).max(1));
        let threads: Vec<_> = parts.map(|part| scope.spawn(|| load(&volume, part))).collect();
        let joined =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("panic".into())));
        joined.sum::<Result<u64, Failure>>()
    })?;
    println!("{} records, {bytes} bytes: all checksums match", lines.len());
    Ok(())
}

fn load(volume: &Volume, lines: &[&str]) -> Result<u64, Failure> {
    let mut queue = volume.queue()?;
    let mut files: HashMap<&str, File> = HashMap::new();
    let mut sums = HashMap::new();
    let (mut lines, mut bytes, mut wrong) = (lines.iter().zip(0u64..).peekable(), 0, None);
    while lines.peek().is_some() || !sums.is_empty() {
        while sums.len() < IN_FLIGHT
            && let Some((line, token)) = lines.next()
        {
            let [path, pos, length, sum] = line.split(' ').collect::<Vec<_>>()[..] else {
                return Err(format!("no record: {line}").into());
            };
            if !files.contains_key(path) {
                files.insert(path, volume.open_file(path)?);
            }
            let file = files.get_mut(path).ok_or("no file")?;
            let memory = vec![0; length.parse()?].into();
            queue.submit_read_with(file, IoArgs::at(pos.parse()?).token(token), memory)?;
            sums.insert(token, u64::from_str_radix(sum, 16)?);
        }
        queue.wait(|done| {
            let data = done.memory.and_then(|memory| memory.into_bytes()).unwrap_or_default();
            let sum = data.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, &byte| {
                (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
            });
            bytes += data.len() as u64;
            if done.result.is_err() || sums.remove(&done.token) != Some(sum) {
                wrong = Some(format!("record {}: {:?}", done.token, done.result));
            }
        })?;
        if let Some(wrong) = wrong {
            return Err(wrong.into());
        }
    }
    Ok(bytes)
}
