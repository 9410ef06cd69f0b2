//! Reads and overwrites of cached data.

use std::fs::File as HostFile;
use std::hint::black_box;

use nvio_ext4::{Filesystem, WritableFile};
use nvio_iomap::{CachedFile, ImageQueue, PageCache};

use crate::allocations;
use crate::file::{BLOCK, EXTENT, EXTENTS, image_of_holes};
use crate::load::{BATCH, ROUNDS, random};

pub(crate) const PAGE: usize = 4096;

/// Memory at the begin of a page, wherever the stack is: a copy takes more instructions elsewhere.
#[repr(align(4096))]
pub(crate) struct Aligned(pub(crate) [u8; PAGE]);

type Cached = CachedFile<WritableFile>;

/// Reads a page at each position.
#[inline(never)]
fn cached_read(file: &mut Cached, places: &[u64; BATCH], page: &mut [u8; PAGE]) -> usize {
    let read = |&pos: &u64| black_box(file.read_at(pos, page)).unwrap_or(0);
    places.iter().map(read).sum()
}

/// Overwrites a page at each position.
#[inline(never)]
fn cached_write(file: &mut Cached, places: &[u64; BATCH], page: &mut [u8; PAGE]) -> usize {
    let write = |&pos: &u64| black_box(file.write_at(pos, &page[..])).unwrap_or(0);
    places.iter().map(write).sum()
}

/// Copies a page for each position, as the others do besides their own work.
#[inline(never)]
fn cached_copy(from: &[u8; PAGE], places: &[u64; BATCH], page: &mut [u8; PAGE]) -> usize {
    for _ in places {
        page.copy_from_slice(black_box(&from[..]));
        black_box(&mut *page);
    }
    places.len() * PAGE
}

/// Accesses random pages of a file that is wholly in the cache, and returns their number.
pub(crate) fn run(part: &str) -> Result<usize, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let image = image_of_holes(folder.path())?;
    let device = HostFile::options().read(true).write(true).open(&image)?;
    let cache = PageCache::new(ImageQueue::new(device.try_clone()?, 32)?, 32 << 20);
    let filesystem = Filesystem::open(device)?;
    let inode = filesystem.lookup(b"/file")?;
    let mut file = filesystem.writable()?.cached_file(&inode, &cache)?;
    let (mut page, from) = (Aligned([1; PAGE]), Aligned([7; PAGE]));
    let page = &mut page.0;
    for pos in (0..file.size()).step_by(PAGE) {
        file.read_at(pos, page)?;
    }
    let (mut seed, mut done) = (1, 0);
    for round in 0..ROUNDS {
        let places = [(); BATCH].map(|()| {
            let extent = random(&mut seed) % EXTENTS;
            (extent * (EXTENT + 1) + random(&mut seed) % EXTENT) * BLOCK
        });
        if part != "cached-read" && round == 0 {
            // The map, and blocks that were written, as later writes find them.
            for extent in 0..EXTENTS {
                for block in 0..EXTENT {
                    file.write_at((extent * (EXTENT + 1) + block) * BLOCK, &page[..])?;
                }
            }
        }
        if part == "cached-clean" {
            file.sync_data()?;
        }
        done += allocations::watch(|| match part {
            "cached-read" => cached_read(&mut file, &places, page),
            "cached-write" | "cached-clean" => cached_write(&mut file, &places, page),
            _ => cached_copy(&from.0, &places, page),
        });
    }
    Ok(done / PAGE)
}
