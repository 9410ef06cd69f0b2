//! The superblock: identity, features and geometry of the filesystem.

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use crate::error::Error;
use crate::format::checksum::crc32c;
use crate::format::corrupt::Problem;
use crate::format::dir_hash::HashParameters;
use crate::format::features::{CompatFeatures, IncompatFeatures, RoCompatFeatures};
use crate::format::geometry::{Geometry, bad, ensure};
use crate::format::raw_superblock::{RawSuperblock, SUPERBLOCK_OFFSET};
use crate::format::superblock_fields::{until_nul, wide_time};
use crate::format::time::Timestamp;

/// `s_magic` of ext2, ext3 and ext4.
pub(crate) const MAGIC: u16 = 0xef53;
/// `s_encoding` of UTF-8, the only defined encoding.
pub(crate) const ENCODING_UTF8: u16 = 1;
/// `s_checksum_type` of CRC-32C, the only defined value.
const CHECKSUM_CRC32C: u8 = 1;

/// `s_state`: the kernel was processing the list of orphans.
const STATE_ORPHANS: u16 = 0x4;
/// `s_default_mount_opts`: the bits of the journaling mode, and their value for `data=journal`.
const JOURNAL_MODE: u32 = 0x60;
const JOURNAL_MODE_DATA: u32 = 0x20;

/// A parsed and checked superblock.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::with(&["-L", "data"]);
/// # let fs = nvio_ext4::Filesystem::open(std::fs::File::open(sample.path())?)?;
/// use nvio_ext4::{CompatFeatures, IncompatFeatures, RoCompatFeatures};
///
/// let sb = fs.superblock();
/// assert_eq!((sb.label(), sb.last_mounted()), (&b"data"[..], &b""[..]));
/// println!("UUID {:x?}, revision {}", sb.uuid(), sb.revision());
///
/// // Sizes.
/// assert_eq!(sb.size(), sb.blocks_count() * u64::from(sb.block_size()));
/// assert_eq!(sb.cluster_size(), sb.block_size());
/// assert!(sb.free_blocks_count() + sb.reserved_blocks_count() < sb.blocks_count());
/// assert_eq!(sb.inodes_count(), sb.groups_count() * sb.inodes_per_group());
/// assert!(sb.free_inodes_count() < sb.inodes_count() && sb.inode_size() >= 128);
/// assert_eq!(sb.blocks_per_group(), 8192);
///
/// // State.
/// assert!(sb.is_clean() && !sb.has_errors());
/// assert_eq!((sb.error_count(), sb.mount_count()), (0, 0));
/// println!("created {:?}, checked {:?}", sb.mkfs_time(), sb.last_check());
/// println!("mounted {:?}, written {:?}", sb.mount_time(), sb.write_time());
///
/// assert!(sb.compat_features().contains(CompatFeatures::HAS_JOURNAL));
/// assert!(sb.incompat_features().contains(IncompatFeatures::EXTENTS));
/// assert!(sb.ro_compat_features().contains(RoCompatFeatures::SPARSE_SUPER));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Superblock {
    pub(crate) block_bits: u32,
    pub(crate) blocks_count: u64,
    pub(crate) first_data_block: u32,
    pub(crate) blocks_per_group: u32,
    pub(crate) groups_count: u32,
    pub(crate) inodes_count: u32,
    pub(crate) inodes_per_group: u32,
    pub(crate) inode_size: u16,
    pub(crate) first_inode: u32,
    pub(crate) descriptor_size: u16,
    pub(crate) first_meta_bg: u32,
    pub(crate) backup_groups: [u32; 2],
    pub(crate) mmp_block: u64,
    /// Blocks reserved after the group descriptors for their growth.
    pub(crate) reserved_gdt_blocks: u16,
    pub(crate) journal_inode: u32,
    /// UUID of the journal on another device.
    pub(crate) journal_uuid: [u8; 16],
    /// Inodes of user, group and project quota.
    pub(crate) quota_inodes: [u32; 3],
    pub(crate) orphan_file_inode: u32,
    /// Parameters of the hashes of names.
    pub(crate) hash: HashParameters,
    /// Flags of the encoding of names in directories that ignore case.
    pub(crate) encoding_flags: u16,
    last_orphan: u32,
    default_mount_options: u32,
    mount_options: [u8; 64],
    pub(crate) checksum_seed: u32,
    cluster_size: u32,
    /// Clusters used by metadata; 0 if mkfs did not count them.
    pub(crate) overhead_clusters: u32,
    free_blocks: u64,
    reserved_blocks: u64,
    free_inodes: u32,
    revision: u32,
    state: u16,
    mount_count: u16,
    error_count: u32,
    compat: CompatFeatures,
    incompat: IncompatFeatures,
    ro_compat: RoCompatFeatures,
    uuid: [u8; 16],
    label: [u8; 16],
    last_mounted: [u8; 64],
    mount_time: Timestamp,
    write_time: Timestamp,
    mkfs_time: Timestamp,
    last_check: Timestamp,
}

