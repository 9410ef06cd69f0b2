//! Tests of valid and damaged extent trees.

use nvio_iomap::{Mapper, Mapping, MappingKind, Op};

use super::*;
use crate::file::File;
use crate::map::extents::Extent;
use crate::testing::{BLOCK, FREE, Image, extent, index, node};

const INODE: u32 = 12;

/// Creates a file of the maximum size with this root.
fn with_root(image: &mut Image, root: &[u8]) {
    image.inode(INODE, |bytes| {
        bytes[4..8].copy_from_slice(&0xffff_f000u32.to_le_bytes());
        bytes[0x6c..0x70].copy_from_slice(&0xfffu32.to_le_bytes());
        bytes[0x28..0x28 + root.len()].copy_from_slice(root);
    });
}

fn file(image: Image) -> File {
    let fs = image.open();
    fs.file(&fs.inode(INODE).unwrap()).unwrap()
}

fn map(file: &mut File, block: u64) -> (MappingKind, u64, u64, u64) {
    let pos = block * BLOCK as u64;
    let Mapping { offset, length, addr, kind, .. } = file.begin(pos, 1, Op::empty()).unwrap();
    let block = BLOCK as u64;
    (kind, offset / block, length / block, addr / block)
}

fn error(image: Image) -> String {
    let mut file = file(image);
    let first = file.begin(0, 1, Op::empty()).unwrap_err().to_string();
    let listed = file.extents().find_map(Result::err).unwrap().to_string();
    assert_eq!(first, listed);
    first
}

fn root_error(root: &[u8]) -> String {
    let mut image = Image::new();
    with_root(&mut image, root);
    error(image)
}

#[test]
fn written_unwritten_and_holes() {
    let mut image = Image::new();
    let extents =
        [extent(2, 3, 500), extent(5, 32768 + 2, 600), extent(8, 7, 503), extent(!0 - 1, 1, 8191)];
    with_root(&mut image, &node(0, 4, &extents));
    let mut file = file(image);
    let expected = [
        (0, (MappingKind::Hole, 0, 2, 0)),
        (1, (MappingKind::Hole, 0, 2, 0)),
        (4, (MappingKind::Mapped, 2, 3, 500)),
        (5, (MappingKind::Unwritten, 5, 2, 600)),
        (7, (MappingKind::Hole, 7, 1, 0)),
        (14, (MappingKind::Mapped, 8, 7, 503)),
        (15, (MappingKind::Hole, 15, 0xffff_fffe - 15, 0)),
        (0xffff_fffe, (MappingKind::Mapped, 0xffff_fffe, 1, 8191)),
    ];
    for (block, mapping) in expected {
        assert_eq!(map(&mut file, block), mapping, "block {block}");
    }
    let listed: Vec<Extent> = file.extents().map(Result::unwrap).collect();
    let flags: Vec<_> = listed.iter().map(|extent| (extent.unwritten, extent.last)).collect();
    assert_eq!(flags, [(false, false), (true, false), (false, false), (false, true)]);
    // Positions past the maximum file size are a hole.
    let end = 0xffff_ffff * BLOCK as u64;
    let beyond = file.begin(u64::MAX - 1, 1, Op::empty()).unwrap();
    assert_eq!((beyond.offset, beyond.end()), (end, u64::MAX));
    assert!(file.begin(u64::MAX, 1, Op::empty()).is_err());
}

#[test]
fn the_longest_extents() {
    // 32,768 blocks do not fit into 8,192. The message shows that the length was decoded correctly.
    let message = root_error(&node(0, 4, &[extent(0, 32768, 100)]));
    assert!(
        message.ends_with(
            "32768 block(s) from block 100 are not data blocks of this filesystem; run e2fsck"
        ),
        "{message}"
    );
    let message = root_error(&node(0, 4, &[extent(0, 65535, 100)]));
    assert!(message.contains("32767 block(s) from block 100"), "{message}");
    let message = root_error(&node(0, 4, &[extent(0, 1, 100 | 1 << 40)]));
    assert!(message.contains("from block 1099511627876"), "{message}");
}

#[test]
fn every_depth() {
    for depth in 1..=5u16 {
        let mut image = Image::new();
        // Index blocks are FREE + depth - 1 down to FREE. The leaf maps blocks 10 to 13 of [7, 50).
        with_root(
            &mut image,
            &node(depth, 4, &[index(7, FREE + u64::from(depth) - 1), index(50, FREE + 9)]),
        );
        for level in (1..depth).rev() {
            let child = index(8, FREE + u64::from(level) - 1);
            image.extent_block(INODE, FREE + u64::from(level), &node(level, 340, &[child]));
        }
        image.extent_block(INODE, FREE, &node(0, 340, &[extent(10, 4, 2000)]));
        for level in (0..depth).rev() {
            let number = FREE + 9 + u64::from(depth - 1 - level);
            let far = if level == 0 { extent(60, 1, 3000) } else { index(50, number + 1) };
            image.extent_block(INODE, number, &node(level, 340, &[far]));
        }
        let mut file = file(image);
        assert_eq!(map(&mut file, 11), (MappingKind::Mapped, 10, 4, 2000), "depth {depth}");
        assert_eq!(map(&mut file, 0), (MappingKind::Hole, 0, 7, 0), "depth {depth}");
        assert_eq!(map(&mut file, 49), (MappingKind::Hole, 14, 36, 0), "depth {depth}");
        assert_eq!(map(&mut file, 60), (MappingKind::Mapped, 60, 1, 3000), "depth {depth}");
        assert_eq!(file.extents().map(Result::unwrap).count(), 2);
        // Positions that were mapped before are cached.
        for block in [0, 11, 49, 60, 1000] {
            file.begin(block * BLOCK as u64, 1, Op::NOWAIT).unwrap();
        }
    }
}

