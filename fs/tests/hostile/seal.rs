//! Updates the checksum of a structure after a change.

use super::bytes::{crc16, crc32c, get, put, put_be};
use super::layout::{Checksums, Layout};

/// Type of the tag at the end of a fast commit.
pub const TAIL: u64 = 8;

/// The checksum of a structure: its place, the bytes that it covers, and its seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// The structure has no checksum of its own.
    Nothing,
    Superblock,
    Descriptor(u32),
    Inode(u32),
    /// After the space for the last entry.
    ExtentBlock(u32),
    /// In the last twelve bytes.
    DirLeaf(u32),
    /// After the space for the last entry. The second number is the byte offset of the entries.
    DirNode(u32, usize),
    XattrBlock(u64),
    Mmp,
    /// A block of the orphan file.
    Orphans(u32, u64),
    JournalSuperblock,
    /// In the last four bytes of a descriptor or revoke block of a journal.
    JournalTail(u32),
    Commit(u32),
    /// In the tail of the first fast commit in a block.
    FastCommit,
    /// In the tag of a block in the log.
    Logged(Tag),
}

/// The place of the checksum of a block in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Byte offset of the descriptor block in the image.
    pub descriptor: usize,
    /// Byte offset of the checksum in that block, and its width in bytes.
    pub at: usize,
    pub width: usize,
    pub seed: u32,
    pub sequence: u32,
}

/// A change of an image: byte offset and new bytes.
pub type Patch = (usize, Vec<u8>);

impl Seal {
    /// Updates the checksum of a structure. Returns the necessary changes in other structures.
    pub fn apply(self, layout: &Layout, bytes: &mut [u8]) -> Vec<Patch> {
        if let Self::Logged(tag) = self {
            return vec![logged(layout, tag, bytes)];
        }
        match (self, layout.checksums) {
            (Self::Descriptor(group), Checksums::Crc16) => {
                let crc = crc16(!0, &layout.uuid);
                let crc = crc16(crc16(crc, &group.to_le_bytes()), &bytes[..0x1e]);
                let rest: &[u8] = if layout.wide { &bytes[0x20..] } else { &[] };
                let crc = crc16(crc, rest);
                put(bytes, 0x1e, 2, crc.into());
            }
            (Self::JournalSuperblock, _) => journal_superblock(bytes),
            (Self::JournalTail(seed), _) => {
                let at = bytes.len() - 4;
                put_be(bytes, at, 4, 0);
                let crc = crc32c(seed, bytes);
                put_be(bytes, at, 4, crc.into());
            }
            (Self::FastCommit, _) => fast_commit(bytes),
            (Self::Commit(seed), _) => {
                put_be(bytes, 16, 4, 0);
                let crc = crc32c(seed, bytes);
                put_be(bytes, 16, 4, crc.into());
            }
            (_, Checksums::Crc32c) => self.crc32c(layout.seed, bytes),
            _ => (),
        }
        Vec::new()
    }

    fn crc32c(self, seed: u32, bytes: &mut [u8]) {
        match self {
            Self::Superblock => {
                let crc = crc32c(!0, &bytes[..0x3fc]);
                put(bytes, 0x3fc, 4, crc.into());
            }
            Self::Descriptor(group) => {
                put(bytes, 0x1e, 2, 0);
                let crc = crc32c(crc32c(seed, &group.to_le_bytes()), bytes);
                put(bytes, 0x1e, 2, (crc & 0xffff).into());
            }
            Self::Inode(number) => inode(seed, number, bytes),
            Self::ExtentBlock(seed) => {
                let at = (get(bytes, 4, 2) as usize + 1) * 12;
                at_place(bytes, at, seed);
            }
            Self::DirLeaf(seed) => {
                let (covered, at) = (bytes.len() - 12, bytes.len() - 4);
                let crc = crc32c(seed, &bytes[..covered]);
                put(bytes, at, 4, crc.into());
            }
            Self::DirNode(seed, start) => {
                let (limit, count) = (get(bytes, start, 2), get(bytes, start + 2, 2));
                let (tail, used) = (start + limit as usize * 8, start + count as usize * 8);
                if tail + 8 <= bytes.len() && used <= tail {
                    let crc = crc32c(crc32c(seed, &bytes[..used]), &bytes[tail..tail + 4]);
                    let crc = crc32c(crc, &[0; 4]);
                    put(bytes, tail + 4, 4, crc.into());
                }
            }
            Self::XattrBlock(block) => {
                put(bytes, 16, 4, 0);
                let crc = crc32c(crc32c(seed, &block.to_le_bytes()), bytes);
                put(bytes, 16, 4, crc.into());
            }
            Self::Mmp => at_place(bytes, 0x3fc, seed),
            Self::Orphans(seed, block) => {
                let (covered, at) = (bytes.len() - 8, bytes.len() - 4);
                let crc = crc32c(crc32c(seed, &block.to_le_bytes()), &bytes[..covered]);
                put(bytes, at, 4, crc.into());
            }
            _ => (),
        }
    }
}

/// Writes the checksum of all bytes before it.
fn at_place(bytes: &mut [u8], at: usize, seed: u32) {
    if at + 4 <= bytes.len() {
        let crc = crc32c(seed, &bytes[..at]);
        put(bytes, at, 4, crc.into());
    }
}

fn inode(seed: u32, number: u32, bytes: &mut [u8]) {
    let has_high = bytes.len() > 128 && get(bytes, 0x80, 2) >= 4;
    put(bytes, 0x7c, 2, 0);
    if has_high {
        put(bytes, 0x82, 2, 0);
    }
    let seed = inode_seed(seed, number, bytes);
    let crc = crc32c(seed, bytes);
    put(bytes, 0x7c, 2, (crc & 0xffff).into());
    if has_high {
        put(bytes, 0x82, 2, (crc >> 16).into());
    }
}

/// Returns the seed of the checksums of an inode's blocks.
pub fn inode_seed(seed: u32, number: u32, inode: &[u8]) -> u32 {
    crc32c(crc32c(seed, &number.to_le_bytes()), &inode[0x64..0x68])
}

fn journal_superblock(bytes: &mut [u8]) {
    // Only with checksums of version 2 or 3.
    if bytes[43] & 0x18 != 0 {
        put_be(bytes, 252, 4, 0);
        let crc = crc32c(!0, &bytes[..1024]);
        put_be(bytes, 252, 4, crc.into());
    }
}

fn fast_commit(bytes: &mut [u8]) {
    let mut at = 0;
    while at + 12 <= bytes.len() {
        if get(bytes, at, 2) == TAIL {
            let crc = crc32c(0, &bytes[..at + 8]);
            return put(bytes, at + 8, 4, crc.into());
        }
        at += 4 + get(bytes, at + 2, 2) as usize;
    }
}

/// Updates the checksum of a logged block in its descriptor, and the descriptor's own checksum.
fn logged(layout: &Layout, tag: Tag, bytes: &[u8]) -> Patch {
    let mut descriptor = layout.image[tag.descriptor..][..layout.block_size].to_vec();
    let crc = crc32c(crc32c(tag.seed, &tag.sequence.to_be_bytes()), bytes);
    let crc = if tag.width == 2 { crc & 0xffff } else { crc };
    put_be(&mut descriptor, tag.at, tag.width, crc.into());
    Seal::JournalTail(tag.seed).apply(layout, &mut descriptor);
    (tag.descriptor, descriptor)
}
