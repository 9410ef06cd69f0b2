//! Reads from the source: their number, their lengths, and the reads that are made in parallel.

use crate::common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::mke2fs;
use nvio_ext4::{
    BlockSource, Error, FileType, Filesystem, InodeNumber, Options, ReadRange, SourceError,
};
use nvio_iomap::{Mapper, Op};
use tempfile::TempDir;

const BLOCK: u64 = 4096;

/// A source that records reads, and fails some of them on request.
#[derive(Clone)]
struct Recorder {
    image: Arc<File>,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    /// Lengths of single reads.
    alone: Vec<usize>,
    /// Lengths of the reads in each call of `read_many`.
    together: Vec<Vec<usize>>,
    /// Makes `read_many` fail.
    fails: bool,
}

impl BlockSource for Recorder {
    fn size(&self) -> u64 {
        BlockSource::size(&*self.image)
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.log.lock().unwrap().alone.push(buf.len());
        BlockSource::read(&*self.image, offset, buf)
    }

    fn read_many(&self, ranges: &mut [ReadRange<'_>]) {
        let mut log = self.log.lock().unwrap();
        log.together.push(ranges.iter().map(|range| range.buf.len()).collect());
        for range in ranges.iter_mut().filter(|_| !log.fails) {
            range.result = BlockSource::read(&*self.image, range.offset, range.buf);
        }
    }
}

impl Recorder {
    fn new(image: &Path) -> Self {
        Self { image: Arc::new(File::open(image).unwrap()), log: Arc::default() }
    }

    /// Returns and clears the recorded reads.
    fn take(&self) -> Log {
        let mut log = self.log.lock().unwrap();
        let fails = log.fails;
        std::mem::replace(&mut log, Log { fails, ..Log::default() })
    }
}

impl Log {
    fn reads(&self) -> usize {
        self.alone.len() + self.together.iter().map(Vec::len).sum::<usize>()
    }
}

/// Images with a directory of 800 files, with large inodes, and with a file in which every second
/// block is a hole.
struct Images {
    dir: TempDir,
}

impl Images {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fs::create_dir_all(source.join("many")).unwrap();
        for index in 0..800 {
            fs::write(source.join(format!("many/file-{index:04}")), b"").unwrap();
        }
        let holes = File::create(source.join("holes")).unwrap();
        for index in 0..4000 {
            holes.write_all_at(&[index as u8; 4096], index * 2 * BLOCK).unwrap();
        }
        Self { dir }
    }

    fn make(&self, options: &[&str]) -> PathBuf {
        let image = self.dir.path().join("image");
        let options = [options, &["-I", "1024"]].concat();
        mke2fs(&image, "64M", &options, Some(&self.dir.path().join("source")));
        image
    }
}

fn inodes(fs: &Filesystem) -> Vec<u32> {
    let many = fs.lookup(b"/many").unwrap();
    let entries = fs.read_dir(&many).unwrap().map(Result::unwrap);
    let numbers: Vec<InodeNumber> = entries.map(|entry| entry.inode).collect();
    numbers.iter().map(|&number| fs.inode(number).unwrap().number().get()).collect()
}

#[test]
fn without_read_ahead_each_block_is_read_alone_when_it_is_needed() {
    let images = Images::new();
    let recorder = Recorder::new(&images.make(&["-t", "ext4", "-b", "4096"]));
    let fs = Filesystem::open_with(recorder.clone(), Options::default().read_ahead(0)).unwrap();
    recorder.take();
    assert_eq!(inodes(&fs).len(), 800);
    let mut file = fs.file(&fs.lookup(b"/holes").unwrap()).unwrap();
    for block in 0..8000 {
        file.begin(block * BLOCK, BLOCK, Op::empty()).unwrap();
    }
    let log = recorder.take();
    assert!(log.together.is_empty() && log.alone.iter().all(|&length| length == 4096));
    // 800 inodes fill 200 blocks; 4,000 extents fill 12 leaves.
    assert!((200..300).contains(&log.alone.len()), "{}", log.alone.len());
}

