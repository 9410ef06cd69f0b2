//! Directories: entries in stored order, and lookup by name.

pub(crate) mod block_map;
pub(crate) mod blocks;
pub(crate) mod casefold;
pub(crate) mod changes;
pub(crate) mod checksum;
pub(crate) mod display;
pub(crate) mod htree;
pub(crate) mod inline;
pub(crate) mod key;
pub(crate) mod nokey_name;
pub(crate) mod path;
pub(crate) mod symlink;

use std::collections::HashSet;
use std::fmt;
use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::vec;

use foldhash::quality::RandomState;

use crate::blocks::block_cache::Block;
use crate::dir::blocks::{ATTEMPTS_MAX, Blocks};
use crate::dir::changes::{NameChange, NameChanges};
use crate::dir::display::Names;
use crate::dir::htree::lookup::{self, Stop};
use crate::dir::key::{Query, is_folded};
use crate::error::{Error, Subject};
use crate::filesystem::Filesystem;
use crate::format::dir_entry::{Directory, Entry};
use crate::format::features::IncompatFeatures;
use crate::format::file_type::FileType;
use crate::format::inode::Inode;
use crate::number::InodeNumber;

/// A directory entry.
///
/// See the [example](crate::Filesystem#examples).
#[derive(Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Number of the inode that the entry refers to.
    pub inode: InodeNumber,
    /// The name: 1 to 255 bytes in any encoding, without slash and zero byte. In an encrypted
    /// directory this is the kernel's no-key name, an encoding of the encrypted name, which lookups
    /// accept.
    pub name: Vec<u8>,
    /// Type of the inode according to the entry; `None` if the filesystem's entries do not store
    /// it.
    pub kind: Option<FileType>,
}

impl fmt::Debug for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirEntry")
            .field("inode", &self.inode)
            .field("name", &format_args!("\"{}\"", self.name.escape_ascii()))
            .field("kind", &self.kind)
            .finish()
    }
}

/// An iterator over the entries of a directory in stored order. "." and ".." are left out: callers
/// know the parent from the path.
///
/// Entries are checked; the inodes that they refer to are not. An entry never refers to the
/// directory itself or to the root, but on a damaged filesystem a deeper entry may refer to an
/// ancestor, so a tree walk must compare with all directories above.
///
/// Damage is an error, and the iterator continues after the entry, the block or the part of the map
/// that is damaged. It ends after eight reads that failed one after the other.
///
/// A directory may be changed meanwhile, through [`JournaledFilesystem`](crate::JournaledFilesystem): each
/// entry that is there all the time is returned once. The iterator takes some bytes of memory for each
/// entry then.
///
/// See the [example](crate::Filesystem#examples).
pub struct ReadDir {
    /// The blocks; `None` for a new directory whose blocks were never written.
    blocks: Option<Blocks>,
    directory: Directory,
    names: Names,
    current: Option<(u64, Block)>,
    offset: usize,
    has_kind: bool,
    /// Changes by fast commits, and the added entries that are still to be returned.
    changes: Option<(Arc<NameChanges>, vec::IntoIter<DirEntry>)>,
    done: bool,
    /// The names that were returned, if the directory may change meanwhile: a name may move to a block that
    /// is read later.
    returned: Option<Returned>,
}

/// The hashes of names, by a function of their own.
#[derive(Default)]
struct Returned {
    hasher: RandomState,
    names: HashSet<u64>,
}

impl Returned {
    /// Adds a name. Returns false if it was added before.
    fn insert(&mut self, name: &[u8]) -> bool {
        self.names.insert(self.hasher.hash_one(name))
    }
}

impl fmt::Debug for ReadDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadDir").field("inode", &self.directory.inode).finish_non_exhaustive()
    }
}

impl ReadDir {
    fn new(fs: &Filesystem, inode: &Inode) -> Result<Self, Error> {
        let number = inode.number();
        if !inode.is_dir() {
            return Err(Error::NotADirectory { subject: Subject::Inode(number) });
        }
        let superblock = fs.superblock();
        let has_kind = superblock.has(IncompatFeatures::FILETYPE);
        let changes = fs.name_changes(number).map(|names| {
            let added = names.added().map(|(name, inode, kind)| DirEntry {
                inode,
                name: name.to_vec(),
                kind: has_kind.then_some(kind),
            });
            (Arc::clone(names), added.collect::<Vec<_>>().into_iter())
        });
        let is_new = changes.as_ref().is_some_and(|(names, _)| names.is_new());
        let blocks = if is_new { None } else { Some(Blocks::new(fs, inode)?) };
        Ok(Self {
            names: Names::of(superblock, inode, blocks.as_ref().map_or(0, Blocks::count)),
            blocks,
            directory: Directory::new(superblock, inode),
            current: None,
            offset: 0,
            has_kind,
            changes,
            done: false,
            returned: fs.metadata().can_change().then(Returned::default),
        })
    }

