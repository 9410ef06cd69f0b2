//! Changes of the names of inodes that exist: hard links, and the counts of links.

use crate::change::JournaledFilesystem;
use crate::change::directory::{Directory, check_name};
use crate::change::fast_commit;
use crate::change::orphans;
use crate::change::time::now;
use crate::error::reasons::Protected;
use crate::error::{Error, Unsupported};
use crate::filesystem::Filesystem;
use crate::format::features::RoCompatFeatures;
use crate::format::file_type::FileType;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::format::superblock::Superblock;
use crate::journal::changes::NewName;
use crate::journal::handle::{Handle, Stop};
use crate::number::InodeNumber;

/// Maximum number of links of an inode.
pub(super) const LINKS_MAX: u32 = 65_000;

/// Number of blocks of a directory without a hash tree from which its blocks are read before a change,
/// which otherwise begins anew for each block that is not cached.
const BLOCKS_TO_READ: u64 = 4;

impl JournaledFilesystem {
    /// Adds the name `name` in the directory `parent` for the inode, as link(2) does. Returns the inode. An
    /// open file of [`create_unnamed`](Self::create_unnamed) gets its first name, as by linkat(2).
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; [`Error::InvalidName`], [`Error::NameTooLong`];
    /// [`Error::Protected`] if the inode is a directory, or if one of the two must not be changed;
    /// [`Error::TooManyLinks`]; [`Error::OtherProject`]; [`Error::NotADirectory`];
    /// [`Error::UnsupportedInode`] if the directory's entries cannot be changed here; [`Error::NoSpace`],
    /// [`Error::DirectoryFull`]; [`Error::NoSuchInode`], [`Error::InodeNotInUse`]; damage, also of the
    /// directory's hash tree; a failure of the device. Nothing was changed then.
    pub fn hard_link(
        &self,
        inode: impl Into<InodeNumber>,
        parent: impl Into<InodeNumber>,
        name: impl AsRef<[u8]>,
    ) -> Result<Inode, Error> {
        let (number, parent, name) = (inode.into(), parent.into(), name.as_ref());
        check_name(name)?;
        self.read_ahead_of_change(parent, name)?;
        let time = now();
        let open = self.hold_open(number);
        let inode = self.journal().change(self, |handle| {
            let mut directory = handle.inode(parent)?;
            self.check_adding(&directory)?;
            let mut entries = Directory::new(handle, self.zone(), &mut directory, time)?;
            let vacancy = entries.vacancy(name)?;
            let mut inode = handle.inode(number)?;
            let is_first = inode.links() == 0;
            // A name that was removed does not come back.
            if is_first && !open.as_ref().is_some_and(|open| open.open_inode().may_get_name()) {
                return Err(Error::InodeNotInUse { inode: number }.into());
            }
            self.check_link(&directory, &inode)?;
            let mut entries = Directory::new(handle, self.zone(), &mut directory, time)?;
            entries.add_at(vacancy, name, number, inode.kind())?;
            handle.set_inode(directory)?;
            inode.set_links(u16::try_from(inode.links().saturating_add(1)).unwrap_or(u16::MAX));
            inode.set_ctime(time);
            handle.set_inode(inode.clone())?;
            handle.changes.has_new_map = true;
            let name =
                NewName { directory: parent, name: name.into(), inode: number, is_new: false };
            fast_commit::add_name(handle, name);
            if is_first {
                orphans::Entry::List.remove(handle, number)?;
            }
            Ok(inode)
        })?;
        if let Some(open) = open {
            open.open_inode().set_may_get_name(false);
        }
        Ok(inode)
    }

    /// Rejects inodes that cannot get another name in a directory.
    fn check_link(&self, directory: &Inode, inode: &Inode) -> Result<(), Error> {
        let number = inode.number();
        if inode.is_dir() {
            return Err(Error::Protected { inode: number, why: Protected::Directory });
        }
        self.check(inode)?;
        check_project(directory, inode)?;
        match inode.links() >= LINKS_MAX {
            true => Err(Error::TooManyLinks { inode: number }),
            false => Ok(()),
        }
    }

    /// Reads the blocks that a search for a name in a directory without a hash tree needs. Errors are left
    /// to the change.
    pub(super) fn read_ahead_of_change(
        &self,
        directory: InodeNumber,
        name: &[u8],
    ) -> Result<(), Error> {
        let fs: &Filesystem = self;
        let inode = fs.inode(directory)?;
        let blocks = fs.superblock().whole_blocks(inode.size());
        let is_long = blocks > BLOCKS_TO_READ && !inode.flags().contains(InodeFlags::INDEX);
        if inode.is_dir() && is_long && fs.find(&inode, name).is_err() {
            log::debug!("inode {directory}: some blocks could not be read ahead");
        }
        Ok(())
    }
}

/// Rejects an inode in a directory that hands down another project id.
pub(super) fn check_project(directory: &Inode, inode: &Inode) -> Result<(), Error> {
    let hands_down = directory.flags().contains(InodeFlags::PROJINHERIT);
    let project = |inode: &Inode| inode.project().unwrap_or(0);
    match hands_down && project(directory) != project(inode) {
        true => Err(Error::OtherProject { inode: inode.number() }),
        false => Ok(()),
    }
}

/// Counts a name less of an inode, or of an empty directory its only one, and stores the inode. Without
/// names it joins the list of orphans: the caller frees it after the change, unless it is open. Returns
/// true then.
pub(super) fn drop_link(handle: &mut Handle<'_>, inode: &mut Inode) -> Result<bool, Stop> {
    let links = if inode.is_dir() { 0 } else { inode.links().saturating_sub(1) };
    if links == 0 {
        check_map(handle.superblock(), inode)?;
    }
    inode.set_links(u16::try_from(links).unwrap_or(u16::MAX));
    handle.set_inode(inode.clone())?;
    if links == 0 {
        orphans::add(handle, inode.number())?;
    }
    Ok(links == 0)
}

/// Rejects an inode whose blocks cannot be freed, because it has block pointers.
pub(super) fn check_map(superblock: &Superblock, inode: &Inode) -> Result<(), Error> {
    let has_map = match inode.kind() {
        FileType::Regular | FileType::Directory => inode.blocks_512() > 0,
        FileType::Symlink => !inode.is_fast_symlink(superblock),
        _ => false,
    };
    match has_map && !inode.flags().contains(InodeFlags::EXTENTS) {
        true => {
            let what = Unsupported::IndirectBlocks;
            Err(Error::UnsupportedInode { inode: inode.number(), what })
        }
        false => Ok(()),
    }
}

/// Counts a subdirectory more, whose ".." is a link. A directory with a hash tree and too many of them
/// counts 1.
///
/// # Errors
/// [`Error::TooManyLinks`] if the directory cannot have more.
pub(super) fn add_subdirectory(handle: &Handle<'_>, directory: &mut Inode) -> Result<(), Error> {
    let is_uncounted = handle.superblock().ro_compat.contains(RoCompatFeatures::DIR_NLINK)
        && directory.flags().contains(InodeFlags::INDEX);
    let links = match directory.links() {
        1 if is_uncounted => 1,
        links if links < LINKS_MAX => links.saturating_add(1),
        _ if is_uncounted => 1,
        _ => return Err(Error::TooManyLinks { inode: directory.number() }),
    };
    directory.set_links(u16::try_from(links).unwrap_or(1));
    Ok(())
}

/// Counts a subdirectory less.
pub(super) fn remove_subdirectory(directory: &mut Inode) {
    let links = directory.links();
    if links > 2 {
        directory.set_links(u16::try_from(links.saturating_sub(1)).unwrap_or(2));
    }
}
