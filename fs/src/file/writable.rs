//! The conditions under which a filesystem and its files may be written to.

use std::ops::Deref;
use std::sync::Arc;

use crate::file::system_zone;

use crate::error::Error;
use crate::error::reasons::{GROUPS_MAX, NotWritable, Protected};
use crate::file::system_zone::SystemZone;
use crate::file::writable_file::WritableFile;
use crate::filesystem::Filesystem;
use crate::format::features::{IncompatFeatures, RoCompatFeatures};
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::mount::mmp;

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
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::NotWritable`], [`Error::NeedsRecovery`] or [`Error::InUse`], according to the
    /// current superblock; damage to a group descriptor, to the journal's inode, or any other that
    /// was found before; a failure of the source.
    pub fn writable(&self) -> Result<WritableFilesystem, Error> {
        let refuse = |why| Err(Error::NotWritable(why));
        if self.options().is_rescue() {
            return refuse(NotWritable::Rescue);
        }
        let now = self.metadata().superblock_now()?;
        if now.has(IncompatFeatures::RECOVER) {
            return Err(Error::NeedsRecovery);
        }
        let unknown = now.ro_compat.bits() & !RoCompatFeatures::OVERWRITABLE.bits();
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
            () if now.groups_count() > GROUPS_MAX => {
                return refuse(NotWritable::Groups(now.groups_count()));
            }
            () => (),
        }
        mmp::check(self)?;
        let system_zone = Arc::new(SystemZone::of(self)?);
        match self.metadata().damage().first() {
            Some(damage) => Err(Error::Corrupt(Box::new(damage))),
            None => Ok(WritableFilesystem { fs: self.clone(), system_zone }),
        }
    }
}

impl WritableFilesystem {
    /// Opens the regular file `inode` for reading and overwriting.
    ///
    /// Swap files are not recognised: the kernel does not mark them.
    ///
    /// See the [example](crate::WritableFile#examples).
    ///
    /// # Errors
    /// As [`Filesystem::file`]; [`Error::Protected`].
    pub fn writable_file(&self, inode: &Inode) -> Result<WritableFile, Error> {
        let file = self.fs.file(inode)?;
        let number = inode.number();
        let reserved = number < self.superblock().geometry.first_inode;
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
