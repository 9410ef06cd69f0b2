//! Data inside an inode (`inline_data`): the first bytes are in `i_block`, the rest in an extended
//! attribute of the inode.

use nvio_iomap::MappingKind;

use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::format::inode::Inode;
use crate::format::superblock::Superblock;
use crate::format::xattr_body;
use crate::map::builder::RunBuilder;
use crate::map::run::MapRun;
use crate::number::{InodeNumber, LogicalBlock, PhysicalBlock, as_usize};

/// Returns all inline data in `bytes`, the bytes of inode `number`. The file may be smaller or
/// larger; the rest of a larger file is zeroes.
pub(crate) fn data(
    superblock: &Superblock,
    number: InodeNumber,
    bytes: &[u8],
) -> Result<Box<[u8]>, Error> {
    // Parse the inode again, because its block may have been read again since.
    let inode = Inode::parse(superblock, number, bytes)?;
    let rest = xattr_body::inline_data(superblock, inode.attribute_space(bytes))
        .map_err(|problem| Structure::Attributes { inode: number }.corrupt(problem))?;
    let rest = rest.ok_or_else(|| missing(number))?;
    Ok([&inode.block, rest].concat().into())
}

fn missing(inode: InodeNumber) -> Error {
    Structure::InlineData(inode).corrupt(Problem::NoInlineData)
}

/// Copies the bytes at `pos` of a file with this inline data. Bytes after the data are zero.
pub(crate) fn copy(data: &[u8], pos: u64, out: &mut [u8]) {
    let start = as_usize(pos);
    let data = data.get(start..).unwrap_or_default();
    let length = data.len().min(out.len());
    if let (Some((copied, rest)), Some(data)) =
        (out.split_at_mut_checked(length), data.get(..length))
    {
        copied.copy_from_slice(data);
        rest.fill(0);
    }
}

/// Returns the map of a file with inline data: one inline block, and a hole after it.
pub(crate) fn run(superblock: &Superblock, inode: &Inode) -> Result<MapRun, Error> {
    if !inode.has_inline_data() {
        return Err(missing(inode.number()));
    }
    let mut builder = RunBuilder::new(superblock, LogicalBlock::START, 2);
    let first = LogicalBlock::START..LogicalBlock::or_end(1);
    builder.push(first, PhysicalBlock::default(), MappingKind::Inline);
    Ok(builder.finish(LogicalBlock::END))
}

#[cfg(test)]
mod tests {
    use nvio_iomap::{Mapper, MappingKind, Op};

    use crate::filesystem::Filesystem;
    use crate::map::extents::Extent;
    use crate::testing;
    use crate::testing::{Image, attribute};

    /// Builds a filesystem with inline data in inode 12; `change` edits that inode.
    fn filesystem(size: u32, rest: &[u8], change: impl FnOnce(&mut [u8])) -> Filesystem {
        let mut image = Image::new();
        image.inode(12, |bytes| {
            bytes[0x4..0x8].copy_from_slice(&size.to_le_bytes());
            testing::inline_data(bytes, &[b'a'; 60], rest);
            change(bytes);
        });
        image.open()
    }

    fn read(fs: &Filesystem, pos: u64, length: usize) -> Vec<u8> {
        let mut file = fs.file(&fs.inode(12).unwrap()).unwrap();
        let mapping = file.begin(pos, 1, Op::empty()).unwrap();
        assert_eq!((mapping.kind, mapping.offset), (MappingKind::Inline, 0));
        let mut bytes = vec![0xa5; length];
        file.read_inline(&mapping, pos, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn both_parts_and_what_is_past_them() {
        let fs = filesystem(100, &[b'b'; 31], |_| ());
        let expected = [&[b'a'; 60][..], &[b'b'; 31], &[0; 9]].concat();
        assert_eq!(read(&fs, 0, 100), expected);
        assert_eq!(read(&fs, 59, 3), b"abb");
        assert_eq!(read(&fs, 95, 5), [0; 5]);
        let inode = fs.inode(12).unwrap();
        assert_eq!((inode.has_inline_data(), inode.blocks_512()), (true, 1));
        let extents: Vec<Extent> = fs.extents(&inode).unwrap().map(Result::unwrap).collect();
        let physical = 77 * 4096 + 11 * 256 + 0x28;
        let (logical, length, unwritten) = (0, 91, false);
        let expected = Extent { logical, physical, length, unwritten, inline: true, last: true };
        assert_eq!(extents, [expected]);
    }

    #[test]
    fn past_the_first_block_there_is_a_hole() {
        let fs = filesystem(1 << 30, &[], |_| ());
        let inode = fs.inode(12).unwrap();
        assert_eq!(inode.blocks_512(), 1 << 21);
        let mut file = fs.file(&inode).unwrap();
        for pos in [4096, 1 << 29, u64::MAX - 1] {
            assert_eq!(file.begin(pos, 1, Op::empty()).unwrap().kind, MappingKind::Hole);
        }
        assert_eq!(file.begin(4095, 1, Op::NOWAIT).unwrap().kind, MappingKind::Inline);
    }

    #[test]
    fn no_data_and_damage() {
        let fs = filesystem(0, &[], |_| ());
        assert_eq!(fs.extents(&fs.inode(12).unwrap()).unwrap().count(), 0);

        // The attribute is missing, and `i_block` is not a map.
        let fs = filesystem(10, &[], |bytes| bytes[0xa0..0xa4].fill(0));
        let inode = fs.inode(12).unwrap();
        let told = fs.file(&inode).unwrap().begin(0, 1, Op::empty()).unwrap_err().to_string();
        assert!(
            told.contains("inline data of inode 12: its attribute system.data is missing"),
            "{told}"
        );
        assert!(fs.extents(&inode).unwrap().next().unwrap().is_err());
        fs.inline_data(&inode).unwrap_err();

        let told =
            |change: fn(&mut [u8])| filesystem(10, &[], change).inode(12).unwrap_err().to_string();
        assert!(told(|bytes| bytes[0x22] = 0x8).contains("exclude each other"));
        assert!(told(|bytes| bytes[0xa4] = 200).contains("attributes inside inode 12"));
        let elsewhere = told(|bytes| {
            attribute(bytes, 0xa4, (7, b"data"), 0, 0);
            bytes[0xa8] = 13;
        });
        assert!(elsewhere.contains("refers to inode 13"), "{elsewhere}");
    }

    #[test]
    fn targets() {
        for size in [1, 59, 60, 61, 90] {
            let fs =
                filesystem(size, &[b'b'; 30], |bytes| bytes[..2].copy_from_slice(&[0xff, 0xa1]));
            let expected = [[b'a'; 60].as_slice(), &[b'b'; 30]].concat();
            let inode = fs.inode(12).unwrap();
            assert_eq!(fs.read_link(&inode).unwrap(), expected[..size as usize], "{size}");
        }
        let fs = filesystem(91, &[b'b'; 30], |bytes| bytes[..2].copy_from_slice(&[0xff, 0xa1]));
        assert!(fs.read_link(&fs.inode(12).unwrap()).is_err());
    }
}