impl Superblock {
    /// Parses a superblock and checks its magic number, checksum, features and geometry.
    pub(crate) fn parse(raw: &RawSuperblock) -> Result<Self, Error> {
        verify(raw)?;
        let incompat = IncompatFeatures::from_bits_retain(raw.incompat.get());
        let ro_compat = RoCompatFeatures::from_bits_retain(raw.ro_compat.get());
        // Check the features before the geometry, because an unknown feature may change the meaning
        // of other fields.
        if incompat.contains(IncompatFeatures::JOURNAL_DEV) {
            return Err(Error::UnsupportedFeature { features: IncompatFeatures::JOURNAL_DEV });
        }
        let known = IncompatFeatures::SUPPORTED.union(IncompatFeatures::RECOVER);
        let features = IncompatFeatures::from_bits_retain(incompat.bits() & !known.bits());
        if features.bits() != 0 {
            return Err(Error::UnsupportedFeature { features });
        }

        if incompat.contains(IncompatFeatures::CASEFOLD) {
            let (encoding, rule) = (raw.encoding.get(), "must be 1 (UTF-8 12.1)");
            ensure(encoding == ENCODING_UTF8, "encoding", encoding, rule)?;
        }
        let geometry = Geometry::parse(raw, incompat, ro_compat)?;
        let uuid_seed = crc32c(!0, &raw.uuid);
        let has_seed = incompat.contains(IncompatFeatures::CSUM_SEED);
        let wide = incompat.contains(IncompatFeatures::BITS64);
        let join = |low: U32, high: U32| {
            u64::from(low.get()) | if wide { u64::from(high.get()) << 32 } else { 0 }
        };
        Ok(Self {
            block_bits: geometry.block_bits,
            blocks_count: geometry.blocks_count,
            first_data_block: raw.first_data_block.get(),
            blocks_per_group: raw.blocks_per_group.get(),
            groups_count: geometry.groups_count,
            inodes_count: raw.inodes_count.get(),
            inodes_per_group: raw.inodes_per_group.get(),
            inode_size: geometry.inode_size,
            first_inode: geometry.first_inode,
            descriptor_size: geometry.descriptor_size,
            first_meta_bg: raw.first_meta_bg.get(),
            backup_groups: raw.backup_groups.map(U32::get),
            mmp_block: raw.mmp_block.get(),
            reserved_gdt_blocks: raw.reserved_gdt_blocks.get(),
            journal_inode: raw.journal_inode.get(),
            journal_uuid: raw.journal_uuid,
            quota_inodes: [
                raw.user_quota_inode.get(),
                raw.group_quota_inode.get(),
                raw.project_quota_inode.get(),
            ],
            orphan_file_inode: raw.orphan_file_inode.get(),
            hash: HashParameters::new(
                raw.hash_seed.map(U32::get),
                raw.flags.get(),
                raw.default_hash_version,
            ),
            encoding_flags: raw.encoding_flags.get(),
            last_orphan: raw.last_orphan.get(),
            default_mount_options: raw.default_mount_options.get(),
            mount_options: raw.mount_options,
            checksum_seed: if has_seed { raw.checksum_seed.get() } else { uuid_seed },
            cluster_size: geometry.cluster_size,
            overhead_clusters: raw.overhead_clusters.get(),
            free_blocks: join(raw.free_blocks_lo, raw.free_blocks_hi),
            reserved_blocks: join(raw.reserved_blocks_lo, raw.reserved_blocks_hi),
            free_inodes: raw.free_inodes.get(),
            revision: raw.revision.get(),
            state: raw.state.get(),
            mount_count: raw.mount_count.get(),
            error_count: raw.error_count.get(),
            compat: CompatFeatures::from_bits_retain(raw.compat.get()),
            incompat,
            ro_compat,
            uuid: raw.uuid,
            label: raw.label,
            last_mounted: raw.last_mounted,
            mount_time: wide_time(raw.mount_time, raw.mount_time_hi),
            write_time: wide_time(raw.write_time, raw.write_time_hi),
            mkfs_time: wide_time(raw.mkfs_time, raw.mkfs_time_hi),
            last_check: wide_time(raw.last_check, raw.last_check_hi),
        })
    }

