//! The system zone: the blocks of the filesystem's own metadata, which are never overwritten.

use std::ops::Range;

use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Area, Structure};
use crate::format::features::{CompatFeatures, IncompatFeatures, RoCompatFeatures};
use crate::format::group;
use crate::number::{BlockRun, InodeNumber, PhysicalBlock};

/// The system zone of a filesystem, in blocks. It does not include metadata that belongs to single
/// inodes, such as blocks of directories and extent trees, because only a scan of all inodes, as in
/// e2fsck, could find it.
#[derive(Debug)]
pub(crate) struct SystemZone {
    /// Sorted ranges, without overlap.
    ranges: Box<[(Range<PhysicalBlock>, Area)]>,
}

impl SystemZone {
    /// Reads all group descriptors and the maps of the system files.
    pub(crate) fn of(fs: &Filesystem) -> Result<Self, Error> {
        let superblock = fs.superblock();
        let mut found = Found::default();
        for group in 0..superblock.groups_count() {
            let blocks = group::descriptor_blocks(superblock, group);
            let start = superblock.group_start(group);
            found.add(BlockRun::new(start, blocks).unwrap_or_default(), Area::Descriptors);
            let descriptor = fs.metadata().group(group)?;
            for bitmap in descriptor.bitmaps {
                let blocks = superblock.data_blocks(bitmap, 1u32);
                let corrupt = |problem| Structure::GroupDescriptor(group).corrupt(problem);
                found.add(blocks.map_err(corrupt)?, Area::Bitmap);
            }
            found.add(descriptor.inode_table, Area::InodeTable);
        }
        if superblock.has(IncompatFeatures::MMP) {
            let block = BlockRun::new(superblock.mmp_block, 1).unwrap_or_default();
            found.add(block, Area::MmpBlock);
        }
        for number in system_files(fs) {
            let inode = fs.named_inode(number, Structure::Superblock)?;
            for extent in fs.extents(&inode)? {
                let extent = extent?;
                let blocks = superblock.blocks_at(extent.physical, extent.length);
                found.add(blocks, Area::SystemFile(number));
            }
        }
        Ok(Self { ranges: found.finish() })
    }

    /// Returns the first area that overlaps the blocks.
    pub(crate) fn overlap(&self, blocks: BlockRun) -> Option<Area> {
        let (start, end) = (blocks.start(), blocks.end());
        let at = self.ranges.partition_point(|(range, _)| range.end <= start);
        self.ranges.get(at).filter(|(range, _)| range.start < end).map(|&(_, area)| area)
    }
}

impl SystemZone {
    /// Returns the parts of `blocks` that are in the zone, in order.
    pub(crate) fn overlaps(&self, blocks: BlockRun) -> impl Iterator<Item = BlockRun> {
        let at = self.ranges.partition_point(|(range, _)| range.end <= blocks.start());
        let rest = self.ranges.get(at..).unwrap_or_default().iter();
        rest.map_while(move |(range, _)| {
            let count = range.end.get().saturating_sub(range.start.get());
            BlockRun::new(range.start, count)?.intersection(blocks)
        })
    }
}

/// Returns the inode numbers of the files that only the filesystem itself writes.
pub(crate) fn system_files(fs: &Filesystem) -> impl Iterator<Item = InodeNumber> {
    let superblock = fs.superblock();
    let compat = superblock.compat;
    let ro_compat = superblock.ro_compat;
    let journal = compat.contains(CompatFeatures::HAS_JOURNAL);
    let orphans = compat.contains(CompatFeatures::ORPHAN_FILE);
    let quota = ro_compat.contains(RoCompatFeatures::QUOTA);
    let [user, group, project] = superblock.quota_inodes;
    let all = [
        (journal, superblock.journal_inode),
        (orphans, superblock.orphan_file_inode),
        (quota, user),
        (quota, group),
        (quota, project),
    ];
    all.into_iter().filter(|&(there, number)| there && number != 0).map(|(_, number)| number)
}

/// A builder of the sorted ranges. Areas of one kind in adjacent groups are joined.
#[derive(Default)]
struct Found {
    /// The last range of each kind, which may still grow.
    last: [Option<(Range<PhysicalBlock>, Area)>; 5],
    ranges: Vec<(Range<PhysicalBlock>, Area)>,
}

impl Found {
    fn add(&mut self, blocks: BlockRun, area: Area) {
        let (start, end) = (blocks.start(), blocks.end());
        let kind = match area {
            Area::Descriptors => 0,
            Area::Bitmap => 1,
            Area::InodeTable => 2,
            Area::MmpBlock => 3,
            Area::SystemFile(_) => 4usize,
        };
        let Some(last) = self.last.get_mut(kind).filter(|_| start < end) else { return };
        match last {
            Some((range, before)) if range.end == start && *before == area => range.end = end,
            _ => self.ranges.extend(last.replace((start..end, area))),
        }
    }

    /// Returns all ranges, sorted. Where ranges overlap, the one that begins first is kept.
    fn finish(mut self) -> Box<[(Range<PhysicalBlock>, Area)]> {
        self.ranges.extend(self.last.into_iter().flatten());
        self.ranges.sort_unstable_by_key(|(range, _)| range.start);
        let mut end = PhysicalBlock::default();
        self.ranges.retain_mut(|(range, _)| {
            range.start = range.start.max(end);
            end = end.max(range.end);
            !range.is_empty()
        });
        self.ranges.into_boxed_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u64, count: u64) -> BlockRun {
        BlockRun::new(start.into(), count).unwrap()
    }

    #[test]
    fn overlaps_are_found_at_every_edge() {
        let mut found = Found::default();
        found.add(run(10, 5), Area::InodeTable);
        found.add(run(15, 5), Area::InodeTable);
        found.add(run(40, 1), Area::Bitmap);
        found.add(run(41, 1), Area::Bitmap);
        found.add(run(12, 20), Area::SystemFile(8.into()));
        found.add(run(50, 0), Area::Descriptors);
        let zone = SystemZone { ranges: found.finish() };
        let expected = [
            (10.into()..20.into(), Area::InodeTable),
            (20.into()..32.into(), Area::SystemFile(8.into())),
            (40.into()..42.into(), Area::Bitmap),
        ];
        assert_eq!(*zone.ranges, expected);
        for start in 0..60 {
            for count in 1..60 {
                let touches = |(range, _): &&(Range<PhysicalBlock>, Area)| {
                    range.start < (start + count).into() && PhysicalBlock::from(start) < range.end
                };
                let first = expected.iter().find(touches).map(|&(_, area)| area);
                assert_eq!(zone.overlap(run(start, count)), first, "{start} {count}");
            }
        }
        assert_eq!(zone.overlap(run(42, u64::MAX - 42)), None);
    }
}
