//! Partition tables: GPT (UEFI 5.3) and MBR, read from a device that is not trusted.
//!
//! The crates that decode the tables trust the counts in them. Therefore each structure is checked
//! here before its counts are used, and the chain of an extended partition is walked here.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use gptman::{GPTHeader, GPTPartitionEntry};
use mbrman::{MBRHeader, MBRPartitionEntry};

/// Most entries of a GPT. Tables usually have 128.
const GPT_ENTRIES_MAX: u32 = 1024;
/// Size of an entry in bytes. No other size is in use.
const GPT_ENTRY_SIZE: u32 = 128;
/// Most logical partitions. Linux has the same limit (256 minors).
const LOGICAL_MAX: u32 = 252;
/// MBR partition type of a protective MBR (UEFI 5.2.3).
const PROTECTIVE: u8 = 0xee;
/// First number of a logical partition.
const FIRST_LOGICAL: u32 = 5;

/// An error of a partition table. [`Error::Partition`](crate::Error::Partition) holds it.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use nvio::{Error, Location, PartitionError, Volume};
///
/// let location = Location::new(image).partition(1);
/// let error = Volume::open(location).unwrap_err();
/// assert!(matches!(error, Error::Partition(PartitionError::NoTable { .. })));
/// ```
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device has neither a GPT nor an MBR.
    #[error("the device has no partition table (with {block_size}-byte blocks)")]
    NoTable {
        /// Logical block in bytes.
        block_size: u32,
    },
    /// The table has no entry of this number in use.
    #[error("there is no partition {number}; {table} has {}", numbers(.there))]
    NoPartition {
        /// The number of the partition.
        number: u32,
        /// The type of the table.
        table: &'static str,
        /// The numbers of existing partitions.
        there: Vec<u32>,
    },
    /// A field of the table has an impossible value.
    #[error("the {structure} is damaged: {field} is {value}")]
    Damaged {
        /// The structure.
        structure: &'static str,
        /// The field.
        field: &'static str,
        /// Value of the field.
        value: u64,
    },
    /// Neither copy of the GPT can be read.
    #[error("the GPT is damaged: {primary}; its backup: {backup}")]
    Gpt {
        /// The error of the primary header or its entries.
        primary: Box<Error>,
        /// The error of the backup.
        backup: Box<Error>,
    },
    /// A copy of the GPT could not be decoded.
    #[error(transparent)]
    GptCopy(#[from] gptman::Error),
    /// The MBR or an extended boot record could not be decoded.
    #[error("the {structure} is damaged")]
    Mbr {
        /// The structure.
        structure: &'static str,
        /// The error of the decoder.
        source: mbrman::Error,
    },
    /// The partition is not inside of the device.
    #[error(
        "partition {number} lies at bytes {offset} to {end}, but the device has {device}: the \
         device or image is truncated, or was partitioned with blocks of another size"
    )]
    Outside {
        /// The number of the partition.
        number: u32,
        /// First byte.
        offset: u128,
        /// The byte after the last.
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

/// The range of a partition in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
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
/// If the table is damaged or cannot be read, or has no such partition.
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

/// Returns true if the device seems to have a partition table. Errors count as no, because the
/// answer is only a hint.
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
        // A boot sector of a filesystem can end with the signature, too.
        Err(_) => return Err(Error::NoTable { block_size }),
    };
    // Like the kernel: a GPT is used only if there is a protective MBR.
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

/// Reads the copy whose header is at block `lba`. `last` is the last block of the device.
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

/// Walks the chain of extended boot records. Each has the format of an MBR. Its first entry is a
/// logical partition, relative to the record; its second entry is the next record, relative to the
/// first record.
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
        // The count bounds the walk.
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
