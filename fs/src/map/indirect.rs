//! Block maps of ext2 and ext3: direct, indirect, double and triple indirect blocks.

use nvio_iomap::MappingKind;
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use crate::blocks::block_cache::Block;
use crate::blocks::metadata::Metadata;
use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::format::inode::Inode;
use crate::format::superblock::Superblock;
use crate::map::after_end::AfterEnd;
use crate::map::builder::RunBuilder;
use crate::map::leaves::{self, LEAVES_AHEAD};
use crate::map::run::MapRun;
use crate::map::unmapped::Unmapped;
use crate::number::{LogicalBlock, PhysicalBlock, as_usize};

/// Number of direct pointers in the inode.
const DIRECT: u32 = 12;

/// Returns the mappings of the pointer block that contains logical block `logical`.
pub(crate) fn run(
    metadata: &Metadata,
    inode: &Inode,
    logical: LogicalBlock,
) -> Result<MapRun, Unmapped> {
    let mut end = u64::from(DIRECT);
    descend(metadata, inode, logical, &mut end)
        .map_err(|error| Unmapped { error, end: LogicalBlock::or_end(end) })
}

/// Returns the mappings of the pointer block that contains logical block `logical`, and sets `end`
/// to the end of the last tree on the path.
fn descend(
    metadata: &Metadata,
    inode: &Inode,
    logical: LogicalBlock,
    end: &mut u64,
) -> Result<MapRun, Error> {
    let superblock = metadata.superblock();
    let after_end = AfterEnd::of(metadata, inode);
    let structure = Structure::BlockPointers { inode: inode.number() };
    let (direct, indirect) =
        pointers(&inode.block).split_at_checked(as_usize(DIRECT)).unwrap_or_default();
    if logical.get() < DIRECT {
        return data(superblock, structure, (0, direct), &after_end);
    }
    match Tree::of(superblock, indirect, logical) {
        Ok(tree) => tree.run(metadata, (inode, structure), logical, &after_end, end),
        // The logical block is above the maximum of the pointers.
        Err(end) => {
            let hole = RunBuilder::new(superblock, LogicalBlock::or_end(end), 1);
            Ok(hole.finish(LogicalBlock::END))
        }
    }
}

/// Reads ahead the pointer block that contains logical block `logical` and those after it, unless
/// the first is cached.
pub(crate) fn prefetch(metadata: &Metadata, inode: &Inode, logical: LogicalBlock) -> Option<()> {
    let superblock = metadata.superblock();
    let structure = Structure::BlockMap { inode: inode.number() };
    let (_, indirect) = pointers(&inode.block).split_at_checked(as_usize(DIRECT))?;
    if logical.get() < DIRECT {
        return None;
    }
    let mut tree = Tree::of(superblock, indirect, logical).ok()?;
    let mut following: Vec<PhysicalBlock> = Vec::new();
    while tree.levels > 1 {
        let block = tree.read(metadata, structure).ok()?;
        let (below, rest) = tree.below(superblock, pointers(&block), logical)?;
        let rest = rest.iter().map(|&pointer| PhysicalBlock::from(u64::from(pointer)));
        following = rest.filter(|&block| block != 0).take(LEAVES_AHEAD).collect();
        tree = below;
    }
    leaves::prefetch(metadata, tree.block(), following);
    None
}

/// The tree below a pointer.
struct Tree {
    /// Number of pointer blocks on the path to the data.
    levels: u32,
    /// First logical block mapped.
    start: u64,
    pointer: U32,
}

/// Returns the base-2 logarithm of the number of blocks that a tree maps. A block has at most 2^14
/// pointers, and a tree at most three levels.
fn span_bits(superblock: &Superblock, levels: u32) -> u32 {
    superblock.geometry.block_bits.wrapping_sub(2).wrapping_mul(levels)
}

impl Tree {
    /// Returns the tree of an indirect pointer in the inode that maps `logical`, or the first block
    /// after all trees.
    fn of(superblock: &Superblock, indirect: &[U32], logical: LogicalBlock) -> Result<Self, u64> {
        let mut start = u64::from(DIRECT);
        for (levels, &pointer) in (1..).zip(indirect) {
            let end = start.wrapping_add(1u64.wrapping_shl(span_bits(superblock, levels)));
            if u64::from(logical) < end {
                return Ok(Self { levels, start, pointer });
            }
            start = end;
        }
        Err(start)
    }