    /// Returns the block size in bytes: a power of two from 1,024 to 65,536.
    ///
    /// See the [example](Self#examples).
    pub fn block_size(&self) -> u32 {
        1u32.wrapping_shl(self.block_bits)
    }

    /// Returns the number of blocks.
    ///
    /// See the [example](Self#examples).
    pub fn blocks_count(&self) -> u64 {
        self.blocks_count
    }

    /// Returns the size of the filesystem in bytes.
    ///
    /// See the [example](Self#examples).
    pub fn size(&self) -> u64 {
        self.blocks_count.saturating_mul(u64::from(self.block_size()))
    }

    /// Returns the unit of allocation in bytes: the block size, or more with `bigalloc`.
    ///
    /// See the [example](Self#examples).
    pub fn cluster_size(&self) -> u32 {
        self.cluster_size
    }

    /// Returns the number of free blocks (clusters with `bigalloc`) when the superblock was last
    /// written.
    ///
    /// See the [example](Self#examples).
    pub fn free_blocks_count(&self) -> u64 {
        self.free_blocks
    }

    /// Returns the number of blocks reserved for root.
    ///
    /// See the [example](Self#examples).
    pub fn reserved_blocks_count(&self) -> u64 {
        self.reserved_blocks
    }

    /// Returns the number of inodes, which is also the largest inode number.
    ///
    /// See the [example](Self#examples).
    pub fn inodes_count(&self) -> u32 {
        self.inodes_count
    }

    /// Returns the number of free inodes when the superblock was last written.
    ///
    /// See the [example](Self#examples).
    pub fn free_inodes_count(&self) -> u32 {
        self.free_inodes
    }

    /// Returns the size of an inode in bytes: a power of two from 128 to the block size.
    ///
    /// See the [example](Self#examples).
    pub fn inode_size(&self) -> u16 {
        self.inode_size
    }

    /// Returns the number of inodes in each block group.
    ///
    /// See the [example](Self#examples).
    pub fn inodes_per_group(&self) -> u32 {
        self.inodes_per_group
    }

    /// Returns the number of blocks in each block group but the last.
    ///
    /// See the [example](Self#examples).
    pub fn blocks_per_group(&self) -> u32 {
        self.blocks_per_group
    }

    /// Returns the number of block groups.
    ///
    /// See the [example](Self#examples).
    pub fn groups_count(&self) -> u32 {
        self.groups_count
    }

    /// Returns the label: at most 16 bytes in any encoding.
    ///
    /// See the [example](Self#examples).
    pub fn label(&self) -> &[u8] {
        until_nul(&self.label)
    }

    /// Returns the UUID.
    ///
    /// See the [example](Self#examples).
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// Returns the path of the last mount point: at most 64 bytes.
    ///
    /// See the [example](Self#examples).
    pub fn last_mounted(&self) -> &[u8] {
        until_nul(&self.last_mounted)
    }

    /// Returns the time of the last mount; the epoch if there was none.
    ///
    /// See the [example](Self#examples).
    pub fn mount_time(&self) -> Timestamp {
        self.mount_time
    }

