//! Changes of a directory's entries.
//!
//! A directory with a hash tree that is damaged, or whose names are hashed in a way that is not known, is
//! not changed. The kernel would give up the tree and go on without it; to refuse is safer, because
//! e2fsck can rebuild the tree as long as nothing was guessed.

mod blocks;
mod leaf;
mod tree;

use crate::blocks::block_cache::Block;
use crate::change::directory::blocks::Blocks;
use crate::change::directory::leaf::{NewEntry, Slot};
use crate::change::directory::tree::{Hasher, Path};
use crate::dir::htree::lookup;
use crate::error::reasons::Protected;
use crate::error::{Error, Subject, Unsupported};
use crate::file::system_zone::SystemZone;
use crate::format::corrupt::Problem;
use crate::format::dir_entry;
use crate::format::dir_entry::{ENTRY_MIN, NAME_MAX};
use crate::format::features::{CompatFeatures, IncompatFeatures};
use crate::format::file_type::FileType;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::format::time::Timestamp;
use crate::journal::handle::{Handle, Stop};
use crate::number::{InodeNumber, as_u64};

/// The place of an entry: it is valid until the directory is changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Index of the block in the directory.
    block: u64,
    offset: usize,
}

/// An entry that was found by its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundEntry {
    pub place: Place,
    pub inode: InodeNumber,
}

/// The place for a name that a directory does not have: it is valid until the directory is changed.
pub(crate) struct Vacancy(Option<Path>);

/// A directory in a change. The caller stores its inode afterwards.
pub(crate) struct Directory<'d, 'h> {
    blocks: Blocks<'d, 'h>,
    /// The rules for entries.
    rules: dir_entry::Directory,
    /// Time of the change.
    time: Timestamp,
}

/// Checks a name that is to be added, removed or replaced.
///
/// # Errors
/// [`Error::NameTooLong`]; [`Error::InvalidName`] if the name is empty, "." or "..", or has a slash or a
/// zero byte.
pub(crate) fn check_name(name: &[u8]) -> Result<(), Error> {
    let has = |byte: u8| name.contains(&byte);
    match name {
        _ if name.len() > NAME_MAX => Err(Error::NameTooLong { length: name.len() }),
        b"" | b"." | b".." => Err(Error::InvalidName { name: name.into() }),
        _ if has(b'/') || has(0) => Err(Error::InvalidName { name: name.into() }),
        _ => Ok(()),
    }
}

/// Checks that a directory is one whose entries can be changed.
///
/// # Errors
/// [`Error::NotADirectory`], [`Error::UnsupportedInode`], [`Error::Protected`].
fn check(handle: &Handle<'_>, inode: &Inode) -> Result<(), Error> {
    let number = inode.number();
    let unsupported = |what| Err(Error::UnsupportedInode { inode: number, what });
    let flags = inode.flags();
    let has_index = handle.superblock().compat.contains(CompatFeatures::DIR_INDEX);
    match () {
        // A directory that was removed while it is open gets no names.
        () if inode.links() == 0 => Err(Error::InodeNotInUse { inode: number }),
        () if !inode.is_dir() => Err(Error::NotADirectory { subject: Subject::Inode(number) }),
        () if flags.contains(InodeFlags::ENCRYPT) => unsupported(Unsupported::Encrypted),
        () if flags.contains(InodeFlags::CASEFOLD) => unsupported(Unsupported::CaseFolded),
        () if flags.contains(InodeFlags::INLINE_DATA) => {
            Err(Error::Protected { inode: number, why: Protected::InlineData })
        }
        () if !flags.contains(InodeFlags::EXTENTS) => unsupported(Unsupported::IndirectBlocks),
        () if flags.contains(InodeFlags::INDEX) && !has_index => unsupported(Unsupported::HashTree),
        () => Ok(()),
    }
}