    /// Returns the tree one level below that maps `logical`, and the pointers after its own.
    fn below<'p>(
        &self,
        superblock: &Superblock,
        pointers: &'p [U32],
        logical: LogicalBlock,
    ) -> Option<(Self, &'p [U32])> {
        let levels = self.levels.checked_sub(1)?;
        let bits = span_bits(superblock, levels);
        let index = u64::from(logical).checked_sub(self.start)?.wrapping_shr(bits);
        let (&pointer, rest) = pointers.get(as_usize(index)..)?.split_first()?;
        let start = self.start.wrapping_add(index.wrapping_shl(bits));
        Some((Self { levels, start, pointer }, rest))
    }

    fn block(&self) -> PhysicalBlock {
        u64::from(self.pointer).into()
    }

    /// Reads the pointer block at the top of the tree.
    fn read(&self, metadata: &Metadata, structure: Structure) -> Result<Block, Error> {
        let blocks = metadata.superblock().data_blocks(self.block(), 1u32);
        metadata.block(blocks.map_err(|problem| structure.corrupt(problem))?.start())
    }

    fn run(
        mut self,
        metadata: &Metadata,
        (inode, mut structure): (&Inode, Structure),
        logical: LogicalBlock,
        after_end: &AfterEnd<'_>,
        end: &mut u64,
    ) -> Result<MapRun, Error> {
        let superblock = metadata.superblock();
        loop {
            let span = 1u64.wrapping_shl(span_bits(superblock, self.levels));
            *end = self.start.wrapping_add(span);
            if self.pointer == 0 {
                let hole = RunBuilder::new(superblock, LogicalBlock::or_end(self.start), 1);
                return Ok(hole.finish(LogicalBlock::or_end(*end)));
            }
            let block = self.read(metadata, structure)?;
            structure = Structure::IndirectBlock { block: self.block(), inode: inode.number() };
            if self.levels == 1 {
                return data(superblock, structure, (self.start, pointers(&block)), after_end);
            }
            let missing = || structure.corrupt(Problem::Missing { logical: logical.into() });
            let below = self.below(superblock, pointers(&block), logical);
            (self, _) = below.ok_or_else(missing)?;
        }
    }
}

/// Returns the pointers of a block or of an inode.
fn pointers(bytes: &[u8]) -> &[U32] {
    <[U32]>::ref_from_bytes(bytes).unwrap_or_default()
}

/// Returns the mappings of a block of pointers to data, which begins at logical block `start`. Wrong
/// pointers after the end of the file are left out.
fn data(
    superblock: &Superblock,
    structure: Structure,
    (start, pointers): (u64, &[U32]),
    after_end: &AfterEnd<'_>,
) -> Result<MapRun, Error> {
    let mut next = LogicalBlock::or_end(start);
    let mut leaf = RunBuilder::new(superblock, next, 0);
    for &pointer in pointers {
        let Some(after) = next.checked_add(1) else { break };
        if pointer != 0 {
            match superblock.data_blocks(u64::from(pointer).into(), 1u32) {
                Ok(block) => leaf.push_joined(next..after, block.start(), MappingKind::Mapped),
                Err(problem) if after_end.contains(next) => {
                    after_end.ignore(structure.corrupt(problem));
                }
                Err(problem) => return Err(structure.corrupt(problem)),
            }
        }
        next = after;
    }
    Ok(leaf.finish(next))
}

#[cfg(test)]
mod tests {
    use nvio_iomap::{Mapper, MappingKind, Op};

    use crate::file::File;
    use crate::testing::{BLOCK, FREE, Image};

    const INODE: u32 = 12;
    /// Pointers per block.
    const N: u64 = 1024;

    fn file(mut image: Image, pointers: &[(usize, u32)]) -> File {
        image.inode(INODE, |bytes| {
            bytes[0x22] = 0;
            bytes[0x6c] = 0x40;
            for &(index, block) in pointers {
                bytes[0x28 + index * 4..][..4].copy_from_slice(&block.to_le_bytes());
            }
        });
        let fs = image.open();
        fs.file(&fs.inode(INODE).unwrap()).unwrap()
    }

    fn point(image: &mut Image, block: u64, index: usize, to: u64) {
        image.block(block)[index * 4..][..4].copy_from_slice(&(to as u32).to_le_bytes());
    }