#[test]
fn cold_and_nowait() {
    let mut image = Image::new();
    with_root(&mut image, &node(0, 4, &[]));
    let mut file = file(image);
    assert!(matches!(file.begin(0, 1, Op::NOWAIT), Err(Error::WouldBlock { .. })));
    assert!(matches!(file.begin(0, 1, Op::WRITE), Err(Error::ReadOnly { .. })));
    assert_eq!(map(&mut file, 3), (MappingKind::Hole, 0, 0xffff_ffff, 0));
    assert!(matches!(file.begin(0, 1, Op::WRITE), Err(Error::ReadOnly { .. })));
}

#[test]
fn broken_headers() {
    let root = "corrupt extent tree root of inode 12: ";
    let cases = [
        (node(0, 5, &[]), "room for entries is 5, the maximum is 4"),
        (node(6, 4, &[index(0, FREE)]), "depth is 6, the maximum is 5"),
        (node(1, 4, &[]), "it has no entries"),
        (vec![0; 12], "its magic number is 0x0, not 0xf30a"),
    ];
    for (bytes, expected) in cases {
        assert!(root_error(&bytes).starts_with(&format!("{root}{expected}")), "{expected}");
    }
    let mut bytes = node(0, 4, &[]);
    bytes[2] = 5;
    assert!(root_error(&bytes).contains("count of entries is 5, the maximum is 4"));
}

#[test]
fn broken_order() {
    let overlap = root_error(&node(0, 4, &[extent(0, 4, 100), extent(3, 1, 200)]));
    assert!(overlap.contains("entry 1 covers logical blocks [3, 4), outside [4, "), "{overlap}");
    let order = root_error(&node(0, 4, &[extent(9, 1, 100), extent(3, 1, 200)]));
    assert!(order.contains("entry 1 covers"), "{order}");
    assert!(root_error(&node(0, 4, &[extent(0, 0, 100)])).contains("entry 0 covers"));
    let last = root_error(&node(0, 4, &[extent(!0, 1, 100)]));
    assert!(last.contains("[4294967295, 4294967296), outside [0, 4294967295)"), "{last}");
    let same = root_error(&node(1, 4, &[index(0, FREE), index(0, FREE + 1)]));
    assert!(same.contains("entry 0 covers logical blocks [0, 0)"), "{same}");
    let back = root_error(&node(1, 4, &[index(9, FREE), index(3, FREE + 1)]));
    assert!(back.contains("entry 0 covers logical blocks [9, 3)"), "{back}");
}

#[test]
fn blocks_that_hold_no_data() {
    for block in [0, 1, 8192, 1 << 47] {
        let message = root_error(&node(0, 4, &[extent(0, 1, block)]));
        assert!(message.contains(&format!("1 block(s) from block {block} are not")), "{message}");
        let message = root_error(&node(1, 4, &[index(0, block)]));
        let name = format!("corrupt extent block {block} of inode 12: ");
        assert!(message.starts_with(&name), "{message}");
    }
    let message = root_error(&node(0, 4, &[extent(0, 2, 8191)]));
    assert!(message.contains("2 block(s) from block 8191"), "{message}");
}

#[test]
fn broken_blocks() {
    let block_error = |bytes: &[u8], flip: Option<usize>| {
        let mut image = Image::new();
        with_root(&mut image, &node(1, 4, &[index(0, FREE), index(10, FREE + 1)]));
        image.extent_block(INODE, FREE, bytes);
        if let Some(at) = flip {
            image.block(FREE)[at] ^= 1;
        }
        let message = error(image);
        let name = "corrupt extent block 1000 of inode 12: ";
        message.strip_prefix(name).unwrap_or_else(|| panic!("{message}")).to_owned()
    };
    let sound = node(0, 340, &[extent(0, 4, 2000)]);
    for at in [8, 12, 20, 24, 100, 4091, 4092] {
        let message = block_error(&sound, Some(at));
        assert!(message.starts_with("its checksum is 0x"), "byte {at}: {message}");
    }
    assert!(block_error(&sound, Some(0)).starts_with("its magic number is 0xf30b"));
    assert!(block_error(&node(0, 341, &[]), None).starts_with("room for entries is 341"));
    assert!(block_error(&node(0, 340, &[]), None).starts_with("it has no entries"));
    let deeper = node(1, 340, &[index(0, FREE)]);
    assert!(block_error(&deeper, None).starts_with("depth is 1, not 0"));
    let outside = node(0, 340, &[extent(0, 11, 2000)]);
    assert!(
        block_error(&outside, None)
            .starts_with("entry 0 covers logical blocks [0, 11), outside [0, 10)")
    );
}

#[test]
fn a_tree_that_points_at_itself() {
    let mut image = Image::new();
    with_root(&mut image, &node(5, 4, &[index(0, FREE)]));
    image.extent_block(INODE, FREE, &node(4, 340, &[index(0, FREE)]));
    assert!(error(image).contains("depth is 4, not 3"));
}

#[test]
fn more_blocks_than_there_are() {
    let mut image = Image::new();
    let extents: Vec<_> = (0..3).map(|at| extent(at * 4000, 4000, 2000)).collect();
    with_root(&mut image, &node(0, 4, &extents));
    let mut listed = file(image).extents();
    // Two extents are within the limit.
    assert!(listed.next().unwrap().is_ok() && listed.next().unwrap().is_ok());
    let message = listed.next().unwrap().unwrap_err().to_string();
    assert!(message.contains("it maps more than the 8192 blocks"), "{message}");
    assert!(listed.next().is_none() && listed.next().is_none());
}
