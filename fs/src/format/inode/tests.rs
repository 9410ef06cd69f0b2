//! Tests of valid and damaged inodes.

use super::*;
use crate::format::superblock::tests::{sample, seal};

/// Builds an inode with a valid checksum; `change` edits its bytes before.
pub(crate) fn raw_inode(
    superblock: &Superblock,
    number: u32,
    change: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(superblock.geometry.inode_size)];
    bytes[0..2].copy_from_slice(&0o100_644u16.to_le_bytes());
    bytes[0x1a] = 1;
    bytes[0x22] = 0x8;
    if bytes.len() > 128 {
        bytes[0x80] = 32;
    }
    change(&mut bytes);
    let seed = crc32c(superblock.checksum_seed, &number.to_le_bytes());
    let seed = crc32c(seed, &bytes[0x64..0x68]);
    let has_high = bytes.len() > 128 && bytes[0x80] >= 4;
    let crc = computed_checksum(seed, has_high, &bytes);
    bytes[0x7c..0x7e].copy_from_slice(&(crc as u16).to_le_bytes());
    if has_high {
        bytes[0x82..0x84].copy_from_slice(&((crc >> 16) as u16).to_le_bytes());
    }
    bytes
}

fn superblock(
    change: impl FnOnce(&mut crate::format::raw_superblock::RawSuperblock),
) -> Superblock {
    let mut raw = sample();
    change(&mut raw);
    Superblock::parse(&seal(raw)).unwrap()
}

#[test]
fn fields() {
    let superblock = superblock(|_| ());
    let bytes = raw_inode(&superblock, 12, |bytes| {
        bytes[0x02..0x04].copy_from_slice(&0x1234u16.to_le_bytes());
        bytes[0x78..0x7a].copy_from_slice(&0x5678u16.to_le_bytes());
        bytes[0x04..0x08].copy_from_slice(&0x89ab_cdefu32.to_le_bytes());
        bytes[0x6c..0x70].copy_from_slice(&0x12u32.to_le_bytes());
        bytes[0x1c..0x20].copy_from_slice(&7u32.to_le_bytes());
        bytes[0x74..0x76].copy_from_slice(&2u16.to_le_bytes());
        bytes[0x10..0x14].copy_from_slice(&0xffff_fffeu32.to_le_bytes());
        bytes[0x88..0x8c].copy_from_slice(&((999 << 2) | 1u32).to_le_bytes());
    });
    let inode = Inode::parse(&superblock, 12.into(), &bytes).unwrap();
    assert_eq!((inode.kind(), inode.permissions()), (FileType::Regular, 0o644));
    assert_eq!((inode.uid(), inode.size()), (0x5678_1234, 0x12_89ab_cdef));
    assert_eq!((inode.blocks_512(), inode.links()), (7 | 2 << 32, 1));
    assert_eq!(inode.mtime(), Timestamp { seconds: (1 << 32) - 2, nanoseconds: 999 });
    assert_eq!((inode.crtime(), inode.rdev()), (Some(Timestamp::default()), None));
}

#[test]
fn every_byte_is_covered() {
    for size in [128, 256, 1024] {
        let superblock = superblock(|raw| raw.inode_size = size.into());
        let sound = raw_inode(&superblock, 12, |_| ());
        Inode::parse(&superblock, 12.into(), &sound).unwrap();
        assert!(Inode::parse(&superblock, 13.into(), &sound).is_err(), "inode number");
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x40;
            assert!(Inode::parse(&superblock, 12.into(), &bytes).is_err(), "size {size} byte {at}");
        }
    }
}

#[test]
fn small_extra_sizes() {
    let superblock = superblock(|_| ());
    for (size, good) in [(0, true), (4, true), (24, true), (128, true), (6, false), (132, false)] {
        let bytes = raw_inode(&superblock, 12, |bytes| bytes[0x80] = size);
        let inode = Inode::parse(&superblock, 12.into(), &bytes);
        assert_eq!(inode.is_ok(), good, "{size}");
        if let Ok(inode) = inode {
            // An extra size of 0 means that all fields are present.
            assert_eq!(inode.crtime().is_some(), size == 0 || size >= 20, "{size}");
        }
    }
}

#[test]
fn times_are_what_an_inode_without_extra_fields_stores() {
    let times = [
        Timestamp { seconds: 5, nanoseconds: 999 },
        Timestamp { seconds: 1 << 32, nanoseconds: 7 },
        Timestamp { seconds: -1 << 33, nanoseconds: 1 },
    ];
    for (size, small) in [(128, true), (256, false)] {
        let superblock = superblock(|raw| raw.inode_size = size.into());
        let mut bytes = raw_inode(&superblock, 12, |_| ());
        let mut inode = Inode::parse(&superblock, 12.into(), &bytes).unwrap();
        inode.set_atime(times[0]);
        inode.set_mtime(times[1]);
        inode.set_ctime(times[2]);
        let first = if small { 0 } else { 999 };
        assert_eq!(inode.atime(), Timestamp { seconds: 5, nanoseconds: first });
        let last = if small { i32::MAX.into() } else { 1 << 32 };
        assert_eq!(inode.mtime().seconds, last, "{size}");
        inode.encode(&superblock, &mut bytes);
        let stored = Inode::parse(&superblock, 12.into(), &bytes).unwrap();
        let times = |inode: &Inode| [inode.atime(), inode.mtime(), inode.ctime()];
        assert_eq!(times(&stored), times(&inode), "{size}");
        assert_eq!(stored.ctime().seconds, i64::from(i32::MIN), "{size}");
    }
}

#[test]
fn impossible_inodes() {
    let superblock = superblock(|_| ());
    let parse = |change: fn(&mut [u8])| {
        Inode::parse(&superblock, 12.into(), &raw_inode(&superblock, 12, change))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(parse(|bytes| bytes[0x1a] = 0), "inode 12 is not in use");
    assert_eq!(parse(|bytes| bytes[..2].fill(0)), "inode 12 is not in use");
    assert!(parse(|bytes| bytes[1] = 0xf0).contains("not a file type"));
    assert!(parse(|bytes| bytes[0x6f] = 0x80).contains("size is 9223372036854775808, the maximum"));
}

#[test]
fn devices() {
    let superblock = superblock(|_| ());
    let rdev = |old: u32, new: u32| {
        let bytes = raw_inode(&superblock, 12, |bytes| {
            bytes[1] = 0x21;
            bytes[0x28..0x2c].copy_from_slice(&old.to_le_bytes());
            bytes[0x2c..0x30].copy_from_slice(&new.to_le_bytes());
        });
        Inode::parse(&superblock, 12.into(), &bytes).unwrap().rdev()
    };
    assert_eq!(rdev(0x0803, 0), Some((8, 3)));
    assert_eq!(rdev(0, 0x1234_5678), Some((0x456, 0x1_2378)));
}

#[test]
fn huge_files_count_blocks() {
    let superblock = superblock(|_| ());
    let bytes = raw_inode(&superblock, 12, |bytes| {
        bytes[0x1c] = 3;
        bytes[0x22] |= 0x4;
    });
    assert_eq!(Inode::parse(&superblock, 12.into(), &bytes).unwrap().blocks_512(), 24);
}
