//! External journals, on devices of their own.

use std::sync::Arc;

use crate::blocks::metadata;
use crate::blocks::source::BlockSource;
use crate::error::Error;
use crate::error::reasons::WrongJournal;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::features::{IncompatFeatures, RoCompatFeatures};
use crate::format::halves::join_64;
use crate::format::superblock::{MAGIC, checksum_of};
use crate::recovery::journal::log::{Journal, Log};
use crate::recovery::journal::superblock::JournalSuperblock;

fn wrong(why: WrongJournal) -> Error {
    Error::WrongJournal(Box::new(why))
}

/// Checks that the device `source` holds the journal of `fs`, and returns its number of blocks.
pub(crate) fn identify(fs: &Filesystem, source: &dyn BlockSource) -> Result<u32, Error> {
    let superblock = fs.superblock();
    if !superblock.has_external_journal() {
        return Err(wrong(WrongJournal::NotExternal));
    }
    let device = source.size();
    let raw = metadata::read_raw_superblock(source)?;
    let incompat = IncompatFeatures::from_bits_retain(raw.incompat.get());
    if raw.magic != MAGIC || !incompat.contains(IncompatFeatures::JOURNAL_DEV) {
        return Err(wrong(WrongJournal::NotAJournal));
    }
    let ro_compat = RoCompatFeatures::from_bits_retain(raw.ro_compat.get());
    if ro_compat.contains(RoCompatFeatures::METADATA_CSUM) {
        Problem::verify_checksum(raw.checksum.get(), checksum_of(&raw))
            .map_err(|problem| Structure::JournalDevice.corrupt(problem))?;
    }
    if raw.uuid != superblock.journal_uuid {
        return Err(wrong(WrongJournal::Uuid { found: raw.uuid }));
    }
    let blocks = join_64(raw.blocks_count_lo, raw.blocks_count_hi);
    let needed = blocks.saturating_mul(u64::from(superblock.block_size()));
    if needed > device {
        return Err(Error::Truncated { needed, device });
    }
    Ok(u32::try_from(blocks).unwrap_or(u32::MAX))
}

/// Opens the journal of `fs` on the device `source`.
pub(crate) fn find(fs: &Filesystem, source: Arc<dyn BlockSource>) -> Result<Journal, Error> {
    let blocks = identify(fs, &*source)?;
    let block_size = fs.superblock().block_size();
    let mut log = Log::on_device(source, block_size, blocks);
    // The journal's superblock is in the block after the filesystem superblock.
    let number = if block_size == 1024 { 2 } else { 1 };
    let superblock = JournalSuperblock::parse(log.block(number)?, block_size, blocks)?;
    if superblock.users != 1 {
        return Err(wrong(WrongJournal::Users(superblock.users)));
    }
    if superblock.user != fs.superblock().uuid {
        return Err(wrong(WrongJournal::User { user: superblock.user }));
    }
    Ok(Journal { log, superblock })
}
