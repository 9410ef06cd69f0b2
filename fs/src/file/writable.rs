//! The conditions under which a filesystem and its files may be written to.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::file::system_zone;

use crate::error::Error;
use crate::file::system_zone::SystemZone;
use crate::file::writable_file::WritableFile;
use crate::filesystem::Filesystem;
use crate::format::features::{IncompatFeatures, RoCompatFeatures};
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::mount::mmp;

/// Maximum number of block groups of a writable filesystem, because the place of each group's
/// metadata is kept in memory. This is 256 TiB with blocks of 4 KiB.
const MOST_GROUPS: u32 = 1 << 21;

/// The reason why a filesystem cannot be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotWritable {
    /// It was not unmounted cleanly, or is mounted.
    NotClean,
    /// The kernel recorded errors in it.
    HasErrors,
    /// It has orphans, which the next mount must remove or truncate.
    HasOrphans,
    /// It has features that forbid writes, or that this crate does not support.
    Features(RoCompatFeatures),
    /// All data is journaled (`data=journal`).
    JournalsData,
    /// It was mounted or changed after it was opened.
    Changed,
    /// It has more block groups than are supported.
    Groups(u32),
}

impl fmt::Display for NotWritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotClean => f.write_str("it was not unmounted cleanly; run e2fsck"),
            Self::HasErrors => f.write_str("the kernel has found errors in it; run e2fsck"),
            Self::HasOrphans => f.write_str("it has orphaned inodes; mount it once, or run e2fsck"),
            Self::Features(features) => write!(f, "unsupported ro_compat features: {features}"),
            Self::JournalsData => f.write_str("its data is journaled (data=journal)"),
            Self::Changed => f.write_str("it was mounted or changed since it was opened"),
            Self::Groups(groups) => {
                write!(f, "it has {groups} block groups, the maximum is {MOST_GROUPS}")
            }
        }
    }
}

/// The reason why a file cannot be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protected {
    /// It is immutable (chattr +i).
    Immutable,
    /// It may only be appended to (chattr +a).
    AppendOnly,
    /// It is protected by fs-verity.
    Verity,
    /// Its data is journaled (chattr +j).
    JournalsData,
    /// It belongs to the filesystem itself: the journal, a quota file, or another reserved inode.
    System,
    /// It holds the value of an extended attribute, whose hash would become wrong.
    Attribute,
    /// Its data is inside its inode (`inline_data`), which is metadata.
    InlineData,
    /// The caller replaced the file in a [`WritableFile`] by one that was opened for reading.
    NotOpened,
}

impl fmt::Display for Protected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Immutable => "it is immutable (chattr -i removes the flag)",
            Self::AppendOnly => "it is append-only (chattr -a removes the flag)",
            Self::Verity => "it is protected by fs-verity",
            Self::JournalsData => "its data is journaled (chattr -j removes the flag)",
            Self::System => "it belongs to the filesystem itself",
            Self::Attribute => "it holds the value of an extended attribute",
            Self::InlineData => "its data is inside its inode (inline_data)",
            Self::NotOpened => "it was not opened for writing",
        })
    }
}

/// A [`Filesystem`] whose files can be overwritten; see [`Filesystem::writable`].
#[derive(Clone, Debug)]
pub struct WritableFilesystem {
    fs: Filesystem,
    system_zone: Arc<SystemZone>,
}

impl Deref for WritableFilesystem {
    type Target = Filesystem;

    fn deref(&self) -> &Filesystem {
        &self.fs
    }
}

impl Filesystem {
    /// Opens the filesystem for overwriting the data of its files. Metadata is never written, so
    /// sizes, maps and times (mtime included) do not change.
    ///
    /// Reads all group descriptors to determine the blocks that must not be overwritten. The
    /// filesystem must not be mounted anywhere while it is written to, not even read-only.
    /// Multi-mount protection is checked, but not acquired.
    ///
    /// # Errors
    /// [`Error::NotWritable`], [`Error::NeedsRecovery`] or [`Error::InUse`], according to the
    /// current superblock; damage to a group descriptor or to the journal's inode; a failure of the
    /// source.
    pub fn writable(&self) -> Result<WritableFilesystem, Error> {
        let now = self.superblock_now()?;
        let refuse = |why| Err(Error::NotWritable(why));
        if now.has(IncompatFeatures::RECOVER) {
            return Err(Error::NeedsRecovery);
        }
        let unknown = now.ro_compat_features().bits() & !RoCompatFeatures::OVERWRITABLE.bits();
        match () {
            () if !now.is_same(self.superblock()) => return refuse(NotWritable::Changed),
            () if unknown != 0 => {
                let features = RoCompatFeatures::from_bits_retain(unknown);
                return refuse(NotWritable::Features(features));
            }
            () if now.has_errors() => return refuse(NotWritable::HasErrors),
            () if !now.is_clean() => return refuse(NotWritable::NotClean),
            () if now.has_orphans() => return refuse(NotWritable::HasOrphans),
            () if now.journals_data() => return refuse(NotWritable::JournalsData),
            () if now.groups_count() > MOST_GROUPS => {
                return refuse(NotWritable::Groups(now.groups_count()));
            }
            () => (),
        }
        mmp::check(self)?;
        Ok(WritableFilesystem { fs: self.clone(), system_zone: Arc::new(SystemZone::of(self)?) })
    }
}

impl WritableFilesystem {
    /// Opens the regular file `inode` for reading and overwriting.
    ///
    /// Swap files are not recognised: the kernel does not mark them.
    ///
    /// # Errors
    /// As [`Filesystem::file`]; [`Error::Protected`].
    pub fn writable_file(&self, inode: &Inode) -> Result<WritableFile, Error> {
        let file = self.fs.file(inode)?;
        let number = inode.number();
        let reserved = number < self.superblock().first_inode;
        let flagged = [
            (InodeFlags::IMMUTABLE, Protected::Immutable),
            (InodeFlags::APPEND, Protected::AppendOnly),
            (InodeFlags::VERITY, Protected::Verity),
            (InodeFlags::JOURNAL_DATA, Protected::JournalsData),
            (InodeFlags::EA_INODE, Protected::Attribute),
            (InodeFlags::INLINE_DATA, Protected::InlineData),
        ];
        let flagged = flagged.into_iter().find(|&(flag, _)| inode.flags().contains(flag));
        let why = match flagged {
            _ if reserved || system_zone::system_files(&self.fs).any(|file| file == number) => {
                Protected::System
            }
            Some((_, why)) => why,
            None => return Ok(WritableFile::new(file, Arc::clone(&self.system_zone))),
        };
        Err(Error::Protected { inode: number, why })
    }
}
