//! Opening a filesystem for changes: recovery on the device, and the mark that it is in use.

use std::collections::HashSet;
use std::sync::Arc;

use crate::blocks::device::{BlockDevice, WriteRange};
use crate::blocks::overlay::Overlay;
use crate::blocks::source::BlockSource;
use crate::change::cleanup::Orphan;
use crate::change::delayed::Reserved;
use crate::change::{JournaledFilesystem, cleanup, replay, superblock};
use crate::error::Error;
use crate::error::reasons::NotWritable;
use crate::file::system_zone::SystemZone;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::features::{CompatFeatures, IncompatFeatures, RoCompatFeatures};
use crate::format::superblock::Superblock;
use crate::format::superblock_seal;
use crate::journal::Journal;
use crate::journal::log::Log;
use crate::journal::sink::Sink;
use crate::mount::options::Options;
use crate::mount::protection::Protection;
use crate::mount::superblock::chosen;
use crate::number::{BlockRun, PhysicalBlock, as_usize};
use crate::recovery::journal;
use crate::recovery::journal::fields::JournalFields;
use crate::recovery::journal::summary::JournalReplay;
use crate::recovery::journal::superblock::Format;

/// Maximum number of bytes that one write of a replay has.
const REPLAY_MAX: usize = 1 << 20;

impl JournaledFilesystem {
    /// Opens the filesystem on `device` for changes. A filesystem that was not unmounted is recovered
    /// first, on the device; [`Filesystem::recovered`] returns what was done.
    ///
    /// The filesystem must not be mounted anywhere, and no other program may use it meanwhile.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::NotWritable`] if the filesystem has features or a state in which changes are not
    /// supported: nothing was written. Otherwise as [`Filesystem::open`]; [`Error::Sink`].
    pub fn open(device: impl BlockDevice + 'static, options: Options) -> Result<Self, Error> {
        let device: Arc<dyn BlockDevice> = Arc::new(device);
        if options.is_rescue() {
            return Err(Error::NotWritable(NotWritable::Rescue));
        }
        let fs = open_once(&device, options)?;
        check(fs.superblock())?;
        // Before anything else is written.
        let protection = Protection::take(&device, &fs)?;
        let fs = match protection {
            // Another host may have changed it before.
            Some(_) => open_once(&device, options)?,
            None => fs,
        };
        let sink = Sink::new(Arc::clone(&device), protection.clone());
        let (log, tid, recovered) = recover(&device, &sink, &fs)?;
        // The replay may have changed any block.
        let mut fs = open_once(&device, options)?;
        check(fs.superblock())?;
        fs.set_recovered(recovered);
        let zone = SystemZone::of(&fs)?;
        let orphans = cleanup::listed(&fs)?;
        let (free, reserved) = (fs.statfs()?.free_blocks, fs.open_inodes().reserved.clone());
        let journal = Arc::new(Journal::new(sink, log, tid, free, reserved));
        superblock::mark_open(&fs, &journal)?;
        journal.start()?;
        let newer: Arc<Journal> = Arc::clone(&journal);
        fs.metadata().set_newer(newer);
        let fs = Self::new(fs, journal, zone, protection)?;
        fs.process_orphans(&orphans)?;
        Ok(fs)
    }
}

/// Returns the device as what metadata is read from.
fn source_of(device: &Arc<dyn BlockDevice>) -> Arc<dyn BlockSource> {
    Arc::<dyn BlockDevice>::clone(device)
}

/// Opens the filesystem as it is on the device.
fn open_once(device: &Arc<dyn BlockDevice>, options: Options) -> Result<Filesystem, Error> {
    let source = source_of(device);
    let superblock = chosen(&*source, &options)?;
    let fs = Filesystem::as_it_is(source, superblock, options)?;
    fs.check_size()?;
    fs.set_orphans(HashSet::new());
    Ok(fs)
}

/// Rejects filesystems whose metadata cannot be changed in full.
fn check(superblock: &Superblock) -> Result<(), Error> {
    let refuse = |why| Err(Error::NotWritable(why));
    let incompat = superblock.incompat.bits() & !SUPPORTED.bits();
    let ro_compat = superblock.ro_compat.bits() & !RO_SUPPORTED.bits();
    match () {
        () if incompat != 0 => {
            refuse(NotWritable::IncompatFeatures(IncompatFeatures::from_bits_retain(incompat)))
        }
        () if ro_compat != 0 => {
            refuse(NotWritable::Features(RoCompatFeatures::from_bits_retain(ro_compat)))
        }
        () if !superblock.compat.contains(CompatFeatures::HAS_JOURNAL) => {
            refuse(NotWritable::NoJournal)
        }
        () if superblock.has_external_journal() => refuse(NotWritable::ExternalJournal),
        () if superblock.has_errors() => refuse(NotWritable::HasErrors),
        () if !superblock.is_clean() => refuse(NotWritable::NotClean),
        () if superblock.journals_data() => refuse(NotWritable::JournalsData),
        () => Ok(()),
    }
}

/// The incompatible features of filesystems whose metadata may be changed.
const SUPPORTED: IncompatFeatures = IncompatFeatures::FILETYPE
    .union(IncompatFeatures::RECOVER)
    .union(IncompatFeatures::META_BG)
    .union(IncompatFeatures::EXTENTS)
    .union(IncompatFeatures::BITS64)
    .union(IncompatFeatures::MMP)
    .union(IncompatFeatures::FLEX_BG)
    .union(IncompatFeatures::CSUM_SEED)
    .union(IncompatFeatures::LARGEDIR);

