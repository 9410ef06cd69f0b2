//! The extended attributes of one inode, and the places where they are stored: the inode and a block,
//! which several inodes may share.

use crate::alloc::{self, Request};
use crate::blocks::block_cache::Block;
use crate::change::features;
use crate::error::Error;
use crate::error::reasons::BadAttribute;
use crate::file::system_zone::SystemZone;
use crate::format::corrupt::{Problem, Structure};
use crate::format::inode::Inode;
use crate::format::xattr_body;
use crate::journal::handle::{Handle, Stop};
use crate::number::{BlockRun, InodeNumber, PhysicalBlock, as_usize};
use crate::xattr::area::{self, Attribute};
use crate::xattr::{block, block_entries};

/// The attributes of an inode, which are changed in memory and then stored.
pub(super) struct Attributes {
    inode: InodeNumber,
    inside: Place,
    outside: Place,
}

/// The attributes in one place.
#[derive(Default)]
struct Place {
    attributes: Vec<Attribute>,
    /// Size of the place, bytes.
    length: usize,
    is_changed: bool,
}

impl Place {
    fn find(&self, index: u8, name: &[u8]) -> Option<usize> {
        let is_it = |attribute: &Attribute| attribute.index == index && attribute.name == name;
        self.attributes.iter().position(is_it)
    }

    /// Returns the attributes with `new`, which replaces the one with its name.
    fn with(&self, new: &Attribute) -> Vec<Attribute> {
        let mut attributes = self.attributes.clone();
        match self.find(new.index, &new.name).and_then(|at| attributes.get_mut(at)) {
            Some(old) => old.value.clone_from(&new.value),
            None => attributes.push(new.clone()),
        }
        attributes
    }

    fn replace(&mut self, attributes: Vec<Attribute>) {
        (self.attributes, self.is_changed) = (attributes, true);
    }

    fn remove(&mut self, index: u8, name: &[u8]) -> bool {
        let Some(at) = self.find(index, name) else { return false };
        self.attributes.remove(at);
        self.is_changed = true;
        true
    }
}

impl Attributes {
    /// Reads the attributes of an inode.
    ///
    /// # Errors
    /// Damage, with which nothing may be changed.
    pub(super) fn load(
        handle: &Handle<'_>,
        zone: &SystemZone,
        inode: &Inode,
    ) -> Result<Self, Stop> {
        let (superblock, number) = (handle.superblock(), inode.number());
        let corrupt = |problem| Structure::Attributes { inode: number }.corrupt(problem);
        let bytes = handle.inode_bytes(number)?;
        let space = inode.attribute_space(&bytes);
        let inside = xattr_body::attributes(superblock, space).and_then(Attribute::copy_all);
        let attributes = inside.map_err(corrupt)?;
        let inside = Place { attributes, length: space.len(), is_changed: false };
        let mut outside = Place { length: as_usize(superblock.block_size()), ..Place::default() };
        let block = inode.attribute_block;
        if block != 0 {
            let bytes = checked_block(handle, zone, inode)?;
            let entries = block_entries(superblock, block, &bytes).and_then(Attribute::copy_all);
            outside.attributes = entries.map_err(|problem| structure(inode).corrupt(problem))?;
        }
        Ok(Self { inode: number, inside, outside })
    }

    /// Returns the stored value of an attribute.
    pub(super) fn get(&self, index: u8, name: &[u8]) -> Option<&[u8]> {
        let find = |place: &'_ Place| place.find(index, name);
        let inside = find(&self.inside).and_then(|at| self.inside.attributes.get(at));
        let found =
            inside.or_else(|| find(&self.outside).and_then(|at| self.outside.attributes.get(at)));
        found.map(|attribute| &attribute.value[..])
    }

    /// Sets an attribute. As with the kernel, it goes into the inode if it fits there, else into the
    /// block.
    ///
    /// # Errors
    /// [`BadAttribute::NoRoom`] if it fits into neither.
    pub(super) fn set(&mut self, new: &Attribute) -> Result<(), Error> {
        if self.get(new.index, &new.name) == Some(&new.value[..]) {
            return Ok(());
        }
        let inside = self.inside.with(new);
        if area::in_inode(&inside, self.inside.length).is_some() {
            self.inside.replace(inside);
            self.outside.remove(new.index, &new.name);
            return Ok(());
        }
        let outside = self.outside.with(new);
        if area::in_block(&outside, self.outside.length).is_none() {
            return Err(Error::BadAttribute { inode: self.inode, why: BadAttribute::NoRoom });
        }
        self.outside.replace(outside);
        self.inside.remove(new.index, &new.name);
        Ok(())
    }