impl<'d, 'h> Directory<'d, 'h> {
    /// Returns the directory `inode`, whose entries change at `time`.
    ///
    /// # Errors
    /// [`Error::NotADirectory`]; [`Error::UnsupportedInode`] or [`Error::Protected`] if its entries
    /// cannot be changed; damage.
    pub(crate) fn new(
        handle: &'d mut Handle<'h>,
        zone: &'d SystemZone,
        inode: &'d mut Inode,
        time: Timestamp,
    ) -> Result<Self, Stop> {
        check(handle, inode)?;
        let rules = dir_entry::Directory::new(handle.superblock(), inode);
        Ok(Self { blocks: Blocks::new(handle, zone, inode)?, rules, time })
    }

    /// Gives the new directory `inode`, which has no blocks, its first one, with the entries "." and "..".
    pub(crate) fn create(
        handle: &'d mut Handle<'h>,
        zone: &'d SystemZone,
        inode: &'d mut Inode,
        parent: InodeNumber,
        time: Timestamp,
    ) -> Result<Self, Stop> {
        check(handle, inode)?;
        let rules = dir_entry::Directory::new(handle.superblock(), inode);
        let mut this = Self { blocks: Blocks::none(handle, zone, inode), rules, time };
        let file_type = this.file_type(FileType::Directory);
        let number = this.blocks.number();
        let dots: [NewEntry<'_>; 2] = [(number, file_type, b"."), (parent, file_type, b"..")];
        let bytes = this.pack(dots)?;
        let index = this.blocks.append()?;
        this.blocks.write_leaf(index, bytes)?;
        this.changed();
        Ok(this)
    }

    /// Finds the entry `name`.
    pub(crate) fn find(&mut self, name: &[u8]) -> Result<Option<FoundEntry>, Stop> {
        if self.has_tree() {
            let path = Path::of(&mut self.blocks, name)?;
            return self.find_from(path, name);
        }
        let mut next = 0;
        while let Some(index) = self.blocks.next_mapped(next)? {
            let found = self.find_in(index, name)?;
            if found.is_some() {
                return Ok(found);
            }
            next = index.saturating_add(1);
        }
        Ok(None)
    }

    /// Returns the place for a new entry.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; damage.
    pub(crate) fn vacancy(&mut self, name: &[u8]) -> Result<Vacancy, Stop> {
        let (path, found) = match self.has_tree() {
            true => {
                let path = Path::of(&mut self.blocks, name)?;
                let found = self.find_from(path.clone(), name)?;
                (Some(path), found)
            }
            false => (None, self.find(name)?),
        };
        match found {
            Some(_) => Err(Error::AlreadyExists { name: name.into() }.into()),
            None => Ok(Vacancy(path)),
        }
    }

    /// Adds an entry. The name must be a possible one that the directory does not have.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; [`Error::DirectoryFull`]; damage. The directory must not be stored then.
    pub(crate) fn add(
        &mut self,
        name: &[u8],
        inode: InodeNumber,
        kind: FileType,
    ) -> Result<(), Stop> {
        let path = match self.has_tree() {
            true => Some(Path::of(&mut self.blocks, name)?),
            false => None,
        };
        self.add_at(Vacancy(path), name, inode, kind)
    }

    /// Adds an entry at the place for its name, as [`add`](Self::add) does.
    pub(crate) fn add_at(
        &mut self,
        vacancy: Vacancy,
        name: &[u8],
        inode: InodeNumber,
        kind: FileType,
    ) -> Result<(), Stop> {
        let entry = (inode, self.file_type(kind), name);
        match vacancy.0 {
            Some(path) => self.add_to_tree(path, entry)?,
            None => self.add_in_order(entry)?,
        }
        self.changed();
        Ok(())
    }

    /// Removes an entry that was found.
    pub(crate) fn remove(&mut self, place: Place) -> Result<(), Stop> {
        self.edit(place, leaf::remove)
    }

    /// Lets an entry that was found refer to another inode.
    pub(crate) fn replace(
        &mut self,
        place: Place,
        inode: InodeNumber,
        kind: FileType,
    ) -> Result<(), Stop> {
        let file_type = self.file_type(kind);
        self.edit(place, |block, _, _| dir_entry::set_inode(block, place.offset, inode, file_type))
    }

    /// Returns the inode in the entry "..".
    pub(crate) fn parent(&mut self) -> Result<InodeNumber, Stop> {
        let (_, dots) = self.read_dots()?;
        Ok(dots.inode)
    }

    /// Sets the inode in the entry "..". This does not count as a change of the directory's contents.
    pub(crate) fn set_parent(&mut self, parent: InodeNumber) -> Result<(), Stop> {
        let (mut block, dots) = self.read_dots()?;
        let file_type = self.file_type(FileType::Directory);
        let set = dir_entry::set_inode(&mut block, dots.place.offset, parent, file_type);
        set.ok_or_else(|| self.missing(0))?;
        match self.has_tree() {
            true => self.blocks.write_node(0, block, crate::dir::checksum::ROOT_START),
            false => self.blocks.write_leaf(0, block),
        }
    }

    /// Returns true if the directory has no entries besides "." and "..".
    pub(crate) fn is_empty(&mut self) -> Result<bool, Stop> {
        let has_tree = self.has_tree();
        self.read_dots()?;
        let mut next = 0;
        while let Some(index) = self.blocks.next_mapped(next)? {
            next = index.saturating_add(1);
            let block = self.blocks.read(index)?;
            // Entries of a node hide its hashes, and those of the root are the two.
            let end = if has_tree { block.len() } else { self.blocks.entries_end() };
            let slots = leaf::slots(&self.rules, &block, index, end)?;
            if slots.iter().any(|slot| slot.inode != 0 && !slot.is_dot()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Directory<'_, '_> {
    fn has_tree(&self) -> bool {
        lookup::has_tree(self.blocks.superblock(), self.blocks.inode)
    }

    /// Returns the number of a file type in an entry; 0 if the filesystem's entries do not store it.
    fn file_type(&self, kind: FileType) -> u8 {
        match self.blocks.superblock().has(IncompatFeatures::FILETYPE) {
            true => kind.to_entry(),
            false => 0,
        }
    }

    fn missing(&self, index: u64) -> Error {
        self.blocks.structure(index).corrupt(Problem::Missing { logical: index })
    }

    /// Counts a change of the entries.
    fn changed(&mut self) {
        let inode = &mut *self.blocks.inode;
        inode.set_mtime(self.time);
        inode.set_ctime(self.time);
        inode.increase_version();
    }

    fn pack<'a>(&self, entries: impl IntoIterator<Item = NewEntry<'a>>) -> Result<Vec<u8>, Error> {
        let size = self.blocks.superblock().block_size();
        let full = || Error::DirectoryFull { inode: self.blocks.number() };
        leaf::pack(size, self.blocks.entries_end(), entries).ok_or_else(full)
    }

    /// Returns the entries of a block of names.
    fn names<'b>(&self, index: u64, block: &'b Block) -> Result<Vec<Slot<'b>>, Error> {
        let slots = leaf::slots(&self.rules, block, index, self.blocks.entries_end())?;
        if self.has_tree() {
            tree::check_leaf(&self.blocks, index, block, slots.first().copied())?;
        }
        Ok(slots)
    }

    /// Finds the entry `name` in the block of a path, and in those after it with the same hash.
    fn find_from(&mut self, mut path: Path, name: &[u8]) -> Result<Option<FoundEntry>, Stop> {
        // A tree refers to each block once.
        for _ in 0..self.blocks.count() {
            let found = self.find_in(path.leaf(), name)?;
            if found.is_some() || !path.next(&mut self.blocks)? {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn find_in(&mut self, index: u64, name: &[u8]) -> Result<Option<FoundEntry>, Stop> {
        let block = self.blocks.read(index)?;
        let (mut first, mut found) = (None, None);
        // All entries are checked, because the block may be changed next.
        leaf::each_slot(&self.rules, &block, index, self.blocks.entries_end(), |slot| {
            first.get_or_insert(slot);
            if slot.name == name && slot.inode != 0 {
                found.get_or_insert(slot);
            }
        })?;
        if self.has_tree() {
            tree::check_leaf(&self.blocks, index, &block, first)?;
        }
        Ok(found.map(|slot| FoundEntry {
            place: Place { block: index, offset: slot.offset },
            inode: slot.inode,
        }))
    }

    /// Changes a block of names with an entry that was found.
    fn edit(
        &mut self,
        place: Place,
        change: impl FnOnce(&mut [u8], &[Slot<'_>], usize) -> Option<()>,
    ) -> Result<(), Stop> {
        let Place { block: index, offset } = place;
        let block = self.blocks.read(index)?;
        let (slots, mut bytes) = (self.names(index, &block)?, block.to_vec());
        let at = slots.iter().position(|slot| slot.offset == offset);
        let changed = at.and_then(|at| change(&mut bytes, &slots, at));
        changed.ok_or_else(|| self.missing(index))?;
        self.blocks.write_leaf(index, bytes)?;
        self.changed();
        Ok(())
    }

    /// Reads the first block and its entry "..".
    fn read_dots(&mut self) -> Result<(Vec<u8>, FoundEntry), Stop> {
        let block = self.blocks.read(0)?;
        let end = if self.has_tree() { block.len() } else { self.blocks.entries_end() };
        let slots = leaf::slots(&self.rules, &block, 0, end)?;
        match &slots[..] {
            [dot, dots, ..] if dot.name == b"." && dot.end() == ENTRY_MIN && dots.name == b".." => {
                let place = Place { block: 0, offset: dots.offset };
                Ok((block.to_vec(), FoundEntry { place, inode: dots.inode }))
            }
            _ => {
                let (value, rule) = (as_u64(slots.len()), "must begin with \".\" and \"..\"");
                let problem = Problem::Field { field: "number of entries", value, rule };
                Err(self.blocks.structure(0).corrupt(problem).into())
            }
        }
    }

    fn add_to_tree(&mut self, path: Path, entry: NewEntry<'_>) -> Result<(), Stop> {
        let index = path.leaf();
        let block = self.blocks.read(index)?;
        let (slots, mut bytes) = (self.names(index, &block)?, block.to_vec());
        match leaf::insert(&mut bytes, &slots, entry) {
            true => self.blocks.write_leaf(index, bytes),
            false => path.split(&mut self.blocks, slots, entry),
        }
    }

    /// Adds an entry to the first block with room for it. A directory whose only block is full gets a
    /// hash tree, any other another block.
    fn add_in_order(&mut self, entry: NewEntry<'_>) -> Result<(), Stop> {
        self.read_dots()?;
        let has_index = self.blocks.superblock().compat.contains(CompatFeatures::DIR_INDEX);
        let hasher = Hasher::of_new_tree(self.blocks.superblock()).filter(|_| has_index);
        let mut next = 0;
        while let Some(index) = self.blocks.next_mapped(next)? {
            next = index.saturating_add(1);
            let block = self.blocks.read(index)?;
            let (slots, mut bytes) = (self.names(index, &block)?, block.to_vec());
            if leaf::insert(&mut bytes, &slots, entry) {
                return self.blocks.write_leaf(index, bytes);
            }
            if let Some(hasher) = hasher
                && self.blocks.count() == 1
            {
                return tree::create(&mut self.blocks, hasher, slots, entry);
            }
        }
        let bytes = self.pack([entry])?;
        let index = self.blocks.append()?;
        self.blocks.write_leaf(index, bytes)
    }
}
