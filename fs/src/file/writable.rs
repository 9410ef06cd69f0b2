//! Whether a filesystem and its files may be written to.

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

/// Most block groups of a filesystem that is written to: the place of each one's metadata is kept
/// in memory. 256 TiB with blocks of 4 KiB.
const MOST_GROUPS: u32 = 1 << 21;

/// Why a filesystem may not be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotWritable {
    /// It was not unmounted, or is mounted.
    NotClean,
    /// The kernel has noted errors in it.
    HasErrors,
    /// Files wait for the next mount to remove or to truncate them.
    HasOrphans,
    /// Features that forbid it, or that this crate does not know.
    Features(RoCompatFeatures),
    /// All data goes through the journal (`data=journal`).
    JournalsData,
    /// It was mounted or changed since it was opened.
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
            Self::JournalsData => f.write_str("its data goes through the journal (data=journal)"),
            Self::Changed => f.write_str("it was mounted or changed since it was opened"),
            Self::Groups(groups) => {
                write!(f, "it has {groups} block groups, at most {MOST_GROUPS} are supported")
            }
        }
    }
}

/// Why a file may not be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protected {
    /// It is immutable (chattr +i).
    Immutable,
    /// It may only be appended to (chattr +a).
    AppendOnly,
    /// fs-verity seals it.
    Verity,
    /// Its data goes through the journal (chattr +j).
    JournalsData,
    /// It is the filesystem's own: the journal, quotas, and other reserved inodes.
    System,
    /// It holds the value of an extended attribute, which has a hash.
    Attribute,
    /// Its data is inside of its inode (`inline_data`), which is metadata.
    InlineData,
    /// It was opened for reading, and put in the place of one that may be written to.
    NotOpened,
}

impl fmt::Display for Protected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Immutable => "it is immutable (chattr -i changes that)",
            Self::AppendOnly => "it is append-only (chattr -a changes that)",
            Self::Verity => "it is sealed by fs-verity",
            Self::JournalsData => "its data goes through the journal (chattr -j changes that)",
            Self::System => "it belongs to the filesystem itself",
            Self::Attribute => "it holds the value of an extended attribute",
            Self::InlineData => "its data is inside of its inode (inline_data)",
            Self::NotOpened => "it was not opened for writing",
        })
    }
}

/// A [`Filesystem`] whose files may be overwritten; see [`Filesystem::writable`].
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
    /// Has files of this filesystem be overwritten: the data that they have, and nothing else. No
    /// metadata is written, so that sizes, maps, and also times (mtime) stay as they are.
    ///
    /// Reads all group descriptors, in order to know what must never be written over. Nobody else
    /// may have the filesystem mounted, also not for reading, while it is written to; multi-mount
    /// protection is looked at, but is not taken.
    ///
    /// # Errors
    /// [`Error::NotWritable`], [`Error::NeedsRecovery`], [`Error::InUse`], as the filesystem is
    /// now; damage to a group descriptor or to the journal's inode; or the source fails.
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
    /// A file that the kernel has used for swapping is like any other here.
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
