//! Commit blocks, which complete transactions.

use std::time::Duration;

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::checksum::crc32c;
use crate::format::corrupt::Problem;
use crate::recovery::journal::block::{Kind, RawHeader};
use crate::recovery::journal::superblock::{Checksums, JournalSuperblock};

/// `h_chksum_type` and `h_chksum_size` of CRC-32.
const CRC32: (u8, u8) = (1, 4);

/// `struct commit_header`.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawCommit {
    header: RawHeader,
    checksum_type: u8,
    checksum_size: u8,
    padding: [u8; 2],
    checksum: [U32; 8],
    seconds: U64,
    nanoseconds: U32,
}

const _: () = assert!(size_of::<RawCommit>() == 60);

/// Writes the commit block of transaction `sequence` to `block`. It has the time of the commit since
/// 1970, and a checksum if the journal has them in all blocks.
pub(crate) fn encode(
    superblock: &JournalSuperblock,
    sequence: u32,
    time: Duration,
    block: &mut [u8],
) {
    block.fill(0);
    let Ok((raw, _)) = RawCommit::mut_from_prefix(block) else { return };
    raw.header = RawHeader::new(Kind::Commit, sequence);
    raw.seconds = time.as_secs().into();
    raw.nanoseconds = time.subsec_nanos().into();
    if superblock.has_tails() {
        let checksum = crc32c(superblock.seed, block);
        if let Ok((RawCommit { checksum: [first, ..], .. }, _)) = RawCommit::mut_from_prefix(block)
        {
            *first = checksum.into();
        }
    }
}

/// A parsed commit block.
pub(crate) struct Commit<'a> {
    raw: &'a RawCommit,
    rest: &'a [u8],
}

impl<'a> Commit<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, Problem> {
        let (raw, rest) =
            RawCommit::ref_from_prefix(bytes).map_err(|_| Problem::Missing { logical: 0 })?;
        Ok(Self { raw, rest })
    }

    /// Returns the time of the commit in seconds. The clock may have been set back since.
    pub(crate) fn seconds(&self) -> u64 {
        self.raw.seconds.get()
    }

    /// Verifies the checksum. `transaction` is the CRC-32 of the descriptor and data blocks, for
    /// journals whose commit blocks store it.
    pub(crate) fn verify(
        &self,
        superblock: &JournalSuperblock,
        transaction: u32,
    ) -> Result<(), Problem> {
        let stored = self.raw.checksum.first().map_or(0, |first| first.get());
        let computed = match superblock.checksums {
            Checksums::None => return Ok(()),
            Checksums::Commit => {
                let kind = (self.raw.checksum_type, self.raw.checksum_size);
                // Some kernels with this feature do not fill in the checksum.
                if kind == (0, 0) && stored == 0 || kind == CRC32 && stored == transaction {
                    return Ok(());
                }
                transaction
            }
            Checksums::V2 | Checksums::V3 => {
                let mut raw = self.raw.clone();
                if let Some(first) = raw.checksum.first_mut() {
                    *first = U32::ZERO;
                }
                let head = crc32c(superblock.seed, raw.as_bytes());
                let computed = crc32c(head, self.rest);
                // A torn commit block of which only the first sector was written is valid, because
                // the rest is zero.
                let is_torn = || self.rest.chunks(64).fold(head, zeroes) == stored;
                if stored == computed || is_torn() {
                    return Ok(());
                }
                computed
            }
        };
        Err(Problem::Checksum { stored, computed })
    }
}

/// Extends the checksum by as many zeroes as `piece` has bytes, at most 64.
fn zeroes(crc: u32, piece: &[u8]) -> u32 {
    crc32c(crc, [0; 64].get(..piece.len()).unwrap_or_default())
}
