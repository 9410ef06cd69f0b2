//! Partitions, and the tables that list them.

use std::fmt;

use super::kind::PartitionKind;
use crate::recognise::Format;

/// The type of a partition table.
///
/// See the [example](PartitionTable#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// A GUID partition table.
    Gpt,
    /// A master boot record, with logical partitions.
    Mbr,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpt => "GPT",
            Self::Mbr => "MBR",
        })
    }
}

/// A partition as its table describes it.
///
/// See the [example](PartitionTable#examples).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Partition {
    /// The number, as Linux counts.
    pub number: u32,
    /// First byte.
    pub start: u64,
    /// Length in bytes, up to the end of the device.
    pub size: u64,
    /// Length in bytes according to the table. It is more than `size` if the device ends before
    /// the partition does.
    pub table_size: u64,
    /// The type.
    pub kind: PartitionKind,
    /// The name, which a GPT stores. Not trusted.
    pub name: String,
    /// The recognised contents.
    pub content: Option<&'static Format>,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, start, size, kind, name, .. } = self;
        write!(f, "{number} ({} at {}, {kind}", Exact(*size), Exact(*start))?;
        if !name.is_empty() {
            write!(f, ", {name:?}")?;
        }
        if let Some(format) = self.content {
            write!(f, ", {}", format.name)?;
        }
        f.write_str(")")
    }
}

/// The partitions of a device.
///
/// [`Display`](fmt::Display) prints them on one line, with their positions, types and contents.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// # let filesystem = std::fs::read(&image)?;
/// # let mut disk = vec![0; 1 << 20];
/// # disk[450] = 0x83;
/// # disk[454..462].copy_from_slice(&[0, 8, 0, 0, 0, 64, 0, 0]);
/// # disk[510..512].copy_from_slice(&[0x55, 0xaa]);
/// # disk.extend(filesystem);
/// # std::fs::write(&image, disk)?;
/// use nvio::{OpenOptions, Scheme};
///
/// // An image with an MBR and one partition.
/// let table = OpenOptions::new().partitions(image.as_path())?;
/// assert_eq!(table.scheme, Scheme::Mbr);
/// assert_eq!(table.to_string(), "1 (8M at 1M, Linux, ext4)");
/// let partition = &table.partitions[0];
/// assert_eq!((partition.number, partition.start, partition.size), (1, 1 << 20, 8 << 20));
/// assert!(partition.content.is_some_and(|format| format.is_ext()));
/// assert!(table.warnings.is_empty() && !table.is_for_other_blocks());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionTable {
    /// The type of the table.
    pub scheme: Scheme,
    /// The block in bytes that the table counts in.
    pub block_size: u32,
    /// The logical block of the device in bytes. If it differs from `block_size`, the table was
    /// written for another device, and its partitions cannot be selected by number.
    pub device_block_size: u32,
    /// The partitions, by number.
    pub partitions: Vec<Partition>,
    /// Damage that was passed over, a sentence each.
    pub warnings: Vec<String>,
}

impl PartitionTable {
    /// Returns true if the table was written for blocks of another size than the device has.
    ///
    /// See the [example](Self#examples).
    pub fn is_for_other_blocks(&self) -> bool {
        self.block_size != self.device_block_size
    }

    /// Sets the block size of the device, with a warning if it is not that of the table.
    pub(super) fn on_device_of(mut self, device_block_size: u32) -> Self {
        if self.block_size != device_block_size {
            self.warnings.push(format!(
                "the {} was written for {}-byte blocks, but the device has {device_block_size}-byte \
                 blocks",
                self.scheme, self.block_size
            ));
        }
        Self { device_block_size, ..self }
    }
}

/// Most partitions that the one-line form of a table shows.
const SHOWN_MAX: usize = 16;

impl fmt::Display for PartitionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.partitions.is_empty() {
            return f.write_str("none");
        }
        for (index, partition) in self.partitions.iter().take(SHOWN_MAX).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{partition}")?;
        }
        match self.partitions.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// A size in the largest binary unit that divides it: 4M, 17K, 1049088.
pub(super) struct Exact(pub(super) u64);

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// An entry of a table, in blocks.
pub(super) struct Entry {
    pub(super) number: u32,
    pub(super) first: u64,
    pub(super) blocks: u64,
    pub(super) kind: PartitionKind,
    pub(super) name: String,
}

/// Entries, and the damage that was passed over.
#[derive(Default)]
pub(super) struct Entries {
    pub(super) list: Vec<Entry>,
    pub(super) warnings: Vec<String>,
}
