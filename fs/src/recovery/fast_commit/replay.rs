//! The second pass: creating patches from tags.

use std::ops::Range;
use std::sync::Arc;

use zerocopy::FromBytes;
use zerocopy::little_endian::U16;

use crate::dir::changes::{NameChange, NameChanges};
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::inode;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::map::changes::MapChanges;
use crate::number::{InodeNumber, LogicalBlock, as_u64};
use crate::recovery::fast_commit::changes::{FastCommit, Patch};
use crate::recovery::fast_commit::scan::Scan;
use crate::recovery::fast_commit::tag;
use crate::recovery::fast_commit::tag::{Found, Tag};

/// Number of links from which on those of a directory are not counted.
const LINKS_MAX: u32 = 65_000;
/// Maximum total size of patched inodes, bytes.
const INODES_MAX: usize = 64 << 20;

/// A fast-commit area.
pub(crate) trait Area {
    /// Returns the number of blocks.
    fn blocks(&self) -> u32;

    /// Returns block `index`, from 0.
    fn block(&mut self, index: u32) -> Result<&[u8], Error>;
}

/// Creates the patches of the fast commits with number `transaction`. `fs` is the filesystem after
/// the transaction before. Returns `None` if there are no valid fast commits.
///
/// # Errors
/// If the first fast commit is damaged, or a tag is invalid; a failure of the source.
pub(crate) fn replay(
    fs: &Filesystem,
    area: &mut impl Area,
    transaction: u32,
) -> Result<Option<FastCommit>, Error> {
    let inode_size = usize::from(fs.superblock().inode_size());
    let mut scan = Scan::new(transaction, inode_size);
    for index in 0..area.blocks() {
        if !scan.block(index, area.block(index)?)? {
            break;
        }
    }
    let mut left = scan.valid();
    if left == 0 {
        return Ok(None);
    }
    let mut replay = Replay { fs, found: FastCommit::default(), index: 0 };
    for index in 0..area.blocks() {
        let block = area.block(index)?;
        replay.index = index;
        let mut at = 0;
        while left > 0
            && let Found::Tag { tag, next, .. } = tag::read(block, at, inode_size)
        {
            replay.tag(&tag)?;
            left = left.saturating_sub(1);
            at = next;
        }
        if left == 0 {
            break;
        }
    }
    Ok(Some(replay.found))
}

struct Replay<'a> {
    fs: &'a Filesystem,
    found: FastCommit,
    /// Index of the current block of the area.
    index: u32,
}

