//! Lookup of a name in a hash tree.

use zerocopy::FromBytes;

use crate::blocks::block_cache::Block;
use crate::dir::block_map::DirMap;
use crate::dir::checksum;
use crate::dir::htree::node;
use crate::dir::htree::node::{Node, Unusable};
use crate::dir::htree::root::Root;
use crate::dir::key::Query;
use crate::error::Error;
use crate::format::corrupt::Structure;
use crate::format::dir_entry::{RawEntry, decode_rec_len};
use crate::format::dir_hash::{Chars, Hash};
use crate::format::features::CompatFeatures;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::format::superblock::Superblock;
use crate::map::FileMap;
use crate::number::as_u64;

/// Size of the hash that entries store in encrypted directories that ignore case, bytes.
const OWN_HASH: usize = 8;

/// Returns true if a directory has a hash tree.
pub(crate) fn has_tree(superblock: &Superblock, inode: &Inode) -> bool {
    inode.flags().contains(InodeFlags::INDEX)
        && !inode.has_inline_data()
        && superblock.compat.contains(CompatFeatures::DIR_INDEX)
}

/// The reason why a tree search stopped.
pub(crate) enum Stop {
    /// The tree is unusable. The caller searches all blocks of the directory instead.
    Unusable(Unusable),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Unusable> for Stop {
    fn from(unusable: Unusable) -> Self {
        Self::Unusable(unusable)
    }
}

/// Searches a directory that has a tree: calls `search` for each block that may contain the name,
/// until it returns `Some`.
pub(crate) fn find<T>(
    map: FileMap<'_>,
    query: &Query<'_>,
    mut search: impl FnMut(u64, &Block) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Stop> {
    let (superblock, inode) = (map.metadata.superblock(), map.inode);
    let mut map = DirMap::new(map)?;
    let known = superblock.hash.chars;
    // If the superblock does not record the signedness of bytes, search with both.
    let both = [known.unwrap_or(Chars::Signed), known.unwrap_or(Chars::Unsigned)];
    let mut before = None;
    for chars in both {
        let block = index_block(superblock, inode, &mut map, 0)?;
        let root = Root::parse(superblock, block, query.has_own_hashes())?;
        let Some(hash) = query.hash(superblock, root.function, chars) else { return Ok(None) };
        if before.replace(hash) == Some(hash) {
            return Ok(None);
        }
        let has_own_hashes = query.has_own_hashes();
        let mut walk =
            Walk { superblock, inode, map, has_own_hashes, hash, path: Vec::new(), visits: 0 };
        let mut next = Some(walk.start(root)?);
        while let Some(index) = next {
            let block = walk.read(index)?;
            if let Some(found) = search(index, &block)? {
                return Ok(Some(found));
            }
            next = walk.next()?;
        }
        map = walk.map;
    }
    Ok(None)
}

/// Reads a block that must contain entries of the tree.
fn index_block(
    superblock: &Superblock,
    inode: &Inode,
    map: &mut DirMap<'_>,
    index: u64,
) -> Result<Block, Error> {
    let block = map.block(index)?;
    let structure = Structure::DirectoryBlock { inode: inode.number(), index };
    // A node starts with an unused directory entry that spans the whole block, and the root with
    // ".".
    let front = RawEntry::ref_from_prefix(&block).ok();
    let length = front.map_or(0, |(entry, _)| decode_rec_len(entry.rec_len.get(), block.len()));
    let rule = "must be the block's in a node of a hash tree";
    let is_good = index == 0 || length == block.len();
    structure.ensure(is_good, "first entry's length", as_u64(length), rule)?;
    checksum::verify(superblock, inode, index, &block)
        .map_err(|problem| structure.corrupt(problem))?;
    Ok(block)
}

/// An iteration over the blocks that may contain names of one hash.
struct Walk<'a> {
    superblock: &'a Superblock,
    inode: &'a Inode,
    map: DirMap<'a>,
    has_own_hashes: bool,
    hash: Hash,
    /// The path from the root to the current block.
    path: Vec<Step>,
    /// Number of blocks visited.
    visits: u64,
}

struct Step {
    node: Node,
    at: usize,
    /// Index of the node's block in the directory.
    index: u32,
}

impl Walk<'_> {
    /// Descends from the root to the first block, and returns its index.
    fn start(&mut self, root: Root) -> Result<u64, Stop> {
        let Root { levels, mut node, .. } = root;
        let mut index = 0;
        for _ in 0..=levels {
            let at = node.search(self.hash.major);
            let child = node.child(at).unwrap_or(0);
            self.path.push(Step { node, at, index });
            if self.path.iter().any(|step| step.index == child) {
                return Err(Unusable::Cycle(child).into());
            }
            if self.path.len() > usize::from(levels) {
                return Ok(child.into());
            }
            node = self.node(child)?;
            index = child;
        }
        Err(Unusable::Levels(levels).into())
    }

    /// Advances to the next block, if it may contain names of the same hash.
    fn next(&mut self) -> Result<Option<u64>, Stop> {
        let levels = self.path.len();
        let hash = loop {
            let Some(step) = self.path.last_mut() else { return Ok(None) };
            step.at = step.at.saturating_add(1);
            if let Some(hash) = step.node.hash(step.at) {
                break hash;
            }
            self.path.pop();
        };
        if hash & !1 != self.hash.major {
            return Ok(None);
        }
        loop {
            let child = self.path.last().and_then(|step| step.node.child(step.at)).unwrap_or(0);
            if self.path.len() == levels {
                return Ok(Some(child.into()));
            }
            let node = self.node(child)?;
            self.path.push(Step { node, at: 0, index: child });
        }
    }

    fn node(&mut self, index: u32) -> Result<Node, Stop> {
        self.count()?;
        let block = index_block(self.superblock, self.inode, &mut self.map, index.into())?;
        // If entries store their hashes, the kernel subtracts the size of one hash from the space
        // of the node, although the node's entries start before that space.
        let front =
            if self.has_own_hashes { node::START.saturating_add(OWN_HASH) } else { node::START };
        let limit = node::limit(self.superblock, block.len().saturating_sub(front));
        Ok(Node::new(block, node::START, limit)?)
    }

    /// Reads a block that contains names.
    fn read(&mut self, index: u64) -> Result<Block, Stop> {
        self.count()?;
        let block = self.map.block(index)?;
        let structure = Structure::DirectoryBlock { inode: self.inode.number(), index };
        checksum::verify(self.superblock, self.inode, index, &block)
            .map_err(|problem| structure.corrupt(problem))?;
        Ok(block)
    }

    /// Counts a visited block. A valid tree refers to each block once, so more visits than blocks
    /// indicate damage, and the cost of a search is bounded.
    fn count(&mut self) -> Result<(), Unusable> {
        self.visits = self.visits.saturating_add(1);
        if self.visits > self.map.count() { Err(Unusable::TooManyBlocks) } else { Ok(()) }
    }
}
