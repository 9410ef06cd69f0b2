//! The superblock: identity, features and geometry of the filesystem.

use std::ops::{Deref, RangeInclusive};

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use crate::error::Error;
use crate::format::checksum::crc32c;
use crate::format::corrupt::{Problem, Structure};
use crate::format::dir_hash::HashParameters;
use crate::format::features::{CompatFeatures, IncompatFeatures, RoCompatFeatures};
use crate::format::geometry::Geometry;
use crate::format::halves::split_64;
use crate::format::raw_superblock::{RawSuperblock, SUPERBLOCK_OFFSET};
use crate::format::superblock_fields::SuperblockFields;
use crate::number::{BlockRun, InodeNumber, LogicalBlock, PhysicalBlock};

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

/// A parsed and checked superblock. It dereferences to its fields as they are stored.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::with(&["-L", "data"]);
/// # let fs = nvio_ext4::Filesystem::open(std::fs::File::open(sample.path())?)?;
/// use nvio_ext4::{CompatFeatures, IncompatFeatures, RoCompatFeatures};
///
/// let sb = fs.superblock();
/// assert_eq!((&sb.label[..], &sb.last_mounted[..]), (&b"data"[..], &b""[..]));
/// println!("UUID {:x?}, revision {}", sb.uuid, sb.revision);
///
/// // Sizes.
/// assert_eq!(sb.size(), sb.blocks_count * u64::from(sb.block_size()));
/// assert_eq!(sb.cluster_size(), sb.block_size());
/// assert!(sb.free_blocks + sb.reserved_blocks < sb.blocks_count);
/// assert_eq!(sb.inodes_count, sb.groups_count() * sb.inodes_per_group);
/// assert!(sb.free_inodes < sb.inodes_count && sb.inode_size() >= 128);
/// assert_eq!(sb.blocks_per_group, 8192);
///
/// // State.
/// assert!(sb.is_clean() && !sb.has_errors());
/// assert_eq!((sb.error_count, sb.mount_count), (0, 0));
/// println!("created {:?}, checked {:?}", sb.mkfs_time, sb.last_check);
/// println!("mounted {:?}, written {:?}", sb.mount_time, sb.write_time);
///
/// assert!(sb.compat.contains(CompatFeatures::HAS_JOURNAL));
/// assert!(sb.incompat.contains(IncompatFeatures::EXTENTS));
/// assert!(sb.ro_compat.contains(RoCompatFeatures::SPARSE_SUPER));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Superblock {
    fields: SuperblockFields,
    pub(crate) geometry: Geometry,
    /// Parameters of the hashes of names.
    pub(crate) hash: HashParameters,
    /// Seed of the checksums of other structures.
    pub(crate) checksum_seed: u32,
    /// Block of the copy that these fields were read from; `None` for the primary superblock.
    copy: Option<PhysicalBlock>,
}

impl Deref for Superblock {
    type Target = SuperblockFields;

    fn deref(&self) -> &SuperblockFields {
        &self.fields
    }
}

impl Superblock {
    /// Parses a superblock and checks its magic number, checksum, features and geometry.
    pub(crate) fn parse(raw: &RawSuperblock) -> Result<Self, Error> {
        verify(raw)?;
        let fields = SuperblockFields::of(raw);
        // Check the features before the geometry, because an unknown feature may change the meaning
        // of other fields.
        if fields.incompat.contains(IncompatFeatures::JOURNAL_DEV) {
            return Err(Error::UnsupportedFeature { features: IncompatFeatures::JOURNAL_DEV });
        }
        let known = IncompatFeatures::SUPPORTED.union(IncompatFeatures::RECOVER);
        let features = fields.incompat.difference(known);
        if features.bits() != 0 {
            return Err(Error::UnsupportedFeature { features });
        }
        if fields.incompat.contains(IncompatFeatures::CASEFOLD) {
            let (encoding, rule) = (fields.encoding, "must be 1 (UTF-8 12.1)");
            Structure::Superblock.ensure(encoding == ENCODING_UTF8, "encoding", encoding, rule)?;
        }
        let geometry = Geometry::parse(&fields)?;
        let seed = raw.hash_seed.map(U32::get);
        let hash = HashParameters::new(seed, fields.flags, fields.default_hash_version);
        let has_seed = fields.incompat.contains(IncompatFeatures::CSUM_SEED);
        let checksum_seed = if has_seed { fields.checksum_seed } else { crc32c(!0, &fields.uuid) };
        Ok(Self { fields, geometry, hash, checksum_seed, copy: None })
    }

