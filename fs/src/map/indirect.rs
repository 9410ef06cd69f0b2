//! Block maps of ext2 and ext3: direct, indirect, double and triple indirect blocks.

use nvio_iomap::MappingKind;
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use crate::blocks::metadata::Metadata;
use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::format::inode::Inode;
use crate::format::superblock::Superblock;
use crate::map::builder::{LOGICAL_END, RunBuilder};
use crate::map::leaves;
use crate::map::run::MapRun;

/// Number of direct pointers in the inode.
const DIRECT: usize = 12;

/// Returns the mappings of the pointer block that contains logical block `logical`.
pub(crate) fn run(metadata: &Metadata, inode: &Inode, logical: u64) -> Result<MapRun, Error> {
    let superblock = metadata.superblock();
    let structure = Structure::BlockPointers { inode: inode.number() };
    let Ok(pointers) = <[U32]>::ref_from_bytes(&inode.block) else {
        return Err(structure.corrupt(Problem::Missing { logical }));
    };
    let (direct, indirect) = pointers.split_at_checked(DIRECT).unwrap_or_default();
    let per_block = u64::from(superblock.block_size() >> 2);
    let mut start = u64::try_from(direct.len()).unwrap_or(0);
    if logical < start {
        return data(superblock, structure, 0, direct);
    }
    // Each indirect pointer maps `per_block` times as many blocks as the one before.
    let mut span = 1u64;
    for (levels, pointer) in (1u32..).zip(indirect) {
        span = span.saturating_mul(per_block);
        let end = start.saturating_add(span);
        if logical < end {
            let tree = Tree { levels, span, start };
            return tree.run(metadata, inode, structure, pointer.get(), logical);
        }
        start = end;
    }
    // The logical block is above the maximum of the pointers.
    Ok(RunBuilder::new(superblock, start, 1).finish(LOGICAL_END.max(start.saturating_add(1))))
}

/// Reads ahead the pointer block that contains logical block `logical` and those after it, unless
/// the first is cached.
pub(crate) fn prefetch(metadata: &Metadata, inode: &Inode, logical: u64) -> Option<()> {
    let superblock = metadata.superblock();
    let per_block = u64::from(superblock.block_size() >> 2);
    let pointers = <[U32]>::ref_from_bytes(&inode.block).ok()?;
    let (direct, indirect) = pointers.split_at_checked(DIRECT)?;
    let mut left = logical.checked_sub(u64::try_from(direct.len()).unwrap_or(u64::MAX))?;
    let mut span = per_block;
    for (levels, pointer) in (1u32..).zip(indirect) {
        if left < span {
            return prefetch_below(metadata, (levels, span, pointer.get()), left);
        }
        left = left.saturating_sub(span);
        span = span.saturating_mul(per_block);
    }
    None
}

/// Reads ahead below one pointer of the inode. `left` is the distance from the first logical block
/// that the pointer maps; `levels` is the number of pointer blocks on the path to the data.
fn prefetch_below(
    metadata: &Metadata,
    (levels, mut span, mut pointer): (u32, u64, u32),
    mut left: u64,
) -> Option<()> {
    let superblock = metadata.superblock();
    let per_block = u64::from(superblock.block_size() >> 2);
    for level in (1..=levels).rev() {
        let number = u64::from(pointer);
        if level == 1 {
            leaves::prefetch(metadata, number, []);
            return None;
        }
        let structure = Structure::BlockMap { inode: 0 };
        check(superblock, structure, number).ok()?;
        let block = metadata.block(number).ok()?;
        let pointers = <[U32]>::ref_from_bytes(&block).ok()?;
        span = span.checked_div(per_block)?;
        let index = left.checked_div(span)?;
        left = left.checked_rem(span)?;
        let mut rest = pointers.get(usize::try_from(index).ok()?..)?.iter();
        pointer = rest.next()?.get();
        if level == 2 {
            let behind = rest.map(|pointer| u64::from(pointer.get())).filter(|&next| next != 0);
            leaves::prefetch(metadata, pointer.into(), behind);
            return None;
        }
    }
    None
}

/// The tree below an indirect pointer of the inode.
struct Tree {
    /// Number of pointer blocks on the path to the data.
    levels: u32,
    /// Number of logical blocks mapped.
    span: u64,
    /// First logical block mapped.
    start: u64,
}

impl Tree {
    fn run(
        self,
        metadata: &Metadata,
        inode: &Inode,
        mut structure: Structure,
        mut pointer: u32,
        logical: u64,
    ) -> Result<MapRun, Error> {
        let superblock = metadata.superblock();
        let per_block = u64::from(superblock.block_size() >> 2);
        let Self { mut levels, mut span, mut start } = self;
        loop {
            if pointer == 0 {
                let end = start.saturating_add(span);
                return Ok(RunBuilder::new(superblock, start, 1).finish(end));
            }
            let number = u64::from(pointer);
            check(superblock, structure, number)?;
            structure = Structure::IndirectBlock { block: number, inode: inode.number() };
            let block = metadata.block(number)?;
            let Ok(pointers) = <[U32]>::ref_from_bytes(&block) else {
                return Err(structure.corrupt(Problem::Missing { logical }));
            };
            levels = levels.saturating_sub(1);
            if levels == 0 {
                return data(superblock, structure, start, pointers);
            }
            span = span.checked_div(per_block).unwrap_or(1).max(1);
            let index = logical.saturating_sub(start).checked_div(span).unwrap_or(0);
            start = start.saturating_add(index.saturating_mul(span));
            let at = usize::try_from(index).unwrap_or(usize::MAX);
            let next = pointers.get(at).map(|pointer| pointer.get());
            pointer = next.ok_or_else(|| structure.corrupt(Problem::Missing { logical }))?;
        }
    }
}

/// Builds a run from pointers to data blocks. A pointer of 0 is a hole.
fn data(
    superblock: &Superblock,
    structure: Structure,
    start: u64,
    pointers: &[U32],
) -> Result<MapRun, Error> {
    let mut leaf = RunBuilder::new(superblock, start, 0);
    let mut logical = start;
    for pointer in pointers {
        let physical = u64::from(pointer.get());
        if physical != 0 {
            check(superblock, structure, physical)?;
            leaf.push_joined(logical, 1, physical, MappingKind::Mapped);
        }
        logical = logical.saturating_add(1);
    }
    Ok(leaf.finish(logical))
}

fn check(superblock: &Superblock, structure: Structure, block: u64) -> Result<(), Error> {
    if superblock.is_data_range(block, 1) {
        return Ok(());
    }
    Err(structure.corrupt(Problem::BlockRange { start: block, count: 1 }))
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
