//! Tests of valid and damaged superblocks.

use zerocopy::FromBytes;

use super::*;
use crate::format::raw_superblock::SUPERBLOCK_SIZE;

/// Returns a valid superblock: 8,192 blocks of 4 KiB in one group, 256-byte inodes, 64-byte
/// descriptors, metadata checksums.
pub(crate) fn sample() -> RawSuperblock {
    let mut raw = RawSuperblock::read_from_bytes(&[0; SUPERBLOCK_SIZE]).unwrap();
    raw.magic = MAGIC.into();
    raw.revision = 1.into();
    raw.log_block_size = 2.into();
    raw.log_cluster_size = 2.into();
    raw.blocks_count_lo = 8192.into();
    raw.blocks_per_group = 32768.into();
    raw.clusters_per_group = 32768.into();
    raw.inodes_per_group = 2048.into();
    raw.inodes_count = 2048.into();
    raw.inode_size = 256.into();
    raw.first_inode = 11.into();
    raw.descriptor_size = 64.into();
    raw.incompat = 0x2c2.into();
    raw.ro_compat = 0x46b.into();
    raw.checksum_type = 1;
    raw.uuid = *b"0123456789abcdef";
    raw.label[..4].copy_from_slice(b"data");
    seal(raw)
}

/// Updates the checksum.
pub(crate) fn seal(mut raw: RawSuperblock) -> RawSuperblock {
    raw.checksum = crc32c(!0, &raw.as_bytes()[..1020]).into();
    raw
}

fn message(change: impl FnOnce(&mut RawSuperblock)) -> String {
    let mut raw = sample();
    change(&mut raw);
    Superblock::parse(&seal(raw)).unwrap_err().to_string()
}

#[test]
fn a_sound_superblock() {
    let superblock = Superblock::parse(&sample()).unwrap();
    assert_eq!((superblock.block_size(), superblock.blocks_count), (4096, 8192));
    assert_eq!((superblock.groups_count(), superblock.inode_size()), (1, 256));
    assert_eq!((&superblock.label[..], superblock.size()), (&b"data"[..], 32 << 20));
    assert_eq!(superblock.checksum_seed, crc32c(!0, b"0123456789abcdef"));
}

#[test]
fn the_seed_may_be_stored() {
    let mut raw = sample();
    raw.incompat = 0x22c2.into();
    raw.checksum_seed = 0x1234_5678.into();
    assert_eq!(Superblock::parse(&seal(raw)).unwrap().checksum_seed, 0x1234_5678);
}

#[test]
fn the_checksum_is_verified() {
    let mut raw = sample();
    raw.label[0] ^= 1;
    let error = Superblock::parse(&raw).unwrap_err();
    assert!(error.to_string().starts_with("corrupt superblock: its checksum is"), "{error}");
}

#[test]
fn features_are_refused_by_name() {
    assert_eq!(
        message(|raw| raw.incompat = 0x2c3.into()),
        "unsupported incompat feature: compression"
    );
    assert_eq!(
        message(|raw| raw.incompat = 0x10_02c2.into()),
        "unknown incompat feature bit 0x100000"
    );
    assert_eq!(
        message(|raw| raw.incompat = 0xa.into()),
        "unsupported incompat feature: journal_dev"
    );
    assert_eq!(
        message(|raw| raw.magic = 0x4244.into()),
        "not an ext4 filesystem: the magic number at byte 1080 is 0x4244, not 0xef53"
    );
}

#[test]
fn unknown_ro_compat_bits_are_no_obstacle() {
    let mut raw = sample();
    raw.ro_compat = (0x46b | 0x8000_0000).into();
    let superblock = Superblock::parse(&seal(raw)).unwrap();
    assert_eq!(superblock.ro_compat.bits() >> 31, 1);
}

#[test]
fn every_rule_of_the_geometry() {
    type Change = fn(&mut RawSuperblock);
    let cases: &[(&str, Change)] = &[
        ("log block size is 7", |raw| raw.log_block_size = 7.into()),
        ("log block size is 4294967295", |raw| raw.log_block_size = (!0).into()),
        ("log cluster size is 3", |raw| raw.log_cluster_size = 3.into()),
        ("inode size is 0", |raw| raw.inode_size = 0.into()),
        ("inode size is 192", |raw| raw.inode_size = 192.into()),
        ("inode size is 8192", |raw| raw.inode_size = 8192.into()),
        ("first inode is 2", |raw| raw.first_inode = 2.into()),
        ("descriptor size is 32", |raw| raw.descriptor_size = 32.into()),
        ("descriptor size is 2048", |raw| raw.descriptor_size = 2048.into()),
        ("first data block is 1", |raw| raw.first_data_block = 1.into()),
        ("blocks count is 0", |raw| raw.blocks_count_lo = 0.into()),
        ("blocks per group is 0", |raw| raw.blocks_per_group = 0.into()),
        ("blocks per group is 32769", |raw| raw.blocks_per_group = 32769.into()),
        ("inodes per group is 0", |raw| raw.inodes_per_group = 0.into()),
        ("inodes per group is 32769", |raw| raw.inodes_per_group = 32769.into()),
        ("inodes count is 2047, not 2048", |raw| raw.inodes_count = 2047.into()),
        ("groups count is", |raw| {
            raw.blocks_count_hi = (!0).into();
            raw.blocks_per_group = 1.into();
        }),
        ("checksum type is 2", |raw| raw.checksum_type = 2),
    ];
    for (expected, change) in cases {
        let message = message(change);
        assert!(message.starts_with(&format!("corrupt superblock: {expected}")), "{message}");
    }
}
