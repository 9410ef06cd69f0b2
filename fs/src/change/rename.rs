//! Renames of files and directories.

use crate::change::JournaledFilesystem;
use crate::change::directory::{Directory, FoundEntry, check_name};
use crate::change::names::{add_subdirectory, check_project, drop_link, remove_subdirectory};
use crate::change::time::now;
use crate::error::{Error, Subject};
use crate::filesystem::Filesystem;
use crate::format::inode::Inode;
use crate::format::time::Timestamp;
use crate::journal::handle::{Handle, Stop};
use crate::number::InodeNumber;

/// Maximum number of directories above one that is the new place of a directory.
const DEPTH_MAX: usize = 1 << 16;

/// The treatment of a new name that exists already.
///
/// See the [example](crate::JournaledFilesystem#names).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RenameMode {
    /// The new name refers to the renamed file then, and the file that it referred to loses the name.
    #[default]
    Replace,
    /// The rename fails with [`Error::AlreadyExists`] (`RENAME_NOREPLACE`).
    NoReplace,
    /// Both names must exist, and each refers to the other's file then (`RENAME_EXCHANGE`).
    Exchange,
}

/// A name in a directory.
#[derive(Clone, Copy)]
struct Name<'a> {
    directory: InodeNumber,
    name: &'a [u8],
}

/// A rename, as a part of a change.
struct Rename<'r, 'h> {
    fs: &'r JournaledFilesystem,
    handle: &'r mut Handle<'h>,
    from: Name<'r>,
    to: Name<'r>,
    time: Timestamp,
}

impl JournaledFilesystem {
    /// Renames the entry `name` of the directory `parent` to `new_name` in the directory `new_parent`, as
    /// renameat2(2) does. The change is there as a whole, or not at all, also after a loss of power.
    ///
    /// If both names refer to one inode, nothing is changed. A file that loses its last name is freed,
    /// unless it is open: the next open of the filesystem frees it then.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::AlreadyExists`] with [`RenameMode::NoReplace`];
    /// [`Error::NotADirectory`] for a directory over something else, [`Error::IsADirectory`] for something
    /// else over a directory, [`Error::DirectoryNotEmpty`]; [`Error::IntoItself`];
    /// [`Error::TooManyLinks`] if the new parent has too many subdirectories; [`Error::TooDeep`]. Others
    /// as [`hard_link`](Self::hard_link). Nothing was changed then.
    pub fn rename(
        &self,
        parent: impl Into<InodeNumber>,
        name: impl AsRef<[u8]>,
        new_parent: impl Into<InodeNumber>,
        new_name: impl AsRef<[u8]>,
        mode: RenameMode,
    ) -> Result<(), Error> {
        let from = Name { directory: parent.into(), name: name.as_ref() };
        let to = Name { directory: new_parent.into(), name: new_name.as_ref() };
        for Name { directory, name } in [from, to] {
            check_name(name)?;
            self.read_ahead_of_change(directory, name)?;
        }
        if mode == RenameMode::Replace {
            self.write_replacement(from, to);
        }
        let time = now();
        let unnamed = self.journal().change(self, |handle| {
            handle.changes.has_new_map = true;
            Rename { fs: self, handle, from, to, time }.apply(mode)
        })?;
        self.free_unnamed(unnamed);
        Ok(())
    }

    /// Writes the cached data of a file that is about to replace another one, as the kernel does. Many
    /// programs replace a file without a sync, and expect its old contents or its new ones after a loss
    /// of power.
    fn write_replacement(&self, from: Name<'_>, to: Name<'_>) {
        if self.open_inodes().are_none() {
            return;
        }
        let fs: &Filesystem = self;
        let find = |name: Name<'_>| fs.find(&fs.inode(name.directory).ok()?, name.name).ok()?;
        let data = find(from).and_then(|inode| self.open_inodes().cached_data(inode));
        let Some(data) = data.filter(|_| find(to).is_some()) else { return };
        if let Err(error) = data.write_back(0..u64::MAX, false) {
            log::warn!("the next sync of a file that was renamed fails: {error}");
        }
    }
}

