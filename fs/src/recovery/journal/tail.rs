//! The checksums at the end of log blocks.

use crate::format::checksum::crc32c;
use crate::format::corrupt::Problem;
use crate::recovery::journal::superblock::JournalSuperblock;

/// Verifies the checksum at the end of a descriptor or revoke block, if the journal has such
/// checksums.
pub(crate) fn verify_tail(superblock: &JournalSuperblock, bytes: &[u8]) -> Result<(), Problem> {
    if !superblock.has_tails() {
        return Ok(());
    }
    let Some((covered, tail)) = bytes.split_last_chunk::<4>() else {
        return Err(Problem::NoChecksum);
    };
    let stored = u32::from_be_bytes(*tail);
    let computed = crc32c(crc32c(superblock.seed, covered), &[0; 4]);
    Problem::verify_checksum(stored, computed)
}

/// Stores the checksum at the end of a descriptor or revoke block, if the journal has such
/// checksums.
pub(crate) fn seal(superblock: &JournalSuperblock, block: &mut [u8]) {
    if !superblock.has_tails() {
        return;
    }
    if let Some((covered, tail)) = block.split_last_chunk_mut::<4>() {
        *tail = crc32c(crc32c(superblock.seed, covered), &[0; 4]).to_be_bytes();
    }
}
