//! Recognises other formats than ext4 by their magic numbers, as file(1) does.

mod format;
mod formats;

use nvio_ext4::BlockSource;

pub use format::Format;

use format::Magic;
use formats::{EXT_JOURNAL, EXT2, EXT3, EXT4, FORMATS, MD_RAID, ZFS};

/// Bytes of a device that are searched for magic numbers: up to that of reiserfs.
const HEAD_BYTES: u64 = 68 << 10;
/// Bytes that are searched if `HEAD_BYTES` cannot be read.
const SHORT_BYTES: u64 = 4 << 10;

/// Recognises the format of `size` bytes of a device, from byte `start`. Bytes that cannot be
/// read are not recognised, because the answer is only a hint.
pub(crate) fn at(source: &dyn BlockSource, start: u64, size: u64) -> Option<&'static Format> {
    let part = Part { source, start, size };
    let head = part.read(0, HEAD_BYTES).or_else(|| part.read(0, SHORT_BYTES))?;
    let is_match = |magic: &Magic| match *magic {
        Magic::At(at, bytes) => head.get(at..).is_some_and(|rest| rest.starts_with(bytes)),
        Magic::BeforeEnd(before, bytes) => size
            .checked_sub(before)
            .and_then(|at| part.read(at, bytes.len() as u64))
            .is_some_and(|found| found == bytes),
    };
    ext(&head)
        .or_else(|| FORMATS.iter().find(|format| format.magics.iter().any(is_match)))
        .or_else(|| is_zfs(&part).then_some(&ZFS))
        .or_else(|| is_md_raid(&part).then_some(&MD_RAID))
}

/// A range of a device.
struct Part<'s> {
    source: &'s dyn BlockSource,
    start: u64,
    size: u64,
}

impl Part<'_> {
    /// Reads up to `length` bytes from byte `at` of the range.
    fn read(&self, at: u64, length: u64) -> Option<Vec<u8>> {
        let start = self.start.checked_add(at)?;
        let device = self.source.size().checked_sub(start)?;
        let length = length.min(self.size.checked_sub(at)?).min(device);
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        self.source.read(start, &mut bytes).ok()?;
        Some(bytes)
    }
}

/// Distinguishes the ext filesystems by the features of their superblock.
fn ext(head: &[u8]) -> Option<&'static Format> {
    const SUPERBLOCK: usize = 1024;
    const HAS_JOURNAL: u32 = 0x4;
    const JOURNAL_DEVICE: u32 = 0x8;
    /// Incompatible features that ext3 has: filetype, recover, meta_bg.
    const INCOMPAT_EXT3: u32 = 0x2 | 0x4 | 0x10;
    /// Read-only compatible features that ext3 has: sparse_super, large_file.
    const RO_COMPAT_EXT3: u32 = 0x1 | 0x2;
    let superblock = head.get(SUPERBLOCK..)?;
    let word = |at: usize| Some(u32::from_le_bytes(*superblock.get(at..)?.first_chunk()?));
    if !superblock.get(56..)?.starts_with(&[0x53, 0xef]) {
        return None;
    }
    let (compat, incompat, ro_compat) = (word(92)?, word(96)?, word(100)?);
    Some(match () {
        () if incompat & JOURNAL_DEVICE != 0 => &EXT_JOURNAL,
        () if incompat & !INCOMPAT_EXT3 != 0 || ro_compat & !RO_COMPAT_EXT3 != 0 => &EXT4,
        () if compat & HAS_JOURNAL != 0 => &EXT3,
        () => &EXT2,
    })
}

/// Returns true if the first label has an uberblock: 128 KiB of them, each of 1 KiB or more.
fn is_zfs(part: &Part<'_>) -> bool {
    const UBERBLOCKS: u64 = 128 << 10;
    const MAGIC: u64 = 0x00ba_b10c;
    let Some(array) = part.read(UBERBLOCKS, UBERBLOCKS) else { return false };
    array.chunks(1024).any(|uberblock| {
        uberblock.starts_with(&MAGIC.to_le_bytes()) || uberblock.starts_with(&MAGIC.to_be_bytes())
    })
}

/// Returns true if the end has a RAID superblock of version 0.90 or 1.0. Those of 1.1 and 1.2 are
/// at the start.
fn is_md_raid(part: &Part<'_>) -> bool {
    let old = (part.size & !0xffff).checked_sub(0x1_0000);
    let new = (part.size / 512).checked_sub(16).map(|sector| (sector & !7) * 512);
    [old, new]
        .into_iter()
        .flatten()
        .any(|at| part.read(at, 4).is_some_and(|magic| magic == formats::MD_MAGIC))
}

#[cfg(test)]
mod tests;
