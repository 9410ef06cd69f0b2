//! The MBR and the chains of extended boot records.

use nvio_ext4::BlockSource;

use super::error::Error;
use super::kind::PartitionKind;
use super::table::{Entries, Entry};

/// Bytes of an MBR and of an extended boot record.
const SECTOR_BYTES: usize = 512;
/// MBR partition type of a protective MBR (UEFI 5.2.3).
pub(super) const PROTECTIVE: u8 = 0xee;
/// Offset of the first of the four records in bytes.
const RECORDS_AT: usize = 446;
/// Bytes of a record.
const RECORD_BYTES: usize = 16;
/// First number of a logical partition.
const FIRST_LOGICAL: u32 = 5;
/// Highest number of a partition. Linux has 256 minors for a disk.
const NUMBER_MAX: u32 = 255;
/// Most boot records in a row without a partition, as in Linux.
const EMPTY_MAX: u32 = 100;

/// One of the four records of a boot record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    boot: u8,
    pub(super) kind: u8,
    first: u32,
    blocks: u32,
}

impl Record {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        Some(Self {
            boot: *bytes.first()?,
            kind: *bytes.get(4)?,
            first: word(8)?,
            blocks: word(12)?,
        })
    }

    fn is_extended(&self) -> bool {
        PartitionKind::Mbr(self.kind).is_extended()
    }

    /// Returns true if the record has blocks. Its type may be 0: Linux does not look at it.
    fn is_used(&self) -> bool {
        self.blocks != 0
    }
}

/// Reads the records of the boot record at byte `offset`. Returns `None` if there is no boot record.
///
/// # Errors
/// [`Error::Read`].
pub(super) fn records(source: &dyn BlockSource, offset: u64) -> Result<Option<[Record; 4]>, Error> {
    let Some(sector) = sector(source, offset)? else { return Ok(None) };
    let records = parse(&sector);
    // The boot sector of a FAT or NTFS filesystem has code in this place.
    Ok(records.filter(|records| records.iter().all(|record| matches!(record.boot, 0 | 0x80))))
}

fn sector(source: &dyn BlockSource, offset: u64) -> Result<Option<[u8; SECTOR_BYTES]>, Error> {
    let mut sector = [0; SECTOR_BYTES];
    if offset.checked_add(SECTOR_BYTES as u64).is_none_or(|end| end > source.size()) {
        return Ok(None);
    }
    source.read(offset, &mut sector).map_err(Error::source_failed)?;
    Ok(Some(sector))
}

fn parse(sector: &[u8; SECTOR_BYTES]) -> Option<[Record; 4]> {
    if !sector.ends_with(&[0x55, 0xaa]) {
        return None;
    }
    let record = |slot: usize| Record::parse(sector.get(RECORDS_AT + RECORD_BYTES * slot..)?);
    Some([record(0)?, record(1)?, record(2)?, record(3)?])
}

/// Collects primary and logical partitions. A chain that is damaged ends there, with a warning.
pub(super) fn partitions(
    source: &dyn BlockSource,
    records: &[Record; 4],
    block_size: u32,
) -> Entries {
    let mut entries = Entries::default();
    let mut next = FIRST_LOGICAL;
    for (number, record) in (1..).zip(records).filter(|(_, record)| record.is_used()) {
        entries.list.push(entry(number, record.first.into(), record));
    }
    for record in records.iter().filter(|record| record.is_used() && record.is_extended()) {
        let (first, blocks) = (record.first.into(), record.blocks.into());
        next = Chain { source, block_size, first, blocks }.walk(next, &mut entries);
    }
    entries
}

fn entry(number: u32, first: u64, record: &Record) -> Entry {
    let kind = PartitionKind::Mbr(record.kind);
    Entry { number, first, blocks: record.blocks.into(), kind, name: String::new() }
}

/// An extended partition. It begins with a boot record, whose records are logical partitions, at
/// blocks relative to it, and one link to the next boot record, relative to the extended partition.
struct Chain<'s> {
    source: &'s dyn BlockSource,
    block_size: u32,
    /// First block of the extended partition.
    first: u64,
    /// Blocks of the extended partition.
    blocks: u64,
}

impl Chain<'_> {
    /// Adds the logical partitions, from number `next`. Returns the number after the last.
    fn walk(&self, mut next: u32, entries: &mut Entries) -> u32 {
        let (mut at, mut blocks) = (self.first, self.blocks);
        let mut empty = 0;
        loop {
            let records = match self.records(at) {
                Ok(records) => records,
                // An extended partition without logical partitions may have no boot record.
                Err(_) if at == self.first => return next,
                Err(why) => {
                    entries.warnings.push(why);
                    return next;
                }
            };
            let mut added = false;
            for (slot, record) in records.iter().enumerate() {
                let start = at.saturating_add(record.first.into());
                // As in partx: in a chain that returns to itself, partitions count once.
                let is_known = || entries.list.iter().any(|entry| entry.first == start);
                if next > NUMBER_MAX || !self.is_partition(slot, record, at, blocks) || is_known() {
                    continue;
                }
                entries.list.push(entry(next, start, record));
                (next, added) = (next.saturating_add(1), true);
            }
            let link = records.iter().find(|record| record.is_used() && record.is_extended());
            empty = if added { 0 } else { empty + 1 };
            let Some(link) = link.filter(|_| next <= NUMBER_MAX) else { return next };
            if empty == EMPTY_MAX {
                entries.warnings.push(format!(
                    "the chain of extended boot records of block {} has {EMPTY_MAX} records \
                     without a new partition and ends there",
                    self.first
                ));
                return next;
            }
            (at, blocks) = (self.first.saturating_add(link.first.into()), link.blocks.into());
        }
    }

    /// Reads the boot record at block `at`.
    fn records(&self, at: u64) -> Result<[Record; 4], String> {
        let offset = at.saturating_mul(self.block_size.into());
        let sector = sector(self.source, offset);
        let records = sector.map(|sector| sector.and_then(|sector| parse(&sector)));
        let why = match records {
            Ok(Some(records)) => return Ok(records),
            Ok(None) => "is missing".to_owned(),
            Err(error) => format!("cannot be read ({error})"),
        };
        Err(format!("the extended boot record at block {at} {why}: the chain ends there"))
    }

    /// Returns true if the record in `slot` of the boot record at block `at` is a partition. The
    /// third and fourth slot may hold garbage: Linux uses them only if they are inside of `blocks`,
    /// the size in the link to this boot record, and inside of the extended partition.
    fn is_partition(&self, slot: usize, record: &Record, at: u64, blocks: u64) -> bool {
        if !record.is_used() || record.is_extended() {
            return false;
        }
        let (first, size) = (u64::from(record.first), u64::from(record.blocks));
        let start = at.saturating_add(first);
        let inside = first + size <= blocks
            && start >= self.first
            && start.saturating_add(size) <= self.first + self.blocks;
        slot < 2 || inside
    }
}
