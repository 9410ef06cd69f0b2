//! Changes of an extent tree: blocks of a file are mapped to others, or to none.

pub(super) mod shift;

use std::ops::Range;

use zerocopy::IntoBytes;

use crate::alloc::{self, Request};
use crate::error::Error;
use crate::file::system_zone::SystemZone;
use crate::format::corrupt::Structure;
use crate::format::extent;
use crate::format::extent::{
    DEPTH_MAX, ENTRIES_IN_ROOT, ENTRY_SIZE, RawExtent, RawHeader, RawIndex, WRITTEN_MAX,
};
use crate::format::inode::Inode;
use crate::journal::handle::{Handle, Stop};
use crate::map::extent_tree::{Node, verify_checksum};
use crate::number::{BlockRun, LogicalBlock, PhysicalBlock, as_usize};

/// The blocks of the largest file.
const ALL: Range<u64> = 0..END;
const END: u64 = LogicalBlock::END_NUMBER;

/// Contiguous blocks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// First block in the file.
    pub start: u64,
    pub blocks: BlockRun,
    pub unwritten: bool,
}

impl Extent {
    /// Returns the first block in the file after the extent.
    pub(crate) fn end(&self) -> u64 {
        self.start.saturating_add(self.blocks.count())
    }

    /// Returns the part of the extent inside a range of blocks of the file.
    pub(super) fn part(&self, range: Range<u64>) -> Option<Self> {
        let (start, end) = (self.start.max(range.start), self.end().min(range.end));
        let skip = start.checked_sub(self.start)?;
        let count = end.checked_sub(start).filter(|&count| count > 0)?;
        Some(Self { start, blocks: self.blocks.part(skip, count), ..*self })
    }

    /// Returns the maximum number of blocks of an extent of this kind.
    fn most(&self) -> u64 {
        u64::from(WRITTEN_MAX).saturating_sub(u64::from(self.unwritten))
    }

    /// Returns true if `next` continues this extent, in the file and on the device.
    fn is_continued_by(&self, next: &Self) -> bool {
        self.unwritten == next.unwritten
            && self.end() == next.start
            && self.blocks.end() == next.blocks.start()
    }
}

/// A child of an index node, and the first block of the file that it maps.
#[derive(Clone, Copy)]
struct Child {
    start: u64,
    block: PhysicalBlock,
}

/// The mapping of a block of a file.
pub(crate) enum Found {
    Extent(Extent),
    /// A hole from the block on, at least to this block.
    Hole {
        end: u64,
    },
}

/// The extent tree of an inode, in a change.
pub(crate) struct Tree<'e, 'h> {
    pub handle: &'e mut Handle<'h>,
    pub zone: &'e SystemZone,
    pub inode: &'e mut Inode,
    /// The map was changed.
    pub is_changed: bool,
}

/// A change of a range of blocks of a file.
struct Change {
    range: Range<u64>,
    /// The removed parts of extents.
    removed: Vec<Extent>,
}

impl Tree<'_, '_> {
    /// Returns the mapping of block `at` of the file.
    pub(crate) fn find(&self, at: u64) -> Result<Found, Stop> {
        let (mut entries, mut depth) = self.read_root()?;
        let mut range = ALL;
        // The loop ends, because `read` checks that the depth decreases.
        loop {
            let children = match entries {
                Entries::Extents(extents) => return Ok(found(&extents, at, range.end)),
                Entries::Children(children) => children,
            };
            let after = children.partition_point(|child| child.start <= at).max(1);
            let Some(child) = children.get(after.saturating_sub(1)) else {
                return Ok(Found::Hole { end: range.end });
            };
            let low = if after == 1 { range.start } else { child.start };
            range = low..children.get(after).map_or(range.end, |next| next.start);
            depth = depth.saturating_sub(1);
            entries = self.read(child.block, depth, range.clone())?;
        }
    }

    /// Returns the first block of the last `count` extents, or of fewer: those in the last leaf. 0 if
    /// there are none.
    pub(crate) fn last_extents(&self, count: usize) -> Result<u64, Stop> {
        let extents = self.last_leaf()?;
        let at = extents.len().saturating_sub(count);
        Ok(extents.get(at).map_or(0, |extent| extent.start))
    }

    /// Returns the block after the last extent; 0 if there is none.
    pub(crate) fn end(&self) -> Result<u64, Stop> {
        Ok(self.last_leaf()?.last().map_or(0, Extent::end))
    }

    /// Returns the block after the first `count` extents, or fewer, from block `at` on.
    pub(crate) fn next_extents(&self, at: u64, count: usize) -> Result<u64, Stop> {
        let mut at = at;
        for _ in 0..count {
            at = match self.find(at)? {
                Found::Extent(extent) => extent.end(),
                Found::Hole { end } => end,
            };
        }
        Ok(at)
    }

