//! A sequential reader through the page cache, beside reads of the namespace.

use std::fs;
use std::path::Path;

use nvio_testkit::image::mkfs_of_folder;
use nvio_testkit::random::pattern;
use nvio_tests::walk::Result;
use nvio_tests::walk::goal::Goal;

use crate::drive::{BANDWIDTH, Drive};

/// Bytes of the file, of a read, and of the cache.
const SIZE: usize = 256 << 20;
const READ: usize = 128 << 10;
const CACHE: usize = 32 << 20;
/// Bandwidth of the reader to that of reads of the namespace, at least.
const SHARE: f64 = 0.97;

pub(crate) fn measure(folder: &Path) -> Result<Goal> {
    let (source, image) = (folder.join("source"), folder.join("buffered.img"));
    fs::create_dir(&source)?;
    let contents = pattern(7, SIZE);
    fs::write(source.join("file"), &contents)?;
    mkfs_of_folder(&image, SIZE as u64 + (64 << 20), &source, &["-b", "4096"]);
    fs::remove_dir_all(source)?;
    let drive = Drive::new(&image)?;
    let raw = drive.measure(|| drive.raw(SIZE as u64))?;
    let (fs, cache) = (drive.filesystem()?, drive.cache(CACHE)?);
    let inode = fs.lookup("/file")?;
    let mut file = fs.writable()?.cached_file(&inode, &cache)?;
    let read = drive.measure(|| {
        let mut out = vec![0; READ];
        for (index, expected) in contents.chunks(READ).enumerate() {
            let bytes = file.read_at((index * READ) as u64, &mut out)?;
            if bytes != READ || out != expected {
                return Err(format!("read {index} of the cached file is wrong").into());
            }
            if cache.usage().0 > CACHE {
                return Err("the cache is larger than its limit".into());
            }
        }
        Ok(())
    })?;
    for (name, spent) in [("raw", raw), ("buffered", read)] {
        let share = SIZE as f64 / spent.time.as_secs_f64() / BANDWIDTH as f64;
        println!("256 MiB, {name}: {} commands, {share:.3} of the bandwidth", spent.commands);
    }
    let share = raw.time.div_duration_f64(read.time);
    Ok(Goal::least("buffered: bandwidth of a reader of 128 KiB, to raw", share, SHARE))
}
