//! The journal's superblock, in the first block of the log.

use std::mem::offset_of;
use std::ops::Range;

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::blocks::overlay::MAGIC;
use crate::error::Error;
use crate::format::checksum::crc32c;
use crate::format::corrupt::{Problem, Structure};
use crate::recovery::journal::block;
use crate::recovery::journal::block::RawHeader;

/// `s_feature_compat`: commit blocks store a CRC-32 of the transaction.
pub(super) const COMPAT_CHECKSUM: u32 = 0x1;
/// `s_feature_incompat`: the log may contain revoke blocks.
const INCOMPAT_REVOKE: u32 = 0x1;
/// Block numbers have 64 bits.
const INCOMPAT_64BIT: u32 = 0x2;
/// Commit blocks are written without waiting for the blocks before them.
const INCOMPAT_ASYNC_COMMIT: u32 = 0x4;
/// CRC-32C checksums, truncated to 16 bits in tags.
pub(super) const INCOMPAT_CSUM_V2: u32 = 0x8;
/// CRC-32C checksums of 32 bits in tags.
pub(super) const INCOMPAT_CSUM_V3: u32 = 0x10;
/// A fast-commit area follows the log.
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
const INCOMPAT_KNOWN: u32 = INCOMPAT_REVOKE
    | INCOMPAT_64BIT
    | INCOMPAT_ASYNC_COMMIT
    | INCOMPAT_CSUM_V2
    | INCOMPAT_CSUM_V3
    | INCOMPAT_FAST_COMMIT;

/// `s_checksum_type` of CRC-32C.
const CHECKSUM_CRC32C: u8 = 4;
/// Number of fast-commit blocks if `s_num_fc_blks` is 0.
pub(super) const FAST_COMMIT_BLOCKS: u32 = 256;
/// Minimum number of log blocks before a fast-commit area.
const BLOCKS_MIN: u32 = 1024;

/// `struct journal_superblock_s`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawJournalSuperblock {
    pub(super) header: RawHeader,
    pub(super) block_size: U32,
    pub(super) max_len: U32,
    pub(super) first: U32,
    pub(super) sequence: U32,
    pub(super) start: U32,
    pub(super) error: U32,
    pub(super) compat: U32,
    pub(super) incompat: U32,
    pub(super) ro_compat: U32,
    pub(super) uuid: [u8; 16],
    pub(super) users: U32,
    pub(super) dynamic_superblock: U32,
    pub(super) max_transaction: U32,
    pub(super) max_transaction_data: U32,
    pub(super) checksum_type: u8,
    pub(super) padding: [u8; 3],
    pub(super) fast_commit_blocks: U32,
    pub(super) head: U32,
    pub(super) reserved: [U32; 40],
    pub(super) checksum: U32,
    pub(super) user_list: [[u8; 16]; 48],
}

const CHECKSUM_OFFSET: usize = offset_of!(RawJournalSuperblock, checksum);
const _: () = {
    assert!(size_of::<RawJournalSuperblock>() == 1024);
    assert!(offset_of!(RawJournalSuperblock, uuid) == 0x30);
    assert!(offset_of!(RawJournalSuperblock, checksum_type) == 0x50);
    assert!(CHECKSUM_OFFSET == 0xfc);
};

/// The checksums of log blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checksums {
    /// No checksums.
    None,
    /// A CRC-32 of all descriptor and data blocks of a transaction, in its commit block.
    Commit,
    /// CRC-32C of every block; tags store the lower 16 bits.
    V2,
    /// CRC-32C of every block.
    V3,
}

/// The parsed and checked superblock of a journal.
#[derive(Clone, Debug)]
pub(crate) struct JournalSuperblock {
    /// Blocks that may contain transactions. The log wraps from the last to the first.
    pub log: Range<u32>,
    /// Block of the first transaction; `None` if the log is empty.
    pub start: Option<u32>,
    /// Sequence number of the first transaction.
    pub sequence: u32,
    pub checksums: Checksums,
    /// Seed for the CRC-32C of all blocks.
    pub seed: u32,
    /// Block numbers have 64 bits.
    pub wide: bool,
    /// Commit blocks may be written before the other blocks of their transaction.
    pub async_commit: bool,
    /// Blocks of the fast-commit area, if there is one.
    pub fast_commit: Option<Range<u32>>,
    /// Number of filesystems that use an external journal, and the UUID of the first.
    pub users: u32,
    pub user: [u8; 16],
}

