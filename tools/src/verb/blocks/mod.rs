//! `nvio read-blocks` and `nvio write-blocks`: the blocks of a namespace or a partition.

pub mod read;
pub mod write;

use std::ops::Range;

use clap::Args;
use nvio::{Device, Location};

use crate::args::ControllerArgs;
use crate::error::Error;
use crate::open;
use crate::session;
use crate::units::{number, size};

/// Number of commands in flight.
const DEPTH: u16 = 64;

/// A range of a namespace or a partition.
#[derive(Clone, Debug, Args)]
pub struct BlockArgs {
    #[command(flatten)]
    pub controller: ControllerArgs,
    /// Partition number (GPT or MBR), which `nvio partitions` shows. By default the range is of the
    /// whole namespace.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub partition: Option<u32>,
    /// Begin at this byte of the namespace or partition.
    #[arg(long, value_name = "SIZE", value_parser = size::<u64>, default_value = "0")]
    pub offset: u64,
    /// Begin at this logical block of the namespace or partition.
    #[arg(long, value_name = "N", value_parser = number::<u64>, conflicts_with = "offset")]
    pub lba: Option<u64>,
    /// Number of bytes.
    #[arg(long, value_name = "SIZE", value_parser = size::<u64>)]
    pub length: Option<u64>,
    /// Number of logical blocks.
    #[arg(long, value_name = "N", value_parser = number::<u64>, conflicts_with = "length")]
    pub blocks: Option<u64>,
}

/// A range of bytes of a namespace.
struct Part {
    nsid: u32,
    /// Logical block in bytes.
    block: u64,
    /// All bytes of the namespace or partition.
    whole: Range<u64>,
    /// First byte of the range.
    begin: u64,
    /// Length of the range in bytes, if it was given.
    length: Option<u64>,
}

impl BlockArgs {
    fn location(&self) -> Location {
        let device = Location::new(self.controller.device.clone());
        open::part(device, self.namespace(), self.partition.or(session::place().1))
    }

    fn namespace(&self) -> Option<u32> {
        self.controller.namespace.or(session::place().0)
    }

    /// Finds the range on the device.
    fn part(&self, device: &Device) -> Result<Part, Error> {
        let namespace = device.namespace(self.namespace())?;
        let whole = device.byte_range(&self.location())?;
        let block = u64::from(namespace.block_size());
        let in_bytes =
            |blocks: u64| blocks.checked_mul(block).ok_or(Error::TooManyBlocks { blocks });
        let offset = self.lba.map_or(Ok(self.offset), in_bytes)?;
        let length = self.blocks.map(in_bytes).transpose()?.or(self.length);
        let part = Part { nsid: namespace.id(), block, begin: offset, length, whole };
        let end = part.check(offset, length.unwrap_or(0))?;
        Ok(Part { begin: end - length.unwrap_or(0), ..part })
    }
}

impl Part {
    /// Checks that `length` bytes at byte `offset` of the namespace or partition exist, and returns
    /// the end of the range in the namespace.
    fn check(&self, offset: u64, length: u64) -> Result<u64, Error> {
        let size = self.whole.end - self.whole.start;
        match offset.checked_add(length) {
            Some(end) if end <= size => Ok(self.whole.start + end),
            _ => Err(Error::OutsideDevice { offset, length, size }),
        }
    }

    /// Number of bytes from the begin of the range to the end of the namespace or partition.
    fn room(&self) -> u64 {
        self.whole.end - self.begin
    }

    /// First byte of the range, counted from the start of the namespace or partition.
    fn offset(&self) -> u64 {
        self.begin - self.whole.start
    }
}
