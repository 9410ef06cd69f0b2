//! A synthetic filesystem with a log, for the tests of the journal.

use super::*;
use crate::format::checksum::crc32c;
use crate::testing::{BLOCK, Image, extent, node};

/// First block of the log, after the inode table and the blocks that the tests replace.
pub(super) const LOG: u64 = 220;
/// Number of blocks of the log.
pub(super) const BLOCKS: u32 = 64;
pub(super) const MAGIC: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];

pub(super) const BITS64: u32 = 0x2;
pub(super) const ASYNC: u32 = 0x4;
pub(super) const V2: u32 = 0x8;
pub(super) const V3: u32 = 0x10;
pub(super) const FAST: u32 = 0x20;
/// A bit of these tests, not of the format: it sets `COMPAT_CHECKSUM`.
pub(super) const V1: u32 = 1 << 31;

pub(super) const ESCAPE: u16 = 1;
pub(super) const SAME_UUID: u16 = 2;
pub(super) const LAST: u16 = 8;

/// A filesystem with a log to which tests append transactions.
pub(super) struct HandMade {
    pub image: Image,
    pub features: u32,
    pub blocks: u32,
    /// Log position of the next block, and its transaction.
    pub at: u32,
    pub sequence: u32,
    /// Commit time of the next transaction, in seconds.
    pub seconds: u64,
    /// Descriptor and data blocks of the current transaction.
    pub transaction: Vec<u8>,
}

impl HandMade {
    pub(super) fn new(features: u32) -> Self {
        Self::starting(features, BLOCKS, 1, 7)
    }

    pub(super) fn starting(features: u32, blocks: u32, start: u32, sequence: u32) -> Self {
        let mut image = Image::with(|raw| {
            raw.compat = 0x4.into();
            raw.incompat = (raw.incompat.get() | 0x4).into();
            raw.journal_inode = 8.into();
        });
        image.inode(8, |bytes| {
            bytes[4..8].copy_from_slice(&(blocks * BLOCK as u32).to_le_bytes());
            let root = node(0, 4, &[extent(0, blocks as u16, LOG)]);
            bytes[0x28..0x28 + root.len()].copy_from_slice(&root);
        });
        let (transaction, seconds) = (Vec::new(), 1_000_000);
        let mut log = Self { image, features, blocks, at: start, sequence, seconds, transaction };
        log.superblock(|_| ());
        log
    }

    pub(super) fn wide(&self) -> bool {
        self.features & BITS64 != 0
    }

    pub(super) fn has_tails(&self) -> bool {
        self.features & (V2 | V3) != 0
    }

    pub(super) fn seed(&self) -> u32 {
        crc32c(!0, &[0x55; 16])
    }

    pub(super) fn block(&mut self, number: u32) -> &mut [u8] {
        self.image.block(LOG + u64::from(number))
    }