fn bad(problem: Problem) -> Error {
    Structure::JournalSuperblock.corrupt(problem)
}

fn ensure(good: bool, field: &'static str, value: u32, rule: &'static str) -> Result<(), Error> {
    Structure::JournalSuperblock.ensure(good, field, value, rule)
}

impl JournalSuperblock {
    /// Parses and checks the superblock in `bytes`, a block of the filesystem. The journal has at
    /// most `blocks` blocks.
    pub(crate) fn parse(bytes: &[u8], block_size: u32, blocks: u32) -> Result<Self, Error> {
        let Ok((raw, _)) = RawJournalSuperblock::ref_from_prefix(bytes) else {
            return Err(bad(Problem::Missing { logical: 0 }));
        };
        Problem::verify_magic(raw.header.magic.get(), MAGIC).map_err(bad)?;
        let kind = raw.header.kind.get();
        let rule = "must be that of a superblock, 3 or 4";
        ensure(matches!(kind, block::SUPERBLOCK_V1 | block::SUPERBLOCK_V2), "type", kind, rule)?;
        // Version 1 has no feature fields.
        let has_features = kind == block::SUPERBLOCK_V2;
        let of = |field: U32| if has_features { field.get() } else { 0 };
        let (compat, incompat) = (of(raw.compat), of(raw.incompat));
        let unknown = incompat & !INCOMPAT_KNOWN;
        if unknown != 0 || of(raw.ro_compat) != 0 {
            let (incompat, ro_compat) = (unknown, of(raw.ro_compat));
            return Err(Error::UnsupportedJournal { incompat, ro_compat });
        }
        let checksums = checksums(raw, compat, incompat)?;
        if matches!(checksums, Checksums::V2 | Checksums::V3) {
            verify_checksum(bytes, raw)?;
        }

        Problem::verify_value("block size", raw.block_size.get(), block_size).map_err(bad)?;
        Problem::verify_max("blocks", raw.max_len.get(), blocks).map_err(bad)?;
        let fast_commit = fast_commit(raw, incompat)?;
        let end =
            fast_commit.as_ref().map_or(raw.max_len.get(), |area| area.start.saturating_sub(1));
        let first = raw.first.get();
        ensure(first != 0 && first < end, "first block of the log", first, "must be inside it")?;
        let log = first..end;
        let start = Some(raw.start.get()).filter(|&start| start != 0);
        if let Some(start) = start {
            ensure(log.contains(&start), "start", start, "must be a block of the log")?;
        }
        Ok(Self {
            log,
            start,
            sequence: raw.sequence.get(),
            checksums,
            seed: crc32c(!0, &raw.uuid),
            wide: incompat & INCOMPAT_64BIT != 0,
            async_commit: incompat & INCOMPAT_ASYNC_COMMIT != 0,
            fast_commit,
            users: of(raw.users),
            user: raw.user_list[0],
        })
    }

    /// Returns the number of blocks that may contain transactions.
    pub(crate) fn length(&self) -> u32 {
        self.log.end.saturating_sub(self.log.start)
    }

    /// Returns true if descriptor and revoke blocks end with a checksum, and tags have one.
    pub(crate) fn has_tails(&self) -> bool {
        matches!(self.checksums, Checksums::V2 | Checksums::V3)
    }
}

/// Changes the fields of the journal's superblock in `block` that a writer owns: the first
/// transaction `sequence` at block `start` of the log, 0 if the log is empty, and the `errno` of a
/// failed write, 0 if there was none.
pub(crate) fn update(block: &mut [u8], start: u32, sequence: u32, errno: i32) {
    if let Ok((raw, _)) = RawJournalSuperblock::mut_from_prefix(block) {
        raw.start = start.into();
        raw.sequence = sequence.into();
        raw.error = errno.cast_unsigned().into();
    }
    seal(block);
}

/// The format of new transactions, which follows from the features of the filesystem.
#[derive(Clone, Copy)]
pub(crate) struct Format {
    /// Block numbers have 64 bits.
    pub wide: bool,
    /// The metadata has checksums, so that every block of the log has one.
    pub checksums: bool,
    /// The end of the journal is for fast commits.
    pub fast_commits: bool,
}

