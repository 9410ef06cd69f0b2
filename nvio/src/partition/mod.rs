//! Partition tables: GPT (UEFI 5.3) and MBR, read from a device that is not trusted.
//!
//! Numbers are those of Linux: primary partitions 1 to 4, logical partitions from 5 in the order of
//! their chain, entries of a GPT from 1 in the order of the table. `partx` serves as the oracle of
//! the tests.

mod error;
mod gpt;
mod kind;
mod mbr;
mod table;

use nvio_ext4::BlockSource;

pub use error::Error;
pub use kind::PartitionKind;
pub use table::{Partition, PartitionTable, Scheme};

use crate::recognise;
use table::{Entries, Entry};

/// Block sizes that tables are written for, besides the block size of the device.
const OTHER_SIZES: [u32; 4] = [512, 4096, 1024, 2048];

/// The range of a partition in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// First byte.
    pub(crate) offset: u64,
    /// Length in bytes.
    pub(crate) length: u64,
}

/// Finds partition `number` of a device. A partition that the table continues past the end of the
/// device ends with the device, as in Linux.
///
/// # Errors
/// If the table is damaged or cannot be read, has no such partition, or was written for blocks of
/// another size.
pub(crate) fn find(source: &dyn BlockSource, number: u32, block_size: u32) -> Result<Range, Error> {
    let table = read(source, block_size)?;
    for warning in &table.warnings {
        log::warn!("{warning}");
    }
    if table.is_for_other_blocks() {
        return Err(Error::OtherBlockSize { table: described(source, table) });
    }
    let found = table.partitions.iter().find(|partition| partition.number == number);
    let Some(Partition { start, size, kind, .. }) = found else {
        return Err(Error::NoPartition { number, table: described(source, table) });
    };
    if kind.is_extended() {
        return Err(Error::Extended { number, table: described(source, table) });
    }
    if *size == 0 {
        return Err(Error::Outside { number, offset: *start, device: source.size() });
    }
    Ok(Range { offset: *start, length: *size })
}

/// Reads the table of a device and the contents of each partition.
///
/// # Errors
/// If there is no table, or it is damaged or cannot be read.
pub(crate) fn list(source: &dyn BlockSource, block_size: u32) -> Result<PartitionTable, Error> {
    read(source, block_size).map(|table| *described(source, table))
}

/// Adds the contents of the partitions. If they show that an MBR counts in blocks of another size
/// than the device, returns the table in those blocks.
fn described(source: &dyn BlockSource, mut table: PartitionTable) -> Box<PartitionTable> {
    add_contents(source, &mut table);
    let known = |table: &PartitionTable| table.partitions.iter().any(|one| one.content.is_some());
    if table.scheme == Scheme::Mbr && !known(&table) {
        for size in OTHER_SIZES.into_iter().filter(|&size| size != table.block_size) {
            let Ok(mut other) = read_mbr(source, size) else { continue };
            add_contents(source, &mut other);
            if known(&other) {
                return Box::new(other.on_device_of(table.device_block_size));
            }
        }
    }
    Box::new(table)
}

fn add_contents(source: &dyn BlockSource, table: &mut PartitionTable) {
    for partition in table.partitions.iter_mut().filter(|one| !one.kind.is_extended()) {
        partition.content = recognise::at(source, partition.start, partition.size);
    }
}

fn read(source: &dyn BlockSource, block_size: u32) -> Result<PartitionTable, Error> {
    match mbr::records(source, 0)? {
        // As in the kernel: an MBR with a protective entry is no table of its own.
        Some(records) if records.iter().any(|record| record.kind == mbr::PROTECTIVE) => {
            read_gpt(source, block_size)
        }
        _ => read_mbr(source, block_size).or_else(|none| {
            // The protective MBR may have been overwritten. A filesystem on the whole device is the
            // sign of a GPT that is no longer in use.
            if recognise::at(source, 0, source.size()).is_some() {
                return Err(none);
            }
            let mut table = read_gpt(source, block_size).map_err(|_| none)?;
            table.warnings.push("the device has no protective MBR, but a GPT".to_owned());
            Ok(table)
        }),
    }
}

fn read_gpt(source: &dyn BlockSource, block_size: u32) -> Result<PartitionTable, Error> {
    let error = match gpt::read(source, block_size) {
        Ok(entries) => return Ok(table(source, Scheme::Gpt, block_size, entries)),
        Err(error) => error,
    };
    for size in OTHER_SIZES.into_iter().filter(|&size| size != block_size) {
        if let Ok(entries) = gpt::read(source, size) {
            let table = table(source, Scheme::Gpt, size, entries);
            return Ok(table.on_device_of(block_size));
        }
    }
    Err(error)
}

fn read_mbr(source: &dyn BlockSource, block_size: u32) -> Result<PartitionTable, Error> {
    let records = mbr::records(source, 0)?.ok_or(Error::NoTable { block_size })?;
    let entries = mbr::partitions(source, &records, block_size);
    if entries.list.is_empty() {
        return Err(Error::NoTable { block_size });
    }
    Ok(table(source, Scheme::Mbr, block_size, entries))
}

/// Converts entries to bytes, and ends partitions with the device.
fn table(
    source: &dyn BlockSource,
    scheme: Scheme,
    block_size: u32,
    entries: Entries,
) -> PartitionTable {
    let Entries { list, mut warnings } = entries;
    let device = source.size();
    let mut partitions = Vec::new();
    for Entry { number, first, blocks, kind, name } in list {
        let start = first.saturating_mul(block_size.into());
        let table_size = blocks.saturating_mul(block_size.into());
        let size = device.saturating_sub(start).min(table_size);
        if size < table_size {
            warnings.push(format!(
                "partition {number} has {table_size} bytes from byte {start}, but the device ends \
                 at byte {device}"
            ));
        }
        let content = None;
        partitions.push(Partition { number, start, size, table_size, kind, name, content });
    }
    partitions.sort_by_key(|partition| partition.number);
    PartitionTable { scheme, block_size, device_block_size: block_size, partitions, warnings }
}

#[cfg(test)]
mod tests;
