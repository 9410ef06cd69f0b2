//! Directory entries: a name and an inode number.

use std::mem::offset_of;
use std::ops::RangeInclusive;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::format::dir_hash::Hash;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::format::superblock::Superblock;
use crate::number::InodeNumber;

/// Longest name, bytes.
pub(crate) const NAME_MAX: usize = 255;
/// Shortest encrypted name, bytes.
pub(crate) const ENCRYPTED_MIN: usize = 16;
/// Size of an entry without its name, bytes.
const HEADER: usize = 8;
/// Smallest entry: the header and a name of up to four bytes.
pub(crate) const ENTRY_MIN: usize = 12;

/// `struct ext4_dir_entry_2`, without the name.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawEntry {
    pub inode: U32,
    pub rec_len: U16,
    pub name_len: u8,
    /// File type. Without `filetype` this is the upper byte of `name_len`, which is 0.
    pub file_type: u8,
}

const _: () = assert!(size_of::<RawEntry>() == HEADER && offset_of!(RawEntry, file_type) == 7);

/// Decodes the length of an entry, bytes. Blocks of 64 KiB need 17 bits: lengths are multiples of
/// 4, so the two lowest bits store the upper ones, and 0 and 65,535 stand for the whole block.
pub(crate) fn decode_rec_len(raw: u16, block_size: usize) -> usize {
    let value = usize::from(raw);
    if block_size < 65_536 {
        value
    } else if raw == 0 || raw == u16::MAX {
        block_size
    } else {
        (value & 0xfffc) | ((value & 0x3) << 16)
    }
}

/// Encodes the length of an entry, bytes: a multiple of 4 that is at most the size of the block.
pub(crate) fn encode_rec_len(length: usize, block_size: usize) -> Option<u16> {
    if !length.is_multiple_of(4) || length > block_size || length == 0 {
        return None;
    }
    match u16::try_from(length) {
        Ok(raw) => Some(raw),
        Err(_) if length == 65_536 => Some(u16::MAX),
        Err(_) => u16::try_from((length & 0xfffc) | (length >> 16)).ok(),
    }
}

/// Returns the number of bytes that an entry with a name of `name_len` bytes needs.
pub(crate) fn needed(name_len: usize) -> usize {
    name_len.saturating_add(HEADER).next_multiple_of(4)
}

/// Sets the length of the entry at `offset` of a block, bytes. Returns `None` if it is impossible.
pub(crate) fn set_length(block: &mut [u8], offset: usize, length: usize) -> Option<()> {
    let rec_len = encode_rec_len(length, block.len())?;
    let (raw, _) = RawEntry::mut_from_prefix(block.get_mut(offset..)?).ok()?;
    raw.rec_len = rec_len.into();
    Some(())
}

/// Sets the inode and its type in the entry at `offset` of a block.
pub(crate) fn set_inode(
    block: &mut [u8],
    offset: usize,
    inode: InodeNumber,
    file_type: u8,
) -> Option<()> {
    let (raw, _) = RawEntry::mut_from_prefix(block.get_mut(offset..)?).ok()?;
    (raw.inode, raw.file_type) = (inode.get().into(), file_type);
    Some(())
}

/// Writes an entry of `length` bytes at `offset` of a block. The bytes after its name stay. Returns
/// `None`, and writes nothing, if the name does not fit.
pub(crate) fn write(
    block: &mut [u8],
    offset: usize,
    length: usize,
    (inode, file_type, name): (InodeNumber, u8, &[u8]),
) -> Option<()> {
    let rec_len = encode_rec_len(length, block.len())?.into();
    let name_len = u8::try_from(name.len()).ok()?;
    let bytes = block.get_mut(offset..)?.get_mut(..length)?;
    let (raw, rest) = RawEntry::mut_from_prefix(bytes).ok()?;
    rest.get_mut(..name.len())?.copy_from_slice(name);
    *raw = RawEntry { inode: inode.get().into(), rec_len, name_len, file_type };
    Some(())
}

/// A directory entry, borrowed from its block.
pub(crate) struct Entry<'a> {
    /// Inode number; 0 if the entry is unused.
    pub inode: InodeNumber,
    pub name: &'a [u8],
    pub file_type: u8,
    /// The bytes of the entry after its name.
    rest: &'a [u8],
    /// Byte offset of the next entry.
    pub next: usize,
}

