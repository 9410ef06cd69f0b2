//! Reasons to reject a filesystem, a journal or a file.

use std::fmt;

use crate::error::path_name::PathName;
use crate::format::features::RoCompatFeatures;
use crate::format::uuid::Uuid;

/// Sequence number while e2fsck checks the filesystem.
pub(crate) const SEQUENCE_FSCK: u32 = 0xe24d_4d50;
/// Maximum number of block groups of a writable filesystem, because the place of each group's
/// metadata is kept in memory. This is 256 TiB with blocks of 4 KiB.
pub(crate) const GROUPS_MAX: u32 = 1 << 21;

/// The reason why a filesystem cannot be written to.
///
/// See the [example](crate::WritableFile#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotWritable {
    /// The filesystem was not unmounted cleanly, or is mounted.
    NotClean,
    /// The kernel recorded errors in the filesystem.
    HasErrors,
    /// The filesystem has orphans, which the next mount must remove or truncate.
    HasOrphans,
    /// The filesystem has features that forbid writes, or that this crate does not support.
    Features(RoCompatFeatures),
    /// The filesystem journals all data (`data=journal`).
    JournalsData,
    /// The filesystem was mounted or changed after it was opened here.
    Changed,
    /// The filesystem has this many block groups, more than are supported.
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
                write!(f, "it has {groups} block groups, the maximum is {GROUPS_MAX}")
            }
        }
    }
}

/// The reason why a file cannot be written to.
///
/// See the [example](crate::WritableFile#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protected {
    /// The file is immutable (chattr +i).
    Immutable,
    /// The file may only be appended to (chattr +a).
    AppendOnly,
    /// The file is protected by fs-verity.
    Verity,
    /// The data of the file is journaled (chattr +j).
    JournalsData,
    /// The file belongs to the filesystem itself: the journal, a quota file, or another reserved
    /// inode.
    System,
    /// The file holds the value of an extended attribute, whose hash would become wrong.
    Attribute,
    /// The data of the file is inside its inode (`inline_data`), which is metadata.
    InlineData,
    /// The caller replaced the file in a [`WritableFile`](crate::WritableFile) by one that was
    /// opened for reading.
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

/// The reason why a device is not the journal of a filesystem.
///
/// See the [example](crate::Filesystem#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WrongJournal {
    /// The filesystem has an internal journal, or none.
    NotExternal,
    /// The device is not an external journal.
    NotAJournal,
    /// The device has another UUID than the filesystem's journal.
    Uuid {
        /// UUID of the device.
        found: [u8; 16],
    },
    /// The journal has this number of users instead of one.
    Users(u32),
    /// The only user of the journal is another filesystem.
    User {
        /// UUID of the other filesystem.
        user: [u8; 16],
    },
}

impl fmt::Display for WrongJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotExternal => f.write_str("the filesystem has no journal on another device"),
            Self::NotAJournal => f.write_str("the device is not an external journal"),
            Self::Uuid { found } => {
                write!(f, "the device has another UUID, {}", Uuid(found))
            }
            Self::Users(users) => {
                write!(f, "it is shared by {users} filesystems, the maximum is 1")
            }
            Self::User { user } => {
                write!(f, "its user is another filesystem, with UUID {}", Uuid(user))
            }
        }
    }
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