#[test]
fn with_it_far_fewer_times_and_never_the_same_twice() {
    let images = Images::new();
    let image = images.make(&["-t", "ext4", "-b", "4096"]);
    let recorder = Recorder::new(&image);
    let fs = Filesystem::open(recorder.clone()).unwrap();
    recorder.take();
    inodes(&fs);
    let log = recorder.take();
    assert!(log.alone.len() + log.together.len() < 40, "{:?}, {:?}", log.alone, log.together);
    inodes(&fs);
    assert_eq!(recorder.take().reads(), 0, "all is in memory");

    // All leaves of the map are read in one call, and then no more.
    let mut file = fs.file(&fs.lookup(b"/holes").unwrap()).unwrap();
    for block in 0..8000 {
        file.begin(block * BLOCK, BLOCK, Op::empty()).unwrap();
    }
    let log = recorder.take();
    let bytes: usize = log.together.iter().flatten().sum();
    assert_eq!((log.together.len(), bytes), (1, 12 * 4096), "{:?}", log.together);
    // The root is in the inode, and the index node is read first.
    assert!(log.alone.len() <= 1, "{:?}", log.alone);
}

#[test]
fn random_reads_of_a_file_read_single_leaves() {
    let images = Images::new();
    let image = images.make(&["-t", "ext4", "-b", "4096"]);
    let recorder = Recorder::new(&image);
    let fs = Filesystem::open(recorder.clone()).unwrap();
    let mut file = fs.file(&fs.lookup(b"/holes").unwrap()).unwrap();
    recorder.take();
    for block in [7000, 1000, 5000, 800] {
        file.begin(block * BLOCK, BLOCK, Op::empty()).unwrap();
    }
    let log = recorder.take();
    assert!(log.together.is_empty() && log.reads() <= 5, "{:?}", log.alone);
}

#[test]
fn blocks_of_pointers_are_read_ahead_too() {
    let images = Images::new();
    let image = images.make(&["-t", "ext2", "-b", "1024"]);
    let recorder = Recorder::new(&image);
    let fs = Filesystem::open(recorder.clone()).unwrap();
    let mut file = fs.file(&fs.lookup(b"/holes").unwrap()).unwrap();
    recorder.take();
    let mut pos = 0;
    while pos < file.size() {
        pos = file.begin(pos, 1, Op::empty()).unwrap().end();
    }
    let log = recorder.take();
    // 32,000 blocks of 1 KiB need 125 blocks of pointers.
    assert!(log.alone.len() + log.together.len() < 12, "{:?} {:?}", log.alone, log.together);
    assert!(log.together.iter().flatten().sum::<usize>() >= 120 * 1024);
}

#[test]
fn block_whose_read_ahead_failed_is_read_when_needed() {
    let images = Images::new();
    let image = images.make(&["-t", "ext4", "-b", "1024"]);
    let recorder = Recorder::new(&image);
    recorder.log.lock().unwrap().fails = true;
    let fs = Filesystem::open(recorder.clone()).unwrap();
    assert_eq!(inodes(&fs).len(), 800);
    let log = recorder.take();
    assert!(!log.together.is_empty() && log.alone.len() > 700);
    // A device that is too small is an error.
    fs::OpenOptions::new().write(true).open(&image).unwrap().set_len(1 << 20).unwrap();
    let recorder = Recorder::new(&image);
    let opened = Filesystem::open(recorder);
    assert!(matches!(opened, Err(Error::Truncated { .. })));
}

#[test]
fn caches_of_any_size() {
    let images = Images::new();
    let image = images.make(&["-t", "ext4", "-b", "4096"]);
    for cache_bytes in [0, 4096, 16_384, 65_536, 1 << 20] {
        for cached_inodes in [0, 1, 100] {
            let recorder = Recorder::new(&image);
            let options = Options::default().cache_bytes(cache_bytes).cached_inodes(cached_inodes);
            let fs = Filesystem::open_with(recorder.clone(), options).unwrap();
            assert_eq!(inodes(&fs).len(), 800);
            // A read-ahead is limited to a quarter of the cache.
            let log = recorder.take();
            let most = log.together.iter().map(|many| many.iter().sum::<usize>()).max();
            assert!(most.unwrap_or(0) <= cache_bytes / 4, "{most:?} of {cache_bytes}");
        }
    }
}

#[test]
fn a_lookup_that_is_warm_reads_nothing() {
    let images = Images::new();
    let recorder = Recorder::new(&images.make(&["-t", "ext4", "-b", "4096"]));
    // Only inodes are cached, no blocks.
    let options = Options::default().cache_bytes(0);
    let fs = Filesystem::open_with(recorder.clone(), options).unwrap();
    let inode = fs.lookup(b"/many").unwrap();
    recorder.take();
    for _ in 0..3 {
        assert_eq!(fs.inode(inode.number()).unwrap().kind(), FileType::Directory);
    }
    assert_eq!(recorder.take().reads(), 0);
}
