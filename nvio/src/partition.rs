//! Partition tables: GPT (UEFI 5.3) and MBR, read from a device nobody vouches for.
//!
//! The crates that decode the tables trust the counts in them, so each structure is checked here
//! before more is read on its word, and the chain of an extended partition is walked here.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use gptman::{GPTHeader, GPTPartitionEntry};
use mbrman::{MBRHeader, MBRPartitionEntry};

/// Most entries of a GPT that are believed; tables have 128.
const GPT_ENTRIES_MAX: u32 = 1024;
/// The only size of an entry that is in use.
const GPT_ENTRY_SIZE: u32 = 128;
/// Most logical partitions; Linux stops here too (at 256 minors).
const LOGICAL_MAX: u32 = 252;
/// MBR partition type of a protective MBR (UEFI 5.2.3).
const PROTECTIVE: u8 = 0xee;
/// First number of a logical partition.
const FIRST_LOGICAL: u32 = 5;

/// Why there is no such partition.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither kind of table.
    #[error("the device has no partition table (with {block_size}-byte blocks)")]
    NoTable {
        /// Size of a logical block.
        block_size: u32,
    },
    /// The table has no such entry in use.
    #[error("there is no partition {number}; {table} has {}", numbers(.there))]
    NoPartition {
        /// The number asked for.
        number: u32,
        /// Kind of table.
        table: &'static str,
        /// Those in use.
        there: Vec<u32>,
    },
    /// A number of the table cannot be.
    #[error("the {structure} is damaged: {field} is {value}")]
    Damaged {
        /// The structure.
        structure: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// Neither copy of the GPT can be read.
    #[error("the GPT is damaged: {primary}; its backup: {backup}")]
    Gpt {
        /// What is wrong with the primary header or its entries.
        primary: Box<Error>,
        /// What is wrong with the backup.
        backup: Box<Error>,
    },
    /// One copy of the GPT does not decode.
    #[error(transparent)]
    GptCopy(#[from] gptman::Error),
    /// The MBR or an extended boot record does not decode.
    #[error("the {structure} is damaged")]
    Mbr {
        /// Which of them.
        structure: &'static str,
        /// What is wrong.
        source: mbrman::Error,
    },
    /// The entry points outside of the device.
    #[error(
        "partition {number} lies at bytes {offset} to {end}, but the device has {device}: the \
         device or image is truncated, or was partitioned with blocks of another size"
    )]
    Outside {
        /// Its number.
        number: u32,
        /// Its first byte.
        offset: u128,
        /// The byte after its last.
        end: u128,
        /// Size of the device in bytes.
        device: u64,
    },
    /// The device could not be read.
    #[error("cannot read the partition table")]
    Read(#[from] io::Error),
}

