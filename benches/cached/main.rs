//! Threads that read one file of the page cache at random: the ratio of their rate to that of one thread.

#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::expect_used)]
#![allow(missing_docs)]

use std::fs::File;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nvio_ext4::{Filesystem, WritableFile};
use nvio_iomap::{CachedFile, ImageQueue, PageCache};
use nvio_testkit::image;
use nvio_testkit::random::Rng;

const BYTES: u64 = 16 << 20;
const PAGE: usize = 4096;
const TIME: Duration = Duration::from_millis(400);
const RUNS: usize = 9;

/// Returns the reads per second of `threads` threads.
fn rate(file: &CachedFile<WritableFile>, threads: u64) -> f64 {
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let begin = Instant::now();
    thread::scope(|scope| {
        for seed in 0..threads {
            let (mut file, stop, reads) = (file.clone(), &stop, &reads);
            scope.spawn(move || {
                let (mut rng, mut page, mut count) = (Rng::new(seed), [0; PAGE], 0);
                while !stop.load(Relaxed) {
                    for _ in 0..1000 {
                        let pos = rng.range(0, BYTES / PAGE as u64) * PAGE as u64;
                        black_box(file.read_at(pos, &mut page)).expect("a read");
                    }
                    count += 1000;
                }
                reads.fetch_add(count, Relaxed);
            });
        }
        thread::sleep(TIME);
        stop.store(true, Relaxed);
    });
    reads.into_inner() as f64 / begin.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let folder = image::work_folder("cached");
    let (content, path) = (folder.path().join("content"), folder.path().join("disk.img"));
    std::fs::create_dir(&content).expect("a folder");
    std::fs::write(content.join("file"), vec![7; BYTES as usize]).expect("a file");
    image::mkfs_of_folder(&path, 64 << 20, &content, &["-b", "4096"]);
    let device = File::options().read(true).write(true).open(&path).expect("an image");
    let queue = ImageQueue::new(device.try_clone().expect("a handle"), 32).expect("a queue");
    let cache = PageCache::new(queue, 32 << 20);
    let fs = Filesystem::open(device).expect("a filesystem");
    let inode = fs.lookup("/file").expect("a file");
    let writable = fs.writable().expect("a filesystem without users");
    let mut file = writable.cached_file(&inode, &cache).expect("a file");
    let mut piece = vec![0; 1 << 20];
    for pos in (0..BYTES).step_by(piece.len()) {
        file.read_at(pos, &mut piece).expect("a read");
    }
    for threads in [2, 4] {
        let ratios = (0..RUNS).map(|_| rate(&file, threads) / rate(&file, 1)).collect();
        println!("{threads} threads on one hot file: {:.2} of one thread", median(ratios));
    }
}