impl Entry<'_> {
    pub(crate) fn is_dot(&self) -> bool {
        matches!(self.name, b"." | b"..")
    }

    /// Returns the hash stored after the name, as in encrypted directories that ignore case.
    pub(crate) fn own_hash(&self) -> Option<Hash> {
        let (major, rest) = self.rest.split_first_chunk()?;
        let (minor, _) = rest.split_first_chunk()?;
        Some(Hash { major: u32::from_le_bytes(*major), minor: u32::from_le_bytes(*minor) })
    }
}

/// The directory that an entry belongs to, with the limits for checking entries.
pub(crate) struct Directory {
    pub inode: InodeNumber,
    /// The numbers of the inodes that are not reserved.
    inodes: RangeInclusive<InodeNumber>,
    /// Names are encrypted: they may contain any bytes, but have a minimum length.
    is_encrypted: bool,
}

impl Directory {
    pub(crate) fn new(superblock: &Superblock, inode: &Inode) -> Self {
        Self {
            inode: inode.number(),
            inodes: superblock.inodes(),
            is_encrypted: inode.flags().contains(InodeFlags::ENCRYPT),
        }
    }

    /// Parses the entry at `offset` of block `index`, and checks its lengths. Returns `None` at the
    /// end of the block.
    pub(crate) fn entry<'a>(
        &self,
        block: &'a [u8],
        index: u64,
        offset: usize,
    ) -> Result<Option<Entry<'a>>, Error> {
        let corrupt =
            |problem| Err(Structure::DirectoryBlock { inode: self.inode, index }.corrupt(problem));
        if offset >= block.len() {
            return Ok(None);
        }
        let rest = block.get(offset..).unwrap_or_default();
        let Ok((raw, _)) = RawEntry::ref_from_prefix(rest) else {
            return corrupt(Problem::EntryLength { offset, rec_len: 0, name_len: 0 });
        };
        let name_len = usize::from(raw.name_len);
        let rec_len = decode_rec_len(raw.rec_len.get(), block.len());
        let left = rest.len().checked_sub(rec_len);
        // After the entry the block ends, or has room for another entry.
        let fits = left.is_some_and(|left| left == 0 || left >= ENTRY_MIN);
        let needed = name_len.saturating_add(HEADER);
        let name = rest.get(HEADER..needed);
        let (true, Some(name)) =
            (fits && rec_len.is_multiple_of(4) && rec_len >= needed.max(ENTRY_MIN), name)
        else {
            return corrupt(Problem::EntryLength { offset, rec_len, name_len });
        };
        let entry = Entry {
            inode: raw.inode.into(),
            name,
            file_type: raw.file_type,
            rest: rest.get(needed.next_multiple_of(4)..rec_len).unwrap_or_default(),
            next: offset.saturating_add(rec_len),
        };
        Ok(Some(entry))
    }

    /// Checks the name and the inode number of the entry that was parsed at `offset` of block
    /// `index`. The entries after a wrong one can be parsed.
    pub(crate) fn check(&self, index: u64, offset: usize, entry: &Entry<'_>) -> Result<(), Error> {
        let Entry { inode, name, .. } = *entry;
        if inode == 0 {
            return Ok(());
        }
        let (rec_len, name_len) = (entry.next.saturating_sub(offset), name.len());
        let is_bad = || name.is_empty() || name.iter().any(|&byte| byte == b'/' || byte == 0);
        let problem = if self.is_encrypted && !entry.is_dot() && name_len < ENCRYPTED_MIN {
            Problem::EntryLength { offset, rec_len, name_len }
        } else if (!self.is_encrypted || entry.is_dot()) && is_bad() {
            Problem::EntryName { offset }
        } else if !self.may_refer(entry) {
            Problem::EntryInode { offset, inode }
        } else if entry.is_dot() && (index > 0 || offset > ENTRY_MIN) {
            Problem::SecondDot { offset }
        } else {
            return Ok(());
        };
        Err(Structure::DirectoryBlock { inode: self.inode, index }.corrupt(problem))
    }

    /// Returns true if the entry's inode exists and is not reserved. A directory does not contain
    /// itself, and no directory contains the root.
    fn may_refer(&self, entry: &Entry<'_>) -> bool {
        match self.inodes.contains(&entry.inode) {
            true => entry.is_dot() || entry.inode != self.inode,
            false => entry.is_dot() && entry.inode == InodeNumber::ROOT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        Directory { inode: 20.into(), inodes: 11.into()..=1000.into(), is_encrypted: false }
    }

    /// Writes an entry at `at` and returns the offset of the next one.
    fn put(block: &mut [u8], at: usize, inode: u32, rec_len: u16, name: &[u8]) -> usize {
        block[at..at + 4].copy_from_slice(&inode.to_le_bytes());
        block[at + 4..at + 6].copy_from_slice(&rec_len.to_le_bytes());
        block[at + 6] = name.len() as u8;
        block[at + 7] = 1;
        block[at + 8..at + 8 + name.len()].copy_from_slice(name);
        at + usize::from(rec_len)
    }

    fn names(block: &[u8]) -> Result<Vec<(u32, Vec<u8>)>, String> {
        let (mut names, mut offset) = (Vec::new(), 0);
        let text = |error: Error| error.to_string();
        while let Some(entry) = directory().entry(block, 0, offset).map_err(text)? {
            assert!(entry.next > offset);
            directory().check(0, offset, &entry).map_err(text)?;
            offset = entry.next;
            if entry.inode != 0 {
                names.push((entry.inode.get(), entry.name.to_vec()));
            }
        }
        Ok(names)
    }

    #[test]
    fn a_sound_block() {
        let mut block = vec![0; 1024];
        let at = put(&mut block, 0, 20, 12, b".");
        let at = put(&mut block, at, 2, 12, b"..");
        let at = put(&mut block, at, 30, 264, &[0xff; 255]);
        let at = put(&mut block, at, 0, 16, b"gone");
        let end = put(&mut block, at, 31, 1024 - at as u16, b"last");
        assert_eq!(end, 1024);
        let expected = [
            (20, b".".to_vec()),
            (2, b"..".to_vec()),
            (30, vec![0xff; 255]),
            (31, b"last".to_vec()),
        ];
        assert_eq!(names(&block).unwrap(), expected);
    }

    #[test]
    fn broken_entries() {
        let message = |change: fn(&mut [u8])| {
            let mut block = vec![0; 1024];
            let at = put(&mut block, 0, 30, 16, b"first");
            put(&mut block, at, 31, 1008, b"name");
            change(&mut block);
            names(&block).unwrap_err()
        };
        let length = "the entry at byte 16 has length";
        assert!(message(|block| block[20..22].fill(0)).contains(length));
        assert!(message(|block| block[20] = 0xf1).contains(length));
        assert!(message(|block| block[20] = 0xf4).contains(length), "past the end");
        assert!(message(|block| block[20] = 0xe8).contains(length), "8 bytes left");
        assert!(
            message(|block| {
                block[20..22].copy_from_slice(&[12, 0]);
                block[22] = 5;
            })
            .contains(length)
        );
        assert!(message(|block| block[22] = 0).contains("has a name that is empty"));
        assert!(message(|block| block[25] = b'/').contains("slash"));
        assert!(message(|block| block[25] = 0).contains("zero byte"));
        assert!(message(|block| block[17] = 4).contains("refers to inode 1055"));
        assert!(message(|block| block[16] = 20).contains("refers to inode 20"), "itself");
        assert!(message(|block| block[16] = 2).contains("refers to inode 2"), "the root");
        assert!(message(|block| block[16] = 8).contains("refers to inode 8"), "the journal");
        let dots = message(|block| {
            block[22] = 2;
            block[24..26].copy_from_slice(b"..");
        });
        assert!(dots.contains("byte 16 is a second \".\" or \"..\""), "{dots}");
    }

    #[test]
    fn lengths_in_blocks_of_64_kib() {
        assert_eq!(decode_rec_len(65_532, 4096), 65_532);
        assert_eq!(decode_rec_len(0, 4096), 0);
        assert_eq!(decode_rec_len(0, 65_536), 65_536);
        assert_eq!(decode_rec_len(65_535, 65_536), 65_536);
        assert_eq!(decode_rec_len(12, 65_536), 12);
        assert_eq!(decode_rec_len(0x8001, 65_536), 0x1_8000);
    }
}