fn numbers(there: &[u32]) -> String {
    match there {
        [] => "none".to_owned(),
        [one] => one.to_string(),
        many => many.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Where a partition is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Its first byte.
    pub offset: u64,
    /// Its length.
    pub length: u64,
}

/// Partitions in blocks, by number.
struct Partitions {
    table: &'static str,
    entries: Vec<(u32, Entry)>,
}

/// First block and number of blocks.
type Entry = (u64, u64);

/// Finds partition `number` of a device of `bytes` bytes.
///
/// # Errors
/// Whatever is wrong with the table, or that there is no such partition.
pub fn find(
    reader: &mut (impl Read + Seek),
    number: u32,
    block_size: u32,
    bytes: u64,
) -> Result<Range, Error> {
    let found = read(reader, block_size, bytes)?;
    let entry = found.entries.iter().find(|(candidate, _)| *candidate == number);
    let Some(&(_, (first, blocks))) = entry else {
        let there = found.entries.iter().map(|(number, _)| *number).collect();
        return Err(Error::NoPartition { number, table: found.table, there });
    };
    let offset = u128::from(first) * u128::from(block_size);
    let end = offset + u128::from(blocks) * u128::from(block_size);
    match (u64::try_from(offset), u64::try_from(end)) {
        (Ok(offset), Ok(end)) if end <= bytes => Ok(Range { offset, length: end - offset }),
        _ => Err(Error::Outside { number, offset, end, device: bytes }),
    }
}

/// Whether there seems to be a partition table; for hints, so that no error matters.
pub fn is_partitioned(reader: &mut (impl Read + Seek), block_size: u32, bytes: u64) -> bool {
    read(reader, block_size, bytes).is_ok_and(|found| !found.entries.is_empty())
}

fn read(reader: &mut (impl Read + Seek), block_size: u32, bytes: u64) -> Result<Partitions, Error> {
    if bytes < u64::from(block_size) {
        return Err(Error::NoTable { block_size });
    }
    let mbr = match mbr_header(reader, 0) {
        Ok(mbr) => mbr,
        Err(mbrman::Error::Io(error)) => return Err(error.into()),
        // Boot code of a filesystem can end with the signature too.
        Err(_) => return Err(Error::NoTable { block_size }),
    };
    // As the kernel has it: a GPT counts only behind a protective MBR.
    if primary(&mbr).iter().any(|entry| entry.sys == PROTECTIVE) {
        return gpt(reader, block_size, bytes);
    }
    mbr_partitions(reader, &mbr, block_size)
}

fn gpt(reader: &mut (impl Read + Seek), block_size: u32, bytes: u64) -> Result<Partitions, Error> {
    let last = bytes / u64::from(block_size) - 1;
    let entries = gpt_copy(reader, 1, block_size, last).or_else(|primary| {
        log::warn!("the primary GPT is damaged ({primary}), its backup is used");
        gpt_copy(reader, last, block_size, last).map_err(|backup| match (&primary, &backup) {
            (
                Error::GptCopy(gptman::Error::InvalidSignature),
                Error::GptCopy(gptman::Error::InvalidSignature),
            ) => Error::NoTable { block_size },
            _ => Error::Gpt { primary: Box::new(primary), backup: Box::new(backup) },
        })
    })?;
    Ok(Partitions { table: "the GPT", entries })
}

/// Reads the copy whose header is at block `lba`; `last` is the device's last block.
fn gpt_copy(
    reader: &mut (impl Read + Seek),
    lba: u64,
    block_size: u32,
    last: u64,
) -> Result<Vec<(u32, Entry)>, Error> {
    let size = u64::from(block_size);
    reader.seek(SeekFrom::Start(lba.saturating_mul(size)))?;
    let header = GPTHeader::read_from(reader)?;
    let damaged = |field, value| Error::Damaged { structure: "GPT header", field, value };
    if header.size_of_partition_entry != GPT_ENTRY_SIZE {
        return Err(damaged("the size of an entry", header.size_of_partition_entry.into()));
    }
    if !(1..=GPT_ENTRIES_MAX).contains(&header.number_of_partition_entries) {
        return Err(damaged("the number of entries", header.number_of_partition_entries.into()));
    }
    if !(2..last).contains(&header.partition_entry_lba) {
        return Err(damaged("the first block of the entries", header.partition_entry_lba));
    }
    let entries = header.read_partitions(reader, size)?;
    let in_use = |(index, entry): (usize, &GPTPartitionEntry)| {
        let number = u32::try_from(index).ok()?.checked_add(1)?;
        // An entry that ends before it begins is as good as none.
        let blocks = entry.ending_lba.checked_sub(entry.starting_lba)?.checked_add(1)?;
        entry.is_used().then_some((number, (entry.starting_lba, blocks)))
    };
    Ok(entries.iter().enumerate().filter_map(in_use).collect())
}

fn mbr_partitions(
    reader: &mut (impl Read + Seek),
    mbr: &MBRHeader,
    block_size: u32,
) -> Result<Partitions, Error> {
    let mut entries = Vec::new();
    let mut extended = None;
    for (number, entry) in (1u32..).zip(primary(mbr)) {
        if entry.is_extended() {
            extended = extended.or(Some(u64::from(entry.starting_lba)));
        } else if entry.is_used() {
            entries.push((number, (u64::from(entry.starting_lba), u64::from(entry.sectors))));
        }
    }
    if let Some(first) = extended {
        logical(reader, first, block_size, &mut entries)?;
    }
    if entries.is_empty() {
        return Err(Error::NoTable { block_size });
    }
    Ok(Partitions { table: "the MBR", entries })
}

/// Walks the chain of extended boot records. Each has the form of an MBR: its first entry is a
/// logical partition, relative to the record; its second the next record, relative to the first.
fn logical(
    reader: &mut (impl Read + Seek),
    first: u64,
    block_size: u32,
    entries: &mut Vec<(u32, Entry)>,
) -> Result<(), Error> {
    let mut record = first;
    for number in FIRST_LOGICAL..FIRST_LOGICAL + LOGICAL_MAX {
        let header = match mbr_header(reader, record.saturating_mul(u64::from(block_size))) {
            Ok(header) => header,
            // An extended partition may be empty.
            Err(_) if record == first => return Ok(()),
            Err(source) => return Err(Error::Mbr { structure: "extended boot record", source }),
        };
        let (partition, next) = (&header.partition_1, &header.partition_2);
        if partition.is_used() {
            let start = record.saturating_add(partition.starting_lba.into());
            entries.push((number, (start, partition.sectors.into())));
        }
        if next.starting_lba == 0 || !next.is_extended() {
            return Ok(());
        }
        // The count bounds the walk, whatever the records say.
        record = first.saturating_add(next.starting_lba.into());
    }
    Err(Error::Damaged {
        structure: "chain of extended boot records",
        field: "its length, at least,",
        value: LOGICAL_MAX.into(),
    })
}

fn primary(mbr: &MBRHeader) -> [&MBRPartitionEntry; 4] {
    [&mbr.partition_1, &mbr.partition_2, &mbr.partition_3, &mbr.partition_4]
}

fn mbr_header(reader: &mut (impl Read + Seek), offset: u64) -> Result<MBRHeader, mbrman::Error> {
    let mut sector = [0; 512];
    reader.seek(SeekFrom::Start(offset))?;
    reader.read_exact(&mut sector)?;
    MBRHeader::read_from(&mut Cursor::new(sector))
}

#[cfg(test)]
mod tests;