impl<'h> Rename<'_, 'h> {
    /// Makes the change. Returns the inode that lost its last name.
    fn apply(mut self, mode: RenameMode) -> Result<Option<InodeNumber>, Stop> {
        let (from, to) = (self.from, self.to);
        let not_found = |name: Name<'_>| Error::NotFound { path: name.name.into() };
        let source = self.find(from)?.ok_or_else(|| not_found(from))?;
        let target = self.find_new(to)?;
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => {
                Err(Error::AlreadyExists { name: to.name.into() }.into())
            }
            (RenameMode::Exchange, None) => Err(not_found(to).into()),
            (_, Some(target)) if target.inode == source.inode => Ok(None),
            (RenameMode::Exchange, Some(target)) => self.exchange(source, target).map(|()| None),
            (_, target) => self.rename(source.inode, target),
        }
    }

    fn crosses(&self) -> bool {
        self.from.directory != self.to.directory
    }

    /// Gives an inode the new name, and removes the old one. Returns the replaced inode if this was its
    /// last name.
    fn rename(
        mut self,
        number: InodeNumber,
        target: Option<FoundEntry>,
    ) -> Result<Option<InodeNumber>, Stop> {
        let (from, to) = (self.from, self.to);
        let mut inode = self.movable(number, to)?;
        let replaced = match target {
            Some(target) => Some(self.replaceable(&inode, target.inode)?),
            None => None,
        };
        let kind = inode.kind();
        self.edit(to, |entries| match target {
            Some(target) => entries.replace(target.place, number, kind),
            None => entries.add(to.name, number, kind),
        })?;
        self.edit(from, |entries| {
            // The new name may have moved the old one.
            let found = entries.find(from.name)?;
            let not_found = || Error::NotFound { path: from.name.into() };
            entries.remove(found.ok_or_else(not_found)?.place)
        })?;
        if inode.is_dir() && (self.crosses() || replaced.is_some()) {
            self.count_in(from, |_, directory| {
                remove_subdirectory(directory);
                Ok(())
            })?;
            if replaced.is_none() {
                self.count_in(to, add_subdirectory)?;
            }
        }
        self.moved(&mut inode, to)?;
        let Some(mut replaced) = replaced else { return Ok(None) };
        replaced.set_ctime(self.time);
        let is_gone = drop_link(self.handle, &mut replaced)?;
        Ok(is_gone.then_some(replaced.number()))
    }

    /// Lets each of the names refer to the other's inode.
    fn exchange(mut self, source: FoundEntry, target: FoundEntry) -> Result<(), Stop> {
        let (from, to) = (self.from, self.to);
        let mut first = self.movable(source.inode, to)?;
        let mut second = self.movable(target.inode, from)?;
        let (kind, other) = (first.kind(), second.kind());
        self.edit(to, |entries| entries.replace(target.place, source.inode, kind))?;
        self.edit(from, |entries| entries.replace(source.place, target.inode, other))?;
        if self.crosses() && first.is_dir() != second.is_dir() {
            let (less, more) = if first.is_dir() { (from, to) } else { (to, from) };
            self.count_in(less, |_, directory| {
                remove_subdirectory(directory);
                Ok(())
            })?;
            self.count_in(more, add_subdirectory)?;
        }
        self.moved(&mut first, to)?;
        self.moved(&mut second, from)
    }

    /// Finds a name in its directory, which must be one that can be changed.
    fn find(&mut self, name: Name<'_>) -> Result<Option<FoundEntry>, Stop> {
        let mut directory = self.handle.inode(name.directory)?;
        self.fs.check(&directory)?;
        self.entries(&mut directory)?.find(name.name)
    }

    /// Finds the new name in its directory, which may be append-only if the name is free.
    fn find_new(&mut self, name: Name<'_>) -> Result<Option<FoundEntry>, Stop> {
        let mut directory = self.handle.inode(name.directory)?;
        self.fs.check_adding(&directory)?;
        let found = self.entries(&mut directory)?.find(name.name)?;
        if found.is_some() {
            self.fs.check(&directory)?;
        }
        Ok(found)
    }

    fn entries<'d>(&'d mut self, directory: &'d mut Inode) -> Result<Directory<'d, 'h>, Stop> {
        Directory::new(self.handle, self.fs.zone(), directory, self.time)
    }

    /// Changes the entries of a directory.
    fn edit(
        &mut self,
        name: Name<'_>,
        change: impl FnOnce(&mut Directory<'_, 'h>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let mut directory = self.handle.inode(name.directory)?;
        change(&mut self.entries(&mut directory)?)?;
        self.handle.set_inode(directory)
    }

    /// Changes the count of links of a directory.
    fn count_in(
        &mut self,
        name: Name<'_>,
        change: impl FnOnce(&Handle<'_>, &mut Inode) -> Result<(), Error>,
    ) -> Result<(), Stop> {
        let mut directory = self.handle.inode(name.directory)?;
        change(self.handle, &mut directory)?;
        self.handle.set_inode(directory)
    }

    /// Returns an inode that can be moved to the directory of a name.
    fn movable(&mut self, number: InodeNumber, to: Name<'_>) -> Result<Inode, Stop> {
        let inode = self.handle.inode(number)?;
        self.fs.check(&inode)?;
        if self.crosses() {
            check_project(&self.handle.inode(to.directory)?, &inode)?;
            if inode.is_dir() && self.is_above(number, to.directory)? {
                return Err(Error::IntoItself { inode: number }.into());
            }
        }
        Ok(inode)
    }

    /// Returns true if a directory is `below`, or above it.
    fn is_above(&mut self, number: InodeNumber, below: InodeNumber) -> Result<bool, Stop> {
        let mut at = below;
        for _ in 0..DEPTH_MAX {
            if at == number {
                return Ok(true);
            }
            if at == InodeNumber::ROOT {
                return Ok(false);
            }
            let mut inode = self.handle.inode(at)?;
            at = self.entries(&mut inode)?.parent()?;
        }
        Err(Error::TooDeep { inode: below, limit: DEPTH_MAX }.into())
    }

    /// Returns an inode whose name `by` can get.
    fn replaceable(&mut self, by: &Inode, number: InodeNumber) -> Result<Inode, Stop> {
        let mut inode = self.handle.inode(number)?;
        self.fs.check(&inode)?;
        let not_empty = || Error::DirectoryNotEmpty { inode: number };
        if inode.is_dir() && self.crosses() && self.is_above(number, self.from.directory)? {
            return Err(not_empty().into());
        }
        match (by.is_dir(), inode.is_dir()) {
            (true, false) => Err(Error::NotADirectory { subject: Subject::Inode(number) }.into()),
            (false, true) => Err(Error::IsADirectory { inode: number }.into()),
            (true, true) if !self.entries(&mut inode)?.is_empty()? => Err(not_empty().into()),
            _ => Ok(inode),
        }
    }

    /// Stores an inode that has the new name. A directory gets a new parent.
    fn moved(&mut self, inode: &mut Inode, to: Name<'_>) -> Result<(), Stop> {
        if inode.is_dir() && self.crosses() {
            self.entries(inode)?.set_parent(to.directory)?;
        }
        inode.set_ctime(self.time);
        self.handle.set_inode(inode.clone())
    }
}
