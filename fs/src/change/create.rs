//! Files that are created.

use crate::change::JournaledFilesystem;
use crate::change::file::JournaledFile;
use crate::change::new_inode::{Creation, NewFile};
use crate::change::orphans;
use crate::change::time::now;
use crate::error::Error;
use crate::format::file_type::FileType;
use crate::number::InodeNumber;

impl JournaledFilesystem {
    /// Creates a regular file without a name near `directory`, as open(2) does with `O_TMPFILE`, and opens
    /// it. It is freed when its last handle is closed, or by the next open after a loss of power.
    ///
    /// # Errors
    /// [`Error::NotADirectory`]; [`Error::NoInodes`]; damage; a failure of the device.
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// use std::fs::File;
    ///
    /// use nvio_ext4::{InodeNumber, JournaledFilesystem, NewFile, Options};
    /// use nvio_iomap::{FileQueue, ImageQueue};
    ///
    /// let device = File::options().read(true).write(true).open(sample.path())?;
    /// let mut queue = FileQueue::new(ImageQueue::new(device.try_clone()?, 32)?);
    /// let fs = JournaledFilesystem::open(device, Options::default())?;
    /// let mut file = fs.create_unnamed(InodeNumber::ROOT, NewFile::with_permissions(0o600))?;
    /// file.write_at(&mut queue, 0, &[7; 4096])?;
    /// assert_eq!(fs.inode(file.inode().number())?.size(), 4096);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_unnamed(
        &self,
        directory: impl Into<InodeNumber>,
        new: NewFile,
    ) -> Result<JournaledFile, Error> {
        let directory = directory.into();
        self.free_unnamed(None);
        let creation = Creation::new(FileType::Regular, new, now());
        let (inode, _open) = self.journal().change(self, |handle| {
            let parent = handle.inode(directory)?;
            self.check_directory(&parent)?;
            let (inode, bytes) = creation.allocate(handle, &parent, 0)?;
            handle.create_inode(inode.clone(), &bytes)?;
            orphans::add(handle, inode.number())?;
            // Another thread would free the inode before it is open.
            let open = self.open_inodes().open(inode.number());
            self.open_inodes().set_unlinked(inode.number());
            Ok((inode, open))
        })?;
        self.open_file(&inode)
    }
}
