//! Changes of a hash tree: names are added to the block for their hash, and full blocks are split.

use crate::blocks::block_cache::Block;
use crate::change::directory::blocks::Blocks;
use crate::change::directory::leaf;
use crate::change::directory::leaf::{NewEntry, Slot};
use crate::dir::checksum::ROOT_START;
use crate::dir::htree::node;
use crate::dir::htree::node::{Node, Unusable};
use crate::dir::htree::root;
use crate::dir::htree::root::Root;
use crate::error::{Error, Unsupported};
use crate::format::corrupt::Problem;
use crate::format::dir_entry;
use crate::format::dir_entry::{Directory, ENTRY_MIN};
use crate::format::dir_hash::{Chars, Function};
use crate::format::features::IncompatFeatures;
use crate::format::superblock::Superblock;
use crate::journal::handle::Stop;
use crate::number::{as_u64, as_usize};

/// The function that hashes the names of a directory, and the signedness of their bytes.
#[derive(Clone, Copy)]
pub(super) struct Hasher {
    function: Function,
    chars: Chars,
}

impl Hasher {
    /// Returns the hasher of a directory that gets a hash tree; `None` if the superblock does not tell
    /// enough, so that another program may hash in another way.
    pub(super) fn of_new_tree(superblock: &Superblock) -> Option<Self> {
        let function = Function::from_raw(superblock.hash.default_function)?;
        let chars = superblock.hash.chars?;
        (function != Function::SipHash).then_some(Self { function, chars })
    }

    fn hash(self, superblock: &Superblock, name: &[u8]) -> u32 {
        let hash = superblock.hash.hash(self.function, self.chars, name);
        hash.map_or(0, |hash| hash.major)
    }
}

/// A node of a tree, on the path to a block of names.
#[derive(Clone)]
struct Step {
    /// Index of its block in the directory; 0 is the root.
    index: u64,
    limit: u16,
    /// Its hashes and blocks. The first hash has no meaning.
    node: Node,
    /// The entry that the path takes.
    at: usize,
}

impl Step {
    fn child(&self) -> u64 {
        self.node.child(self.at).unwrap_or(0).into()
    }

    /// Returns the hash of the next entry.
    fn next_hash(&self) -> Option<u32> {
        self.node.hash(self.at.checked_add(1)?)
    }
}

/// A node that is to be written.
struct NewNode {
    /// Index of its block in the directory.
    index: u64,
    limit: u16,
    /// Hashes and blocks.
    entries: Vec<(u32, u32)>,
}

/// The path from the root of a hash tree to a block of names.
#[derive(Clone)]
pub(super) struct Path {
    hasher: Hasher,
    /// Levels of nodes below the root.
    levels: u8,
    steps: Vec<Step>,
    hash: u32,
    /// The hashes of names of the block: from the first, up to the second.
    range: (u32, u32),
}

impl Path {
    /// Descends to the block for a name.
    ///
    /// # Errors
    /// Damage to the tree; [`Error::UnsupportedInode`] if its names are hashed in an unknown way.
    pub(super) fn of(blocks: &mut Blocks<'_, '_>, name: &[u8]) -> Result<Self, Stop> {
        let (hasher, levels, root) = read_root(blocks)?;
        let hash = hasher.hash(blocks.superblock(), name);
        let mut path = Self { hasher, levels, steps: Vec::new(), hash, range: (0, u32::MAX) };
        path.descend(blocks, root, true)?;
        Ok(path)
    }

    /// Returns the index of the block of names.
    pub(super) fn leaf(&self) -> u64 {
        self.steps.last().map_or(0, Step::child)
    }

