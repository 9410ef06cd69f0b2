//! Usage of the filesystem, as reported by statfs(2).

use std::ops::Range;

use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::features::{IncompatFeatures, RoCompatFeatures};
use crate::format::group;
use crate::format::inode::Inode;
use crate::format::superblock::Superblock;
use crate::mount::options::Recovery;
use crate::number::PhysicalBlock;
use crate::recovery::journal::fields::JournalFields;

/// Number of groups whose descriptors are read ahead at a time.
const AHEAD: usize = 1024;
/// Maximum number of clusters that the kernel reserves for unexpected metadata.
const RESERVED_MAX: u64 = 4096;

/// The usage of a filesystem, as statfs(2) and statvfs(3) report it for a mounted one.
///
/// The counts are those of the group descriptors after the replay of the journal. The blocks of
/// orphans are in use: the kernel frees them when it mounts the filesystem writable.
///
/// See the [example](Filesystem#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatFs {
    /// Block size in bytes, which is the unit of all counts of blocks.
    pub block_size: u32,
    /// Number of blocks, without those used by the filesystem itself.
    pub blocks: u64,
    /// Number of free blocks.
    pub free_blocks: u64,
    /// Number of free blocks that unprivileged users can allocate.
    pub available_blocks: u64,
    /// Number of inodes.
    pub files: u32,
    /// Number of free inodes.
    pub free_files: u64,
    /// Maximum length of a name, bytes.
    pub name_max: u32,
}

impl Filesystem {
    /// Returns the usage of the filesystem. Reads all group descriptors. If the superblock of the
    /// journal is damaged, which [`take_damage`](Self::take_damage) reports, the size of the
    /// journal is that of its inode.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// Damage to a group descriptor, or a failure of the source.
    pub fn statfs(&self) -> Result<StatFs, Error> {
        let superblock = self.superblock();
        let mut usage = Usage::default();
        let groups: Vec<u32> = (0..superblock.groups_count()).collect();
        for groups in groups.chunks(AHEAD) {
            self.prefetch(groups.iter().map(|&group| group::location(superblock, group).0));
            for &group in groups {
                usage.add(self, group)?;
            }
        }
        let overhead = self.overhead(usage.metadata)?;
        let per_cluster = u64::from(blocks_per_cluster(superblock));
        let blocks = superblock.blocks_count;
        let free_blocks = usage.free_clusters.saturating_mul(per_cluster);
        let reserved = superblock.reserved_blocks.saturating_add(kept_back(superblock));
        Ok(StatFs {
            block_size: superblock.block_size(),
            blocks: blocks.saturating_sub(overhead.saturating_mul(per_cluster)),
            free_blocks,
            available_blocks: free_blocks.saturating_sub(reserved),
            files: superblock.inodes_count,
            free_files: usage.free_inodes,
            name_max: 255,
        })
    }

    /// Returns the number of clusters that the filesystem itself uses.
    fn overhead(&self, mut metadata: Metadata) -> Result<u64, Error> {
        let superblock = self.superblock();
        let stored = u64::from(superblock.overhead_clusters);
        // With bigalloc, the kernel uses the stored count if it is plausible.
        if is_bigalloc(superblock) && stored != 0 && stored <= superblock.blocks_count {
            return Ok(stored);
        }
        let per_cluster = u64::from(blocks_per_cluster(superblock)).max(1);
        let clusters = |blocks: u64| blocks.div_ceil(per_cluster);
        let before = u64::from(superblock.first_data_block).checked_div(per_cluster).unwrap_or(0);
        let journal = clusters(self.journal_blocks()?);
        Ok(metadata.clusters().saturating_add(before).saturating_add(journal))
    }

    /// Returns the number of blocks of an internal journal.
    fn journal_blocks(&self) -> Result<u64, Error> {
        let superblock = self.superblock();
        let loaded = match self.options().recovery {
            Recovery::Skip => None,
            _ => match JournalFields::internal(self) {
                Ok(None) => return Ok(0),
                Ok(Some(journal)) => Some(journal),
                Err(error @ Error::Corrupt(_)) => {
                    self.add_damage(error);
                    None
                }
                Err(error) => return Err(error),
            },
        };
        if superblock.journal_inode == 0 {
            return Ok(0);
        }
        let blocks = |inode: Inode| superblock.whole_blocks(inode.size());
        let inode = self.inode(superblock.journal_inode);
        match loaded {
            Some(journal) => Ok(blocks(inode?).min(journal.max_len.into())),
            // The kernel counts the blocks of a journal that it did not load, too.
            None => Ok(inode.map_or(0, blocks)),
        }
    }
}

