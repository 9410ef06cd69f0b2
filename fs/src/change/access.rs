//! Times of access, as a mount with relatime keeps them.

use crate::change::JournaledFilesystem;
use crate::change::time::now;
use crate::error::Error;
use crate::file::open_inode::OpenInode;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::format::time::Timestamp;
use crate::number::InodeNumber;

/// Age in seconds of a time of access that a read replaces in any case.
const A_DAY: i64 = 24 * 60 * 60;

impl JournaledFilesystem {
    /// Records that an inode was read, as a mount with `relatime` does: the inode gets a new time of access
    /// if it was changed since the last one, or if that is a day old. Directories and symbolic links have
    /// such a time, too. An inode with the flag `NOATIME` keeps its time, as do all inodes without
    /// [`access_times`](crate::Options::access_times).
    ///
    /// Handles of open files do this by themselves after [`note_read`](crate::JournaledFile::note_read).
    ///
    /// # Errors
    /// [`Error::NoSuchInode`], [`Error::InodeNotInUse`]; damage; a failure of the device.
    ///
    /// # Examples
    /// ```
    /// # let sample = nvio_testkit::image::Sample::new();
    /// # use std::fs::File;
    /// # use nvio_ext4::{JournaledFilesystem, Options, Timestamp};
    /// let device = File::options().read(true).write(true).open(sample.path())?;
    /// let fs = JournaledFilesystem::open(device, Options::default())?;
    /// let root = fs.root()?.number();
    /// let old = fs.set_times(root, Some(Timestamp::default()), None)?;
    /// for entry in fs.read_dir(&fs.root()?)? {
    ///     entry?;
    /// }
    /// fs.record_access(root)?;
    /// let read = fs.root()?;
    /// assert!(read.atime() >= old.ctime());
    /// // The time is newer than the last change, and of today.
    /// fs.record_access(root)?;
    /// assert_eq!(fs.root()?.atime(), read.atime());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn record_access(&self, inode: impl Into<InodeNumber>) -> Result<(), Error> {
        self.set_accessed(inode.into(), now())
    }

    /// Records that an inode was read at a time.
    fn set_accessed(&self, number: InodeNumber, time: Timestamp) -> Result<(), Error> {
        if !self.is_access_due(&self.inode(number)?, time) {
            return Ok(());
        }
        self.journal().change(self, |handle| {
            let mut inode = handle.inode(number)?;
            inode.set_atime(time);
            handle.changes.is_fast = true;
            handle.set_inode(inode)
        })
    }

    /// Records the time of the last read of an open file. A failure is only logged: it costs that time alone,
    /// and the next change of the filesystem returns its error.
    pub(super) fn record_read(&self, open: &OpenInode) {
        if let Some(time) = open.accessed.take()
            && let Err(error) = self.set_accessed(open.number(), time)
        {
            log::debug!("inode {}: the time of the last read is lost: {error}", open.number());
        }
    }

    /// Gives an inode the time of the last read, which will be recorded when its file is closed.
    pub(super) fn add_access(&self, inode: &mut Inode, open: &OpenInode) {
        if let Some(time) = open.accessed.time()
            && self.is_access_due(inode, time)
        {
            inode.set_atime(time);
        }
    }

    fn is_access_due(&self, inode: &Inode, time: Timestamp) -> bool {
        let atime = inode.atime();
        self.options().access_times
            && !inode.flags().contains(InodeFlags::NOATIME)
            && (atime <= inode.mtime()
                || atime <= inode.ctime()
                || time.seconds.saturating_sub(atime.seconds) >= A_DAY)
    }
}