    /// Returns the extents of the last leaf.
    fn last_leaf(&self) -> Result<Vec<Extent>, Stop> {
        let (mut entries, mut depth) = self.read_root()?;
        let mut range = ALL;
        // The loop ends, because `read` checks that the depth decreases.
        loop {
            let children = match entries {
                Entries::Extents(extents) => return Ok(extents),
                Entries::Children(children) => children,
            };
            let Some(last) = children.last() else { return Ok(Vec::new()) };
            range = if children.len() > 1 { last.start..range.end } else { range };
            depth = depth.saturating_sub(1);
            entries = self.read(last.block, depth, range.clone())?;
        }
    }

    /// Maps a range of blocks of the file to `with`, which has as many blocks, or to a hole. Returns
    /// the extents that were there; their blocks still belong to nobody else.
    pub(crate) fn replace(
        &mut self,
        range: Range<u64>,
        with: Option<(BlockRun, bool)>,
    ) -> Result<Vec<Extent>, Stop> {
        let with = with.map(|(blocks, unwritten)| Extent { start: range.start, blocks, unwritten });
        let mut change = Change { range, removed: Vec::new() };
        let (entries, depth) = self.read_root()?;
        let entries = match entries {
            Entries::Extents(extents) => Entries::Extents(change.splice(extents, with)),
            Entries::Children(children) => {
                Entries::Children(self.edit_children(children, depth, ALL, &mut change, with)?)
            }
        };
        self.store_root(entries, depth, with.is_none())?;
        self.handle.changes.ranges.push((self.inode.number(), change.range));
        self.is_changed |= with.is_some() || !change.removed.is_empty();
        Ok(change.removed)
    }

    /// Changes the children of an index node that map a part of the range. Returns the new ones.
    fn edit_children(
        &mut self,
        children: Vec<Child>,
        depth: u16,
        all: Range<u64>,
        change: &mut Change,
        with: Option<Extent>,
    ) -> Result<Vec<Child>, Stop> {
        let mut new = Vec::new();
        let ends = children.iter().skip(1).map(|child| child.start).chain([all.end]);
        let ends: Vec<u64> = ends.collect();
        let mut low = all.start;
        for (child, high) in children.into_iter().zip(ends) {
            let range = low..high;
            low = high;
            if change.range.start >= range.end || change.range.end <= range.start {
                new.push(child);
                continue;
            }
            let with = with.filter(|with| range.contains(&with.start));
            new.extend(self.edit_node(
                child.block,
                depth.saturating_sub(1),
                range,
                change,
                with,
            )?);
        }
        Ok(new)
    }

    /// Changes a node that has a block of its own. Returns the nodes that replace it.
    fn edit_node(
        &mut self,
        block: PhysicalBlock,
        depth: u16,
        range: Range<u64>,
        change: &mut Change,
        with: Option<Extent>,
    ) -> Result<Vec<Child>, Stop> {
        let entries = match self.read(block, depth, range.clone())? {
            Entries::Extents(extents) => Entries::Extents(change.splice(extents, with)),
            // The recursion ends, because `read` checks that the depth decreases.
            Entries::Children(children) => {
                Entries::Children(self.edit_children(children, depth, range, change, with)?)
            }
        };
        self.store(Some(block), depth, &entries)
    }

    /// Stores entries in a node, or in several if they do not fit into one. `block` is the node that
    /// they were in; without entries it is freed. Returns the nodes.
    fn store(
        &mut self,
        block: Option<PhysicalBlock>,
        depth: u16,
        entries: &Entries,
    ) -> Result<Vec<Child>, Stop> {
        if entries.len() == 0 {
            block.map_or(Ok(()), |block| self.free_node(block))?;
            return Ok(Vec::new());
        }
        let most = self.entries_in_block();
        let mut nodes = Vec::new();
        let mut block = block;
        for range in entries.divided(most) {
            let number = match block.take() {
                Some(block) => block,
                None => self.new_node()?,
            };
            let header = (u16::try_from(most).unwrap_or(u16::MAX), depth);
            let mut bytes = vec![0; as_usize(self.handle.superblock().block_size())];
            entries.encode(range.clone(), header, &mut bytes)?;
            if self.handle.superblock().has_metadata_csum() {
                extent::seal(self.inode.checksum_seed, &mut bytes);
            }
            self.handle.set_block(number, bytes);
            nodes.push(Child { start: entries.start(range.start), block: number });
        }
        Ok(nodes)
    }

