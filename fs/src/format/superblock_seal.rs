//! The checksum of a superblock that replaces another one in place, so that a loss of power in between
//! leaves one that can be read.

use zerocopy::{FromBytes, IntoBytes};

use crate::format::raw_superblock::{RawSuperblock, SUPERBLOCK_OFFSET};
use crate::format::superblock;
use crate::format::superblock::Superblock;
use crate::number::as_usize;

/// Changes the block of the superblock that is about to replace `old` on the device, so that its checksum
/// stays, if that is possible.
pub(crate) fn keep_checksum(superblock: &Superblock, old: &[u8], new: &mut [u8]) {
    let number = superblock.superblock_block();
    let offset = as_usize(SUPERBLOCK_OFFSET.saturating_sub(superblock.address(number)));
    let old = old.get(offset..).and_then(|bytes| RawSuperblock::ref_from_prefix(bytes).ok());
    let new = new.get_mut(offset..).and_then(|bytes| RawSuperblock::mut_from_prefix(bytes).ok());
    if let (Some((old, _)), Some((new, _))) = (old, new) {
        seal(old, new);
    }
}

/// Stores the checksum of the superblock `new`, which replaces `old`.
///
/// The checksum is in another sector of 512 bytes than the fields that change. A loss of power may
/// leave one sector new and the other old, and a superblock with a wrong checksum. So the checksum
/// stays the same, if that is possible: a field that no program uses, in the sector of the others, is
/// given the value with which it is right.
pub(crate) fn seal(old: &RawSuperblock, new: &mut RawSuperblock) {
    superblock::seal(new);
    let is_one_sector =
        old.as_bytes().get(SECTOR..CHECKSUM) == new.as_bytes().get(SECTOR..CHECKSUM);
    if new.checksum == old.checksum || !is_one_sector {
        return;
    }
    let mut trial = new.clone();
    let mut checksum_with = |value: u32| {
        trial.algorithm_bitmap = value.into();
        superblock::checksum_of(&trial)
    };
    if let Some(value) = solve(&mut checksum_with, old.checksum.get()) {
        new.algorithm_bitmap = value.into();
        new.checksum = old.checksum;
    }
}

/// Size of the unit in which a device writes at least, bytes.
const SECTOR: usize = 512;
/// Byte offset of the checksum in the superblock.
const CHECKSUM: usize = 0x3fc;

/// Returns the value with which `checksum` is `wanted`. A CRC is linear in the bits of a field: each
/// bit of the value changes the checksum in the same bits, whatever the others are.
fn solve(checksum: &mut impl FnMut(u32) -> u32, wanted: u32) -> Option<u32> {
    let base = checksum(0);
    // Pairs of a difference of the checksum and the value that causes it. The highest bit of each
    // difference is in no other one after it.
    let mut basis: Vec<(u32, u32)> = Vec::with_capacity(32);
    let reduce = |basis: &[(u32, u32)], mut difference: u32, mut value: u32| {
        for &(other, cause) in basis {
            if difference ^ other < difference {
                difference ^= other;
                value ^= cause;
            }
        }
        (difference, value)
    };
    for bit in 0..u32::BITS {
        let value = 1u32.wrapping_shl(bit);
        let (difference, value) = reduce(&basis, checksum(value) ^ base, value);
        if difference != 0 {
            basis.push((difference, value));
            basis.sort_unstable_by_key(|&(difference, _)| std::cmp::Reverse(difference));
        }
    }
    let (left, value) = reduce(&basis, wanted ^ base, 0);
    (left == 0 && checksum(value) == wanted).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::superblock::tests::{sample, seal as sealed};

    #[test]
    fn one_sector_changes_and_the_checksum_stays() {
        let mut before = sealed(sample());
        for round in 0..100u32 {
            let mut after = before.clone();
            after.mount_count = after.mount_count.get().wrapping_add(1).into();
            after.write_time = (1_700_000_000 + round * 7919).into();
            after.free_blocks_lo = (round * round).into();
            seal(&before, &mut after);
            assert_eq!(after.as_bytes()[SECTOR..], before.as_bytes()[SECTOR..], "{round}");
            superblock::verify(&after).unwrap();
            before = after;
        }
    }

    #[test]
    fn a_change_of_both_sectors_has_another_checksum() {
        let before = sealed(sample());
        let mut after = before.clone();
        after.write_time_hi = 9;
        seal(&before, &mut after);
        assert_ne!(after.checksum, before.checksum);
        superblock::verify(&after).unwrap();
    }
}