    /// Parses a copy of the superblock in block `block`.
    pub(crate) fn parse_copy(raw: &RawSuperblock, block: PhysicalBlock) -> Result<Self, Error> {
        Ok(Self { copy: Some(block), ..Self::parse(raw)? })
    }

    /// Returns true if the fields were read from a copy of the superblock, which is not updated
    /// when the filesystem is mounted.
    pub(crate) fn is_copy(&self) -> bool {
        self.copy.is_some()
    }

    /// Returns these fields with the group descriptors of the copy that `before` was read from.
    pub(crate) fn with_descriptors_of(self, before: &Self) -> Self {
        Self { copy: before.copy, ..self }
    }

    /// Returns the block size in bytes: a power of two from 1,024 to 65,536.
    ///
    /// See the [example](Self#examples).
    pub fn block_size(&self) -> u32 {
        1u32.wrapping_shl(self.geometry.block_bits)
    }

    /// Returns the size of the filesystem in bytes.
    ///
    /// See the [example](Self#examples).
    pub fn size(&self) -> u64 {
        self.bytes(self.blocks_count)
    }

    /// Returns the unit of allocation in bytes: the block size, or more with `bigalloc`.
    ///
    /// See the [example](Self#examples).
    pub fn cluster_size(&self) -> u32 {
        self.geometry.cluster_size
    }

    /// Returns the size of an inode in bytes: a power of two from 128 to the block size.
    ///
    /// See the [example](Self#examples).
    pub fn inode_size(&self) -> u16 {
        self.geometry.inode_size
    }

    /// Returns the number of block groups.
    ///
    /// See the [example](Self#examples).
    pub fn groups_count(&self) -> u32 {
        self.geometry.groups_count
    }

    /// Returns true if the filesystem was unmounted cleanly.
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

    /// Returns true if inodes without a name, or with a pending truncation, are listed for
    /// processing at the next mount.
    pub(crate) fn has_orphans(&self) -> bool {
        self.last_orphan != 0 || self.state & STATE_ORPHANS != 0
    }

    /// Returns the numbers of the inodes that are not reserved.
    pub(crate) fn inodes(&self) -> RangeInclusive<InodeNumber> {
        self.geometry.first_inode..=self.inodes_count.into()
    }

    /// Returns true if the journal is on another device.
    pub(crate) fn has_external_journal(&self) -> bool {
        self.compat.contains(CompatFeatures::HAS_JOURNAL) && self.journal_inode == 0
    }