    fn map(file: &mut File, block: u64) -> (MappingKind, u64, u64, u64) {
        let size = BLOCK as u64;
        let mapping = file.begin(block * size, 1, Op::empty()).unwrap();
        (mapping.kind, mapping.offset / size, mapping.length / size, mapping.addr / size)
    }

    #[test]
    fn all_levels() {
        let mut image = Image::new();
        point(&mut image, FREE, 0, 2000);
        point(&mut image, FREE, 1, 2001);
        point(&mut image, FREE, 3, 2003);
        point(&mut image, FREE + 1, 5, FREE + 2);
        point(&mut image, FREE + 2, 1023, 2100);
        point(&mut image, FREE + 3, 1023, FREE + 4);
        point(&mut image, FREE + 4, 1023, FREE + 5);
        point(&mut image, FREE + 5, 1023, 2200);
        let pointers = [(0, 500), (1, 501), (2, 400), (11, 7), (12, 1000), (13, 1001), (14, 1003)];
        let mut file = file(image, &pointers);
        assert_eq!(map(&mut file, 1), (MappingKind::Mapped, 0, 2, 500));
        assert_eq!(map(&mut file, 2), (MappingKind::Mapped, 2, 1, 400));
        assert_eq!(map(&mut file, 5), (MappingKind::Hole, 3, 8, 0));
        assert_eq!(map(&mut file, 11), (MappingKind::Mapped, 11, 1, 7));
        assert_eq!(map(&mut file, 13), (MappingKind::Mapped, 12, 2, 2000));
        assert_eq!(map(&mut file, 14), (MappingKind::Hole, 14, 1, 0));
        assert_eq!(map(&mut file, 15), (MappingKind::Mapped, 15, 1, 2003));
        let double = 12 + N;
        assert_eq!(map(&mut file, double + 7), (MappingKind::Hole, double, N, 0));
        let last = double + 6 * N - 1;
        assert_eq!(map(&mut file, last), (MappingKind::Mapped, last, 1, 2100));
        assert_eq!(map(&mut file, last + 1), (MappingKind::Hole, last + 1, N, 0));
        let triple = 12 + N + N * N;
        assert_eq!(map(&mut file, triple), (MappingKind::Hole, triple, N * N, 0));
        let end = triple + N * N * N;
        assert_eq!(map(&mut file, end - 1), (MappingKind::Mapped, end - 1, 1, 2200));
        assert_eq!(map(&mut file, end), (MappingKind::Hole, end, 0xffff_ffff - end, 0));
        let listed: Vec<_> = file.extents().map(Result::unwrap).collect();
        assert_eq!(listed.len(), 7);
        assert!(listed[6].last && listed[6].logical == (end - 1) * BLOCK as u64);
    }

    #[test]
    fn a_hole_in_front_of_everything() {
        let mut file = file(Image::new(), &[]);
        assert_eq!(map(&mut file, 0), (MappingKind::Hole, 0, 12, 0));
        assert_eq!(map(&mut file, 12), (MappingKind::Hole, 12, N, 0));
        assert!(file.extents().next().is_none());
    }

    #[test]
    fn pointers_that_lead_nowhere() {
        let error = |image, pointers: &[_], block: u64| {
            let mut file = file(image, pointers);
            file.begin(block * BLOCK as u64, 1, Op::empty()).unwrap_err().to_string()
        };
        let message = error(Image::new(), &[(3, 8192)], 0);
        let start = "corrupt block pointers of inode 12: 1 block(s) from block 8192";
        assert!(message.starts_with(start), "{message}");
        assert!(error(Image::new(), &[(12, 1)], 20).contains("1 block(s) from block 1 are not"));
        let mut image = Image::new();
        point(&mut image, FREE, 9, 9999);
        let message = error(image, &[(12, 1000)], 20);
        let start = "corrupt indirect block 1000 of inode 12: 1 block(s) from block 9999";
        assert!(message.starts_with(start), "{message}");
    }

    #[test]
    fn a_block_that_points_at_itself_comes_to_an_end() {
        let mut image = Image::new();
        for index in 0..1024 {
            point(&mut image, FREE, index, FREE);
        }
        let file = file(image, &[(12, 1000), (13, 1000), (14, 1000)]);
        let error = file.extents().find_map(Result::err).unwrap();
        assert!(error.to_string().contains("it maps more than the 8192 blocks"), "{error}");
    }
}