    /// Stores the entries of the root. Entries that do not fit move to a new level. If the tree
    /// `shrinks`, a level that is not needed any more is removed.
    fn store_root(&mut self, entries: Entries, depth: u16, shrinks: bool) -> Result<(), Stop> {
        let (mut entries, mut depth) = (entries, depth);
        while entries.len() > usize::from(ENTRIES_IN_ROOT) {
            if depth >= DEPTH_MAX {
                return Err(Error::FileTooLarge { inode: self.inode.number() }.into());
            }
            entries = Entries::Children(self.store(None, depth, &entries)?);
            depth = depth.saturating_add(1);
        }
        if entries.len() == 0 {
            (entries, depth) = (Entries::Extents(Vec::new()), 0);
        }
        while shrinks
            && let Entries::Children(children) = &entries
            && let [only] = children[..]
            && let Some(below) = self.small_child(only, depth.saturating_sub(1))?
        {
            self.free_node(only.block)?;
            (entries, depth) = (below, depth.saturating_sub(1));
        }
        let mut root = self.inode.block;
        root.fill(0);
        entries.encode(0..entries.len(), (ENTRIES_IN_ROOT, depth), &mut root)?;
        self.inode.block = root;
        Ok(())
    }

    /// Returns the entries of a child of the root, if they fit into the root.
    fn small_child(&self, child: Child, depth: u16) -> Result<Option<Entries>, Stop> {
        let entries = self.read(child.block, depth, ALL)?;
        Ok(Some(entries).filter(|entries| entries.len() <= usize::from(ENTRIES_IN_ROOT)))
    }

    /// Allocates a block for a node, in the group of the inode: between the data of the file it would
    /// divide an extent.
    fn new_node(&mut self) -> Result<PhysicalBlock, Stop> {
        let superblock = self.handle.superblock();
        let index = self.inode.number().get().saturating_sub(1);
        let group = index.checked_div(superblock.inodes_per_group).unwrap_or(0);
        let goal = superblock.group_start(group);
        let request = Request { goal, count: 1, window: 0, owner: None };
        let run = alloc::allocate(self.handle, self.zone, request)?;
        self.inode.add_blocks(superblock, 1);
        Ok(run.start())
    }

    fn free_node(&mut self, block: PhysicalBlock) -> Result<(), Stop> {
        alloc::free(self.handle, self.zone, BlockRun::new(block, 1).unwrap_or_default())?;
        self.handle.revoke(block);
        self.inode.remove_blocks(self.handle.superblock(), 1);
        Ok(())
    }

    /// Returns the number of entries that a node with a block of its own has room for.
    fn entries_in_block(&self) -> usize {
        let bytes = as_usize(self.handle.superblock().block_size()).saturating_sub(ENTRY_SIZE);
        bytes.checked_div(ENTRY_SIZE).unwrap_or(1)
    }

    /// Returns the checked entries of the root, and its depth.
    fn read_root(&self) -> Result<(Entries, u16), Stop> {
        let root = Node {
            superblock: self.handle.superblock(),
            bytes: &self.inode.block,
            structure: Structure::ExtentRoot { inode: self.inode.number() },
            low: LogicalBlock::START,
            high: LogicalBlock::END,
        };
        let header = root.header(None)?;
        Ok((Entries::of(&root, header)?, header.depth.get()))
    }

    /// Returns the checked entries of the node in `block`, which maps a range of blocks of the file.
    fn read(&self, block: PhysicalBlock, depth: u16, range: Range<u64>) -> Result<Entries, Stop> {
        let structure = Structure::ExtentBlock { block, inode: self.inode.number() };
        let superblock = self.handle.superblock();
        superblock.data_blocks(block, 1u32).map_err(|problem| structure.corrupt(problem))?;
        let bytes = self.handle.block(block)?;
        let (low, high) = (LogicalBlock::or_end(range.start), LogicalBlock::or_end(range.end));
        let node = Node { superblock, bytes: &bytes, structure, low, high };
        let header = node.header(Some(depth))?;
        verify_checksum(&node, header, self.inode)?;
        Entries::of(&node, header)
    }
}

/// Returns the mapping of block `at` by the extents of a leaf that maps the blocks before `high`.
fn found(extents: &[Extent], at: u64, high: u64) -> Found {
    let after = extents.partition_point(|extent| extent.start <= at);
    let extent = after.checked_sub(1).and_then(|index| extents.get(index));
    match extent.filter(|extent| at < extent.end()) {
        Some(extent) => Found::Extent(*extent),
        None => Found::Hole { end: extents.get(after).map_or(high, |next| next.start) },
    }
}

/// Returns the checked extents of a leaf.
fn leaf(node: &Node<'_>, header: &RawHeader) -> Result<Vec<Extent>, Stop> {
    let entries: &[RawExtent] = node.entries(header)?;
    let mut low = node.low;
    let mut extents = Vec::with_capacity(entries.len());
    for (index, entry) in (0u16..).zip(entries) {
        let (end, blocks, _) = node.extent(index, entry, low)?;
        let (start, _, _, unwritten) = entry.parts();
        extents.push(Extent { start: start.into(), blocks, unwritten });
        low = end;
    }
    Ok(extents)
}