/// Changes the superblock in `block` to the format that the kernel uses for new transactions of an
/// empty log: as `format` says, and with revoke blocks. A journal that is too small for fast commits has
/// none.
pub(crate) fn set_format(block: &mut [u8], format: Format) {
    let Ok((raw, _)) = RawJournalSuperblock::mut_from_prefix(block) else { return };
    raw.header.kind = block::SUPERBLOCK_V2.into();
    let wide = if format.wide { INCOMPAT_64BIT } else { 0 };
    let sums = if format.checksums { INCOMPAT_CSUM_V3 } else { 0 };
    raw.incompat = (wide | sums | INCOMPAT_REVOKE).into();
    let has_room = fast_commit(raw, INCOMPAT_FAST_COMMIT).is_ok();
    raw.compat = (raw.compat.get() & !COMPAT_CHECKSUM).into();
    raw.checksum_type = if format.checksums { CHECKSUM_CRC32C } else { 0 };
    raw.checksum = 0.into();
    set_fast_commits(block, format.fast_commits && has_room);
    seal(block);
}

/// Sets or clears the feature of fast commits in the superblock in `block`, which must be sealed after
/// that. An empty log does not have it, so that older programs can open the journal.
pub(crate) fn set_fast_commits(block: &mut [u8], has_fast_commits: bool) {
    let Ok((raw, _)) = RawJournalSuperblock::mut_from_prefix(block) else { return };
    let bit = if has_fast_commits { INCOMPAT_FAST_COMMIT } else { 0 };
    raw.incompat = (raw.incompat.get() & !INCOMPAT_FAST_COMMIT | bit).into();
}

/// Stores the checksum, if the journal has checksums in all blocks.
fn seal(block: &mut [u8]) {
    let Ok((raw, _)) = RawJournalSuperblock::mut_from_prefix(block) else { return };
    if raw.incompat.get() & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0 {
        raw.checksum = 0.into();
        raw.checksum = crc32c(!0, raw.as_bytes()).into();
    }
}

fn checksums(raw: &RawJournalSuperblock, compat: u32, incompat: u32) -> Result<Checksums, Error> {
    let (v2, v3) = (incompat & INCOMPAT_CSUM_V2 != 0, incompat & INCOMPAT_CSUM_V3 != 0);
    let old = compat & COMPAT_CHECKSUM != 0;
    let one = u8::from(v2).saturating_add(u8::from(v3)).saturating_add(u8::from(old)) <= 1;
    ensure(one, "incompat features", incompat, "must have at most one kind of checksums")?;
    if v2 || v3 {
        let kind = raw.checksum_type;
        ensure(kind == CHECKSUM_CRC32C, "checksum type", kind.into(), "must be 4 (CRC-32C)")?;
    }
    Ok(match () {
        () if v3 => Checksums::V3,
        () if v2 => Checksums::V2,
        () if old => Checksums::Commit,
        () => Checksums::None,
    })
}

pub(super) fn verify_checksum(bytes: &[u8], raw: &RawJournalSuperblock) -> Result<(), Error> {
    let part = |range: Range<usize>| bytes.get(range).unwrap_or_default();
    let after = CHECKSUM_OFFSET.saturating_add(4);
    let crc = crc32c(crc32c(!0, part(0..CHECKSUM_OFFSET)), &[0; 4]);
    let computed = crc32c(crc, part(after..size_of::<RawJournalSuperblock>()));
    let stored = raw.checksum.get();
    if stored == computed { Ok(()) } else { Err(bad(Problem::Checksum { stored, computed })) }
}

/// Returns the fast-commit area at the end of the journal. One unused block precedes it.
fn fast_commit(raw: &RawJournalSuperblock, incompat: u32) -> Result<Option<Range<u32>>, Error> {
    if incompat & INCOMPAT_FAST_COMMIT == 0 {
        return Ok(None);
    }
    let blocks = match raw.fast_commit_blocks.get() {
        0 => FAST_COMMIT_BLOCKS,
        blocks => blocks,
    };
    let end = raw.max_len.get();
    let rule = "must leave 1024 blocks to the log";
    let log_end = end.checked_sub(blocks).filter(|&log_end| log_end >= BLOCKS_MIN);
    ensure(log_end.is_some(), "fast-commit blocks", blocks, rule)?;
    Ok(log_end.map(|log_end| log_end.saturating_add(1)..end))
}
