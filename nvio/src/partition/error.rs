//! The errors of partition tables.

use std::io;

use nvio_ext4::SourceError;

use super::table::PartitionTable;

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
#[non_exhaustive]
pub enum Error {
    /// The device has neither a GPT nor an MBR.
    #[error("the device has no partition table (with {block_size}-byte blocks)")]
    NoTable {
        /// Logical block in bytes.
        block_size: u32,
    },
    /// The table has no entry of this number in use.
    #[error("there is no partition {number}; the {} has {table}", .table.scheme)]
    NoPartition {
        /// The number of the partition.
        number: u32,
        /// The partitions of the device.
        table: Box<PartitionTable>,
    },
    /// The partition is an extended one, which holds no filesystem.
    #[error(
        "partition {number} is the extended one, which holds the logical partitions; the {} has \
         {table}",
        .table.scheme
    )]
    Extended {
        /// The number of the partition.
        number: u32,
        /// The partitions of the device.
        table: Box<PartitionTable>,
    },
    /// The table counts in blocks of another size than the device.
    #[error(
        "the {} was written for {}-byte blocks, but the device has {}-byte blocks; it has \
         {table}",
        .table.scheme, .table.block_size, .table.device_block_size
    )]
    OtherBlockSize {
        /// The partitions, at the bytes that the table means.
        table: Box<PartitionTable>,
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
    /// The partition is not inside of the device.
    #[error(
        "partition {number} begins at byte {offset}, but the device has {device} bytes: the \
         device or image is truncated, or was partitioned with blocks of another size"
    )]
    Outside {
        /// The number of the partition.
        number: u32,
        /// First byte.
        offset: u64,
        /// Size of the device in bytes.
        device: u64,
    },
    /// The device could not be read.
    #[error("cannot read the partition table")]
    Read(#[from] io::Error),
}

impl Error {
    pub(super) fn source_failed(error: SourceError) -> Self {
        Self::Read(match error.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        })
    }
}
