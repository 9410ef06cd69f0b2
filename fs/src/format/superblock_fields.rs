//! The stored fields of the superblock, for tools that print them.

use zerocopy::little_endian::U32;

use crate::format::features::{CompatFeatures, IncompatFeatures, RoCompatFeatures};
use crate::format::raw_superblock::RawSuperblock;
use crate::format::time::Timestamp;
use crate::number::{InodeNumber, PhysicalBlock};

/// The fields of a superblock as they are stored. Magic number and checksum are verified. The
/// fields are not checked against each other or against the device, so any field may have any
/// value; [`Superblock`](crate::Superblock) is the checked form. Text ends before its first zero
/// byte and may have any encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SuperblockFields {
    /// Label, at most 16 bytes.
    pub label: Vec<u8>,
    /// Path of the last mount point, at most 64 bytes.
    pub last_mounted: Vec<u8>,
    /// UUID.
    pub uuid: [u8; 16],
    /// Magic number: 0xef53.
    pub magic: u16,
    /// Revision of the format: 0 or 1.
    pub revision: u32,
    /// Compatible features.
    pub compat: CompatFeatures,
    /// Incompatible features.
    pub incompat: IncompatFeatures,
    /// Features that writers must support.
    pub ro_compat: RoCompatFeatures,
    /// Bit 0: names are hashed as signed characters; bit 1: as unsigned characters; bit 2: a test
    /// filesystem.
    pub flags: u32,
    /// Default mount options, as bits.
    pub default_mount_options: u32,
    /// Default mount options, as text of at most 64 bytes.
    pub mount_options: Vec<u8>,
    /// Bit 0: unmounted cleanly; bit 1: errors were found; bit 2: orphans are being processed.
    pub state: u16,
    /// Behaviour of the kernel on errors: 1 continues, 2 remounts read-only, 3 panics.
    pub errors: u16,
    /// Operating system of the creator: 0 Linux, 1 Hurd, 2 Masix, 3 FreeBSD, 4 Lites.
    pub creator_os: u32,
    /// Count of inodes.
    pub inodes_count: u32,
    /// Count of blocks.
    pub blocks_count: u64,
    /// Blocks reserved for one user and one group.
    pub reserved_blocks: u64,
    /// Clusters used by metadata; 0 if mkfs did not count them.
    pub overhead_clusters: u32,
    /// Free blocks when the superblock was written.
    pub free_blocks: u64,
    /// Free inodes when the superblock was written.
    pub free_inodes: u32,
    /// First block of group 0.
    pub first_data_block: u32,
    /// Base-2 logarithm of the block size in KiB.
    pub log_block_size: u32,
    /// Base-2 logarithm of the cluster size in KiB.
    pub log_cluster_size: u32,
    /// Size of a group descriptor in bytes, with the feature `64bit`.
    pub descriptor_size: u16,
    /// Blocks reserved after the group descriptors for their growth.
    pub reserved_gdt_blocks: u16,
    /// Blocks in a group.
    pub blocks_per_group: u32,
    /// Clusters in a group.
    pub clusters_per_group: u32,
    /// Inodes in a group.
    pub inodes_per_group: u32,
    /// Blocks on one disk of a RAID before the next disk is used (the chunk size).
    pub raid_stride: u16,
    /// Blocks in a full stripe of a RAID.
    pub raid_stripe_width: u32,
    /// First block of descriptors that is stored in its own groups, with the feature `meta_bg`.
    pub first_meta_bg: u32,
    /// Base-2 logarithm of the groups in a flexible group.
    pub log_groups_per_flex: u8,
    /// Time of creation.
    pub mkfs_time: Timestamp,
    /// Time of the last mount; the epoch if there was none.
    pub mount_time: Timestamp,
    /// Time of the last write of the superblock.
    pub write_time: Timestamp,
    /// Number of mounts since the last check.
    pub mount_count: u16,
    /// Mounts after which a check is due; never if negative.
    pub max_mount_count: i16,
    /// Time of the last check by e2fsck.
    pub last_check: Timestamp,
    /// Seconds after which a check is due; never if 0.
    pub check_interval: u32,
    /// KiB written since the filesystem was created.
    pub kbytes_written: u64,
    /// User that may use the reserved blocks.
    pub reserved_uid: u16,
    /// Group that may use the reserved blocks.
    pub reserved_gid: u16,
    /// First inode that is not reserved. This field and the next are valid from revision 1 on.
    pub first_inode: InodeNumber,
    /// Size of an inode in bytes.
    pub inode_size: u16,
    /// Bytes after the first 128 that all inodes have.
    pub min_extra_isize: u16,
    /// Bytes after the first 128 that new inodes should have.
    pub want_extra_isize: u16,
    /// UUID of the external journal.
    pub journal_uuid: [u8; 16],
    /// Inode of the journal; 0 if there is none in the filesystem.
    pub journal_inode: InodeNumber,
    /// Device number of the external journal when the superblock was written.
    pub journal_device: u32,
    /// First inode of the list of orphans, which are to be freed or truncated; 0 for none.
    pub last_orphan: InodeNumber,
    /// Hash function of names: 0 legacy, 1 half MD4, 2 TEA.
    pub default_hash_version: u8,
    /// Secret seed of the hashes.
    pub hash_seed: [u8; 16],
    /// 1 if the superblock contains a backup of the journal inode's map.
    pub journal_backup_type: u8,
    /// Groups with a backup superblock, with the feature `sparse_super2`; 0 for none.
    pub backup_groups: [u32; 2],
    /// The active snapshot: its inode, its number, its reserved blocks, and the first inode of the
    /// list of snapshots (never in the kernel).
    pub snapshot: (u32, u32, u64, u32),
    /// Errors recorded by the kernel since the last check.
    pub error_count: u32,
    /// The first error since the last check.
    pub first_error: ErrorRecord,
    /// The last error since the last check.
    pub last_error: ErrorRecord,
    /// Block of multi-mount protection.
    pub mmp_block: PhysicalBlock,
    /// Seconds between two updates of the multi-mount protection block.
    pub mmp_interval: u16,
    /// Inodes of user, group and project quota; 0 for none.
    pub quota_inodes: [InodeNumber; 3],
    /// Type of the metadata checksums: 1 for CRC-32C.
    pub checksum_type: u8,
    /// Checksum of the superblock.
    pub checksum: u32,
    /// Salt for the passwords of encrypted directories.
    pub encrypt_salt: [u8; 16],
    /// Seed of the metadata checksums, with the feature `metadata_csum_seed`.
    pub checksum_seed: u32,
    /// Encoding of names, with the feature `casefold`: 1 for UTF-8 12.1.
    pub encoding: u16,
    /// Bit 0: names with an invalid encoding are rejected.
    pub encoding_flags: u16,
    /// Inode of the orphan file, with the feature `orphan_file`.
    pub orphan_file_inode: InodeNumber,
}