impl Replay<'_> {
    fn corrupt(&self, problem: Problem) -> Error {
        Structure::FastCommit { index: self.index }.corrupt(problem)
    }

    fn tag(&mut self, tag: &Tag<'_>) -> Result<(), Error> {
        match *tag {
            Tag::AddRange { inode, logical, count, physical, unwritten } => {
                let blocks = self.fs.superblock().data_blocks(physical, count);
                let blocks = blocks.map_err(|problem| self.corrupt(problem))?;
                if let Some(range) = self.range(inode, logical, count)? {
                    self.patch(inode).ranges.map(range, blocks, unwritten);
                }
                Ok(())
            }
            Tag::DelRange { inode, logical, count } => {
                if let Some(range) = self.range(inode, logical, count)? {
                    self.patch(inode).ranges.remove(range);
                }
                Ok(())
            }
            Tag::Create(name) => self.create(&name),
            Tag::Link(name) => {
                if let Some(inode) = self.inode(name.inode)?
                    && self.add_name(&name, &inode)?
                {
                    self.set_links(name.inode, |links| links.saturating_add(1))?;
                }
                Ok(())
            }
            Tag::Unlink(name) => self.unlink(&name),
            Tag::Inode { number, bytes } => self.replace_inode(number, bytes),
            Tag::Tail { .. } => {
                self.found.commits = self.found.commits.saturating_add(1);
                Ok(())
            }
            Tag::Pad | Tag::Head { .. } => Ok(()),
        }
    }

    /// Returns the range of logical blocks of an inode with extents; `None` if there is no such
    /// inode.
    fn range(
        &self,
        number: InodeNumber,
        logical: LogicalBlock,
        count: u32,
    ) -> Result<Option<Range<LogicalBlock>>, Error> {
        let Some(end) = logical.checked_add(count) else {
            let (start, high) = (u64::from(logical), LogicalBlock::END.into());
            let end = start.saturating_add(count.into());
            return Err(self.corrupt(Problem::ExtentOrder { entry: 0, start, end, low: 0, high }));
        };
        let inode = self.inode(number)?;
        let has_extents = |inode: &Inode| inode.flags().contains(InodeFlags::EXTENTS);
        Ok(inode.filter(has_extents).map(|_| logical..end))
    }

    fn patch(&mut self, number: InodeNumber) -> &mut Patch {
        self.found.inodes.entry(number).or_default()
    }

    /// Returns the inode in its current state; `None` if it is not in use, or is reserved.
    fn inode(&self, number: InodeNumber) -> Result<Option<Inode>, Error> {
        let superblock = self.fs.superblock();
        if number != InodeNumber::ROOT && number < superblock.geometry.first_inode {
            return Ok(None);
        }
        let parsed = match self.found.inode(number) {
            Some(bytes) => Inode::parse(superblock, number, bytes),
            None => self.fs.inode(number),
        };
        match parsed {
            Ok(inode) => Ok(Some(inode)),
            // Do not ignore a wrong checksum, because names and blocks would be lost.
            Err(Error::Corrupt(corrupt)) if corrupt.is_checksum() => Err(Error::Corrupt(corrupt)),
            Err(Error::InodeNotInUse { .. } | Error::NoSuchInode { .. } | Error::Corrupt(_)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the bytes of an inode in its current state.
    fn bytes(&self, number: InodeNumber) -> Result<Vec<u8>, Error> {
        match self.found.inode(number) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => Ok(self.fs.inode_bytes(number)?.to_vec()),
        }
    }

    fn set_bytes(&mut self, number: InodeNumber, mut bytes: Vec<u8>) -> Result<(), Error> {
        inode::seal(self.fs.superblock(), number, &mut bytes);
        let size = bytes.len();
        let patch = self.patch(number);
        if patch.bytes.replace(bytes.into()).is_none() {
            self.found.bytes = self.found.bytes.saturating_add(size);
        }
        let size = as_u64(self.found.bytes);
        Problem::verify_max("size of all inodes", size, as_u64(INODES_MAX))
            .map_err(|problem| self.corrupt(problem))
    }

    fn set_links(
        &mut self,
        number: InodeNumber,
        change: impl FnOnce(u16) -> u16,
    ) -> Result<(), Error> {
        let mut bytes = self.bytes(number)?;
        let field = bytes.get_mut(inode::LINKS_OFFSET..);
        if let Some((links, _)) = field.and_then(|field| U16::mut_from_prefix(field).ok()) {
            links.set(change(links.get()));
        }
        self.set_bytes(number, bytes)
    }

    /// Returns the inode that a name refers to in the current state.
    fn find(&self, directory: &Inode, name: &[u8]) -> Result<Option<InodeNumber>, Error> {
        let names = self.found.names(directory.number());
        match names.and_then(|names| names.get(name)) {
            Some(NameChange::For(inode, _)) => Ok(Some(inode)),
            Some(NameChange::Removed) => Ok(None),
            None if names.is_some_and(|names| names.is_new()) => Ok(None),
            None => self.fs.find(directory, name),
        }
    }

    fn directory(&self, number: InodeNumber) -> Result<Option<Inode>, Error> {
        Ok(self.inode(number)?.filter(Inode::is_dir))
    }

    fn names(&mut self, directory: InodeNumber) -> &mut NameChanges {
        Arc::make_mut(self.found.names.entry(directory).or_default())
    }

    /// Adds a name. Returns false if it exists, or if the directory does not.
    fn add_name(&mut self, name: &tag::Name<'_>, inode: &Inode) -> Result<bool, Error> {
        if name.name.iter().any(|&byte| byte == b'/' || byte == 0) {
            return Err(self.corrupt(Problem::EntryName { offset: 0 }));
        }
        let Some(directory) = self.directory(name.directory)? else { return Ok(false) };
        if self.find(&directory, name.name)?.is_some() {
            return Ok(false);
        }
        self.names(name.directory).set(name.name, NameChange::For(inode.number(), inode.kind()));
        Ok(true)
    }

    fn create(&mut self, name: &tag::Name<'_>) -> Result<(), Error> {
        let Some(inode) = self.inode(name.inode)? else {
            return Err(self.corrupt(Problem::NameOfFreeInode { inode: name.inode }));
        };
        if !inode.is_dir() {
            self.add_name(name, &inode)?;
            return self.set_links(name.inode, |_| 1);
        }
        if self.directory(name.directory)?.is_none() {
            return Ok(());
        }
        // The kernel gives a new directory a first block with only "." and "..". Its replay does not count
        // the links of them, which e2fsck then corrects.
        let empty = NameChanges::of_new_directory(name.directory);
        self.found.names.insert(name.inode, Arc::new(empty));
        if self.add_name(name, &inode)? {
            self.set_links(name.directory, |links| match links {
                1 => 1,
                links if u32::from(links) < LINKS_MAX => links.saturating_add(1),
                _ => 1,
            })?;
        }
        self.set_links(name.inode, |_| 2)
    }

    fn unlink(&mut self, name: &tag::Name<'_>) -> Result<(), Error> {
        let Some(inode) = self.inode(name.inode)? else { return Ok(()) };
        let Some(directory) = self.directory(name.directory)? else { return Ok(()) };
        let Some(found) = self.find(&directory, name.name)? else { return Ok(()) };
        if found == name.inode {
            self.names(name.directory).set(name.name, NameChange::Removed);
        }
        if inode.is_dir() {
            // The kernel's replay keeps it as a directory without a name, which e2fsck then finds.
            if found == name.inode {
                self.free(name.inode)?;
                let one_less = |links: u16| if links > 2 { links.saturating_sub(1) } else { links };
                self.set_links(name.directory, one_less)?;
            }
            return Ok(());
        }
        // If the name now refers to another inode, it was reused. The unlinked inode still loses a
        // link.
        if inode.links() > 1 {
            return self.set_links(name.inode, |links| links.saturating_sub(1));
        }
        self.free(name.inode)
    }

    /// Frees an inode and drops its patches.
    fn free(&mut self, number: InodeNumber) -> Result<(), Error> {
        let mut bytes = self.bytes(number)?;
        inode::free(&mut bytes);
        self.found.names.remove(&number);
        let patch = self.patch(number);
        (patch.ranges, patch.is_new) = (MapChanges::default(), true);
        self.set_bytes(number, bytes)
    }

    /// Checks the stored inode before it is patched. It keeps parts such as its map, and gets a new
    /// checksum, which would hide damage to these parts.
    fn check_stored(&self, number: InodeNumber) -> Result<(), Error> {
        if self.found.inode(number).is_some() {
            return Ok(());
        }
        match self.fs.inode(number) {
            Err(Error::Corrupt(corrupt)) if corrupt.is_checksum() => Err(Error::Corrupt(corrupt)),
            _ => Ok(()),
        }
    }

    fn replace_inode(&mut self, number: InodeNumber, fresh: &[u8]) -> Result<(), Error> {
        self.check_stored(number)?;
        let mut bytes = match self.bytes(number) {
            Ok(bytes) => bytes,
            Err(Error::NoSuchInode { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.is_free(number)? {
            // Blocks and attributes in it are those of a file that was removed.
            bytes.fill(0);
            self.patch(number).is_new = true;
        }
        inode::replace(&mut bytes, fresh);
        self.set_bytes(number, bytes)
    }

    /// Returns true if no file has the inode in its current state.
    fn is_free(&self, number: InodeNumber) -> Result<bool, Error> {
        let parsed = match self.found.inode(number) {
            Some(bytes) => Inode::parse(self.fs.superblock(), number, bytes),
            None => self.fs.inode(number),
        };
        match parsed {
            Err(Error::InodeNotInUse { .. }) => Ok(true),
            Ok(_) | Err(Error::Corrupt(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
