//! Names that are removed.

use crate::change::JournaledFilesystem;
use crate::change::directory::{Directory, check_name};
use crate::change::names::{drop_link, remove_subdirectory};
use crate::change::time::now;
use crate::error::{Error, Subject};
use crate::format::inode::Inode;
use crate::format::time::Timestamp;
use crate::journal::handle::{Handle, Stop};
use crate::number::InodeNumber;

impl JournaledFilesystem {
    /// Removes the name `name` of a file that is no directory from the directory `parent`, as unlink(2)
    /// does. A file that loses its last name is freed when it is not open any more.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::IsADirectory`]; [`Error::Protected`] if the file or the directory must
    /// not be changed; [`Error::InvalidName`], [`Error::NameTooLong`]; [`Error::NotADirectory`];
    /// [`Error::UnsupportedInode`] if the directory's entries cannot be changed, or the blocks of the file
    /// cannot be freed; damage; a failure of the device. Nothing was changed then.
    pub fn remove_file(
        &self,
        parent: impl Into<InodeNumber>,
        name: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        self.remove(parent.into(), name.as_ref(), |_, inode| match inode.is_dir() {
            true => Err(Error::IsADirectory { inode: inode.number() }.into()),
            false => Ok(()),
        })
    }

    /// Removes the empty directory `name` from the directory `parent`, as rmdir(2) does.
    ///
    /// See the [example](Self#names).
    ///
    /// # Errors
    /// [`Error::NotADirectory`]; [`Error::DirectoryNotEmpty`]. Others as
    /// [`remove_file`](Self::remove_file).
    pub fn remove_dir(
        &self,
        parent: impl Into<InodeNumber>,
        name: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        let time = now();
        self.remove(parent.into(), name.as_ref(), |handle, inode| {
            self.check_empty(handle, inode, time)
        })
    }

    /// Rejects an inode that is not an empty directory.
    fn check_empty(
        &self,
        handle: &mut Handle<'_>,
        inode: &mut Inode,
        time: Timestamp,
    ) -> Result<(), Stop> {
        let number = inode.number();
        if !inode.is_dir() {
            return Err(Error::NotADirectory { subject: Subject::Inode(number) }.into());
        }
        match Directory::new(handle, self.zone(), inode, time)?.is_empty()? {
            true => Ok(()),
            false => Err(Error::DirectoryNotEmpty { inode: number }.into()),
        }
    }

    /// Removes a name of an inode, unless it is rejected by `check`.
    fn remove(
        &self,
        parent: InodeNumber,
        name: &[u8],
        check: impl Fn(&mut Handle<'_>, &mut Inode) -> Result<(), Stop>,
    ) -> Result<(), Error> {
        check_name(name)?;
        self.read_ahead_of_change(parent, name)?;
        let time = now();
        let unnamed = self.journal().change(self, |handle| {
            let mut directory = handle.inode(parent)?;
            self.check(&directory)?;
            let mut entries = Directory::new(handle, self.zone(), &mut directory, time)?;
            let found = entries.find(name)?;
            let found = found.ok_or_else(|| Error::NotFound { path: name.into() })?;
            entries.remove(found.place)?;
            let mut inode = handle.inode(found.inode)?;
            self.check(&inode)?;
            check(handle, &mut inode)?;
            if inode.is_dir() {
                remove_subdirectory(&mut directory);
                inode.set_size(0);
            }
            handle.set_inode(directory)?;
            inode.set_ctime(time);
            handle.changes.has_new_map = true;
            let is_gone = drop_link(handle, &mut inode)?;
            Ok(is_gone.then_some(found.inode))
        })?;
        self.free_unnamed(unnamed);
        Ok(())
    }
}