/// An error recorded by the kernel.
///
/// See the [example](crate::Inspection#examples).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorRecord {
    /// Time of the error; the epoch if there was none.
    pub time: Timestamp,
    /// Kernel function that reported the error, at most 32 bytes.
    pub function: Vec<u8>,
    /// Line number in the kernel's source file.
    pub line: u32,
    /// Inode; 0 if no inode was involved.
    pub inode: InodeNumber,
    /// Block; 0 if no block was involved.
    pub block: PhysicalBlock,
    /// Error code in ext4's own numbering; 0 if none was recorded.
    pub code: u8,
}

/// Joins the 40 bits of an unsigned count of seconds.
pub(crate) fn wide_time(low: U32, high: u8) -> Timestamp {
    let seconds = i64::from(low.get()) | (i64::from(high) << 32);
    Timestamp { seconds, nanoseconds: 0 }
}

pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

impl SuperblockFields {
    pub(crate) fn of(raw: &RawSuperblock) -> Self {
        let incompat = IncompatFeatures::from_bits_retain(raw.incompat.get());
        let wide = incompat.contains(IncompatFeatures::BITS64);
        let join = |low: U32, high: U32| {
            u64::from(low.get()) | if wide { u64::from(high.get()) << 32 } else { 0 }
        };
        let [first_hi, last_hi] = raw.error_times_hi;
        let [first_code, last_code] = raw.error_codes;
        Self {
            label: until_nul(&raw.label).to_vec(),
            last_mounted: until_nul(&raw.last_mounted).to_vec(),
            uuid: raw.uuid,
            magic: raw.magic.get(),
            revision: raw.revision.get(),
            compat: CompatFeatures::from_bits_retain(raw.compat.get()),
            incompat,
            ro_compat: RoCompatFeatures::from_bits_retain(raw.ro_compat.get()),
            flags: raw.flags.get(),
            default_mount_options: raw.default_mount_options.get(),
            mount_options: until_nul(&raw.mount_options).to_vec(),
            state: raw.state.get(),
            errors: raw.errors.get(),
            creator_os: raw.creator_os.get(),
            inodes_count: raw.inodes_count.get(),
            blocks_count: join(raw.blocks_count_lo, raw.blocks_count_hi),
            reserved_blocks: join(raw.reserved_blocks_lo, raw.reserved_blocks_hi),
            overhead_clusters: raw.overhead_clusters.get(),
            free_blocks: join(raw.free_blocks_lo, raw.free_blocks_hi),
            free_inodes: raw.free_inodes.get(),
            first_data_block: raw.first_data_block.get(),
            log_block_size: raw.log_block_size.get(),
            log_cluster_size: raw.log_cluster_size.get(),
            descriptor_size: raw.descriptor_size.get(),
            reserved_gdt_blocks: raw.reserved_gdt_blocks.get(),
            blocks_per_group: raw.blocks_per_group.get(),
            clusters_per_group: raw.clusters_per_group.get(),
            inodes_per_group: raw.inodes_per_group.get(),
            raid_stride: raw.raid_stride.get(),
            raid_stripe_width: raw.raid_stripe_width.get(),
            first_meta_bg: raw.first_meta_bg.get(),
            log_groups_per_flex: raw.log_groups_per_flex,
            mkfs_time: wide_time(raw.mkfs_time, raw.mkfs_time_hi),
            mount_time: wide_time(raw.mount_time, raw.mount_time_hi),
            write_time: wide_time(raw.write_time, raw.write_time_hi),
            mount_count: raw.mount_count.get(),
            max_mount_count: raw.max_mount_count.get().cast_signed(),
            last_check: wide_time(raw.last_check, raw.last_check_hi),
            check_interval: raw.check_interval.get(),
            kbytes_written: raw.kbytes_written.get(),
            reserved_uid: raw.reserved_uid.get(),
            reserved_gid: raw.reserved_gid.get(),
            first_inode: raw.first_inode.into(),
            inode_size: raw.inode_size.get(),
            min_extra_isize: raw.min_extra_isize.get(),
            want_extra_isize: raw.want_extra_isize.get(),
            journal_uuid: raw.journal_uuid,
            journal_inode: raw.journal_inode.into(),
            journal_device: raw.journal_device.get(),
            last_orphan: raw.last_orphan.into(),
            default_hash_version: raw.default_hash_version,
            hash_seed: zerocopy::transmute!(raw.hash_seed),
            journal_backup_type: raw.journal_backup_type,
            backup_groups: raw.backup_groups.map(U32::get),
            snapshot: (
                raw.snapshot_inode.get(),
                raw.snapshot_id.get(),
                raw.snapshot_reserved_blocks.get(),
                raw.snapshot_list.get(),
            ),
            error_count: raw.error_count.get(),
            first_error: ErrorRecord {
                time: wide_time(raw.first_error_time, first_hi),
                function: until_nul(&raw.first_error_function).to_vec(),
                line: raw.first_error_line.get(),
                inode: raw.first_error_inode.into(),
                block: raw.first_error_block.get().into(),
                code: first_code,
            },
            last_error: ErrorRecord {
                time: wide_time(raw.last_error_time, last_hi),
                function: until_nul(&raw.last_error_function).to_vec(),
                line: raw.last_error_line.get(),
                inode: raw.last_error_inode.into(),
                block: raw.last_error_block.get().into(),
                code: last_code,
            },
            mmp_block: raw.mmp_block.get().into(),
            mmp_interval: raw.mmp_interval.get(),
            quota_inodes: [
                raw.user_quota_inode.into(),
                raw.group_quota_inode.into(),
                raw.project_quota_inode.into(),
            ],
            checksum_type: raw.checksum_type,
            checksum: raw.checksum.get(),
            encrypt_salt: raw.encrypt_salt,
            checksum_seed: raw.checksum_seed.get(),
            encoding: raw.encoding.get(),
            encoding_flags: raw.encoding_flags.get(),
            orphan_file_inode: raw.orphan_file_inode.into(),
        }
    }
}