/// The features for writers of filesystems whose metadata may be changed.
const RO_SUPPORTED: RoCompatFeatures = RoCompatFeatures::SPARSE_SUPER
    .union(RoCompatFeatures::LARGE_FILE)
    .union(RoCompatFeatures::HUGE_FILE)
    .union(RoCompatFeatures::GDT_CSUM)
    .union(RoCompatFeatures::DIR_NLINK)
    .union(RoCompatFeatures::EXTRA_ISIZE)
    .union(RoCompatFeatures::METADATA_CSUM)
    .union(RoCompatFeatures::PROJECT)
    .union(RoCompatFeatures::ORPHAN_PRESENT);

/// Replays the journal on the device, if it is not empty, and empties it. Returns the log, the number
/// of the next transaction, and what was replayed.
fn recover(
    device: &Arc<dyn BlockDevice>,
    sink: &Sink,
    fs: &Filesystem,
) -> Result<(Log, u32, Option<JournalReplay>), Error> {
    let source = source_of(device);
    let journal = journal::find_internal(fs, Arc::clone(&source))?;
    let fields = JournalFields::internal(fs)?;
    if fields.is_some_and(|fields| fields.error != 0) {
        return Err(Error::NotWritable(NotWritable::HasErrors));
    }
    let is_empty = journal.superblock.start.is_none();
    let sequence = journal.superblock.sequence;
    let mut log = open_log(fs)?;
    if is_empty {
        let recovered = fs.superblock().has(IncompatFeatures::RECOVER).then(JournalReplay::default);
        return Ok((log, sequence, recovered));
    }
    let recovered = journal::recover(fs, journal)?;
    let next = recovered.next_tid;
    let after = fs.recovered_to(source, recovered)?;
    check(after.superblock())?;
    let orphans = cleanup::listed(&after)?.iter().map(Orphan::number).collect();
    let fast = match after.fast_commits() {
        Some(commits) => {
            // The counts of free blocks are older than the fast commits.
            let (log, free) = (open_log(fs)?, u64::MAX);
            let sink = Sink::new(Arc::clone(device), None);
            let journal = Journal::new(sink, log, next, free, Reserved::default());
            replay::prepare(&after, commits, &orphans, journal)?
        }
        None => None,
    };
    if let Some(overlay) = after.metadata().overlay() {
        write_home(sink, fs, overlay)?;
    }
    // An incomplete transaction may have left blocks with the number of the next one.
    let tid = next.wrapping_add(1);
    match fast {
        Some(journal) => replay::write(&after, &journal)?,
        None => log.finish(sink, tid)?,
    }
    Ok((log, tid, after.recovered()))
}

/// Writes the newest copies in the log to their places, and makes that durable.
fn write_home(sink: &Sink, fs: &Filesystem, overlay: &Overlay) -> Result<(), Error> {
    let superblock = fs.superblock();
    let size = as_usize(superblock.block_size());
    let all = BlockRun::new(PhysicalBlock::default(), u64::MAX).unwrap_or_default();
    let numbers: Vec<PhysicalBlock> = overlay.blocks(all).collect();
    let most = REPLAY_MAX.checked_div(size).unwrap_or(1).max(1);
    let runs =
        numbers.chunk_by(|a, b| a.checked_add(1) == Some(*b)).flat_map(|run| run.chunks(most));
    let mut bytes = vec![0; most.saturating_mul(size)];
    for run in runs {
        let bytes = bytes.get_mut(..run.len().saturating_mul(size)).unwrap_or_default();
        for (&number, block) in run.iter().zip(bytes.chunks_mut(size)) {
            overlay.read(number, block)?;
            if number == superblock.superblock_block() {
                superblock_seal::keep_checksum(
                    superblock,
                    &fs.metadata().block_now(number)?,
                    block,
                );
            }
        }
        let offset = run.first().map_or(0, |&number| superblock.address(number));
        sink.write(&[WriteRange { offset, bytes }], false)?;
    }
    sink.flush()
}

/// Opens the log in the journal's file, in the format that the filesystem's features ask for.
fn open_log(fs: &Filesystem) -> Result<Log, Error> {
    let superblock = fs.superblock();
    let number = superblock.journal_inode;
    let inode = fs.named_inode(number, Structure::Superblock)?;
    let mut places = Vec::new();
    let mut next = 0u64;
    for extent in fs.extents(&inode)? {
        let extent = extent?;
        if extent.logical != next || extent.unwritten {
            let logical = superblock.whole_blocks(next);
            return Err(Structure::BlockMap { inode: number }.corrupt(Problem::Missing { logical }));
        }
        next = next.saturating_add(extent.length);
        places.push(superblock.blocks_at(extent.physical, extent.length));
    }
    let first = places.first().map(|run: &BlockRun| run.start()).unwrap_or_default();
    let head = fs.metadata().block_now(first)?;
    let format = Format {
        wide: superblock.has(IncompatFeatures::BITS64),
        checksums: superblock.has_metadata_csum(),
        fast_commits: superblock.compat.contains(CompatFeatures::FAST_COMMIT),
    };
    Log::new(places.into(), head, format)
}
