//! Reasons to reject a filesystem, a journal or a file.

use std::fmt;

use crate::error::path_name::PathName;
use crate::format::features::{IncompatFeatures, RoCompatFeatures};
use crate::format::uuid::Uuid;

/// Sequence number while e2fsck checks the filesystem.
pub(crate) const SEQUENCE_FSCK: u32 = 0xe24d_4d50;

/// Maximum number of block groups of a writable filesystem, because the place of each group's
/// metadata is kept in memory. This is 256 TiB with blocks of 4 KiB.
pub(crate) const GROUPS_MAX: u32 = 1 << 21;

/// The reason why a filesystem cannot be written to.
///
/// See the [example](crate::WritableFile#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotWritable {
    /// The filesystem was not unmounted cleanly, or is mounted.
    #[error("it was not unmounted cleanly; run e2fsck")]
    NotClean,
    /// The kernel recorded errors in the filesystem.
    #[error("the kernel has found errors in it; run e2fsck")]
    HasErrors,
    /// The filesystem has orphans, which the next mount must remove or truncate.
    #[error("it has orphaned inodes; mount it once, or run e2fsck")]
    HasOrphans,
    /// The filesystem has features that forbid writes, or that this crate does not support.
    #[error("unsupported ro_compat features: {0}")]
    Features(RoCompatFeatures),
    /// The filesystem has features with which metadata cannot be changed.
    #[error("metadata cannot be changed with incompat features: {0}")]
    IncompatFeatures(IncompatFeatures),
    /// The filesystem has no journal, which changes need.
    #[error("it has no journal; tune2fs -j adds one")]
    NoJournal,
    /// The journal is on another device.
    #[error("its journal is on another device, which changes do not support")]
    ExternalJournal,
    /// The filesystem was not unmounted, and its journal has fast commits that are not supported, such as
    /// those of symbolic links and devices.
    #[error("its journal has fast commits that cannot be replayed here; mount it once")]
    FastCommits,
    /// The filesystem journals all data (`data=journal`).
    #[error("its data is journaled (data=journal)")]
    JournalsData,
    /// The filesystem was opened with an option for rescuing data.
    #[error("it was opened with an option for rescuing data, which is for reading only")]
    Rescue,
    /// The filesystem was mounted or changed after it was opened here.
    #[error("it was mounted or changed since it was opened")]
    Changed,
    /// The filesystem has this many block groups, more than are supported.
    #[error("it has {0} block groups, the maximum is {GROUPS_MAX}")]
    Groups(u32),
}

/// The reason why a file cannot be written to.
///
/// See the [example](crate::WritableFile#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Protected {
    /// The file is immutable (chattr +i).
    #[error("it is immutable (chattr -i removes the flag)")]
    Immutable,
    /// The file may only be appended to (chattr +a).
    #[error("it is append-only (chattr -a removes the flag)")]
    AppendOnly,
    /// The file is protected by fs-verity.
    #[error("it is protected by fs-verity")]
    Verity,
    /// The data of the file is journaled (chattr +j).
    #[error("its data is journaled (chattr -j removes the flag)")]
    JournalsData,
    /// The file belongs to the filesystem itself: the journal, a quota file, or another reserved
    /// inode.
    #[error("it belongs to the filesystem itself")]
    System,
    /// The file holds the value of an extended attribute, whose hash would become wrong.
    #[error("it holds the value of an extended attribute")]
    Attribute,
    /// The data of the file is inside its inode (`inline_data`), which is metadata.
    #[error("its data is inside its inode (inline_data)")]
    InlineData,
    /// A directory has one name, so that there are no loops.
    #[error("it is a directory, which has one name only")]
    Directory,
    /// The caller replaced the file in a [`WritableFile`](crate::WritableFile) by one that was
    /// opened for reading.
    #[error("it was not opened for writing")]
    NotOpened,
}

