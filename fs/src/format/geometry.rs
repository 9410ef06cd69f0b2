//! Sizes and counts of the superblock, checked against each other.

use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::format::features::{IncompatFeatures, RoCompatFeatures};
use crate::format::superblock_fields::SuperblockFields;
use crate::number::InodeNumber;

/// Inode size before revision 1, bytes, which is also the smallest.
const INODE_SIZE_MIN: u16 = 128;
/// First inode that is not reserved, before revision 1.
const FIRST_INODE_OLD: u32 = 11;
/// `s_log_block_size` for blocks of 64 KiB, the largest.
const LOG_BLOCK_SIZE_MAX: u32 = 6;

/// Returns an error if `field` of the superblock violates `rule`.
fn ensure(
    good: bool,
    field: &'static str,
    value: impl Into<u64>,
    rule: &'static str,
) -> Result<(), Error> {
    Structure::Superblock.ensure(good, field, value, rule)
}

/// The checked fields of the superblock that determine the layout of the filesystem.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub block_bits: u32,
    pub cluster_size: u32,
    pub groups_count: u32,
    pub inode_size: u16,
    pub first_inode: InodeNumber,
    pub descriptor_size: u16,
}

impl Geometry {
    /// Checks the fields against each other and against what the format allows.
    pub(crate) fn parse(fields: &SuperblockFields) -> Result<Self, Error> {
        let log = fields.log_block_size;
        ensure(log <= LOG_BLOCK_SIZE_MAX, "log block size", log, "at most 6 (64 KiB)")?;
        let block_bits = log.saturating_add(10);
        let block_size = 1u32.wrapping_shl(block_bits);
        let cluster_size = cluster_size(fields)?;
        let (inode_size, first_inode) = inode_size(fields, block_size)?;
        let descriptor_size = descriptor_size(fields)?;

        let (blocks_count, first) = (fields.blocks_count, fields.first_data_block);
        let bigalloc = cluster_size != block_size;
        let rule = "must be 1 with 1 KiB blocks (0 with bigalloc), else 0";
        let good = first == u32::from(log == 0) || (bigalloc && first == 0);
        ensure(good, "first data block", first, rule)?;
        let rule = "must be above the first data block";
        ensure(u64::from(first) < blocks_count, "blocks count", blocks_count, rule)?;

        let groups_count = groups_count(fields, block_size, cluster_size)?;
        let inodes_per_group = fields.inodes_per_group;
        let max = block_size.saturating_mul(8);
        let rule = "must be from 1 to the number of bits in a block";
        let good = inodes_per_group != 0 && inodes_per_group <= max;
        ensure(good, "inodes per group", inodes_per_group, rule)?;
        let expected = u64::from(groups_count).saturating_mul(u64::from(inodes_per_group));
        Problem::verify_value("inodes count", fields.inodes_count, expected)
            .map_err(|problem| Structure::Superblock.corrupt(problem))?;
        Ok(Self {
            block_bits,
            cluster_size,
            groups_count,
            inode_size,
            first_inode,
            descriptor_size,
        })
    }
}

/// Returns the cluster size in bytes, which is the block size without `bigalloc`. With `bigalloc`,
/// files are still mapped in blocks: the cluster size matters only for allocation.
fn cluster_size(fields: &SuperblockFields) -> Result<u32, Error> {
    let (log, block_log) = (fields.log_cluster_size, fields.log_block_size);
    let field = "log cluster size";
    if fields.ro_compat.contains(RoCompatFeatures::BIGALLOC) {
        // 512 MiB is the maximum in e2fsprogs and the kernel.
        let good = log >= block_log && log <= 19;
        ensure(good, field, log, "must be from the log block size to 19")?;
    } else {
        ensure(log == block_log, field, log, "must be the log block size without bigalloc")?;
    }
    Ok(1024u32.wrapping_shl(log))
}

fn inode_size(fields: &SuperblockFields, block_size: u32) -> Result<(u16, InodeNumber), Error> {
    if fields.revision == 0 {
        return Ok((INODE_SIZE_MIN, FIRST_INODE_OLD.into()));
    }
    let size = fields.inode_size;
    let good = size.is_power_of_two() && size >= INODE_SIZE_MIN && u32::from(size) <= block_size;
    ensure(good, "inode size", size, "must be a power of two from 128 to the block size")?;
    let first = fields.first_inode;
    ensure(first.get() >= FIRST_INODE_OLD, "first inode", first, "must be at least 11")?;
    Ok((size, first))
}

fn descriptor_size(fields: &SuperblockFields) -> Result<u16, Error> {
    if !fields.incompat.contains(IncompatFeatures::BITS64) {
        return Ok(32);
    }
    let size = fields.descriptor_size;
    let good = size.is_power_of_two() && (64..=1024).contains(&size);
    ensure(good, "descriptor size", size, "must be a power of two from 64 to 1024")?;
    Ok(size)
}

fn groups_count(
    fields: &SuperblockFields,
    block_size: u32,
    cluster_size: u32,
) -> Result<u32, Error> {
    let per_group = fields.blocks_per_group;
    let ratio = cluster_size.checked_div(block_size).unwrap_or(1);
    // The block bitmap is one block with one bit for each cluster of the group.
    let max = u64::from(block_size).saturating_mul(8).saturating_mul(u64::from(ratio));
    let good = per_group != 0 && u64::from(per_group) <= max;
    let rule = "must be from 1 to the blocks that a bitmap covers";
    ensure(good, "blocks per group", per_group, rule)?;
    let blocks = fields.blocks_count.saturating_sub(fields.first_data_block.into());
    let groups = blocks.div_ceil(u64::from(per_group).max(1));
    u32::try_from(groups).map_err(|_| {
        let (field, max) = ("groups count", u32::MAX.into());
        Structure::Superblock.corrupt(Problem::TooLarge { field, value: groups, max })
    })
}