impl Change {
    /// Removes the range from the extents of a leaf, and inserts `with`.
    fn splice(&mut self, extents: Vec<Extent>, with: Option<Extent>) -> Vec<Extent> {
        let Range { start, end } = self.range;
        let mut new: Vec<Extent> = Vec::with_capacity(extents.len().saturating_add(2));
        let mut with = with;
        for extent in extents {
            new.extend(extent.part(0..start));
            self.removed.extend(extent.part(start..end));
            if extent.end() > start {
                push(&mut new, with.take());
            }
            push(&mut new, extent.part(end..u64::MAX));
        }
        push(&mut new, with);
        new
    }
}

/// Appends an extent: to the last one as far as they can be one, and the rest in pieces that are not too
/// long.
fn push(extents: &mut Vec<Extent>, extent: Option<Extent>) {
    let Some(mut rest) = extent else { return };
    if let Some(last) = extents.last_mut()
        && last.is_continued_by(&rest)
    {
        let count = last.blocks.count().saturating_add(rest.blocks.count()).min(last.most());
        last.blocks = BlockRun::new(last.blocks.start(), count).unwrap_or(last.blocks);
        match rest.part(last.end()..u64::MAX) {
            Some(more) => rest = more,
            None => return,
        }
    }
    // The loop ends, because each piece has a block at least.
    while let Some(piece) = rest.part(rest.start..rest.start.saturating_add(rest.most())) {
        extents.push(piece);
        match rest.part(piece.end()..u64::MAX) {
            Some(more) => rest = more,
            None => return,
        }
    }
}

/// The entries of a node.
enum Entries {
    Extents(Vec<Extent>),
    Children(Vec<Child>),
}

impl Entries {
    /// Returns the checked entries of a node.
    fn of(node: &Node<'_>, header: &RawHeader) -> Result<Self, Stop> {
        if header.depth.get() == 0 {
            return Ok(Self::Extents(leaf(node, header)?));
        }
        let entries: &[RawIndex] = node.entries(header)?;
        node.check_order(entries)?;
        let child = |entry: &RawIndex| {
            let start = LogicalBlock::from(entry.logical).into();
            Child { start, block: entry.child() }
        };
        Ok(Self::Children(entries.iter().map(child).collect()))
    }

    fn len(&self) -> usize {
        match self {
            Self::Extents(extents) => extents.len(),
            Self::Children(children) => children.len(),
        }
    }

    /// Returns the first block of the file that entry `at` maps.
    fn start(&self, at: usize) -> u64 {
        match self {
            Self::Extents(extents) => extents.get(at).map_or(0, |extent| extent.start),
            Self::Children(children) => children.get(at).map_or(0, |child| child.start),
        }
    }

    /// Divides the entries into nodes of at most `most`: into halves, because more may come anywhere.
    fn divided(&self, most: usize) -> impl Iterator<Item = Range<usize>> {
        let length = self.len();
        let nodes = length.div_ceil(most.max(1)).max(1);
        let each = length.div_ceil(nodes).max(1);
        (0..length).step_by(each).map(move |start| start..start.saturating_add(each).min(length))
    }

    /// Writes a node with the entries of `range` to `bytes`. The header has the most entries that
    /// there is room for, and the depth.
    fn encode(
        &self,
        range: Range<usize>,
        (most, depth): (u16, u16),
        bytes: &mut [u8],
    ) -> Result<(), Error> {
        let count = u16::try_from(range.len()).unwrap_or(u16::MAX);
        let header = RawHeader::new(count, most, depth);
        let mut put = |index: usize, entry: &[u8]| {
            let at = index.saturating_mul(ENTRY_SIZE);
            let place = bytes.get_mut(at..).unwrap_or_default();
            place.iter_mut().zip(entry).for_each(|(to, from)| *to = *from);
        };
        put(0, header.as_bytes());
        for (place, index) in (1..).zip(range) {
            match self {
                Self::Extents(extents) => {
                    let Some(extent) = extents.get(index) else { continue };
                    put(place, raw_extent(extent)?.as_bytes());
                }
                Self::Children(children) => {
                    let Some(child) = children.get(index) else { continue };
                    let start = LogicalBlock::or_end(child.start);
                    let raw = RawIndex::new(start, child.block).ok_or(Error::NoSpace)?;
                    put(place, raw.as_bytes());
                }
            }
        }
        Ok(())
    }
}

fn raw_extent(extent: &Extent) -> Result<RawExtent, Error> {
    let count = u16::try_from(extent.blocks.count()).unwrap_or(u16::MAX);
    let start = LogicalBlock::or_end(extent.start);
    let raw = RawExtent::new(start, count, extent.blocks.start(), extent.unwritten);
    raw.ok_or(Error::NoSpace)
}
