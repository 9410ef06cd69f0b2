//! Where the blocks of a file are on the device.

use nvio_iomap::MappingFlags;

use super::strategy::{Device, File};
use nvio_testkit::random::Rng;

/// Bytes of the largest filesystem block, as a power of two.
const LARGEST: u32 = 14;
/// Bytes that a file has blocks for, at most.
const MOST: u64 = 192 << 10;

/// What a block of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Data.
    Mapped,
    /// Blocks without data.
    Unwritten,
    /// Nothing.
    Hole,
    /// Nothing yet.
    Delalloc,
}

/// A block of the filesystem.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// What it is now.
    pub kind: Kind,
    /// Byte address on the device; 0 if it has none.
    pub addr: u64,
    /// What the filesystem says of it.
    pub flags: MappingFlags,
}

impl Block {
    /// Whether there is something on the device.
    pub fn is_allocated(&self) -> bool {
        matches!(self.kind, Kind::Mapped | Kind::Unwritten)
    }
}

/// A file on a device.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The device's block.
    pub device_block: u64,
    /// The filesystem's block.
    pub block: u64,
    /// Its blocks, in order.
    pub blocks: Vec<Block>,
    /// Bytes of the file.
    pub size: u64,
    /// Whether the file is inline data.
    pub inline: bool,
    /// Blocks of the device.
    pub device_blocks: u64,
}

impl Layout {
    /// Places a file.
    pub fn new(device: &Device, file: &File) -> Self {
        let shift = (device.block_shift + file.over).min(LARGEST);
        let block = 1u64 << shift;
        let most = MOST >> shift;
        // The device has them in another order than the file.
        let mut order: Vec<usize> = (0..file.extents.len()).collect();
        let mut rng = Rng::new(file.scatter);
        if file.scatter.is_multiple_of(3) {
            for last in (1..order.len()).rev() {
                order.swap(last, usize::try_from(rng.range(0, last as u64 + 1)).unwrap_or(0));
            }
        }
        let mut starts = vec![0; order.len()];
        let mut next = block;
        for index in order {
            let extent = &file.extents[index];
            next += u64::from(extent.gap) * block;
            starts[index] = next;
            next += u64::from(extent.blocks) * block;
        }
        let mut blocks = Vec::new();
        for (extent, &start) in file.extents.iter().zip(&starts) {
            let allocated = matches!(extent.kind, Kind::Mapped | Kind::Unwritten);
            for index in 0..u64::from(extent.blocks) {
                let addr = if allocated { start + index * block } else { 0 };
                blocks.push(Block { kind: extent.kind, addr, flags: extent.flags });
            }
        }
        blocks.truncate(usize::try_from(most).unwrap_or(1));
        if file.inline {
            blocks.clear();
        }
        let total = if file.inline { block } else { blocks.len() as u64 * block };
        let behind = (u64::from(file.cut) * 2 * block) >> 16;
        let size = total.saturating_sub(behind).max(1);
        let device_block = 1 << device.block_shift;
        let device_blocks = (next + 2 * block) / device_block;
        Self { device_block, block, blocks, size, inline: file.inline, device_blocks }
    }

    /// Bytes that the file has blocks for.
    pub fn span(&self) -> u64 {
        if self.inline { self.block } else { self.blocks.len() as u64 * self.block }
    }

    /// The block of the filesystem at a position.
    pub fn at(&self, pos: u64) -> Option<&Block> {
        self.blocks.get(usize::try_from(pos / self.block).ok()?)
    }

    /// The device's block where the byte at a position is, if there is one.
    pub fn lba(&self, pos: u64) -> Option<u64> {
        let block = self.at(pos).filter(|block| block.is_allocated())?;
        Some((block.addr + pos % self.block) / self.device_block)
    }
}