/// The reason why a device is not the journal of a filesystem.
///
/// See the [example](crate::Filesystem#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WrongJournal {
    /// The filesystem has an internal journal, or none.
    #[error("the filesystem has no journal on another device")]
    NotExternal,
    /// The device is not an external journal.
    #[error("the device is not an external journal")]
    NotAJournal,
    /// The device has another UUID than the filesystem's journal.
    #[error("the device has another UUID, {}", Uuid(found))]
    Uuid {
        /// UUID of the device.
        found: [u8; 16],
    },
    /// The journal has this number of users instead of one.
    #[error("it is shared by {0} filesystems, the maximum is 1")]
    Users(u32),
    /// The only user of the journal is another filesystem.
    #[error("its user is another filesystem, with UUID {}", Uuid(user))]
    User {
        /// UUID of the other filesystem.
        user: [u8; 16],
    },
}

/// The reason why a range cannot be taken out of a file, or put in.
///
/// See the [example](crate::JournaledFilesystem#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadRange {
    /// The position or the length is not a multiple of the block size, or the length is 0.
    #[error("the range is not of whole blocks of {block_size} bytes")]
    NotWholeBlocks {
        /// Size of a block of the filesystem, bytes.
        block_size: u32,
    },
    /// A range to take out must end before the end of the file.
    #[error("the range does not end before the end of the file, which has {size} bytes")]
    EndsAfter {
        /// Size of the file, bytes.
        size: u64,
    },
    /// A range to put in must begin before the end of the file.
    #[error("the range does not begin before the end of the file, which has {size} bytes")]
    BeginsAfter {
        /// Size of the file, bytes.
        size: u64,
    },
}

/// The reason why an extended attribute cannot be set or removed.
///
/// See the [example](crate::JournaledFilesystem#attributes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadAttribute {
    /// The name is longer than 255 bytes (ERANGE).
    #[error("the name of the attribute has {length} bytes, the maximum is 255")]
    NameTooLong {
        /// Length of the name, bytes.
        length: usize,
    },
    /// No attribute of a program has such a name (EOPNOTSUPP).
    #[error(
        "the name of the attribute must begin with user., trusted. or security., or be one of system.posix_acl_access and system.posix_acl_default"
    )]
    Name,
    /// The value is longer than 64 KiB (E2BIG).
    #[error("the value of the attribute has {length} bytes, the maximum is 65536")]
    ValueTooLong {
        /// Length of the value, bytes.
        length: usize,
    },
    /// The attribute was to be created, but exists (EEXIST).
    #[error("the attribute exists")]
    Exists,
    /// The attribute was to be replaced or removed, but does not exist (ENODATA).
    #[error("the attribute does not exist")]
    Missing,
    /// Neither the inode nor a block has room for the attribute besides the others (ENOSPC).
    #[error("no room for the attribute: all attributes of an inode share a block")]
    NoRoom,
    /// Only files and directories have attributes whose names begin with `user.` (EPERM).
    #[error("only files and directories have attributes of users")]
    UserOfOther,
    /// Symbolic links have no access control lists (EOPNOTSUPP).
    #[error("symbolic links have no access control lists")]
    ListOfLink,
    /// Only directories have default access control lists (EACCES).
    #[error("only directories have default access control lists")]
    DefaultOfOther,
    /// The value is not an access control list, or one that misses entries (EINVAL).
    #[error("the value is not a complete access control list")]
    List,
}

/// The host that uses the filesystem, according to the multi-mount protection block.
///
/// See the [example](crate::Error#examples).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MmpHolder {
    /// Name of the host that last wrote the block.
    pub node: PathName,
    /// Name of the device on that host.
    pub device: PathName,
    /// Sequence number, which a live host increments.
    pub sequence: u32,
}

impl fmt::Display for MmpHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, device, sequence } = self;
        if *sequence == SEQUENCE_FSCK {
            write!(f, "e2fsck is running on host '{node}', device '{device}'")
        } else {
            write!(f, "in use by host '{node}', device '{device}' (sequence {sequence:#x})")
        }
    }
}
