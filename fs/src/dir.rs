//! Directories: entries in the order in which they are stored.

use std::fmt;
use std::mem::offset_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::cache::Block;
use crate::corrupt::{Problem, Structure};
use crate::dir_blocks::Blocks;
use crate::map;
use crate::{Error, FileType, Filesystem, IncompatFeatures, Inode, Subject, inode};

/// Longest name, bytes.
pub(crate) const NAME_MAX: usize = 255;
/// Size of an entry without its name, bytes.
const HEADER: usize = 8;
/// Smallest entry: the header and a name of up to four bytes.
const ENTRY_MIN: usize = 12;

/// `struct ext4_dir_entry_2`, without the name.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawEntry {
    pub inode: U32,
    pub rec_len: U16,
    pub name_len: u8,
    /// Type of file; without `filetype` it is the upper byte of `name_len`, which is 0.
    pub file_type: u8,
}

const _: () = assert!(size_of::<RawEntry>() == HEADER && offset_of!(RawEntry, file_type) == 7);

/// A name in a directory.
#[derive(Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Number of the inode that the name is for.
    pub inode: u32,
    /// The name: 1 to 255 bytes in no particular encoding, without slash and zero byte.
    pub name: Vec<u8>,
    /// What the entry says that the inode is; `None` on filesystems whose entries do not say.
    pub kind: Option<FileType>,
}

impl fmt::Debug for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirEntry")
            .field("inode", &self.inode)
            .field("name", &format_args!("\"{}\"", self.name.escape_ascii()))
            .field("kind", &self.kind)
            .finish()
    }
}

/// The length of an entry. Blocks of 64 KiB need 17 bits: multiples of 4 leave two bits free for
/// the upper ones, and 0 and 65,535 stand for the whole block.
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

/// An entry in its block.
struct Entry<'a> {
    /// 0 if the entry is not in use.
    inode: u32,
    name: &'a [u8],
    file_type: u8,
    /// Where the next one starts.
    next: usize,
}

impl Entry<'_> {
    fn is_dot(&self) -> bool {
        matches!(self.name, b"." | b"..")
    }
}

/// The directory that an entry is in, for checking it.
struct Directory {
    inode: u32,
    inodes_count: u32,
    first_inode: u32,
}

impl Directory {
    /// Reads and checks the entry at `offset` of block `index`, or `None` at the block's end.
    fn entry<'a>(
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
        // What is left is nothing, or has room for an entry.
        let fits = left.is_some_and(|left| left == 0 || left >= ENTRY_MIN);
        let needed = name_len.saturating_add(HEADER);
        let name = rest.get(HEADER..needed);
        let (true, Some(name)) =
            (fits && rec_len.is_multiple_of(4) && rec_len >= needed.max(ENTRY_MIN), name)
        else {
            return corrupt(Problem::EntryLength { offset, rec_len, name_len });
        };
        let entry = Entry {
            inode: raw.inode.get(),
            name,
            file_type: raw.file_type,
            next: offset.saturating_add(rec_len),
        };
        if entry.inode != 0 {
            if name.is_empty() || name.iter().any(|&byte| byte == b'/' || byte == 0) {
                return corrupt(Problem::EntryName { offset });
            }
            if !self.may_refer(&entry) {
                return corrupt(Problem::EntryInode { offset, inode: entry.inode });
            }
        }
        Ok(Some(entry))
    }

    /// Names are for inodes that exist and are not reserved. No directory is inside itself, and
    /// the root is in none.
    fn may_refer(&self, entry: &Entry<'_>) -> bool {
        if entry.is_dot() {
            return entry.inode == inode::ROOT
                || (self.first_inode..=self.inodes_count).contains(&entry.inode);
        }
        (self.first_inode..=self.inodes_count).contains(&entry.inode) && entry.inode != self.inode
    }
}

/// The entries of a directory, in the order in which they are stored. "." and ".." are left out:
/// a directory's own place is where it was found, whatever those two say.
///
/// Entries are checked; what they refer to is not. No entry refers to the directory itself or to
/// the root, but on a damaged filesystem a longer way round may lead back: who walks a tree must
/// compare with the directories above.
///
/// After an error there are no more items.
pub struct ReadDir {
    blocks: Blocks,
    directory: Directory,
    current: Option<(u64, Block)>,
    offset: usize,
    has_kind: bool,
    done: bool,
}

impl fmt::Debug for ReadDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadDir").field("inode", &self.directory.inode).finish_non_exhaustive()
    }
}

impl ReadDir {
    fn new(fs: &Filesystem, inode: &Inode) -> Result<Self, Error> {
        let number = inode.number();
        if !inode.is_dir() {
            return Err(Error::NotADirectory { subject: Subject::Inode(number) });
        }
        map::check_readable(inode)?;
        let superblock = fs.superblock();
        Ok(Self {
            blocks: Blocks::new(fs, inode)?,
            directory: Directory {
                inode: number,
                inodes_count: superblock.inodes_count(),
                first_inode: superblock.first_inode,
            },
            current: None,
            offset: 0,
            has_kind: superblock.has(IncompatFeatures::FILETYPE),
            done: false,
        })
    }

    /// Calls `visit` for one entry after another until it gives something. After that, the next
    /// call goes on with the next entry.
    fn visit<T>(
        &mut self,
        mut visit: impl FnMut(&Entry<'_>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        loop {
            let (index, block) = match &self.current {
                Some(current) => current,
                None => match self.blocks.next()? {
                    Some(next) => self.current.insert(next),
                    None => return Ok(None),
                },
            };
            while let Some(entry) = self.directory.entry(block, *index, self.offset)? {
                self.offset = entry.next;
                if entry.inode != 0
                    && !entry.is_dot()
                    && let Some(result) = visit(&entry)
                {
                    return Ok(Some(result));
                }
            }
            self.current = None;
            self.offset = 0;
        }
    }
}

impl Iterator for ReadDir {
    type Item = Result<DirEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let has_kind = self.has_kind;
        let next = self.visit(|entry| {
            let kind = if has_kind { FileType::from_entry(entry.file_type) } else { None };
            Some(DirEntry { inode: entry.inode, name: entry.name.to_vec(), kind })
        });
        self.done = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

impl std::iter::FusedIterator for ReadDir {}

impl Filesystem {
    /// The entries of the directory `inode`.
    ///
    /// # Errors
    /// [`Error::NotADirectory`], [`Error::UnsupportedInode`] for an encrypted directory or one
    /// whose entries are inline, damage. The iterator fails with damage to the directory's map or
    /// blocks, or with a failure of the source.
    pub fn read_dir(&self, inode: &Inode) -> Result<ReadDir, Error> {
        ReadDir::new(self, inode)
    }

    /// Number of the inode that `name` is for in the directory `inode`.
    pub(crate) fn find(&self, inode: &Inode, name: &[u8]) -> Result<Option<u32>, Error> {
        self.read_dir(inode)?.visit(|entry| (entry.name == name).then_some(entry.inode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: Directory = Directory { inode: 20, inodes_count: 1000, first_inode: 11 };

    /// Puts an entry at `at` and gives where the next one goes.
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
        while let Some(entry) =
            DIRECTORY.entry(block, 0, offset).map_err(|error| error.to_string())?
        {
            assert!(entry.next > offset);
            offset = entry.next;
            if entry.inode != 0 {
                names.push((entry.inode, entry.name.to_vec()));
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
