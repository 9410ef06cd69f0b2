//! The filesystem that is mounted: for reading, or for changes, too.

use fuser::Errno;
use nvio::{IoMode, JournaledVolume, Volume};
use nvio_ext4::{Filesystem, Inode};
use nvio_iomap::IoArgs;

use crate::errno::{errno, errno_of};
use crate::scratch;

/// Least bytes of a read that goes past the cache of nvio: it is one of the kernel's reads ahead, for the
/// cache of the kernel.
const AHEAD: usize = 32 << 10;

/// The filesystem that is mounted.
pub enum Backend {
    /// A filesystem that is only read.
    Read(Volume),
    /// A filesystem that is changed through its journal.
    Write(JournaledVolume),
}

/// An open file. Threads have one each.
pub(crate) enum OpenFile {
    Read(Box<nvio::File>),
    Write(Box<nvio::JournaledFile>),
}

impl Backend {
    /// Returns true if files can be changed.
    pub fn is_writable(&self) -> bool {
        matches!(self, Self::Write(_))
    }

    pub(crate) fn filesystem(&self) -> &Filesystem {
        match self {
            Self::Read(volume) => volume.filesystem(),
            Self::Write(volume) => volume.filesystem(),
        }
    }

    /// Returns the filesystem for changes.
    pub(crate) fn writable(&self) -> Result<&JournaledVolume, Errno> {
        match self {
            Self::Read(_) => Err(Errno::EROFS),
            Self::Write(volume) => Ok(volume),
        }
    }

    /// Opens a regular file. One that may not be written to is opened without `writes` only.
    pub(crate) fn open(&self, inode: &Inode, writes: bool) -> Result<OpenFile, Errno> {
        match self {
            Self::Read(volume) => {
                let file = volume.open_inode(inode).map_err(|error| errno_of(&error))?;
                Ok(OpenFile::Read(Box::new(file)))
            }
            Self::Write(volume) => {
                let file = match writes {
                    true => volume.open_inode(inode),
                    false => volume.open_inode_for_reading(inode),
                };
                Ok(OpenFile::Write(Box::new(file.map_err(|error| errno_of(&error))?)))
            }
        }
    }

    /// Records that a directory or a symbolic link was read. A failure costs the time of access alone.
    pub(crate) fn record_access(&self, inode: &Inode) {
        if let Self::Write(volume) = self
            && let Err(error) = volume.filesystem().record_access(inode.number())
        {
            log::debug!("inode {}: the time of access is lost: {error}", inode.number());
        }
    }

    /// Returns an inode, with the size that its cached data gives it.
    pub(crate) fn inode(&self, number: u64) -> Result<Inode, Errno> {
        let number = u32::try_from(number).map_err(|_| Errno::ENOENT)?;
        let inode = match self {
            Self::Read(volume) => volume.filesystem().inode(number),
            Self::Write(volume) => volume.filesystem().inode_now(number),
        };
        inode.map_err(|error| errno(&error))
    }
}

impl OpenFile {
    /// Reads at most `length` bytes, and calls `f` with them, once.
    pub(crate) fn read(
        &mut self,
        direct: bool,
        (pos, length): (u64, usize),
        f: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Errno> {
        let read = match self {
            Self::Read(file) => file.read_at_then(pos, length, f),
            Self::Write(file) if direct || length >= AHEAD => file.read_at_then(pos, length, f),
            Self::Write(file) => scratch::with(length, |buf| {
                let read = file.read_at_with(IoMode::Buffered, pos, buf)?;
                f(buf.get(..read).unwrap_or_default());
                Ok(())
            }),
        };
        read.map_err(|error| errno_of(&error))
    }

    /// Writes all of `data`.
    pub(crate) fn write(&mut self, direct: bool, pos: u64, data: &[u8]) -> Result<(), Errno> {
        let mode = if direct { IoMode::Direct } else { IoMode::Buffered };
        match self {
            Self::Read(_) => Err(Errno::EROFS),
            Self::Write(file) => {
                file.write_at_with(mode, IoArgs::at(pos), data).map_err(|error| errno_of(&error))
            }
        }
    }

    /// Makes the file durable; with `data` only its contents.
    pub(crate) fn sync(&mut self, data: bool) -> Result<(), Errno> {
        match self {
            Self::Read(_) => Ok(()),
            Self::Write(file) if data => file.sync_data().map_err(|error| errno_of(&error)),
            Self::Write(file) => file.sync_all().map_err(|error| errno_of(&error)),
        }
    }
}