    /// Returns the time of the last write of the superblock.
    ///
    /// See the [example](Self#examples).
    pub fn write_time(&self) -> Timestamp {
        self.write_time
    }

    /// Returns the time when the filesystem was created.
    ///
    /// See the [example](Self#examples).
    pub fn mkfs_time(&self) -> Timestamp {
        self.mkfs_time
    }

    /// Returns the time of the last check by e2fsck.
    ///
    /// See the [example](Self#examples).
    pub fn last_check(&self) -> Timestamp {
        self.last_check
    }

    /// Returns the number of mounts since the last check.
    ///
    /// See the [example](Self#examples).
    pub fn mount_count(&self) -> u16 {
        self.mount_count
    }

    /// Returns the revision of the format: 0 or 1.
    ///
    /// See the [example](Self#examples).
    pub fn revision(&self) -> u32 {
        self.revision
    }

    /// Returns true if the filesystem was unmounted cleanly. It is also true while one with a
    /// journal is mounted.
    ///
    /// See the [example](Self#examples).
    pub fn is_clean(&self) -> bool {
        self.state & 0x1 != 0
    }

    /// Returns true if the kernel recorded errors and e2fsck has not repaired them.
    ///
    /// See the [example](Self#examples).
    pub fn has_errors(&self) -> bool {
        self.state & 0x2 != 0
    }

    /// Returns the number of errors that the kernel recorded since the last check.
    ///
    /// See the [example](Self#examples).
    pub fn error_count(&self) -> u32 {
        self.error_count
    }

    /// Returns true if inodes without a name, or with a pending truncation, are listed for
    /// processing at the next mount.
    pub(crate) fn has_orphans(&self) -> bool {
        self.last_orphan != 0 || self.state & STATE_ORPHANS != 0
    }

    /// Returns the first inode of the list of orphans; 0 if the list is empty.
    pub(crate) fn last_orphan(&self) -> u32 {
        self.last_orphan
    }

    /// Returns true if the journal is on another device.
    pub(crate) fn has_external_journal(&self) -> bool {
        self.compat.contains(CompatFeatures::HAS_JOURNAL) && self.journal_inode == 0
    }

    /// Returns true if the default mount options include `data=journal`.
    pub(crate) fn journals_data(&self) -> bool {
        let mut options = until_nul(&self.mount_options).split(|&byte| byte == b',');
        self.default_mount_options & JOURNAL_MODE == JOURNAL_MODE_DATA
            || options.any(|option| option.trim_ascii() == b"data=journal")
    }

    /// Returns the compatible features.
    ///
    /// See the [example](Self#examples).
    pub fn compat_features(&self) -> CompatFeatures {
        self.compat
    }

    /// Returns the incompatible features, all of which this crate supports.
    ///
    /// See the [example](Self#examples).
    pub fn incompat_features(&self) -> IncompatFeatures {
        self.incompat
    }

    /// Returns the features that writers must support. Unknown bits may be set.
    ///
    /// See the [example](Self#examples).
    pub fn ro_compat_features(&self) -> RoCompatFeatures {
        self.ro_compat
    }

    pub(crate) fn has_metadata_csum(&self) -> bool {
        self.ro_compat.contains(RoCompatFeatures::METADATA_CSUM)
    }

    pub(crate) fn has_gdt_csum(&self) -> bool {
        self.ro_compat.contains(RoCompatFeatures::GDT_CSUM)
    }

    pub(crate) fn has(&self, feature: IncompatFeatures) -> bool {
        self.incompat.contains(feature)
    }

    /// Returns the length of `blocks` blocks in bytes. `blocks` must be at most `blocks_count` or a
    /// logical block number, so that the result is below 2^64.
    #[inline]
    pub(crate) fn bytes(&self, blocks: u64) -> u64 {
        blocks.saturating_mul(u64::from(self.block_size()))
    }

    /// Returns the logical block that contains byte `pos`.
    #[inline]
    pub(crate) fn block_at(&self, pos: u64) -> u64 {
        pos.wrapping_shr(self.block_bits)
    }

