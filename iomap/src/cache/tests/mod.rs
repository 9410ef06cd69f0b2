//! The cache against models, over an image in memory that fails as the test asks.

mod calls;
mod double;
mod errors;
mod history;
mod in_flight;
mod model;
mod paths;
mod plan;
mod races;
mod random;
mod requests;
mod schedule;
mod stepped;
pub(super) mod switched;
mod threads;
mod world;

use std::io;
use std::sync::{Arc, Mutex};

use double::{BLOCK, Block, Double};
use nvio_testkit::random::Rng;

use super::*;
use crate::{Error, Image, ImageQueue, IoArgs, IoFlags, WritableImage};

/// The bytes of a device, and the commands that fail.
#[derive(Clone, Default)]
struct Device(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    bytes: Vec<u8>,
    /// Ranges of writes, in order.
    writes: Vec<(u64, usize)>,
    reads: Vec<(u64, usize)>,
    flushes: usize,
    fail_writes: bool,
    fail_reads: bool,
}

impl Device {
    fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Disk { bytes, ..Disk::default() })))
    }

    fn disk<T>(&self, with: impl FnOnce(&mut Disk) -> T) -> T {
        with(&mut self.0.lock().unwrap())
    }

    fn cache(&self, limit: usize) -> PageCache {
        PageCache::new(ImageQueue::new(self.clone(), 16).unwrap(), limit)
    }
}

impl Image for Device {
    fn size(&self) -> io::Result<u64> {
        self.disk(|disk| Ok(disk.bytes.len() as u64))
    }

    fn read_at(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk(|disk| {
            disk.reads.push((addr, buf.len()));
            if disk.fail_reads {
                return Err(io::Error::from_raw_os_error(5));
            }
            Image::read_at(&disk.bytes, addr, buf)
        })
    }

    fn write_at(&mut self, addr: u64, data: &[u8]) -> io::Result<()> {
        self.disk(|disk| {
            disk.writes.push((addr, data.len()));
            if disk.fail_writes {
                return Err(io::Error::from_raw_os_error(5));
            }
            disk.bytes.write_at(addr, data)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk(|disk| disk.flushes += 1);
        Ok(())
    }
}

impl WritableImage for Device {}

/// Writes through the cache; with `durable`, waits until the data is durable.
fn through(
    file: &mut CachedFile<Double>,
    pos: u64,
    data: &[u8],
    durable: bool,
) -> Result<usize, Error> {
    let mut flags = IoFlags::WRITETHROUGH;
    flags.set(IoFlags::DSYNC, durable);
    file.write_from(IoArgs::at(pos).flags(flags), data)
}

/// A file of `blocks` mapped blocks on a device of random bytes, in runs that are not contiguous.
fn mapped(rng: &mut Rng, blocks: u64, size: u64) -> (Device, Double) {
    // Room for the blocks that a test allocates.
    let device = Device::new(rng.bytes(16 * blocks * BLOCK));
    let place = |index: u64| {
        Block::Mapped((index % 7 * blocks / 7 + index / 7 + index) % (2 * blocks) * BLOCK)
    };
    let mut seen = std::collections::HashSet::new();
    let mut free = 2 * blocks;
    let unique = |index| {
        let block = place(index);
        if seen.insert(format!("{block:?}")) {
            return block;
        }
        free += 1;
        Block::Mapped((free - 1) * BLOCK)
    };
    let list: Vec<Block> = (0..blocks).map(unique).collect();
    (device, Double::new(list, size, free))
}