    /// Adds nodes to the path from `step` on: by the hash of the name, or the first ones.
    fn descend(
        &mut self,
        blocks: &mut Blocks<'_, '_>,
        step: Step,
        by_hash: bool,
    ) -> Result<(), Stop> {
        let mut step = step;
        // The loop ends, because each step adds a level.
        loop {
            if by_hash {
                step.at = step.node.search(self.hash);
            }
            let (low, high) = self.range;
            let own = step.node.hash(step.at).unwrap_or(low);
            let low = if step.at == 0 { low } else { own };
            self.range = (low, step.next_hash().unwrap_or(high));
            let (child, parent) = (step.child(), step.index);
            self.steps.push(step);
            let is_above = self.steps.iter().any(|step| step.index == child);
            if is_above || child >= blocks.count() {
                let rule = "must be one of the directory below its node";
                let problem = Problem::Field { field: "block of a hash", value: child, rule };
                return Err(blocks.structure(parent).corrupt(problem).into());
            }
            if self.steps.len() > usize::from(self.levels) {
                return Ok(());
            }
            step = read_node(blocks, child, self.range)?;
        }
    }

    /// Advances to the next block of names, if it may have names with the same hash. Returns false if not.
    pub(super) fn next(&mut self, blocks: &mut Blocks<'_, '_>) -> Result<bool, Stop> {
        let next = self.steps.iter().rposition(|step| step.next_hash().is_some());
        let Some(next) = next else { return Ok(false) };
        self.steps.truncate(next.saturating_add(1));
        let Some(mut step) = self.steps.pop() else { return Ok(false) };
        let hash = step.next_hash().unwrap_or(0);
        if hash & !1 != self.hash {
            return Ok(false);
        }
        step.at = step.at.saturating_add(1);
        // The block may also have higher hashes, whose limit is not needed.
        self.range = (0, u32::MAX);
        self.descend(blocks, step, false)?;
        Ok(true)
    }

