//! A filesystem of 16 TiB, which must open at once and read descriptors only when they are needed.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use nvio_ext4::{BlockSource, Filesystem, Options, ReadRange, SourceError};
use nvio_testkit::image::mkfs;

use crate::Result;
use crate::command::{Served, timed};
use crate::goal::{Goal, median};

/// The maximum size of a file on ext4, less one group.
const SIZE: u64 = (1 << 44) - (128 << 20);
const ROUNDS: usize = 5;

pub(crate) fn measure(folder: &Path) -> Result<Vec<Goal>> {
    let image = folder.join("huge.img");
    let options = ["-b", "4096", "-O", "64bit,flex_bg,^resize_inode", "-i", "16777216"];
    let lazily = ["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"];
    mkfs(&image, SIZE, &[&options[..], &lazily].concat());
    let goals = goals(&image);
    fs::remove_file(&image)?;
    goals
}

fn goals(image: &Path) -> Result<Vec<Goal>> {
    let served = Served::new(image, &["--latency", "80us"])?;
    let times: Result<Vec<f64>> = (0..ROUNDS)
        .map(|_| {
            let command = served.command("stat", &["/lost+found"]);
            Ok(timed(command, &image.with_extension("stat"))?.as_secs_f64())
        })
        .collect();
    let (opened, found) = reads(image)?;
    println!("16 TiB: {opened} reads to open it, {found} more for a file of the root");
    Ok(vec![
        Goal::most(
            "s from the start of the command to a file's inode in 16 TiB",
            median(times?),
            0.5,
        ),
        Goal::most("blocks that are read for that", (opened + found) as f64, 16.0),
    ])
}

/// Returns the number of reads until the filesystem is open, and until a file's inode is known.
/// Each read is one block or less.
fn reads(image: &Path) -> Result<(u64, u64)> {
    let reads = Arc::new(AtomicU64::new(0));
    let source = Counted { image: File::open(image)?, reads: Arc::clone(&reads) };
    let start = Instant::now();
    let fs = Filesystem::open_with(source, Options::default().read_ahead(0))?;
    println!("16 TiB: open in {:?}", start.elapsed());
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