    /// Calls `visit` for each entry until it returns `Some`. The next call resumes after that
    /// entry, or, after an error, after the entry or the block that it concerns.
    fn visit<T>(
        &mut self,
        mut visit: impl FnMut(&Names, &Entry<'_>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        loop {
            let (index, block) = match &self.current {
                Some(current) => current,
                None => match self.blocks.as_mut().map_or(Ok(None), Blocks::next)? {
                    Some(next) => {
                        if let Some(blocks) = self.blocks.as_ref().filter(|_| next.0 == 0) {
                            self.names.see_first(blocks.superblock(), &next.1);
                        }
                        self.current.insert(next)
                    }
                    None => return Ok(None),
                },
            };
            loop {
                let offset = self.offset;
                let entry = match self.directory.entry(block, *index, offset) {
                    Ok(Some(entry)) => entry,
                    Ok(None) => break,
                    Err(error) => {
                        self.current = None;
                        self.offset = 0;
                        return Err(error);
                    }
                };
                self.offset = entry.next;
                self.directory.check(*index, offset, &entry)?;
                let changed = self.changes.as_ref();
                if entry.inode != 0
                    && !entry.is_dot()
                    && changed.is_none_or(|(names, _)| names.get(entry.name).is_none())
                    && let Some(result) = visit(&self.names, &entry)
                {
                    return Ok(Some(result));
                }
            }
            self.current = None;
            self.offset = 0;
        }
    }
}

impl ReadDir {
    /// Calls `visit` for each entry that was not visited before, until it returns `Some`.
    fn visit_once<T>(
        &mut self,
        mut visit: impl FnMut(&Names, &Entry<'_>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let mut returned = self.returned.take();
        let mut is_new =
            |name: &[u8]| returned.as_mut().is_none_or(|returned| returned.insert(name));
        let result =
            self.visit(|names, entry| is_new(entry.name).then(|| visit(names, entry)).flatten());
        self.returned = returned;
        result
    }

    /// Calls `visit` with the inode number, the name and the type of each entry until it returns
    /// `Break`, and `failed` with each error.
    pub(crate) fn each(
        &mut self,
        mut visit: impl FnMut(InodeNumber, &[u8], Option<FileType>) -> ControlFlow<()>,
        mut failed: impl FnMut(Error),
    ) {
        let has_kind = self.has_kind;
        loop {
            let stopped = self.visit_once(|names, entry| {
                let kind = if has_kind { FileType::from_entry(entry.file_type) } else { None };
                visit(entry.inode, &names.show(entry), kind).break_value()
            });
            match stopped {
                Ok(Some(())) => return,
                Ok(None) => break,
                Err(error) => failed(error),
            }
        }
        if let Some((_, added)) = &mut self.changes {
            let _ = added.try_for_each(|entry| visit(entry.inode, &entry.name, entry.kind));
        }
    }
}

impl Iterator for ReadDir {
    type Item = Result<DirEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let has_kind = self.has_kind;
        let next = self.visit_once(|names, entry| {
            let kind = if has_kind { FileType::from_entry(entry.file_type) } else { None };
            Some(DirEntry { inode: entry.inode, name: names.show(entry).into_owned(), kind })
        });
        let next = match (next, &mut self.changes) {
            (Ok(None), Some((_, added))) => Ok(added.next()),
            (next, _) => next,
        };
        self.done = matches!(next, Ok(None));
        next.transpose()
    }
}

impl std::iter::FusedIterator for ReadDir {}

impl Filesystem {
    /// Returns the entries of the directory `inode`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::NotADirectory`], damage. The iterator fails with damage to the directory's map or
    /// blocks, or with a failure of the source.
    pub fn read_dir(&self, inode: &Inode) -> Result<ReadDir, Error> {
        ReadDir::new(self, inode)
    }