fn is_bigalloc(superblock: &Superblock) -> bool {
    superblock.ro_compat.contains(RoCompatFeatures::BIGALLOC)
}

fn blocks_per_cluster(superblock: &Superblock) -> u32 {
    superblock.cluster_size().checked_div(superblock.block_size()).unwrap_or(1)
}

/// Returns the number of blocks that the kernel reserves in filesystems with extents: 2 %, up to a
/// maximum.
fn kept_back(superblock: &Superblock) -> u64 {
    if !superblock.has(IncompatFeatures::EXTENTS) {
        return 0;
    }
    let per_cluster = u64::from(blocks_per_cluster(superblock)).max(1);
    let clusters = superblock.blocks_count.checked_div(per_cluster).unwrap_or(0);
    let kept = clusters.checked_div(50).unwrap_or(0).min(RESERVED_MAX);
    kept.saturating_mul(per_cluster)
}

/// The sums of the group descriptors.
#[derive(Default)]
struct Usage {
    free_clusters: u64,
    free_inodes: u64,
    metadata: Metadata,
}

/// The space used by metadata.
#[derive(Default)]
struct Metadata {
    /// Number of blocks, without bigalloc.
    blocks: u64,
    /// Ranges of clusters that contain metadata, with bigalloc. They may overlap.
    clusters: Vec<Range<u64>>,
}

impl Usage {
    fn add(&mut self, fs: &Filesystem, number: u32) -> Result<(), Error> {
        let superblock = fs.superblock();
        let descriptor = fs.metadata().group(number)?;
        let more = |count: &mut u64, by: u32| *count = count.saturating_add(by.into());
        more(&mut self.free_clusters, descriptor.free_clusters);
        more(&mut self.free_inodes, descriptor.free_inodes);

        let table = group::inode_table_blocks(superblock);
        let start = group::descriptor_blocks(superblock, number);
        if !is_bigalloc(superblock) {
            // With blocks of 1 KiB, the blocks before the superblock are not counted.
            let skipped = if number == 0 { superblock.superblock_block().get() } else { 0 };
            let skipped = skipped.saturating_sub(superblock.first_data_block.into());
            let blocks = start.saturating_sub(skipped).saturating_add(table).saturating_add(2);
            self.metadata.blocks = self.metadata.blocks.saturating_add(blocks);
            return Ok(());
        }
        // The kernel does not count the space reserved for more descriptors here.
        let has_copy = group::has_superblock(superblock, number);
        let kept = if has_copy { u64::from(superblock.reserved_gdt_blocks) } else { 0 };
        let first = superblock.group_start(number);
        let [blocks, inodes] = descriptor.bitmaps;
        self.metadata.add(superblock, first, start.saturating_sub(kept));
        self.metadata.add(superblock, blocks, 1);
        self.metadata.add(superblock, inodes, 1);
        self.metadata.add(superblock, descriptor.inode_table.start(), table);
        Ok(())
    }
}

impl Metadata {
    fn add(&mut self, superblock: &Superblock, start: PhysicalBlock, count: u64) {
        let per_cluster = u64::from(blocks_per_cluster(superblock)).max(1);
        let cluster = |block: u64| block.checked_div(per_cluster).unwrap_or(0);
        let Some(last) = count.checked_sub(1).map(|more| start.get().saturating_add(more)) else {
            return;
        };
        self.clusters.push(cluster(start.get())..cluster(last).saturating_add(1));
    }

    /// Returns the number of clusters, each counted once.
    fn clusters(&mut self) -> u64 {
        self.clusters.sort_unstable_by_key(|range| range.start);
        let (mut total, mut end) = (self.blocks, 0);
        for range in &self.clusters {
            let start = range.start.max(end);
            total = total.saturating_add(range.end.saturating_sub(start));
            end = end.max(range.end);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_counted_once() {
        let mut metadata =
            Metadata { blocks: 0, clusters: vec![5..7, 0..1, 6..9, 0..1, 20..21, 2..2] };
        assert_eq!(metadata.clusters(), 6);
        assert_eq!(Metadata { blocks: 3, clusters: vec![] }.clusters(), 3);
    }
}
