//! Syncs of several threads that share commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use nvio_ext4::{
    BlockDevice, BlockSource, Filesystem, JournaledFilesystem, Options, SourceError, WriteRange,
};

use super::recorder::Recorder;
use super::{file, image};

/// The begin of a commit block: magic number and type.
const COMMIT: [u8; 8] = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 2];

/// The begins of fast commits: a head, or a range of blocks, with their lengths.
const FAST_COMMITS: [[u8; 4]; 2] = [[9, 0, 8, 0], [1, 0, 16, 0]];

fn is_commit(bytes: &[u8]) -> bool {
    bytes.starts_with(&COMMIT) || FAST_COMMITS.iter().any(|begin| bytes.starts_with(begin))
}

/// Bytes of an append.
const PIECE: u64 = 4096;

/// A device whose commit blocks take so long that every other writer syncs meanwhile.
#[derive(Clone)]
struct SlowCommits {
    device: Recorder,
    /// The size of each file that a sync is under way for, `u64::MAX` after the last one, or 0.
    syncs: Arc<[AtomicU64]>,
    commits: Arc<AtomicUsize>,
}

impl SlowCommits {
    /// Waits until all writers sync appends that are not durable yet. Writers whose appends are durable
    /// must return from their syncs for that.
    fn wait_for_writers(&self) {
        let fs = Filesystem::open(self.device.disk()).unwrap();
        let size = |at| fs.lookup(format!("/file-{at}")).unwrap().size();
        let durable: Vec<u64> = (0..self.syncs.len()).map(size).collect();
        let is_waiting = |at: usize| self.syncs[at].load(Ordering::Acquire) > durable[at];
        for _ in 0..10_000_000 {
            if (0..durable.len()).all(is_waiting) {
                return;
            }
            std::thread::yield_now();
        }
        panic!("a writer whose append is durable does not return");
    }
}

impl BlockSource for SlowCommits {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.device.read(offset, buf)
    }
}

impl BlockDevice for SlowCommits {
    fn write_many(&self, ranges: &[WriteRange<'_>], durable: bool) -> Result<(), SourceError> {
        if ranges.iter().any(|range| is_commit(range.bytes)) {
            self.commits.fetch_add(1, Ordering::Relaxed);
            self.wait_for_writers();
        }
        self.device.write_many(ranges, durable)
    }

    fn flush(&self) -> Result<(), SourceError> {
        self.device.flush()
    }
}

/// Appends to files of their own, and syncs each append. Returns the commits of all writers.
fn commits(base: &[u8], writers: usize, rounds: u64) -> usize {
    let device = SlowCommits {
        device: Recorder::new(base.to_vec()),
        syncs: (0..writers).map(|_| AtomicU64::new(0)).collect(),
        commits: Arc::default(),
    };
    let fs = JournaledFilesystem::open(device.clone(), Options::default()).unwrap();
    std::thread::scope(|scope| {
        for (at, sync) in device.syncs.iter().enumerate() {
            let fs = &fs;
            scope.spawn(move || {
                let number = file(fs, at).number();
                for pos in (0..rounds).map(|round| round * PIECE) {
                    fs.write_at(number, pos, &[at as u8; PIECE as usize]).unwrap();
                    sync.store(pos + PIECE, Ordering::Release);
                    fs.sync_inode(number).unwrap();
                    sync.store(0, Ordering::Release);
                }
                sync.store(u64::MAX, Ordering::Release);
            });
        }
    });
    device.commits.load(Ordering::Relaxed)
}

/// A writer that is released by a commit comes back after the next one has begun: half of them share
/// a commit. The kernel has 1.0 syncs a commit with 4 writers, 3.7 with 8, and 7.6 with 16.
#[test]
fn writers_share_commits() {
    const ROUNDS: u64 = 30;
    let dir = tempfile::tempdir().unwrap();
    let fast = "-t ext4 -b 4096 -J size=5,fast_commit_size=256 -O fast_commit";
    let bases = ["-t ext4 -b 4096 -J size=4", fast].map(|options| image(dir.path(), options));
    for (base, writers) in bases.iter().flat_map(|base| [4, 8, 16].map(|writers| (base, writers))) {
        let commits = commits(base, writers, ROUNDS);
        let syncs = writers * ROUNDS as usize;
        println!("{writers} writers: {commits} commits for {syncs} syncs");
        assert!(syncs * 20 >= commits * writers * 9, "{writers} writers: {commits} commits");
    }
}
