//! Appends of pages to a file in the cache.

use std::fs::File as HostFile;
use std::hint::black_box;

use nvio_ext4::{JournaledFile, JournaledFilesystem, Options};
use nvio_iomap::{CachedFile, ImageQueue, PageCache};

use crate::allocations;
use crate::cached::{Aligned, PAGE};
use crate::file::image_of_holes;
use crate::load::{BATCH, ROUNDS};

#[inline(never)]
fn append_pages(file: &mut CachedFile<JournaledFile>, page: &[u8; PAGE]) -> usize {
    for _ in 0..BATCH {
        let end = file.size();
        black_box(file.write_at(end, &page[..]).unwrap_or(0));
    }
    BATCH
}

/// Appends pages to a file without a sync, and returns their number.
pub(crate) fn run() -> Result<usize, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let image = image_of_holes(folder.path())?;
    let device = HostFile::options().read(true).write(true).open(&image)?;
    let cache = PageCache::new(ImageQueue::new(device.try_clone()?, 32)?, 32 << 20);
    let filesystem = JournaledFilesystem::open(device, Options::default())?;
    let inode = filesystem.lookup(b"/file")?;
    let mut file = filesystem.cached_file(&inode, &cache)?;
    let page = Aligned([1; PAGE]);
    // The first append reads the map of the file, which has many extents.
    file.write_at(file.size(), &page.0[..])?;
    let (begin, mut done) = (file.size(), 0);
    for _ in 0..ROUNDS {
        done += allocations::watch(|| append_pages(&mut file, &page.0));
    }
    file.sync_all()?;
    if file.size() - begin != (done * PAGE) as u64
        || filesystem.inode(inode.number())?.size() != file.size()
    {
        return Err("the file has not grown".into());
    }
    drop(file);
    filesystem.close()?;
    Ok(done)
}