    /// Writes the superblock. `change` edits its bytes before the checksum is computed.
    pub(super) fn superblock(&mut self, change: impl FnOnce(&mut [u8])) {
        let mut bytes = [0; 1024];
        let compat = u32::from(self.features & V1 != 0);
        let fields = [
            (0, u32::from_be_bytes(MAGIC)),
            (4, 4),
            (0xc, BLOCK as u32),
            (0x10, self.blocks),
            (0x14, 1),
            (0x18, self.sequence),
            (0x1c, self.at),
            (0x24, compat),
            (0x28, self.features & !V1 | 1),
        ];
        for (at, value) in fields {
            bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        bytes[0x30..0x40].fill(0x55);
        bytes[0x50] = if self.has_tails() { 4 } else { 0 };
        change(&mut bytes);
        let crc = crc32c(!0, &bytes);
        bytes[0xfc..0x100].copy_from_slice(&crc.to_be_bytes());
        self.block(0)[..1024].copy_from_slice(&bytes);
    }

    pub(super) fn next(&mut self, bytes: &[u8]) {
        let at = self.at;
        self.block(at)[..bytes.len()].copy_from_slice(bytes);
        let end = if self.features & FAST != 0 { self.blocks - 16 } else { self.blocks };
        self.at = if at + 1 == end { 1 } else { at + 1 };
    }

    pub(super) fn header(&self, kind: u32) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(kind.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes
    }

    /// Pads a block of the log and adds the checksum at its end.
    pub(super) fn sealed(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.resize(BLOCK, 0);
        if self.has_tails() {
            let crc = crc32c(self.seed(), &bytes);
            bytes[BLOCK - 4..].copy_from_slice(&crc.to_be_bytes());
        }
        bytes
    }

    /// Appends a descriptor block and its data blocks: filesystem block, flags, and the contents as
    /// stored in the log.
    pub(super) fn data(&mut self, data: &[(u64, u16, Vec<u8>)]) -> &mut Self {
        let mut bytes = self.header(1);
        for (index, (block, flags, contents)) in data.iter().enumerate() {
            let last = if index + 1 == data.len() { LAST } else { 0 };
            let same = if index > 0 { SAME_UUID } else { 0 };
            let flags = flags | last | same;
            let crc = crc32c(crc32c(self.seed(), &self.sequence.to_be_bytes()), contents);
            bytes.extend((*block as u32).to_be_bytes());
            let high = ((block >> 32) as u32).to_be_bytes();
            if self.features & V3 != 0 {
                bytes.extend(u32::from(flags).to_be_bytes());
                bytes.extend(high);
                bytes.extend(crc.to_be_bytes());
            } else {
                let v2 = self.features & V2 != 0;
                bytes.extend(if v2 { (crc as u16).to_be_bytes() } else { [0; 2] });
                bytes.extend(flags.to_be_bytes());
                bytes.extend(if self.wide() { &high[..] } else { &[] });
                bytes.extend(if v2 { &[0xee; 2][..] } else { &[] });
            }
            bytes.extend(if same == 0 { &[0x55; 16][..] } else { &[] });
        }
        let bytes = self.sealed(bytes);
        self.transaction.extend(&bytes);
        self.next(&bytes);
        for (_, _, contents) in data {
            self.transaction.extend(contents);
            self.next(contents);
        }
        self
    }

    /// Appends a descriptor block and data blocks, each filled with one byte.
    pub(super) fn fill(&mut self, data: &[(u64, u8)]) -> &mut Self {
        let data: Vec<_> =
            data.iter().map(|&(block, byte)| (block, 0, vec![byte; BLOCK])).collect();
        self.data(&data)
    }

    pub(super) fn revoke(&mut self, blocks: &[u64]) -> &mut Self {
        let size = if self.wide() { 8 } else { 4 };
        let mut bytes = self.header(5);
        bytes.extend(((16 + blocks.len() * size) as u32).to_be_bytes());
        for block in blocks {
            bytes.extend(&block.to_be_bytes()[8 - size..]);
        }
        // Bytes after the counted records must be ignored.
        bytes.extend([0xff; 32]);
        let bytes = self.sealed(bytes);
        self.next(&bytes);
        self
    }

    pub(super) fn commit(&mut self) -> &mut Self {
        let mut bytes = self.header(2);
        bytes.resize(BLOCK, 0);
        bytes[0x30..0x38].copy_from_slice(&self.seconds.to_be_bytes());
        if self.features & V1 != 0 {
            let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Mpeg2);
            crc.update(&self.transaction);
            bytes[0xc..0xe].copy_from_slice(&[1, 4]);
            bytes[0x10..0x14].copy_from_slice(&(crc.finalize() as u32).to_be_bytes());
        } else if self.has_tails() {
            let crc = crc32c(self.seed(), &bytes);
            bytes[0x10..0x14].copy_from_slice(&crc.to_be_bytes());
        }
        self.next(&bytes);
        self.transaction.clear();
        self.seconds += 5;
        self.sequence = self.sequence.wrapping_add(1);
        self
    }

    pub(super) fn source(&self) -> Head {
        Head(self.image.bytes[..(LOG as usize + self.blocks as usize) * BLOCK].to_vec())
    }

    pub(super) fn open(&self) -> Result<Filesystem, Error> {
        Filesystem::open(self.source())
    }

    /// Compares blocks after recovery, each filled with one byte.
    pub(super) fn check(&self, expected: &[(u64, u8)]) {
        let fs = self.open().unwrap();
        for &(number, byte) in expected {
            let block = fs.block(number.into()).unwrap();
            assert!(block.iter().all(|&is| is == byte), "block {number}: {}", block[0]);
        }
    }

    pub(super) fn error(&self) -> String {
        self.open().unwrap_err().to_string()
    }
}

pub(super) const A: u64 = 210;
pub(super) const B: u64 = 211;
pub(super) const C: u64 = 212;

/// The first blocks of an image, followed by zeroes. It is cheap to copy.
pub(super) struct Head(pub Vec<u8>);

impl BlockSource for Head {
    fn size(&self) -> u64 {
        8192 * BLOCK as u64
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), crate::blocks::source::SourceError> {
        buf.fill(0);
        let bytes = self.0.get(offset as usize..).unwrap_or_default();
        let count = bytes.len().min(buf.len());
        buf[..count].copy_from_slice(&bytes[..count]);
        Ok(())
    }
}
