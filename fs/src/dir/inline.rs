//! Directories that are stored inside their inodes (`inline_data`).

use crate::blocks::block_cache::Block;
use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::format::inode::{BLOCK_AREA, Inode};
use crate::format::superblock::Superblock;
use crate::number::InodeNumber;

/// Size of the parent's inode number, bytes. It replaces the entries "." and "..".
const PARENT: usize = 4;

/// Returns the parts that contain entries: `i_block` after the parent's number, and the attribute.
/// The entries of each part fill it, and have no checksum.
pub(crate) fn parts(
    superblock: &Superblock,
    inode: &Inode,
    data: &[u8],
) -> Result<Vec<Block>, Error> {
    let structure = Structure::Directory(inode.number());
    let (block, rest) = data
        .split_at_checked(BLOCK_AREA)
        .ok_or_else(|| structure.corrupt(Problem::NoInlineData))?;
    let (parent, entries) = block
        .split_first_chunk::<PARENT>()
        .ok_or_else(|| structure.corrupt(Problem::NoInlineData))?;
    let parent = InodeNumber::from(u32::from_le_bytes(*parent));
    if parent != InodeNumber::ROOT && !superblock.inodes().contains(&parent) {
        return Err(structure.corrupt(Problem::EntryInode { offset: 0, inode: parent }));
    }
    Ok([entries, rest].into_iter().filter(|part| !part.is_empty()).map(Block::from).collect())
}

#[cfg(test)]
mod tests {
    use crate::testing::{Image, inline_data};

    /// Builds an entry for a regular file.
    fn entry(inode: u32, rec_len: u16, name: &[u8]) -> Vec<u8> {
        let mut bytes = inode.to_le_bytes().to_vec();
        bytes.extend(rec_len.to_le_bytes());
        bytes.extend([name.len() as u8, 1]);
        bytes.extend(name);
        bytes.resize(rec_len.into(), 0);
        bytes
    }

    /// Returns the names in a root directory with these parts, after looking up each of them.
    fn names(parent: u32, first: &[Vec<u8>], rest: &[Vec<u8>]) -> Result<String, String> {
        let mut image = Image::new();
        let block = [&parent.to_le_bytes()[..], &first.concat()].concat();
        image.inode(2, |bytes| {
            bytes[1] = 0x41;
            inline_data(bytes, &block, &rest.concat());
        });
        for number in 12..16 {
            image.inode(number, |_| ());
        }
        let fs = image.open();
        let entries: Result<Vec<_>, _> = match fs.read_dir(&fs.root().unwrap()) {
            Ok(entries) => entries.collect(),
            Err(error) => Err(error),
        };
        let entries = entries.map_err(|error| error.to_string())?;
        for entry in &entries {
            assert_eq!(fs.lookup(&entry.name).unwrap().number(), entry.inode);
        }
        fs.lookup(b"missing").unwrap_err();
        let names: Vec<&[u8]> = entries.iter().map(|entry| &entry.name[..]).collect();
        Ok(String::from_utf8(names.join(&b' ')).unwrap())
    }

    #[test]
    fn both_parts() {
        let first = [entry(12, 20, b"a"), entry(0, 12, b"b"), entry(13, 24, b"long-name")];
        assert_eq!(names(2, &first, &[]).unwrap(), "a long-name");
        let rest = [entry(14, 16, b"more"), entry(15, 24, b"most")];
        assert_eq!(names(2, &first, &rest).unwrap(), "a long-name more most");
        assert_eq!(names(2, &[entry(0, 56, b"")], &[]).unwrap(), "");
    }

    #[test]
    fn broken_entries() {
        let whole = || [entry(12, 56, b"a")];
        let length = "has length";
        assert!(names(2, &[entry(12, 52, b"a")], &[]).unwrap_err().contains(length));
        assert!(names(2, &[], &[]).unwrap_err().contains(length), "zeroes");
        // An entry does not extend from one part into the other.
        let mut over = whole();
        over[0][4] = 68;
        assert!(names(2, &over, &[entry(13, 12, b"b")]).unwrap_err().contains(length));
        assert!(names(2, &whole(), &[entry(13, 16, b"b")][..]).is_ok());
        assert!(names(2, &whole(), &[entry(13, 8, b"")]).unwrap_err().contains(length));
        assert!(names(2, &[entry(2, 56, b"a")], &[]).unwrap_err().contains("refers to inode 2"));
        assert!(names(5000, &whole(), &[]).unwrap_err().contains("refers to inode 5000"));
        assert!(names(7, &whole(), &[]).unwrap_err().contains("refers to inode 7"));
    }
}