    /// Returns the block that contains the primary superblock.
    pub(crate) fn superblock_block(&self) -> u64 {
        SUPERBLOCK_OFFSET.wrapping_shr(self.block_bits)
    }

    /// Returns true if `count` blocks from `start` can belong to files or directories: they are
    /// inside the filesystem, and after the primary superblock and the group descriptors.
    pub(crate) fn is_data_range(&self, start: u64, count: u64) -> bool {
        let end = start.checked_add(count);
        start > self.last_fixed_block() && end.is_some_and(|end| end <= self.blocks_count)
    }

    /// Returns the first block of a group.
    pub(crate) fn group_start(&self, group: u32) -> u64 {
        u64::from(group)
            .saturating_mul(u64::from(self.blocks_per_group))
            .saturating_add(u64::from(self.first_data_block))
    }

    /// Returns true if the filesystem was not mounted, changed or recreated since `before` was
    /// read.
    pub(crate) fn is_same(&self, before: &Self) -> bool {
        let key = |superblock: &Self| {
            let times = (superblock.mkfs_time, superblock.mount_time, superblock.write_time);
            (superblock.uuid, times, superblock.mount_count, superblock.blocks_count)
        };
        key(self) == key(before)
    }

    /// Returns the last block of the group descriptors that follow the primary superblock.
    pub(crate) fn last_fixed_block(&self) -> u64 {
        let bytes = u64::from(self.groups_count).saturating_mul(u64::from(self.descriptor_size));
        let mut descriptor_blocks = bytes.div_ceil(u64::from(self.block_size()).max(1));
        if self.has(IncompatFeatures::META_BG) {
            descriptor_blocks = descriptor_blocks.min(u64::from(self.first_meta_bg));
        }
        self.superblock_block().saturating_add(descriptor_blocks)
    }
}

/// Checks the magic number and the checksum.
pub(crate) fn verify(raw: &RawSuperblock) -> Result<(), Error> {
    if raw.magic != MAGIC {
        return Err(Error::NotExt4 { magic: raw.magic.get() });
    }
    let ro_compat = RoCompatFeatures::from_bits_retain(raw.ro_compat.get());
    if !ro_compat.contains(RoCompatFeatures::METADATA_CSUM) {
        return Ok(());
    }
    let rule = "must be 1 (CRC-32C)";
    ensure(raw.checksum_type == CHECKSUM_CRC32C, "checksum type", raw.checksum_type, rule)?;
    let (stored, computed) = (raw.checksum.get(), checksum_of(raw));
    if stored == computed { Ok(()) } else { Err(bad(Problem::Checksum { stored, computed })) }
}

/// Computes the checksum of the superblock.
pub(crate) fn checksum_of(raw: &RawSuperblock) -> u32 {
    crc32c(!0, raw.as_bytes().split_last_chunk::<4>().map_or(&[][..], |(covered, _)| covered))
}

#[cfg_attr(not(test), expect(dead_code, reason = "for writing metadata"))]
/// Stores the checksum of the contents, if the filesystem has metadata checksums.
pub(crate) fn seal(raw: &mut RawSuperblock) {
    let ro_compat = RoCompatFeatures::from_bits_retain(raw.ro_compat.get());
    if ro_compat.contains(RoCompatFeatures::METADATA_CSUM) {
        raw.checksum = checksum_of(raw).into();
    }
}

#[cfg_attr(not(test), expect(dead_code, reason = "for writing metadata"))]
/// Stores the counts of free blocks and free inodes. The upper half of the blocks is stored only
/// with `64bit`.
pub(crate) fn set_free(raw: &mut RawSuperblock, blocks: u64, inodes: u32) {
    let [a, b, c, d, high @ ..] = blocks.to_le_bytes();
    raw.free_blocks_lo = U32::from_bytes([a, b, c, d]);
    if raw.incompat.get() & IncompatFeatures::BITS64.bits() != 0 {
        raw.free_blocks_hi = U32::from_bytes(high);
    }
    raw.free_inodes = inodes.into();
}

#[cfg(test)]
pub(crate) mod tests;
