//! What the blocks of a log have in common: a header, and in some a checksum at the end.

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::checksum::crc32c;
use crate::format::corrupt::Problem;
use crate::recovery::journal::superblock::JournalSuperblock;

/// `h_magic`.
pub(crate) const MAGIC: u32 = 0xc03b_3998;
/// `h_blocktype` of the superblock without features.
pub(crate) const SUPERBLOCK_V1: u32 = 3;
/// `h_blocktype` of the superblock with features.
pub(crate) const SUPERBLOCK_V2: u32 = 4;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const REVOKE: u32 = 5;

/// `struct journal_header_s`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub magic: U32,
    pub kind: U32,
    pub sequence: U32,
}

const _: () = assert!(size_of::<RawHeader>() == 12);

/// The kinds of blocks that a transaction is made of, but for its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Says where the data blocks behind it belong.
    Descriptor,
    /// Ends a transaction.
    Commit,
    /// Names blocks that older transactions must not replace.
    Revoke,
}

/// What `bytes` is, if it is a block of transaction `sequence`: anything else ends the log.
pub(crate) fn kind(bytes: &[u8], sequence: u32) -> Option<Kind> {
    let (header, _) = RawHeader::ref_from_prefix(bytes).ok()?;
    if header.magic != MAGIC || header.sequence != sequence {
        return None;
    }
    match header.kind.get() {
        DESCRIPTOR => Some(Kind::Descriptor),
        COMMIT => Some(Kind::Commit),
        REVOKE => Some(Kind::Revoke),
        _ => None,
    }
}

/// Verifies the checksum at the end of a descriptor or revoke block, if it has one.
pub(crate) fn verify_tail(superblock: &JournalSuperblock, bytes: &[u8]) -> Result<(), Problem> {
    if !superblock.has_tails() {
        return Ok(());
    }
    let Some((covered, tail)) = bytes.split_last_chunk::<4>() else {
        return Err(Problem::NoChecksum);
    };
    let stored = u32::from_be_bytes(*tail);
    let computed = crc32c(crc32c(superblock.seed, covered), &[0; 4]);
    if stored == computed { Ok(()) } else { Err(Problem::Checksum { stored, computed }) }
}
