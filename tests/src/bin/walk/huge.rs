//! Blocks that are read to open a filesystem of 16 TiB, whose group descriptors are read on demand.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nvio_ext4::{BlockSource, Filesystem, Options, ReadRange, SourceError};
use nvio_testkit::image::mkfs;

use nvio_tests::walk::Result;
use nvio_tests::walk::goal::Goal;

/// The largest file of ext4, in bytes, without the last group.
const SIZE: u64 = (1 << 44) - (128 << 20);

pub(crate) fn measure(folder: &Path) -> Result<Goal> {
    let image = folder.join("huge.img");
    let options = ["-b", "4096", "-O", "64bit,flex_bg,^resize_inode", "-i", "16777216"];
    let lazily = ["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"];
    mkfs(&image, SIZE, &[&options[..], &lazily].concat());
    let goal = goal(&image);
    fs::remove_file(&image)?;
    goal
}

fn goal(image: &Path) -> Result<Goal> {
    let (opened, found) = reads(image)?;
    println!("16 TiB: {opened} reads to open it, {found} more for a file of the root");
    let name = "blocks read to open 16 TiB and find a file's inode";
    Ok(Goal::most(name, (opened + found) as f64, 16.0))
}

/// Returns the blocks that are read to open the filesystem, and then to find the inode of a file.
fn reads(image: &Path) -> Result<(u64, u64)> {
    let reads = Arc::new(AtomicU64::new(0));
    let source = Counted { image: File::open(image)?, reads: Arc::clone(&reads) };
    let fs = Filesystem::open_with(source, Options::default().read_ahead(0))?;
    let opened = reads.swap(0, Ordering::Relaxed);
    fs.lookup(b"/lost+found")?;
    Ok((opened, reads.load(Ordering::Relaxed)))
}

struct Counted {
    image: File,
    reads: Arc<AtomicU64>,
}

impl BlockSource for Counted {
    fn size(&self) -> u64 {
        BlockSource::size(&self.image)
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> std::result::Result<(), SourceError> {
        self.reads.fetch_add(buf.len().div_ceil(4096) as u64, Ordering::Relaxed);
        BlockSource::read(&self.image, offset, buf)
    }

    fn read_many(&self, ranges: &mut [ReadRange<'_>]) {
        for range in ranges {
            range.result = self.read(range.offset, range.buf);
        }
    }
}
