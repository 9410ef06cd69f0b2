//! The root of a hash tree.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::blocks::block_cache::Block;
use crate::dir::htree::node;
use crate::dir::htree::node::{Node, Unusable};
use crate::format::dir_hash::Function;
use crate::format::features::IncompatFeatures;
use crate::format::superblock::Superblock;

/// Byte offset of the root in its block, after the entries "." and "..".
pub(crate) const INFO: usize = 24;

/// `struct dx_root_info`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawRootInfo {
    pub reserved: U32,
    pub hash_version: u8,
    /// Size of this structure, bytes. The entries follow it.
    pub info_length: u8,
    /// Levels of nodes between the root and the blocks with names.
    pub levels: u8,
    pub flags: u8,
}

const _: () = assert!(size_of::<RawRootInfo>() == 8);

/// The parsed root of a tree.
pub(crate) struct Root {
    pub function: Function,
    /// Levels of nodes below the root, at most 2.
    pub levels: u8,
    pub node: Node,
    /// Byte offset of the node's entries in the block.
    pub start: usize,
}

impl Root {
    /// Parses the root in the first block of a directory. `with_hashes` is true if the directory's
    /// entries store their hashes.
    pub(crate) fn parse(
        superblock: &Superblock,
        block: Block,
        with_hashes: bool,
    ) -> Result<Self, Unusable> {
        let info = block.get(INFO..).unwrap_or_default();
        let Ok((info, _)) = RawRootInfo::ref_from_prefix(info) else {
            return Err(Unusable::Limit { found: 0, expected: 0 });
        };
        let &RawRootInfo { hash_version, info_length, levels, flags, .. } = info;
        let function = Function::from_raw(hash_version)
            .filter(|&function| (function == Function::SipHash) == with_hashes)
            .ok_or(Unusable::Function(hash_version))?;
        if flags & 1 != 0 {
            return Err(Unusable::Flags(flags));
        }
        let max = if superblock.has(IncompatFeatures::LARGEDIR) { 2 } else { 1 };
        if levels > max {
            return Err(Unusable::Levels(levels));
        }
        let start = INFO.saturating_add(info_length.into());
        let limit = node::limit(superblock, block.len().saturating_sub(start));
        let node = Node::new(block, start, limit)?;
        Ok(Self { function, levels, node, start })
    }
}

/// Writes the root's own fields to its block.
pub(crate) fn write(block: &mut [u8], function: Function, levels: u8) -> Option<()> {
    let (info, _) = RawRootInfo::mut_from_prefix(block.get_mut(INFO..)?).ok()?;
    let (hash_version, info_length) = (function.to_raw(), 8);
    *info = RawRootInfo { reserved: U32::ZERO, hash_version, info_length, levels, flags: 0 };
    Some(())
}
