//! Revoke blocks: lists of blocks that were freed or reused after they were journaled.

use std::collections::HashMap;

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::corrupt::Problem;
use crate::number::{PhysicalBlock, as_u64, as_usize};
use crate::recovery::journal::block::{Kind, RawHeader, is_later};
use crate::recovery::journal::superblock::JournalSuperblock;
use crate::recovery::journal::tail;

/// `struct jbd2_journal_revoke_header_s`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRevoke {
    header: RawHeader,
    /// Bytes in use, including this header.
    count: U32,
}

const HEADER_SIZE: usize = size_of::<RawRevoke>();
const _: () = assert!(HEADER_SIZE == 16);

/// Writes a revoke block of transaction `sequence` with as many of `blocks` as it has room for, and
/// returns their number.
pub(crate) fn encode(
    superblock: &JournalSuperblock,
    sequence: u32,
    blocks: impl Iterator<Item = PhysicalBlock>,
    block: &mut [u8],
) -> usize {
    block.fill(0);
    let size = if superblock.wide { 8 } else { 4 };
    let (mut end, mut count) = (HEADER_SIZE, 0usize);
    for number in blocks.take(records_in(superblock, block.len())) {
        let bytes = number.get().to_be_bytes();
        let skip = bytes.len().saturating_sub(size);
        let place = block.get_mut(end..).unwrap_or_default();
        place.iter_mut().zip(bytes.iter().skip(skip)).for_each(|(to, from)| *to = *from);
        end = end.saturating_add(size);
        count = count.saturating_add(1);
    }
    if let Ok((raw, _)) = RawRevoke::mut_from_prefix(block) {
        raw.header = RawHeader::new(Kind::Revoke, sequence);
        raw.count = u32::try_from(end).unwrap_or(0).into();
    }
    tail::seal(superblock, block);
    count
}

/// Returns the number of records in a revoke block of `length` bytes.
pub(crate) fn records_in(superblock: &JournalSuperblock, length: usize) -> usize {
    let tail = if superblock.has_tails() { 4 } else { 0 };
    let size = if superblock.wide { 8 } else { 4 };
    let room = length.saturating_sub(HEADER_SIZE).saturating_sub(tail);
    room.checked_div(size).unwrap_or(0)
}

/// The revoked blocks and the times of the revokes. Only blocks with copies in the log are stored,
/// because there can be a thousand times as many others.
#[derive(Default)]
pub(crate) struct Revoked {
    /// Last transaction that revokes each block.
    blocks: HashMap<PhysicalBlock, Option<u32>>,
}

impl Revoked {
    /// Registers `block`, so that its revokes are stored.
    pub(crate) fn expect(&mut self, block: PhysicalBlock) {
        self.blocks.insert(block, None);
    }

    /// Adds the records of a revoke block of transaction `sequence`.
    pub(crate) fn add(
        &mut self,
        superblock: &JournalSuperblock,
        sequence: u32,
        bytes: &[u8],
    ) -> Result<(), Problem> {
        let tail = if superblock.has_tails() { 4 } else { 0 };
        let max = bytes.len().saturating_sub(tail);
        let count = RawRevoke::ref_from_prefix(bytes).map_or(0, |(raw, _)| raw.count.get());
        Problem::verify_max("bytes in use", count, as_u64(max))?;
        let count = as_usize(count);
        let records = bytes.get(HEADER_SIZE..count).unwrap_or_default();
        if superblock.wide {
            let (records, _) = records.as_chunks::<8>();
            records
                .iter()
                .for_each(|&record| self.insert(u64::from_be_bytes(record).into(), sequence));
        } else {
            let (records, _) = records.as_chunks::<4>();
            let block = |record| u64::from(u32::from_be_bytes(record)).into();
            records.iter().for_each(|&record| self.insert(block(record), sequence));
        }
        Ok(())
    }

    fn insert(&mut self, block: PhysicalBlock, sequence: u32) {
        if let Some(last) = self.blocks.get_mut(&block)
            && last.is_none_or(|last| is_later(sequence, last))
        {
            *last = Some(sequence);
        }
    }

    /// Returns true if the copy of `block` in transaction `sequence` must not be replayed. A
    /// transaction that revokes a block contains no valid copy of it.
    pub(crate) fn is_revoked(&self, block: PhysicalBlock, sequence: u32) -> bool {
        self.blocks
            .get(&block)
            .copied()
            .flatten()
            .is_some_and(|revoked| !is_later(sequence, revoked))
    }
}
