//! The header of log blocks.

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::blocks::overlay::MAGIC;

/// `h_blocktype` of a superblock without features.
pub(crate) const SUPERBLOCK_V1: u32 = 3;
/// `h_blocktype` of a superblock with features.
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

impl RawHeader {
    /// Creates the header of a block of transaction `sequence`.
    pub(crate) fn new(kind: Kind, sequence: u32) -> Self {
        let kind = match kind {
            Kind::Descriptor => DESCRIPTOR,
            Kind::Commit => COMMIT,
            Kind::Revoke => REVOKE,
        };
        Self { magic: MAGIC.into(), kind: kind.into(), sequence: sequence.into() }
    }
}

/// The kinds of the blocks in a transaction, except for data blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A block of tags for the data blocks that follow.
    Descriptor,
    /// The last block of a transaction.
    Commit,
    /// A list of blocks whose copies in older transactions must not be replayed.
    Revoke,
}

/// Returns the kind of a block of transaction `sequence`; `None` if `bytes` is another block, which
/// ends the log.
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

/// Returns true if transaction `a` is later than `b`. Sequence numbers wrap.
pub(crate) fn is_later(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}
