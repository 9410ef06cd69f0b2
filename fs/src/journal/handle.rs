//! Changes of blocks that take effect together, or not at all.

use std::collections::HashMap;
use std::sync::Arc;

use crate::blocks::block_cache::Block;
use crate::blocks::metadata::Metadata;
use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::format::group;
use crate::format::group::GroupDescriptor;
use crate::format::inode;
use crate::format::inode::Inode;
use crate::format::superblock::Superblock;
use crate::journal::changes::Changes;
use crate::journal::state::State;
use crate::number::{BlockRun, InodeNumber, PhysicalBlock, as_usize};

/// The reason why a change stopped.
pub(crate) enum Stop {
    /// The block must be read first; the change is then made from its beginning.
    Read(PhysicalBlock),
    /// The change fails, and nothing was changed.
    Fail(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Fail(error)
    }
}

/// The blocks that one change reads and replaces. Nobody else sees its changes until it has ended
/// well. It never waits: it stops at a block that is not in memory, and is repeated with it.
pub(crate) struct Handle<'a> {
    metadata: &'a Metadata,
    state: &'a State,
    /// Blocks that earlier attempts stopped at.
    arrived: &'a HashMap<PhysicalBlock, Block>,
    pub(crate) changes: Changes,
}

impl<'a> Handle<'a> {
    pub(super) fn new(
        metadata: &'a Metadata,
        state: &'a State,
        arrived: &'a HashMap<PhysicalBlock, Block>,
    ) -> Self {
        Self { metadata, state, arrived, changes: Changes::default() }
    }

