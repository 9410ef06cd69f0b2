//! Inodes that are not freed while they are in use, although they may have lost their last name.

use std::fmt;
use std::ops::Deref;

use nvio_iomap::FileRef;

use crate::change::JournaledFilesystem;
use crate::error::Error;
use crate::file::open_inode::OpenInode;
use crate::format::inode::Inode;
use crate::number::InodeNumber;

/// The filesystem of a handle, which is dropped after the handle's file: if that was the last one of an
/// inode without a name, the inode is freed.
pub(super) struct Closing(pub(super) JournaledFilesystem);

impl Deref for Closing {
    type Target = JournaledFilesystem;

    fn deref(&self) -> &JournaledFilesystem {
        &self.0
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.free_unnamed(None);
    }
}

/// A reference to an inode, which is not freed before the reference is dropped, although it may lose its
/// last name. Returned by [`JournaledFilesystem::hold`].
pub struct HeldInode {
    inode: FileRef<OpenInode>,
    _fs: Closing,
}

impl HeldInode {
    pub(super) fn open_inode(&self) -> &OpenInode {
        self.inode.state()
    }
}

impl fmt::Debug for HeldInode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldInode").field("number", &self.inode.state().number()).finish()
    }
}

impl JournaledFilesystem {
    /// Keeps an inode of any kind from being freed as long as the result exists, also without a name. Its
    /// number refers to this inode meanwhile.
    ///
    /// # Errors
    /// [`Error::InodeNotInUse`] if it was freed before; damage; a failure of the device.
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// # use std::fs::File;
    /// # use nvio_ext4::{JournaledFilesystem, NewFile, Options};
    /// let device = File::options().read(true).write(true).open(sample.path())?;
    /// let fs = JournaledFilesystem::open(device, Options::default())?;
    /// let root = fs.root()?.number();
    /// let inode = fs.create_file(root, "file", NewFile::with_permissions(0o600))?;
    /// let held = fs.hold(&inode)?;
    /// fs.remove_file(root, "file")?;
    /// assert_eq!(fs.inode(inode.number())?.links(), 0);
    /// drop(held);
    /// assert!(fs.inode(inode.number()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hold(&self, inode: &Inode) -> Result<HeldInode, Error> {
        let held = self.open_inodes().open(inode.number());
        self.check_is_there(inode)?;
        Ok(HeldInode { inode: held, _fs: Closing(self.clone()) })
    }

    /// Keeps an inode from being freed, if it is open.
    pub(super) fn hold_open(&self, number: InodeNumber) -> Option<HeldInode> {
        let inode = self.open_inodes().find(number)?;
        Some(HeldInode { inode, _fs: Closing(self.clone()) })
    }

    /// Rejects an inode that was freed before it was opened. From then on it is not freed.
    pub(super) fn check_is_there(&self, inode: &Inode) -> Result<(), Error> {
        let number = inode.number();
        let now = match self.journal().read(self, |handle| handle.inode(number)) {
            // No inode is freed any more.
            Err(Error::Closed | Error::JournalAborted) => self.inode(number),
            now => now,
        }?;
        if now.generation() != inode.generation() {
            return Err(Error::InodeNotInUse { inode: number });
        }
        if now.links() == 0 {
            self.open_inodes().set_unlinked(number);
        }
        Ok(())
    }
}
