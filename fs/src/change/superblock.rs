//! The superblock of a filesystem that is opened for changes, and closed.

use std::sync::Arc;

use zerocopy::{FromBytes, IntoBytes};

use crate::blocks::block_cache::Block;
use crate::change::time::now;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::features::{IncompatFeatures, RoCompatFeatures};
use crate::format::raw_superblock::{RawSuperblock, SUPERBLOCK_OFFSET};
use crate::format::superblock;
use crate::format::superblock::Superblock;
use crate::format::superblock_seal::seal;
use crate::journal::Journal;
use crate::number::as_usize;

/// Marks the filesystem as in need of recovery, and counts the mount. Nothing else may be written
/// before.
pub(crate) fn mark_open(fs: &Filesystem, journal: &Journal) -> Result<(), Error> {
    edit(fs, journal, |raw| {
        let now = Stored::now();
        raw.incompat = (raw.incompat.get() | IncompatFeatures::RECOVER.bits()).into();
        raw.mount_count = raw.mount_count.get().saturating_add(1).into();
        (raw.mount_time, raw.mount_time_hi) = (now.low.into(), now.high);
        (raw.write_time, raw.write_time_hi) = (now.low.into(), now.high);
    })
}

/// Marks the filesystem as cleanly unmounted, with the counts of what is free. The log is empty, and
/// all blocks are in their places.
pub(crate) fn mark_clean(fs: &Filesystem, journal: &Journal) -> Result<(), Error> {
    let (blocks, inodes) = count_free(fs)?;
    edit(fs, journal, |raw| {
        let now = Stored::now();
        raw.incompat = (raw.incompat.get() & !IncompatFeatures::RECOVER.bits()).into();
        (raw.write_time, raw.write_time_hi) = (now.low.into(), now.high);
        // The entries of the orphan file were processed, and none is added here.
        raw.ro_compat = (raw.ro_compat.get() & !RoCompatFeatures::ORPHAN_PRESENT.bits()).into();
        let written = journal.written().wrapping_shr(10);
        raw.kbytes_written = raw.kbytes_written.get().saturating_add(written).into();
        superblock::set_free(raw, blocks, inodes);
    })
}

/// A time as the superblock stores it: seconds since 1970, in 40 bits.
struct Stored {
    low: u32,
    high: u8,
}

impl Stored {
    fn now() -> Self {
        let [a, b, c, d, high, ..] = now().seconds.to_le_bytes();
        Self { low: u32::from_le_bytes([a, b, c, d]), high }
    }
}

/// Returns the counts of free blocks and free inodes, from the group descriptors.
fn count_free(fs: &Filesystem) -> Result<(u64, u32), Error> {
    let superblock = fs.superblock();
    let (mut blocks, mut inodes) = (0u64, 0u32);
    for group in 0..superblock.groups_count() {
        let descriptor = fs.metadata().group(group)?;
        blocks = blocks.saturating_add(descriptor.free_clusters.into());
        inodes = inodes.saturating_add(descriptor.free_inodes);
    }
    Ok((blocks, inodes))
}

/// Changes the primary superblock on the device, and makes that durable.
fn edit(
    fs: &Filesystem,
    journal: &Journal,
    change: impl FnOnce(&mut RawSuperblock),
) -> Result<(), Error> {
    let number = fs.superblock().superblock_block();
    let mut block: Block = fs.block(number)?;
    let offset = as_usize(SUPERBLOCK_OFFSET.saturating_sub(fs.superblock().address(number)));
    let place = Arc::make_mut(&mut block).get_mut(offset..).unwrap_or_default();
    let missing = |_| Structure::Superblock.corrupt(Problem::Missing { logical: number.into() });
    let (stored, _) = RawSuperblock::mut_from_prefix(place).map_err(missing)?;
    let mut raw = stored.clone();
    Superblock::parse(&raw)?;
    change(&mut raw);
    seal(stored, &mut raw);
    stored.as_mut_bytes().copy_from_slice(raw.as_bytes());
    journal.write_in_place(fs, number, block)
}