    /// Returns the superblock as it was when the filesystem was opened.
    pub(crate) fn superblock(&self) -> &'a Superblock {
        self.metadata.superblock()
    }

    /// Returns the contents of a block, with the changes so far.
    pub(crate) fn block(&self, number: PhysicalBlock) -> Result<Block, Stop> {
        let changed = self.changes.blocks.get(&number).cloned();
        let known = changed.or_else(|| self.state.image(number));
        let known = known.or_else(|| self.arrived.get(&number).cloned());
        known.or_else(|| self.metadata.cached(number)).ok_or(Stop::Read(number))
    }

    /// Returns the contents of a block in order to change them.
    pub(crate) fn block_mut(&mut self, number: PhysicalBlock) -> Result<&mut [u8], Stop> {
        let block = self.block(number)?;
        let block = match self.changes.blocks.entry(number) {
            std::collections::btree_map::Entry::Occupied(entry) => {
                drop(block);
                entry.into_mut()
            }
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(block),
        };
        Ok(Arc::make_mut(block))
    }

    /// Replaces the contents of a block, which is not read.
    pub(crate) fn set_block(&mut self, number: PhysicalBlock, bytes: Vec<u8>) {
        self.changes.blocks.insert(number, bytes.into());
    }

    /// Forgets the contents of a block of metadata that was freed.
    pub(crate) fn revoke(&mut self, number: PhysicalBlock) {
        self.changes.blocks.remove(&number);
        self.changes.revoked.push(number);
    }

    /// Returns the parts of a run of blocks that must not be allocated although they are free,
    /// because the transaction that freed them is not durable.
    pub(crate) fn excluded(&self, run: BlockRun) -> Vec<BlockRun> {
        let here = self.changes.freed.iter().filter_map(|freed| freed.intersection(run));
        self.state.excluded.overlaps(run).chain(here).collect()
    }

    /// Returns true if an inode must not be allocated although it is free, because the transaction that
    /// freed it is not durable.
    pub(crate) fn is_freed(&self, inode: InodeNumber) -> bool {
        self.changes.freed_inodes.contains(&inode) || self.state.is_freed(inode)
    }

    /// Returns the number of blocks that this change can allocate.
    pub(crate) fn available(&self) -> u64 {
        let reserved = if self.changes.is_reserved { self.state.reserved.blocks() } else { 0 };
        let available = self.state.available().saturating_add(reserved);
        available.saturating_sub(self.changes.allocated)
    }

    /// Returns the parts of a run of blocks that are left to files other than `owner`.
    pub(crate) fn windows_of_others(
        &self,
        owner: Option<InodeNumber>,
        run: BlockRun,
    ) -> impl Iterator<Item = BlockRun> {
        self.state.windows.of_others(owner, run)
    }

    /// Replaces the descriptor of a block group.
    pub(crate) fn set_group(
        &mut self,
        group: u32,
        descriptor: GroupDescriptor,
    ) -> Result<(), Stop> {
        let superblock = self.superblock();
        let (number, offset) = group::location(superblock, group);
        let size = usize::from(superblock.geometry.descriptor_size);
        let block = self.block_mut(number)?;
        let bytes = block.get_mut(offset..).and_then(|rest| rest.get_mut(..size));
        descriptor.encode(superblock, group, bytes.unwrap_or_default());
        self.changes.groups.retain(|&(other, _)| other != group);
        self.changes.groups.push((group, descriptor));
        Ok(())
    }

    /// Returns the descriptor of a block group, whose checksum must be right.
    pub(crate) fn group(&self, group: u32) -> Result<GroupDescriptor, Stop> {
        let superblock = self.superblock();
        let (number, offset) = group::location(superblock, group);
        let block = self.block(number)?;
        let size = usize::from(superblock.geometry.descriptor_size);
        let missing = || {
            Structure::GroupDescriptor(group).corrupt(Problem::Missing { logical: group.into() })
        };
        let bytes = block.get(offset..).and_then(|rest| rest.get(..size)).ok_or_else(missing)?;
        GroupDescriptor::verify(superblock, group, bytes).map_err(Error::from)?;
        Ok(GroupDescriptor::parse(superblock, group, bytes)?)
    }

    /// Returns an inode that has a name, or that had one and was not freed yet.
    pub(crate) fn inode(&self, number: InodeNumber) -> Result<Inode, Stop> {
        match self.is_orphan(number) {
            false => self.parse_inode(number, Inode::parse),
            true => self.orphan(number),
        }
    }

    /// Returns true if an inode was put on the list of orphans since the filesystem was opened.
    pub(crate) fn is_orphan(&self, number: InodeNumber) -> bool {
        self.state.orphans.contains(&number) || self.changes.orphans.contains(&number)
    }

    /// Returns an inode that may have no links.
    pub(crate) fn orphan(&self, number: InodeNumber) -> Result<Inode, Stop> {
        self.parse_inode(number, Inode::parse_orphan)
    }

    fn parse_inode(
        &self,
        number: InodeNumber,
        parse: impl FnOnce(&Superblock, InodeNumber, &[u8]) -> Result<Inode, Error>,
    ) -> Result<Inode, Stop> {
        Ok(parse(self.superblock(), number, &self.inode_bytes(number)?)?)
    }

    /// Returns the bytes of an inode.
    pub(crate) fn inode_bytes(&self, number: InodeNumber) -> Result<Vec<u8>, Stop> {
        let (block, offset) = self.inode_place(number)?;
        let block = self.block(block)?;
        let size = usize::from(self.superblock().inode_size());
        let bytes = block.get(offset..).and_then(|rest| rest.get(..size));
        Ok(bytes.unwrap_or_default().to_vec())
    }

    /// Replaces an inode.
    pub(crate) fn set_inode(&mut self, inode: Inode) -> Result<(), Stop> {
        let superblock = self.superblock();
        let (block, offset) = self.inode_place(inode.number())?;
        let size = usize::from(superblock.inode_size());
        let block = self.block_mut(block)?;
        let bytes = block.get_mut(offset..).and_then(|rest| rest.get_mut(..size));
        inode.encode(superblock, bytes.unwrap_or_default());
        self.changes.inodes.retain(|other| other.number() != inode.number());
        // The format of fast commits has no inodes without names.
        self.changes.is_fast &= inode.links() > 0;
        self.changes.inodes.push(inode);
        Ok(())
    }

    /// Adds an inode that was allocated.
    pub(crate) fn create_inode(&mut self, inode: Inode, bytes: &[u8]) -> Result<(), Stop> {
        self.set_inode_bytes(inode.number(), bytes)?;
        self.set_inode(inode)
    }

    /// Replaces the bytes of an inode, which are sealed.
    pub(crate) fn set_inode_bytes(
        &mut self,
        number: InodeNumber,
        bytes: &[u8],
    ) -> Result<(), Stop> {
        let (block, offset) = self.inode_place(number)?;
        let block = self.block_mut(block)?;
        let place = block.get_mut(offset..).unwrap_or_default();
        place.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Ok(())
    }

    /// Returns the next inode in the list of orphans; 0 after the last.
    pub(crate) fn next_orphan(&self, number: InodeNumber) -> Result<InodeNumber, Stop> {
        let (block, offset) = self.inode_place(number)?;
        let block = self.block(block)?;
        Ok(inode::next_orphan(number, block.get(offset..).unwrap_or_default())?)
    }

    /// Sets the next inode in the list of orphans.
    pub(crate) fn set_next_orphan(
        &mut self,
        number: InodeNumber,
        next: InodeNumber,
    ) -> Result<(), Stop> {
        let superblock = self.superblock();
        let (block, offset) = self.inode_place(number)?;
        let size = usize::from(superblock.inode_size());
        let block = self.block_mut(block)?;
        let bytes = block.get_mut(offset..).and_then(|rest| rest.get_mut(..size));
        inode::set_next_orphan(superblock, number, bytes.unwrap_or_default(), next);
        Ok(())
    }

    /// Returns the block that contains an inode, and its byte offset there.
    fn inode_place(&self, number: InodeNumber) -> Result<(PhysicalBlock, usize), Stop> {
        let superblock = self.superblock();
        let count = superblock.inodes_count;
        let no_inode = || Error::NoSuchInode { inode: number, count };
        let index = number.get().checked_sub(1).filter(|&index| index < count);
        let index = index.ok_or_else(no_inode)?;
        let per_group = superblock.inodes_per_group;
        let group = index.checked_div(per_group).ok_or_else(no_inode)?;
        let in_group = index.checked_rem(per_group).ok_or_else(no_inode)?;
        let table = self.group(group)?.inode_table;
        let offset = u64::from(in_group).saturating_mul(superblock.inode_size().into());
        let block = table.get(superblock.whole_blocks(offset)).ok_or_else(no_inode)?;
        let mask = u64::from(superblock.block_size()).saturating_sub(1);
        Ok((block, as_usize(offset & mask)))
    }
}
