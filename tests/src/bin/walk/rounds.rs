//! Device rounds of a walk, with read-ahead and without: the time that a walk waits for the device,
//! counted in rounds instead of seconds.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nvio_ext4::{BlockSource, Filesystem, Options, ReadRange, SourceError, WalkOrder};
use nvio_tests::walk::Result;
use nvio_tests::walk::goal::Goal;
use nvio_tests::walk::image::{DIRECTORIES, FILES_EACH, Many};
use sha2::{Digest, Sha256};

/// Commands that the device executes at once, which is the depth of the queue for metadata.
const DEPTH: usize = 32;
/// Rounds without read-ahead to rounds with it, at least.
const FEWER: f64 = 8.0;
/// Commands with read-ahead to commands without it, at most.
const MORE: f64 = 1.05;

/// Walks the tree as `ls -R` does, with read-ahead and without.
pub(crate) fn measure(many: &Many) -> Result<Vec<Goal>> {
    let ahead = walk(&many.image, Options::default())?;
    let alone = walk(&many.image, Options::default().read_ahead(0))?;
    if (ahead.entries, ahead.hash) != (alone.entries, alone.hash) {
        return Err("read-ahead changes the entries of a walk".into());
    }
    println!("{} files in {DIRECTORIES} directories:", DIRECTORIES * FILES_EACH);
    for (name, walked) in [("with read-ahead", &ahead), ("without", &alone)] {
        println!("  {name}: {} commands in {} device rounds", walked.commands, walked.rounds);
    }
    let fewer = alone.rounds as f64 / ahead.rounds as f64;
    let more = ahead.commands as f64 / alone.commands as f64;
    Ok(vec![
        Goal::least("walk: device rounds without read-ahead, to those with it", fewer, FEWER),
        Goal::most("walk: commands with read-ahead, to those without it", more, MORE),
    ])
}

/// The entries of a walk and its device accesses.
struct Walked {
    entries: u64,
    hash: [u8; 32],
    rounds: u64,
    commands: u64,
}

fn walk(image: &Path, options: Options) -> Result<Walked> {
    let device = Device { image: File::open(image)?, accesses: Arc::default() };
    let accesses = Arc::clone(&device.accesses);
    let fs = Filesystem::open_with(device, options)?;
    let mut walk = fs.walk(b"/spread", &fs.lookup(b"/spread")?).order(WalkOrder::ByDirectory);
    let (mut entries, mut hash) = (0, Sha256::new());
    while let Some(visit) = walk.step() {
        let visit = visit?;
        entries += 1;
        hash.update(visit.path);
        hash.update(visit.inode.number().get().to_le_bytes());
        hash.update(visit.inode.size().to_le_bytes());
    }
    Ok(Walked {
        entries,
        hash: hash.finalize().into(),
        rounds: accesses.rounds.load(Ordering::Relaxed),
        commands: accesses.commands.load(Ordering::Relaxed),
    })
}

/// A device that executes up to [`DEPTH`] commands in a round, and whose caller waits for the
/// round to end.
struct Device {
    image: File,
    accesses: Arc<Accesses>,
}

#[derive(Default)]
struct Accesses {
    rounds: AtomicU64,
    commands: AtomicU64,
}

impl BlockSource for Device {
    fn size(&self) -> u64 {
        BlockSource::size(&self.image)
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> std::result::Result<(), SourceError> {
        self.accesses.rounds.fetch_add(1, Ordering::Relaxed);
        self.accesses.commands.fetch_add(1, Ordering::Relaxed);
        BlockSource::read(&self.image, offset, buf)
    }

    fn read_many(&self, ranges: &mut [ReadRange<'_>]) {
        let rounds = ranges.len().div_ceil(DEPTH) as u64;
        self.accesses.rounds.fetch_add(rounds, Ordering::Relaxed);
        self.accesses.commands.fetch_add(ranges.len() as u64, Ordering::Relaxed);
        for range in ranges {
            range.result = BlockSource::read(&self.image, range.offset, range.buf);
        }
    }
}