    /// Checks that all names of the block belong there.
    fn check_hashes(
        &self,
        blocks: &Blocks<'_, '_>,
        items: &[(u32, Slot<'_>)],
    ) -> Result<(), Error> {
        let (low, high) = self.range;
        // With the lowest bit, names with the hash are also in the block before.
        let is_right = |hash: u32| hash >= low & !1 && hash < high;
        match items.iter().find(|&&(hash, _)| !is_right(hash)) {
            None => Ok(()),
            Some((hash, slot)) => {
                log::debug!("the name at byte {} has hash {hash:#x}", slot.offset);
                let rule = "must be in the range of its block";
                let problem =
                    Problem::Field { field: "hash of a name", value: u64::from(*hash), rule };
                Err(blocks.structure(self.leaf()).corrupt(problem))
            }
        }
    }

    /// Divides the names of the block between it and a new one, by their hashes, and adds an entry to
    /// one of them.
    pub(super) fn split(
        self,
        blocks: &mut Blocks<'_, '_>,
        slots: Vec<Slot<'_>>,
        entry: NewEntry<'_>,
    ) -> Result<(), Stop> {
        let (superblock, leaf) = (blocks.superblock(), self.leaf());
        let hash = |name: &[u8]| self.hasher.hash(superblock, name);
        let items = slots.into_iter().filter(|slot| slot.inode != 0);
        let mut items: Vec<(u32, Slot<'_>)> = items.map(|slot| (hash(slot.name), slot)).collect();
        self.check_hashes(blocks, &items)?;
        items.sort_by_key(|&(hash, _)| hash);
        let at = cut(superblock.block_size(), &items);
        let mut upper = items.split_off(at.min(items.len()));
        let (Some((low, _)), Some((before, _))) = (upper.first(), items.last()) else {
            return Err(Error::DirectoryFull { inode: blocks.number() }.into());
        };
        let (low, continues) = (*low, low == before);
        let added = (self.hash, Slot::new(entry));
        if self.hash >= low {
            upper.push(added)
        } else {
            items.push(added)
        }
        let new = blocks.append()?;
        for (index, items) in [(leaf, items), (new, upper)] {
            let entries = items.iter().map(|(_, slot)| slot.entry());
            let bytes = leaf::pack(superblock.block_size(), blocks.entries_end(), entries);
            let full = || Error::DirectoryFull { inode: blocks.number() };
            let bytes = bytes.ok_or_else(full)?;
            blocks.write_leaf(index, bytes)?;
        }
        self.insert(blocks, (low | u32::from(continues), number(new)))
    }

    /// Inserts an entry after the one that the path takes. Full nodes are split, and a full root moves to
    /// a new node.
    fn insert(mut self, blocks: &mut Blocks<'_, '_>, entry: (u32, u32)) -> Result<(), Stop> {
        let mut entry = entry;
        // The loop ends at the root at the latest.
        while let Some(Step { index, limit, node, at }) = self.steps.pop() {
            let (mut entries, after) = (node.all().collect::<Vec<_>>(), at.saturating_add(1));
            if entries.len() < usize::from(limit) {
                entries.insert(after.min(entries.len()), entry);
                return self.write(blocks, &NewNode { index, limit, entries });
            }
            if self.steps.is_empty() {
                return self.add_level(blocks, NewNode { index, limit, entries }, (after, entry));
            }
            let middle = entries.len() >> 1;
            let mut upper = entries.split_off(middle);
            let low = upper.first().map_or(0, |&(hash, _)| hash);
            match at.checked_sub(middle) {
                Some(_) => upper.insert(after.saturating_sub(middle), entry),
                None => entries.insert(after, entry),
            }
            let new = blocks.append()?;
            self.write(blocks, &NewNode { index, limit, entries })?;
            self.write(blocks, &NewNode { index: new, limit, entries: upper })?;
            entry = (low, number(new));
        }
        Ok(())
    }

    /// Moves the entries of the root to a new node, and adds one to them.
    fn add_level(
        &mut self,
        blocks: &mut Blocks<'_, '_>,
        root: NewNode,
        (at, entry): (usize, (u32, u32)),
    ) -> Result<(), Stop> {
        let most = if blocks.superblock().has(IncompatFeatures::LARGEDIR) { 2 } else { 1 };
        if self.levels >= most {
            return Err(Error::DirectoryFull { inode: blocks.number() }.into());
        }
        let (index, mut entries) = (blocks.append()?, root.entries);
        // A node has room for more entries than the root.
        entries.insert(at.min(entries.len()), entry);
        self.write(blocks, &NewNode { index, limit: node_limit(blocks), entries })?;
        self.levels = self.levels.saturating_add(1);
        self.write(blocks, &NewNode { entries: vec![(0, number(index))], ..root })
    }

    /// Writes a node to its block.
    fn write(&self, blocks: &mut Blocks<'_, '_>, new: &NewNode) -> Result<(), Stop> {
        let size = as_usize(blocks.superblock().block_size());
        let full = Error::DirectoryFull { inode: blocks.number() };
        let (mut bytes, start) = match new.index {
            0 => (blocks.read(0)?.to_vec(), ROOT_START),
            _ => (vec![0; size], node::START),
        };
        let written = match new.index {
            0 => root::write(&mut bytes, self.hasher.function, self.levels),
            // An unused entry, so that programs that know no hash trees see no names.
            _ => dir_entry::set_length(&mut bytes, 0, size),
        };
        let entries = node::write(&mut bytes, start, new.limit, &new.entries);
        written.and(entries).ok_or(full)?;
        blocks.write_node(new.index, bytes, start)
    }
}

/// Moves the names of a directory of one block to a second one, whose hash tree has its root in the
/// first, and adds an entry, which the first block had no room for.
pub(super) fn create(
    blocks: &mut Blocks<'_, '_>,
    hasher: Hasher,
    slots: Vec<Slot<'_>>,
    entry: NewEntry<'_>,
) -> Result<(), Stop> {
    let superblock = blocks.superblock();
    let full = || Error::DirectoryFull { inode: blocks.inode.number() };
    let size = superblock.block_size();
    let [dot, dots] = [slots.first(), slots.get(1)].map(|slot| slot.map(Slot::entry));
    let (Some(dot), Some(dots)) = (dot, dots) else { return Err(full().into()) };
    let mut bytes = leaf::pack(size, as_usize(size), [dot, dots]).ok_or_else(full)?;
    let names = slots.iter().filter(|slot| !slot.is_dot() && slot.inode != 0);
    let leaf = leaf::pack(size, blocks.entries_end(), names.map(Slot::entry)).ok_or_else(full)?;
    let limit = node::limit(superblock, as_usize(size).saturating_sub(ROOT_START));
    let index = blocks.append()?;
    let entries = vec![(0, number(index))];
    let root = root::write(&mut bytes, hasher.function, 0);
    root.and(node::write(&mut bytes, ROOT_START, limit, &entries))
        .ok_or_else(|| full_of(blocks))?;
    blocks.inode.set_index_flag();
    blocks.write_node(0, bytes, ROOT_START)?;
    blocks.write_leaf(index, leaf)?;
    let hash = hasher.hash(superblock, entry.2);
    let (_, levels, root) = read_root(blocks)?;
    let path = Path { hasher, levels, steps: vec![root], hash, range: (0, u32::MAX) };
    let front = slots.iter().take(2).map(|slot| slot.length).sum();
    let mut slots: Vec<Slot<'_>> = slots.into_iter().filter(|slot| !slot.is_dot()).collect();
    if let Some(last) = slots.last_mut() {
        last.length = last.length.saturating_add(front);
    }
    path.split(blocks, slots, entry)
}

fn full_of(blocks: &Blocks<'_, '_>) -> Error {
    Error::DirectoryFull { inode: blocks.number() }
}

/// Returns the number of the first name, in the order of hashes, that moves to the new block: the entries
/// from there on have about half of the block, with their gaps. If all of them have less, it is half of
/// their number.
fn cut(block_size: u32, items: &[(u32, Slot<'_>)]) -> usize {
    let half = as_usize(block_size >> 1);
    let mut size = 0usize;
    for (at, (_, slot)) in items.iter().enumerate().rev() {
        if size.saturating_add(slot.length >> 1) > half {
            return at.saturating_add(1);
        }
        size = size.saturating_add(slot.length);
    }
    items.len() >> 1
}

/// Converts the index of a block, which [`Blocks::append`] bounds.
fn number(index: u64) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn node_limit(blocks: &Blocks<'_, '_>) -> u16 {
    let size = as_usize(blocks.superblock().block_size());
    node::limit(blocks.superblock(), size.saturating_sub(node::START))
}

/// Reads the root. Returns the hasher, the number of levels below, and the root's entries.
fn read_root(blocks: &mut Blocks<'_, '_>) -> Result<(Hasher, u8, Step), Stop> {
    let (superblock, inode) = (blocks.superblock(), blocks.number());
    let unsupported = Error::UnsupportedInode { inode, what: Unsupported::HashTree };
    let chars = superblock.hash.chars.ok_or(unsupported)?;
    let block = blocks.read(0)?;
    check_dots(blocks, &block)?;
    let root = Root::parse(superblock, block, false).map_err(|why| unusable(blocks, 0, why))?;
    let Root { function, levels, node, start } = root;
    let limit = node::limit(superblock, as_usize(superblock.block_size()).saturating_sub(start));
    if start != ROOT_START {
        let value = as_u64(start);
        let problem = Problem::Field { field: "begin of the hashes", value, rule: "must be 32" };
        return Err(blocks.structure(0).corrupt(problem).into());
    }
    let step = Step { index: 0, limit, node, at: 0 };
    check_order(blocks, &step, (0, u32::MAX))?;
    Ok((Hasher { function, chars }, levels, step))
}

/// Checks the entries "." and ".." of a root, which hide the tree from programs that do not know it.
fn check_dots(blocks: &Blocks<'_, '_>, block: &Block) -> Result<(), Error> {
    let directory = Directory::new(blocks.superblock(), blocks.inode);
    let slots = leaf::slots(&directory, block, 0, block.len())?;
    let are_dots = matches!(&slots[..], [dot, dots]
        if *dot.name == *b"." && dot.end() == ENTRY_MIN && *dots.name == *b"..");
    let problem = Problem::Field {
        field: "number of entries before the hashes",
        value: as_u64(slots.len()),
        rule: "must be 2, of which the second has the rest of the block",
    };
    if are_dots { Ok(()) } else { Err(blocks.structure(0).corrupt(problem)) }
}

/// Reads a node other than the root, for a range of hashes.
fn read_node(blocks: &mut Blocks<'_, '_>, index: u64, range: (u32, u32)) -> Result<Step, Stop> {
    let block = blocks.read(index)?;
    let directory = Directory::new(blocks.superblock(), blocks.inode);
    let slots = leaf::slots(&directory, &block, index, block.len())?;
    if !matches!(&slots[..], [only] if only.inode == 0) {
        let rule = "must be 1 in a node of a hash tree";
        let value = as_u64(slots.len());
        let problem = Problem::Field { field: "number of entries", value, rule };
        return Err(blocks.structure(index).corrupt(problem).into());
    }
    let limit = node_limit(blocks);
    let node = Node::new(block, node::START, limit).map_err(|why| unusable(blocks, index, why))?;
    let step = Step { index, limit, node, at: 0 };
    check_order(blocks, &step, range)?;
    Ok(step)
}

/// Rejects a node in the place of a block of names. Without checksums it looks like one without names.
pub(super) fn check_leaf(
    blocks: &Blocks<'_, '_>,
    index: u64,
    block: &[u8],
    first: Option<Slot<'_>>,
) -> Result<(), Error> {
    let is_empty = first.is_some_and(|only| only.inode == 0 && only.end() == block.len());
    let limit = block.get(node::START..).and_then(|rest| rest.first_chunk());
    match is_empty && limit == Some(&node_limit(blocks).to_le_bytes()) {
        true => {
            let problem =
                Problem::Field { field: "number of names", value: 0, rule: "it is a node" };
            Err(blocks.structure(index).corrupt(problem))
        }
        false => Ok(()),
    }
}

/// Checks that the hashes of a node are in order, and in the range that its parent tells.
fn check_order(blocks: &Blocks<'_, '_>, step: &Step, (low, high): (u32, u32)) -> Result<(), Error> {
    let (mut before, mut wrong) = (low, None);
    for hash in step.node.all().skip(1).map(|(hash, _)| hash).chain([high]) {
        if hash < before {
            wrong = Some(before);
            break;
        }
        before = hash;
    }
    match wrong {
        None => Ok(()),
        Some(hash) => {
            let rule =
                "must not be lower than the one before, nor higher than the next of its parent";
            let problem = Problem::Field { field: "hash", value: hash.into(), rule };
            Err(blocks.structure(step.index).corrupt(problem))
        }
    }
}

/// Returns the error of a block that cannot be a part of a hash tree.
fn unusable(blocks: &Blocks<'_, '_>, index: u64, why: Unusable) -> Error {
    let (field, value, rule) = match why {
        Unusable::Function(value) => ("hash function", value.into(), "must be 0, 1 or 2"),
        Unusable::Flags(value) => ("flags of the hash tree", value.into(), "must be 0"),
        Unusable::Levels(value) => ("levels of the hash tree", value.into(), "are too many"),
        Unusable::Limit { found, .. } => {
            ("capacity of the node", found.into(), "must be that of the block")
        }
        Unusable::Count { count, .. } => {
            ("count of hashes", count.into(), "must be 1 at least, and at most the capacity")
        }
        Unusable::Cycle(block) => ("block of a hash", block.into(), "must be below its node"),
        Unusable::TooManyBlocks => ("count of blocks", blocks.count(), "is too small"),
    };
    blocks.structure(index).corrupt(Problem::Field { field, value, rule })
}
