//! Synthetic filesystems in memory, for the tests of this crate.

use zerocopy::IntoBytes;

use crate::filesystem::Filesystem;
use crate::format::checksum::crc32c;
use crate::format::inode::tests::raw_inode;
use crate::format::raw_superblock::RawSuperblock;
use crate::format::superblock::Superblock;
use crate::format::superblock::tests::{sample, seal};

pub(crate) const BLOCK: usize = 4096;
/// First block of the inode table.
const TABLE: usize = 77;
/// First block that tests may use for their own structures.
pub(crate) const FREE: u64 = 1000;

/// A filesystem of 8,192 blocks of 4 KiB in one group, with checksums. Inode 2 is a directory
/// without blocks; tests add contents.
pub(crate) struct Image {
    pub superblock: Superblock,
    pub bytes: Vec<u8>,
}

impl Image {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut RawSuperblock)) -> Self {
        let mut raw = sample();
        change(&mut raw);
        let raw = seal(raw);
        let superblock = Superblock::parse(&raw).unwrap();
        let mut bytes = vec![0; 8192 * BLOCK];
        bytes[1024..2048].copy_from_slice(raw.as_bytes());
        let mut image = Self { superblock, bytes };
        let descriptor = &mut image.block(1)[..64];
        descriptor[8] = TABLE as u8;
        let crc = crc32c(crc32c(raw_seed(&image.superblock), &[0; 4]), &image.block(1)[..64]);
        image.block(1)[0x1e..0x20].copy_from_slice(&(crc as u16).to_le_bytes());
        image.inode(2, |bytes| bytes[1] = 0x41);
        image
    }

    pub(crate) fn block(&mut self, number: u64) -> &mut [u8] {
        &mut self.bytes[number as usize * BLOCK..][..BLOCK]
    }

    /// Writes an inode with its checksum: a regular file with extents, except for the bytes that
    /// `change` edits.
    pub(crate) fn inode(&mut self, number: u32, change: impl FnOnce(&mut [u8])) {
        let bytes = raw_inode(&self.superblock, number, change);
        let at = TABLE * BLOCK + (number as usize - 1) * 256;
        self.bytes[at..at + 256].copy_from_slice(&bytes);
    }

    /// Returns the seed for the checksums of an inode's blocks, for generation 0.
    pub(crate) fn seed(&self, inode: u32) -> u32 {
        crc32c(crc32c(raw_seed(&self.superblock), &inode.to_le_bytes()), &[0; 4])
    }

    /// Writes a node of an extent tree to a block, with its checksum.
    pub(crate) fn extent_block(&mut self, inode: u32, number: u64, node: &[u8]) {
        let seed = self.seed(inode);
        let block = self.block(number);
        block[..node.len()].copy_from_slice(node);
        let tail = 12 + 12 * usize::from(u16::from_le_bytes([node[4], node[5]]));
        if tail + 4 <= BLOCK {
            let crc = crc32c(seed, &block[..tail]);
            block[tail..tail + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }

    pub(crate) fn open(self) -> Filesystem {
        Filesystem::open(self.bytes).unwrap()
    }
}

fn raw_seed(superblock: &Superblock) -> u32 {
    superblock.checksum_seed
}

/// Encodes a node of an extent tree.
pub(crate) fn node(depth: u16, max: u16, entries: &[[u8; 12]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [0xf30a, entries.len() as u16, max, depth, 0, 0] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    bytes.extend(entries.iter().flatten());
    bytes
}

/// Encodes an extent. Lengths above 32,768 are unwritten.
pub(crate) fn extent(logical: u32, length: u16, physical: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[0..4].copy_from_slice(&logical.to_le_bytes());
    bytes[4..6].copy_from_slice(&length.to_le_bytes());
    bytes[6..8].copy_from_slice(&((physical >> 32) as u16).to_le_bytes());
    bytes[8..12].copy_from_slice(&(physical as u32).to_le_bytes());
    bytes
}

/// Encodes an entry of an index node.
pub(crate) fn index(logical: u32, block: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[0..4].copy_from_slice(&logical.to_le_bytes());
    bytes[4..8].copy_from_slice(&(block as u32).to_le_bytes());
    bytes[8..10].copy_from_slice(&((block >> 32) as u16).to_le_bytes());
    bytes
}

/// Writes an entry of an extended attribute at `at`, and returns the offset of the next one.
pub(crate) fn attribute(
    area: &mut [u8],
    at: usize,
    (index, name): (u8, &[u8]),
    value: u16,
    size: u32,
) -> usize {
    area[at..at + 2].copy_from_slice(&[name.len() as u8, index]);
    area[at + 2..at + 4].copy_from_slice(&value.to_le_bytes());
    area[at + 8..at + 12].copy_from_slice(&size.to_le_bytes());
    area[at + 16..at + 16 + name.len()].copy_from_slice(name);
    at + 16 + name.len().next_multiple_of(4)
}

/// Changes an inode of 256 bytes to inline data: `block` is stored in `i_block` (at most 60 bytes)
/// and `rest` in the attribute.
pub(crate) fn inline_data(inode: &mut [u8], block: &[u8], rest: &[u8]) {
    inode[0x20..0x24].copy_from_slice(&0x1000_0000u32.to_le_bytes());
    inode[0x28..0x28 + block.len()].copy_from_slice(block);
    let space = &mut inode[0xa0..];
    space[..4].copy_from_slice(&0xea02_0000u32.to_le_bytes());
    let value = 92 - rest.len().next_multiple_of(4);
    attribute(&mut space[4..], 0, (7, b"data"), value as u16, rest.len() as u32);
    space[4 + value..][..rest.len()].copy_from_slice(rest);
}
