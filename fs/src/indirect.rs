//! Block maps of ext2 and ext3: direct, indirect, double and triple indirect blocks.

use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use crate::corrupt::{Problem, Structure};
use crate::map::{LOGICAL_END, Leaf, LeafBuilder};
use crate::{Error, Filesystem, Inode, Superblock};

/// Pointers of the inode that point at data.
const DIRECT: usize = 12;

/// Reads what one block of pointers says about logical block `logical` and its neighbours.
pub(crate) fn leaf(fs: &Filesystem, inode: &Inode, logical: u64) -> Result<Leaf, Error> {
    let superblock = fs.superblock();
    let structure = Structure::BlockPointers { inode: inode.number() };
    let Ok(pointers) = <[U32]>::ref_from_bytes(&inode.block) else {
        return Err(structure.corrupt(Problem::Missing { logical }));
    };
    let (direct, indirect) = pointers.split_at_checked(DIRECT).unwrap_or_default();
    let per_block = u64::from(superblock.block_size() >> 2);
    let mut start = direct.len() as u64;
    if logical < start {
        return data(superblock, structure, 0, direct);
    }
    // Each further pointer has `per_block` times what the one before it has.
    let mut span = 1u64;
    for (levels, pointer) in (1u32..).zip(indirect) {
        span = span.saturating_mul(per_block);
        let end = start.saturating_add(span);
        if logical < end {
            let tree = Tree { levels, span, start };
            return tree.leaf(fs, inode, structure, pointer.get(), logical);
        }
        start = end;
    }
    // No pointer reaches this far.
    Ok(LeafBuilder::new(superblock, start, 1).finish(LOGICAL_END.max(start.saturating_add(1))))
}

/// What one pointer of the inode leads to.
struct Tree {
    /// Blocks of pointers on the way to data.
    levels: u32,
    /// Logical blocks covered.
    span: u64,
    /// First logical block covered.
    start: u64,
}

impl Tree {
    fn leaf(
        self,
        fs: &Filesystem,
        inode: &Inode,
        mut structure: Structure,
        mut pointer: u32,
        logical: u64,
    ) -> Result<Leaf, Error> {
        let superblock = fs.superblock();
        let per_block = u64::from(superblock.block_size() >> 2);
        let Self { mut levels, mut span, mut start } = self;
        loop {
            if pointer == 0 {
                let end = start.saturating_add(span);
                return Ok(LeafBuilder::new(superblock, start, 1).finish(end));
            }
            let number = u64::from(pointer);
            check(superblock, structure, number)?;
            structure = Structure::IndirectBlock { block: number, inode: inode.number() };
            let block = fs.block(number)?;
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

/// A leaf out of pointers to data; 0 is a hole.
fn data(
    superblock: &Superblock,
    structure: Structure,
    start: u64,
    pointers: &[U32],
) -> Result<Leaf, Error> {
    let mut leaf = LeafBuilder::new(superblock, start, 0);
    let mut logical = start;
    for pointer in pointers {
        let physical = u64::from(pointer.get());
        if physical != 0 {
            check(superblock, structure, physical)?;
            leaf.push_joined(logical, physical);
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
