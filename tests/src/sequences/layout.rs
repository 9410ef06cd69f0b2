//! The layout of a file on the device.

use nvio_iomap::MappingFlags;

use super::strategy::{Device, File, Kind};
use nvio_testkit::random::Rng;

/// Base-2 logarithm of the largest block size of a filesystem.
const LARGEST: u32 = 14;
/// Maximum size of a file's blocks, bytes.
const MOST: u64 = 192 << 10;

/// A block of the file.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Current kind.
    pub kind: Kind,
    /// Byte address on the device; 0 if the block is not allocated.
    pub addr: u64,
    /// Flags of the mapping.
    pub flags: MappingFlags,
}

impl Block {
    /// Returns true if the block is allocated on the device.
    pub fn is_allocated(&self) -> bool {
        matches!(self.kind, Kind::Mapped | Kind::Unwritten)
    }
}

/// A file on a device.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Block size of the device, bytes.
    pub device_block: u64,
    /// Block size of the filesystem, bytes.
    pub block: u64,
    /// Blocks of the file, in order.
    pub blocks: Vec<Block>,
    /// Size of the file, bytes.
    pub size: u64,
    /// The file has inline data.
    pub inline: bool,
    /// Number of blocks of the device.
    pub device_blocks: u64,
}

impl Layout {
    /// Lays out a file.
    pub fn new(device: &Device, file: &File) -> Self {
        let shift = (device.block_shift + file.over).min(LARGEST);
        let block = 1u64 << shift;
        let most = MOST >> shift;
        // In one of three files, the order of the extents on the device is random.
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

    /// Returns the total size of the file's blocks in bytes.
    pub fn span(&self) -> u64 {
        if self.inline { self.block } else { self.blocks.len() as u64 * self.block }
    }

    /// Returns the block at a position.
    pub fn at(&self, pos: u64) -> Option<&Block> {
        self.blocks.get(usize::try_from(pos / self.block).ok()?)
    }

    /// Returns the device's block that holds the byte at a position, if it is allocated.
    pub fn lba(&self, pos: u64) -> Option<u64> {
        let block = self.at(pos).filter(|block| block.is_allocated())?;
        Some((block.addr + pos % self.block) / self.device_block)
    }
}
