//! The orphan file: numbers of inodes that the next mount removes or truncates.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::blocks::read::READ_MAX;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::checksum::crc32c;
use crate::format::corrupt::{Problem, Structure};
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::format::superblock::Superblock;
use crate::map::extents::Extent;
use crate::number::{InodeNumber, PhysicalBlock};

/// `ob_magic`.
const MAGIC: u32 = 0x0b10_ca04;
/// Maximum size of the orphan file that the kernel accepts, bytes.
const SIZE_MAX: u64 = 8 << 20;

/// `struct ext4_orphan_block_tail`, at the end of each block.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawTail {
    magic: U32,
    checksum: U32,
}

/// The place of an entry: the block of the filesystem, and the index of the entry in it.
pub(crate) type Place = (PhysicalBlock, usize);

/// Calls `visit` for each inode number in the orphan file, with its place.
///
/// # Errors
/// Damage to the file, a failure of the source, or the error of `visit`.
pub(crate) fn read(
    fs: &Filesystem,
    mut visit: impl FnMut(InodeNumber, Place) -> Result<(), Error>,
) -> Result<(), Error> {
    let superblock = fs.superblock();
    let inode = fs.named_inode(superblock.orphan_file_inode, Structure::Superblock)?;
    let corrupt = |problem| Structure::Inode(inode.number()).corrupt(problem);
    Problem::verify_max("size of the orphan file", inode.size(), SIZE_MAX).map_err(corrupt)?;
    if inode.flags().contains(InodeFlags::INLINE_DATA) {
        return Err(corrupt(Problem::Missing { logical: 0 }));
    }
    let count = superblock.whole_blocks(inode.size());
    let piece = superblock.whole_blocks(READ_MAX.into()).max(1);
    let mut next = 0u64;
    for extent in fs.extents(&inode)? {
        let Extent { logical, physical, length, unwritten, .. } = extent?;
        if next >= count {
            break;
        }
        if superblock.whole_blocks(logical) != next || unwritten {
            return Err(corrupt(Problem::Missing { logical: next }));
        }
        let run = superblock.blocks_at(physical, length).part(0, count.saturating_sub(next));
        for (index, number) in (0u64..).zip(run.blocks()) {
            if index.is_multiple_of(piece) {
                fs.prefetch(run.part(index, piece).blocks());
            }
            let block = fs.block(number)?;
            let entries = entries(superblock, &inode, next, number, &block)?;
            for (index, &entry) in entries.iter().enumerate() {
                if entry != 0 {
                    visit(entry.into(), (number, index))?;
                }
            }
            next = next.saturating_add(1);
        }
    }
    if next < count {
        return Err(corrupt(Problem::Missing { logical: next }));
    }
    Ok(())
}

/// Returns the entries of block `index` of the file, which is block `number` of the filesystem.
/// Free entries are 0.
fn entries<'a>(
    superblock: &Superblock,
    inode: &Inode,
    index: u64,
    number: PhysicalBlock,
    block: &'a [u8],
) -> Result<&'a [U32], Error> {
    let corrupt = |problem| Err(Structure::OrphanFile { index }.corrupt(problem));
    let Ok((entries, tail)) = RawTail::ref_from_suffix(block) else {
        return corrupt(Problem::Missing { logical: index });
    };
    let found = tail.magic.get();
    if found != MAGIC {
        return corrupt(Problem::Magic { found, expected: MAGIC });
    }
    if superblock.has_metadata_csum() {
        let seed = crc32c(inode.checksum_seed, &number.get().to_le_bytes());
        let (stored, computed) = (tail.checksum.get(), crc32c(seed, entries));
        if stored != computed {
            return corrupt(Problem::Checksum { stored, computed });
        }
    }
    Ok(<[U32]>::ref_from_bytes(entries).unwrap_or_default())
}

/// Removes the entry at `place` from its block, and updates the checksum. `seed` is that of the file's
/// inode.
pub(crate) fn clear(superblock: &Superblock, seed: u32, place: Place, block: &mut [u8]) {
    let (number, index) = place;
    let Ok((entries, tail)) = RawTail::mut_from_suffix(block) else { return };
    if let Ok(all) = <[U32]>::mut_from_bytes(entries)
        && let Some(entry) = all.get_mut(index)
    {
        *entry = U32::ZERO;
    }
    if superblock.has_metadata_csum() {
        tail.checksum = crc32c(crc32c(seed, &number.get().to_le_bytes()), entries).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{BLOCK, FREE, Image, extent, node};

    const INODE: u32 = 12;

    /// Builds a filesystem whose orphan file consists of these blocks.
    fn image(blocks: &[&[u32]]) -> Image {
        let mut image = Image::with(|raw| raw.orphan_file_inode = INODE.into());
        image.inode(INODE, |bytes| {
            bytes[4..8].copy_from_slice(&((blocks.len() * BLOCK) as u32).to_le_bytes());
            let root = node(0, 4, &[extent(0, blocks.len() as u16, FREE)]);
            bytes[0x28..0x28 + root.len()].copy_from_slice(&root);
        });
        for (number, entries) in (FREE..).zip(blocks) {
            let seed = crc32c(image.seed(INODE), &number.to_le_bytes());
            let block = image.block(number);
            for (at, entry) in entries.iter().enumerate() {
                block[at * 4..at * 4 + 4].copy_from_slice(&entry.to_le_bytes());
            }
            block[4088..4092].copy_from_slice(&MAGIC.to_le_bytes());
            let crc = crc32c(seed, &block[..4088]);
            block[4092..].copy_from_slice(&crc.to_le_bytes());
        }
        image
    }

    fn numbers(image: Image) -> Result<Vec<u32>, String> {
        let mut numbers = Vec::new();
        read(&image.open(), |number, _| {
            numbers.push(number.get());
            Ok(())
        })
        .map(|()| numbers)
        .map_err(|error| error.to_string())
    }

    #[test]
    fn all_blocks_are_read() {
        let mut full = [0; 1022];
        full[1021] = 9;
        assert_eq!(numbers(image(&[&[0, 7, 0, 8], &[], &full])).unwrap(), [7, 8, 9]);
    }

    #[test]
    fn damage() {
        let start = "corrupt block 1 of the orphan file: ";
        for (at, problem) in
            [(4088, "its magic number is 0xb10ca05"), (4092, "its checksum"), (0, "its checksum")]
        {
            let mut image = image(&[&[5], &[6]]);
            image.block(FREE + 1)[at] ^= 1;
            let message = numbers(image).unwrap_err();
            assert!(message.starts_with(&format!("{start}{problem}")), "{message}");
        }
        let mut swapped = image(&[&[5], &[6]]);
        let first = swapped.block(FREE).to_vec();
        swapped.block(FREE + 1).copy_from_slice(&first);
        assert!(numbers(swapped).unwrap_err().starts_with(start), "in another place");
        let mut short = image(&[&[5]]);
        short.inode(INODE, |bytes| {
            bytes[5] = 0x20;
            let root = node(0, 4, &[extent(0, 1, FREE)]);
            bytes[0x28..0x28 + root.len()].copy_from_slice(&root);
        });
        assert!(numbers(short).unwrap_err().contains("logical block 1 is missing"));
    }
}
