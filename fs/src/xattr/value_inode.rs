//! Values of extended attributes in inodes of their own (`ea_inode`).

use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::checksum::crc32c;
use crate::format::corrupt::{Problem, Structure};
use crate::format::file_type::FileType;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::map::blocks::FileBlocks;
use crate::number::{InodeNumber, LogicalBlock, as_usize};
use crate::xattr::hash;

/// A reference from an entry to a value in an inode.
pub(crate) struct Reference<'a> {
    /// Number and generation of the inode that owns the attribute.
    pub(crate) owner: (InodeNumber, u32),
    /// The attribute's name without its prefix.
    pub(crate) name: &'a [u8],
    /// Number of the inode that holds the value.
    pub(crate) number: InodeNumber,
    /// Size of the value, bytes, at most [`VALUE_MAX`](crate::format::xattr_entry::VALUE_MAX).
    pub(crate) size: u32,
    /// Hash of the name and the value.
    pub(crate) hash: u32,
}

impl Reference<'_> {
    /// Reads the value and verifies its hashes.
    pub(crate) fn read(&self, fs: &Filesystem) -> Result<Vec<u8>, Error> {
        let &Self { owner, number, size, .. } = self;
        let structure = Structure::AttributeInode { value: number, inode: owner.0 };
        let corrupt = |problem| Err(structure.corrupt(problem));
        if number == owner.0 {
            return corrupt(Problem::EntryInode { offset: 0, inode: number });
        }
        let inode = fs.named_inode(number, structure)?;
        let flags = inode.flags();
        let is_good = inode.kind() == FileType::Regular && flags.contains(InodeFlags::EA_INODE);
        let rule = "the inode does not hold an attribute";
        structure.ensure(is_good, "flags", flags.bits(), rule)?;
        Problem::verify_value("size", inode.size(), size)
            .map_err(|problem| structure.corrupt(problem))?;
        let value = self.contents(fs, &inode, structure)?;
        self.verify(fs, &inode, &value).map_err(|problem| structure.corrupt(problem))?;
        Ok(value)
    }

    /// Reads the whole value, which has no holes.
    fn contents(
        &self,
        fs: &Filesystem,
        inode: &Inode,
        structure: Structure,
    ) -> Result<Vec<u8>, Error> {
        let size = as_usize(self.size);
        let mut value = Vec::with_capacity(size);
        let count = u64::from(self.size).div_ceil(fs.superblock().block_size().into());
        let mut blocks = FileBlocks::new(fs.map(inode));
        for logical in (0..count).map(LogicalBlock::or_end) {
            let block = blocks.read(logical, structure)?;
            let left = size.saturating_sub(value.len());
            value.extend_from_slice(block.get(..left.min(block.len())).unwrap_or_default());
        }
        Ok(value)
    }

    /// Verifies the hash of the value, which is stored in the inode's access time, and the hash of
    /// the entry, which also covers the name.
    fn verify(&self, fs: &Filesystem, inode: &Inode, value: &[u8]) -> Result<(), Problem> {
        let seconds = |time: crate::format::time::Timestamp| {
            time.seconds.cast_unsigned() & u64::from(u32::MAX)
        };
        let stored = seconds(inode.atime());
        // Values written by Lustre have no hashes; their inode refers back to the owner.
        if stored != u64::from(self.hash)
            && (seconds(inode.mtime()), inode.generation())
                == (u64::from(self.owner.0), self.owner.1)
        {
            return Ok(());
        }
        let computed = crc32c(fs.superblock().checksum_seed, value);
        if u64::from(computed) != stored {
            let stored = u32::try_from(stored).unwrap_or(0);
            return Err(Problem::Checksum { stored, computed });
        }
        let of_entry = hash::entry(self.name, computed);
        if ![of_entry, hash::entry_signed(self.name, computed)].contains(&self.hash) {
            return Problem::verify_value("hash of the entry", self.hash, of_entry);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{BLOCK, FREE, Image, extent, node};

    const VALUE: &[u8] = &[b'v'; 5000];

    /// Builds a filesystem with a value in inode 13; `change` edits that inode.
    fn filesystem(change: impl FnOnce(&mut [u8])) -> Filesystem {
        let mut image = Image::with(|raw| raw.incompat = (raw.incompat.get() | 0x400).into());
        let hash = crc32c(image.superblock.checksum_seed, VALUE);
        image.block(FREE).copy_from_slice(&VALUE[..BLOCK]);
        image.block(FREE + 1)[..904].copy_from_slice(&VALUE[BLOCK..]);
        image.inode(12, |_| ());
        image.inode(13, |bytes| {
            bytes[0x4..0x8].copy_from_slice(&5000u32.to_le_bytes());
            bytes[0x8..0xc].copy_from_slice(&hash.to_le_bytes());
            bytes[0x22] |= 0x20;
            let root = node(0, 4, &[extent(0, 2, FREE)]);
            bytes[0x28..0x28 + root.len()].copy_from_slice(&root);
            change(bytes);
        });
        image.open()
    }

    fn read(
        fs: &Filesystem,
        change: impl FnOnce(&mut Reference<'static>),
    ) -> Result<Vec<u8>, String> {
        let name = b"gro\xdf";
        let hash = hash::entry(name, crc32c(fs.superblock().checksum_seed, VALUE));
        let mut reference =
            Reference { owner: (12.into(), 0), name, number: 13.into(), size: 5000, hash };
        change(&mut reference);
        reference.read(fs).map_err(|error| error.to_string())
    }

    #[test]
    fn values_with_either_hash() {
        let fs = filesystem(|_| ());
        assert_eq!(read(&fs, |_| ()).unwrap(), VALUE);
        let seed = fs.superblock().checksum_seed;
        let signed =
            |it: &mut Reference<'_>| it.hash = hash::entry_signed(it.name, crc32c(seed, VALUE));
        assert_eq!(read(&fs, signed).unwrap(), VALUE);
    }

    #[test]
    fn an_inode_that_points_back_has_no_hashes() {
        let fs = filesystem(|bytes| {
            bytes[0x8] ^= 1;
            bytes[0x10] = 12;
        });
        assert_eq!(read(&fs, |_| ()).unwrap(), VALUE);
        read(&fs, |it| it.owner = (14.into(), 0)).unwrap_err();
        read(&fs, |it| it.owner = (12.into(), 1)).unwrap_err();
    }

    #[test]
    fn damaged_value_inodes_are_refused() {
        let fs = filesystem(|_| ());
        let told = |change: fn(&mut Reference<'static>)| read(&fs, change).unwrap_err();
        assert!(told(|it| it.hash ^= 1).contains("hash of the entry is"));
        assert!(told(|it| it.size = 4999).contains("size is 5000, not 4999"));
        assert!(
            told(|it| it.number = 12.into()).contains("the entry at byte 0 refers to inode 12")
        );
        assert!(
            told(|it| (it.owner, it.number) = ((13.into(), 0), 12.into()))
                .contains("does not hold an attribute")
        );
        assert!(told(|it| it.number = 14.into()).contains("refers to inode 14, which is free"));
        let damaged = |change: fn(&mut [u8])| read(&filesystem(change), |_| ()).unwrap_err();
        assert!(damaged(|bytes| bytes[0x8] ^= 1).contains("its checksum is"));
        let hole = damaged(|bytes| bytes[0x28 + 16] = 1);
        assert!(hole.contains("logical block 1 is missing"), "{hole}");
        assert!(damaged(|bytes| bytes[0x28 + 17] = 0x80).contains("logical block 0 is missing"));
    }
}