    /// Removes an attribute. Returns false if there is none.
    pub(super) fn remove(&mut self, index: u8, name: &[u8]) -> bool {
        self.inside.remove(index, name) || self.outside.remove(index, name)
    }

    /// Returns true if there is something to store.
    pub(super) fn is_changed(&self) -> bool {
        self.inside.is_changed || self.outside.is_changed
    }

    /// Stores the attributes that were changed, and the inode.
    pub(super) fn store(
        self,
        handle: &mut Handle<'_>,
        zone: &SystemZone,
        inode: &mut Inode,
    ) -> Result<(), Stop> {
        let no_room = || Error::BadAttribute { inode: self.inode, why: BadAttribute::NoRoom };
        handle.changes.is_fast = false;
        if self.outside.is_changed {
            let Place { attributes, length, .. } = &self.outside;
            let block = area::in_block(attributes, *length).ok_or_else(no_room)?;
            let block = Some(block).filter(|_| !attributes.is_empty());
            store_block(handle, zone, inode, block)?;
        }
        if self.inside.is_changed {
            let Place { attributes, length, .. } = &self.inside;
            let space = area::in_inode(attributes, *length).ok_or_else(no_room)?;
            let mut bytes = handle.inode_bytes(self.inode)?;
            inode.set_attribute_space(&mut bytes, &space);
            handle.set_inode_bytes(self.inode, &bytes)?;
        }
        if self.is_changed() {
            features::set_ext_attr(handle)?;
        }
        handle.set_inode(inode.clone())
    }
}

/// Replaces the attributes in the block of an inode; `None` for no block.
fn store_block(
    handle: &mut Handle<'_>,
    zone: &SystemZone,
    inode: &mut Inode,
    contents: Option<(Vec<u8>, u32)>,
) -> Result<(), Stop> {
    let superblock = handle.superblock();
    let old = inode.attribute_block;
    let users = match old.get() {
        0 => 0,
        _ => block::references(&handle.block(old)?).max(1),
    };
    let Some((mut bytes, hash)) = contents else {
        if users > 0 {
            release(handle, zone, inode)?;
            inode.attribute_block = PhysicalBlock::default();
            inode.remove_blocks(superblock, 1);
        }
        return Ok(());
    };
    let number = match users {
        // The block is this inode's own.
        1 => old,
        users => {
            let number = allocate(handle, zone, inode)?;
            match users {
                0 => inode.add_blocks(superblock, 1),
                _ => release(handle, zone, inode)?,
            }
            number
        }
    };
    block::seal(superblock, number, (1, hash), &mut bytes);
    handle.set_block(number, bytes);
    inode.attribute_block = number;
    Ok(())
}

/// Allocates a block near to an inode.
fn allocate(
    handle: &mut Handle<'_>,
    zone: &SystemZone,
    inode: &Inode,
) -> Result<PhysicalBlock, Stop> {
    let superblock = handle.superblock();
    let index = inode.number().get().saturating_sub(1);
    let group = index.checked_div(superblock.inodes_per_group).unwrap_or(0);
    let goal = superblock.group_start(group);
    let request = Request { goal, count: 1, window: 0, owner: None };
    Ok(alloc::allocate(handle, zone, request)?.start())
}

/// Frees the block of an inode's extended attributes, or counts one user less of it. The inode is not
/// changed.
pub(super) fn release(
    handle: &mut Handle<'_>,
    zone: &SystemZone,
    inode: &Inode,
) -> Result<(), Stop> {
    let (superblock, number) = (handle.superblock(), inode.attribute_block);
    if number == 0 {
        return Ok(());
    }
    let bytes = checked_block(handle, zone, inode)?;
    block::check(superblock, number, &bytes)
        .map_err(|problem| structure(inode).corrupt(problem))?;
    match block::references(&bytes) {
        0 | 1 => {
            alloc::free(handle, zone, BlockRun::new(number, 1).unwrap_or_default())?;
            handle.revoke(number);
        }
        users => {
            let bytes = handle.block_mut(number)?;
            block::set_references(superblock, number, users.saturating_sub(1), bytes);
        }
    }
    Ok(())
}

/// Returns the block of an inode's attributes, which lies where attributes may be.
fn checked_block(handle: &Handle<'_>, zone: &SystemZone, inode: &Inode) -> Result<Block, Stop> {
    let corrupt = |problem| structure(inode).corrupt(problem);
    let number = inode.attribute_block;
    let run = handle.superblock().data_blocks(number, 1u32).map_err(corrupt)?;
    if let Some(area) = zone.overlap(run) {
        return Err(corrupt(Problem::Overlap { start: number, count: 1, area }).into());
    }
    handle.block(number)
}

fn structure(inode: &Inode) -> Structure {
    Structure::AttributeBlock { block: inode.attribute_block, inode: inode.number() }
}