    /// Returns the inode number of the entry `name` in the directory `inode`.
    pub(crate) fn find(&self, inode: &Inode, name: &[u8]) -> Result<Option<InodeNumber>, Error> {
        if !self.metadata().can_change() {
            return self.find_once(inode, name);
        }
        for _ in 0..ATTEMPTS_MAX {
            let version = self.metadata().names_version();
            // The inode that the caller has may be older than the blocks.
            let found = match self.inode(inode.number()) {
                Ok(inode) if inode.is_dir() => self.find_once(&inode, name),
                Ok(_) | Err(Error::InodeNotInUse { .. }) => Ok(None),
                Err(error) => Err(error),
            };
            if self.metadata().names_version() == version {
                return found;
            }
        }
        self.find_once(inode, name)
    }

    fn find_once(&self, inode: &Inode, name: &[u8]) -> Result<Option<InodeNumber>, Error> {
        let superblock = self.superblock();
        let Some(query) = Query::new(superblock, inode, name) else { return Ok(None) };
        let changes = self.name_changes(inode.number());
        let folded = changes.is_some() && is_folded(superblock, inode);
        match changes.and_then(|names| names.get(name)) {
            Some(NameChange::For(inode, _)) => return Ok(Some(inode)),
            Some(NameChange::Removed) if !folded => return Ok(None),
            _ if folded => {
                let mut added = changes.into_iter().flat_map(|names| names.added());
                if let Some((_, inode, _)) = added.find(|(name, ..)| query.matches(name)) {
                    return Ok(Some(inode));
                }
            }
            _ => (),
        }
        if changes.is_some_and(|names| names.is_new()) {
            return Ok(None);
        }
        // Trees still contain the names that fast commits have removed, so directories that ignore
        // case and have changes are searched in order.
        let mut failed = None;
        if !folded && lookup::has_tree(superblock, inode) {
            let directory = Directory::new(superblock, inode);
            let search = |index, block: &Block| find_in_block(&directory, block, index, &query);
            match lookup::find(self.map(inode), &query, search) {
                Ok(None) if query.may_be_elsewhere(superblock) => (),
                Ok(found) => return Ok(found),
                // Another block may have the name, or the entry that the tree does not lead to.
                Err(Stop::Failed(error)) => failed = Some(error),
                Err(Stop::Unusable(why)) => {
                    log::debug!("inode {}: its hash tree is unusable: {why}", inode.number());
                }
            }
        }
        let mut entries = self.read_dir(inode)?;
        loop {
            let found = entries.visit(|_, entry| query.matches(entry.name).then_some(entry.inode));
            match (found, failed) {
                (Ok(Some(found)), damage) => {
                    damage.into_iter().for_each(|error| self.add_damage(error));
                    return Ok(Some(found));
                }
                (Ok(None), None) => return Ok(None),
                // A part that cannot be read may have the name.
                (Ok(None), Some(error)) => return Err(error),
                (Err(error), before) => failed = before.or(Some(error)),
            }
        }
    }

    /// Returns the inode number in the entry ".." of a directory; `None` if it cannot be read.
    pub(crate) fn parent(&self, inode: &Inode) -> Option<InodeNumber> {
        let mut blocks = Blocks::new(self, inode).ok()?;
        if inode.has_inline_data() {
            let (parent, _) = inode.block.split_first_chunk()?;
            return Some(u32::from_le_bytes(*parent).into());
        }
        let (_, block) = blocks.next().ok()??;
        let directory = Directory::new(self.superblock(), inode);
        let first = directory.entry(&block, 0, 0).ok()??;
        let second = directory.entry(&block, 0, first.next).ok()??;
        (second.name == b"..").then_some(second.inode)
    }
}

/// Returns the inode number of the entry that matches `query` in block `index`, if there is
/// one.
fn find_in_block(
    directory: &Directory,
    block: &[u8],
    index: u64,
    query: &Query<'_>,
) -> Result<Option<InodeNumber>, Error> {
    let mut offset = 0;
    while let Some(entry) = directory.entry(block, index, offset)? {
        if entry.inode != 0 && !entry.is_dot() && query.matches(entry.name) {
            directory.check(index, offset, &entry)?;
            return Ok(Some(entry.inode));
        }
        offset = entry.next;
    }
    Ok(None)
}