    /// Returns true if the default mount options include `data=journal`.
    pub(crate) fn journals_data(&self) -> bool {
        let mut options = self.mount_options.split(|&byte| byte == b',');
        self.default_mount_options & JOURNAL_MODE == JOURNAL_MODE_DATA
            || options.any(|option| option.trim_ascii() == b"data=journal")
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

    /// Returns the length of `blocks` blocks in bytes.
    #[inline]
    pub(crate) fn bytes(&self, blocks: u64) -> u64 {
        blocks.saturating_mul(u64::from(self.block_size()))
    }

    /// Returns the number of whole blocks in `length` bytes.
    #[inline]
    pub(crate) fn whole_blocks(&self, length: u64) -> u64 {
        length.wrapping_shr(self.geometry.block_bits)
    }

    /// Returns the first byte of a block in its file. It is below 2^48, because blocks have at most
    /// 2^16 bytes.
    #[inline]
    pub(crate) fn position(&self, block: LogicalBlock) -> u64 {
        u64::from(block).wrapping_shl(self.geometry.block_bits)
    }

    /// Returns the block of a file that contains byte `pos`, or the end of the largest file.
    #[inline]
    pub(crate) fn logical_at(&self, pos: u64) -> LogicalBlock {
        LogicalBlock::or_end(self.whole_blocks(pos))
    }

    /// Returns the first byte of a block on the device.
    #[inline]
    pub(crate) fn address(&self, block: PhysicalBlock) -> u64 {
        self.bytes(block.get())
    }

    /// Returns the block that contains byte `address` of the device.
    #[inline]
    pub(crate) fn physical_at(&self, address: u64) -> PhysicalBlock {
        self.whole_blocks(address).into()
    }

    /// Returns the blocks of a mapping, which was checked: `length` bytes from byte `address` of
    /// the device.
    pub(crate) fn blocks_at(&self, address: u64, length: u64) -> BlockRun {
        let run = BlockRun::new(self.physical_at(address), self.whole_blocks(length));
        run.unwrap_or_default()
    }

    /// Returns the block that contains the primary superblock.
    pub(crate) fn superblock_block(&self) -> PhysicalBlock {
        self.physical_at(SUPERBLOCK_OFFSET)
    }

    /// Returns the block of the superblock in use, which the group descriptors in use follow.
    pub(crate) fn used_block(&self) -> PhysicalBlock {
        self.copy.unwrap_or_else(|| self.superblock_block())
    }

    /// Checks that `count` blocks from `start` can belong to files or directories: they are inside
    /// the filesystem, and after the primary superblock and the group descriptors.
    pub(crate) fn data_blocks(
        &self,
        start: PhysicalBlock,
        count: impl Into<u64>,
    ) -> Result<BlockRun, Problem> {
        let count = count.into();
        let is_inside =
            |run: &BlockRun| start.get() > self.last_fixed_block() && run.end() <= self.end();
        let problem = Problem::BlockRange { start, count };
        BlockRun::new(start, count).filter(is_inside).ok_or(problem)
    }

    /// Returns the first block after the filesystem.
    pub(crate) fn end(&self) -> PhysicalBlock {
        self.blocks_count.into()
    }

    /// Returns the first block of a group.
    pub(crate) fn group_start(&self, group: u32) -> PhysicalBlock {
        let blocks = u64::from(group).saturating_mul(u64::from(self.blocks_per_group));
        PhysicalBlock::from(blocks.saturating_add(u64::from(self.first_data_block)))
    }

    /// Returns true if the filesystem was not mounted, changed or recreated since `before` was
    /// read.
    pub(crate) fn is_same(&self, before: &Self) -> bool {
        let key = |superblock: &Self| {
            let Self { fields, .. } = superblock;
            let times = (fields.mkfs_time, fields.mount_time, fields.write_time);
            (fields.uuid, times, fields.mount_count, fields.blocks_count)
        };
        key(self) == key(before)
    }

    /// Returns the last block of the group descriptors that follow the primary superblock.
    pub(crate) fn last_fixed_block(&self) -> u64 {
        let bytes =
            u64::from(self.groups_count()).saturating_mul(self.geometry.descriptor_size.into());
        let mut descriptor_blocks = bytes.div_ceil(u64::from(self.block_size()).max(1));
        if self.has(IncompatFeatures::META_BG) {
            descriptor_blocks = descriptor_blocks.min(u64::from(self.first_meta_bg));
        }
        self.superblock_block().get().saturating_add(descriptor_blocks)
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
    let is_known = raw.checksum_type == CHECKSUM_CRC32C;
    Structure::Superblock.ensure(is_known, "checksum type", raw.checksum_type, rule)?;
    Problem::verify_checksum(raw.checksum.get(), checksum_of(raw))
        .map_err(|problem| Structure::Superblock.corrupt(problem))
}

/// Computes the checksum of the superblock.
pub(crate) fn checksum_of(raw: &RawSuperblock) -> u32 {
    crc32c(!0, raw.as_bytes().split_last_chunk::<4>().map_or(&[][..], |(covered, _)| covered))
}

/// Stores the checksum of the contents, if the filesystem has metadata checksums.
pub(crate) fn seal(raw: &mut RawSuperblock) {
    let ro_compat = RoCompatFeatures::from_bits_retain(raw.ro_compat.get());
    if ro_compat.contains(RoCompatFeatures::METADATA_CSUM) {
        raw.checksum = checksum_of(raw).into();
    }
}

/// Stores the counts of free blocks and free inodes. The upper half of the blocks is stored only
/// with `64bit`.
pub(crate) fn set_free(raw: &mut RawSuperblock, blocks: u64, inodes: u32) {
    let (low, high) = split_64(blocks);
    raw.free_blocks_lo = low;
    if raw.incompat.get() & IncompatFeatures::BITS64.bits() != 0 {
        raw.free_blocks_hi = high;
    }
    raw.free_inodes = inodes.into();
}

#[cfg(test)]
pub(crate) mod tests;
