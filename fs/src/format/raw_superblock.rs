//! The on-disk layout of the superblock.

use std::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Byte offset of the primary superblock on the device.
pub(crate) const SUPERBLOCK_OFFSET: u64 = 1024;
/// Size of the superblock, bytes.
pub(crate) const SUPERBLOCK_SIZE: usize = 1024;

/// `struct ext4_super_block`.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawSuperblock {
    pub inodes_count: U32,
    pub blocks_count_lo: U32,
    pub reserved_blocks_lo: U32,
    pub free_blocks_lo: U32,
    pub free_inodes: U32,
    pub first_data_block: U32,
    pub log_block_size: U32,
    pub log_cluster_size: U32,
    pub blocks_per_group: U32,
    pub clusters_per_group: U32,
    pub inodes_per_group: U32,
    pub mount_time: U32,
    pub write_time: U32,
    pub mount_count: U16,
    pub max_mount_count: U16,
    pub magic: U16,
    pub state: U16,
    pub errors: U16,
    pub minor_revision: U16,
    pub last_check: U32,
    pub check_interval: U32,
    pub creator_os: U32,
    pub revision: U32,
    pub reserved_uid: U16,
    pub reserved_gid: U16,
    pub first_inode: U32,
    pub inode_size: U16,
    pub block_group: U16,
    pub compat: U32,
    pub incompat: U32,
    pub ro_compat: U32,
    pub uuid: [u8; 16],
    pub label: [u8; 16],
    pub last_mounted: [u8; 64],
    pub algorithm_bitmap: U32,
    pub prealloc_blocks: u8,
    pub prealloc_dir_blocks: u8,
    pub reserved_gdt_blocks: U16,
    pub journal_uuid: [u8; 16],
    pub journal_inode: U32,
    pub journal_device: U32,
    pub last_orphan: U32,
    pub hash_seed: [U32; 4],
    pub default_hash_version: u8,
    pub journal_backup_type: u8,
    pub descriptor_size: U16,
    pub default_mount_options: U32,
    pub first_meta_bg: U32,
    pub mkfs_time: U32,
    pub journal_blocks: [U32; 17],
    pub blocks_count_hi: U32,
    pub reserved_blocks_hi: U32,
    pub free_blocks_hi: U32,
    pub min_extra_isize: U16,
    pub want_extra_isize: U16,
    pub flags: U32,
    pub raid_stride: U16,
    pub mmp_interval: U16,
    pub mmp_block: U64,
    pub raid_stripe_width: U32,
    pub log_groups_per_flex: u8,
    pub checksum_type: u8,
    pub reserved_pad: U16,
    pub kbytes_written: U64,
    pub snapshot_inode: U32,
    pub snapshot_id: U32,
    pub snapshot_reserved_blocks: U64,
    pub snapshot_list: U32,
    pub error_count: U32,
    pub first_error_time: U32,
    pub first_error_inode: U32,
    pub first_error_block: U64,
    pub first_error_function: [u8; 32],
    pub first_error_line: U32,
    pub last_error_time: U32,
    pub last_error_inode: U32,
    pub last_error_line: U32,
    pub last_error_block: U64,
    pub last_error_function: [u8; 32],
    pub mount_options: [u8; 64],
    pub user_quota_inode: U32,
    pub group_quota_inode: U32,
    pub overhead_clusters: U32,
    pub backup_groups: [U32; 2],
    pub encrypt_algorithms: [u8; 4],
    pub encrypt_salt: [u8; 16],
    pub lost_found_inode: U32,
    pub project_quota_inode: U32,
    pub checksum_seed: U32,
    pub write_time_hi: u8,
    pub mount_time_hi: u8,
    pub mkfs_time_hi: u8,
    pub last_check_hi: u8,
    pub error_times_hi: [u8; 2],
    pub error_codes: [u8; 2],
    pub encoding: U16,
    pub encoding_flags: U16,
    pub orphan_file_inode: U32,
    pub reserved: [U32; 94],
    pub checksum: U32,
}

const _: () = {
    assert!(size_of::<RawSuperblock>() == SUPERBLOCK_SIZE);
    assert!(offset_of!(RawSuperblock, magic) == 0x38);
    assert!(offset_of!(RawSuperblock, first_inode) == 0x54);
    assert!(offset_of!(RawSuperblock, uuid) == 0x68);
    assert!(offset_of!(RawSuperblock, journal_inode) == 0xe0);
    assert!(offset_of!(RawSuperblock, descriptor_size) == 0xfe);
    assert!(offset_of!(RawSuperblock, blocks_count_hi) == 0x150);
    assert!(offset_of!(RawSuperblock, mmp_block) == 0x168);
    assert!(offset_of!(RawSuperblock, checksum_type) == 0x175);
    assert!(offset_of!(RawSuperblock, error_count) == 0x194);
    assert!(offset_of!(RawSuperblock, last_error_time) == 0x1cc);
    assert!(offset_of!(RawSuperblock, mount_options) == 0x200);
    assert!(offset_of!(RawSuperblock, backup_groups) == 0x24c);
    assert!(offset_of!(RawSuperblock, checksum_seed) == 0x270);
    assert!(offset_of!(RawSuperblock, orphan_file_inode) == 0x280);
    assert!(offset_of!(RawSuperblock, checksum) == 0x3fc);
};
