//! What can go wrong when a filesystem is read.

use std::fmt;

use crate::blocks::source::SourceError;
use crate::file::writable::{NotWritable, Protected};
use crate::format::corrupt::Corrupt;
use crate::format::features::IncompatFeatures;
use crate::format::file_type::FileType;
use crate::recovery::journal::Uuid;
use crate::recovery::journal::WrongJournal;

/// An error of this crate. [`Display`](fmt::Display) gives one line, which says what to do next
/// where that is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no ext2, ext3 or ext4 superblock.
    #[error("not an ext4 filesystem: the magic number at byte 1080 is {magic:#06x}, not 0xef53")]
    NotExt4 {
        /// What stands where the magic number belongs.
        magic: u16,
    },
    /// The device ends before the filesystem does.
    #[error("truncated: the filesystem has {needed} bytes, the device only {device}")]
    Truncated {
        /// Bytes that the filesystem has, or that a superblock needs.
        needed: u64,
        /// Bytes that the device has.
        device: u64,
    },
    /// The filesystem's blocks are smaller than the device's.
    #[error(
        "the filesystem's blocks have {block} bytes, the device's {device}: it was made on \
         another kind of device"
    )]
    BlockTooSmall {
        /// Bytes in a block of the filesystem.
        block: u32,
        /// Bytes in a logical block of the device.
        device: u32,
    },
    /// The last user did not unmount; the newest metadata is in the journal. It is replayed in
    /// memory where a filesystem is only read, unless
    /// [`Recovery::Refuse`](crate::Recovery::Refuse) is asked for.
    #[error("the journal needs recovery: mount the filesystem once, or run e2fsck on it")]
    NeedsRecovery,
    /// The same, and the journal is on another device, which was not given.
    #[error(
        "the journal needs recovery, and is on another device, with UUID {}, which was not given",
        Uuid(uuid)
    )]
    NeedsJournal {
        /// UUID of the journal's device.
        uuid: [u8; 16],
    },
    /// The device that was given for the journal is not the filesystem's journal.
    #[error("external journal: {0}")]
    WrongJournal(Box<WrongJournal>),
    /// The journal uses features that this crate does not know.
    #[error(
        "the journal uses features that are not supported (incompat {incompat:#x}, ro_compat \
         {ro_compat:#x})"
    )]
    UnsupportedJournal {
        /// The incompatible features that are in the way, and only those.
        incompat: u32,
        /// The read-only compatible ones.
        ro_compat: u32,
    },
    /// The filesystem uses features that change the format in ways this crate does not know.
    #[error("{}", .features.refusal())]
    UnsupportedFeature {
        /// The features that are in the way, and only those.
        features: IncompatFeatures,
    },
    /// This inode needs a feature that is not supported; others of the filesystem can be read.
    #[error("inode {inode}: {what}")]
    UnsupportedInode {
        /// The inode's number.
        inode: u32,
        /// What it needs.
        what: Unsupported,
    },
    /// Multi-mount protection says that another host has the filesystem.
    #[error(
        "multi-mount protection: {0}; unmount it there, or if that host is gone run \
         tune2fs -E clear_mmp"
    )]
    InUse(Box<crate::mount::mmp::MmpHolder>),
    /// The filesystem is damaged.
    #[error("{0}")]
    Corrupt(Box<Corrupt>),
    /// No inode can have this number.
    #[error("there is no inode {inode}: inodes are numbered from 1 to {count}")]
    NoSuchInode {
        /// The number that was asked for.
        inode: u32,
        /// The filesystem's count of inodes.
        count: u32,
    },
    /// The inode is free.
    #[error("inode {inode} is not in use")]
    InodeNotInUse {
        /// The inode's number.
        inode: u32,
    },
    /// A component of the path does not exist.
    #[error("{path}: no such file or directory")]
    NotFound {
        /// The path as it was given.
        path: PathName,
    },
    /// Something other than a directory was used as one.
    #[error("{subject}: not a directory")]
    NotADirectory {
        /// What was used.
        subject: Subject,
    },
    /// A directory was used as a file.
    #[error("inode {inode}: is a directory")]
    IsADirectory {
        /// The inode's number.
        inode: u32,
    },
    /// Something that has no data, or a symbolic link, was used as a file.
    #[error("inode {inode}: is a {kind}, not a regular file")]
    NotAFile {
        /// The inode's number.
        inode: u32,
        /// What it is.
        kind: FileType,
    },
    /// Something other than a symbolic link was used as one.
    #[error("inode {inode}: is a {kind}, not a symbolic link")]
    NotASymlink {
        /// The inode's number.
        inode: u32,
        /// What it is.
        kind: FileType,
    },
    /// More than [`MAX_SYMLINKS`](crate::MAX_SYMLINKS) symbolic links in one lookup (ELOOP).
    #[error("{path}: more than 40 symbolic links")]
    SymlinkLoop {
        /// The path as it was given.
        path: PathName,
    },
    /// A component of a path is longer than 255 bytes (ENAMETOOLONG).
    #[error("a name of {length} bytes: names have at most 255")]
    NameTooLong {
        /// Length of the component, bytes.
        length: usize,
    },
    /// More directories in one another than anyone makes: they are not walked.
    #[error("inode {inode}: directories are nested more than {limit} deep")]
    TooDeep {
        /// Number of the directory's inode.
        inode: u32,
        /// The limit.
        limit: usize,
    },
    /// The answer needs metadata from the device and [`Op::NOWAIT`](nvio_iomap::Op::NOWAIT)
    /// forbids that (EAGAIN).
    #[error("inode {inode}: the mapping of position {pos} is not cached")]
    WouldBlock {
        /// The file's inode number.
        inode: u32,
        /// The position that was to be mapped, bytes.
        pos: u64,
    },
    /// The filesystem may be read, but not written to.
    #[error("the filesystem cannot be written to: {0}")]
    NotWritable(NotWritable),
    /// This file may be read, but not written to.
    #[error("inode {inode} cannot be written to: {why}")]
    Protected {
        /// The file's inode number.
        inode: u32,
        /// Why.
        why: Protected,
    },
    /// A hole was to be overwritten, which would need blocks. Nothing was written.
    #[error("inode {inode}: position {pos} is in a hole, and no blocks are allocated here")]
    Hole {
        /// The file's inode number.
        inode: u32,
        /// The first such position, bytes.
        pos: u64,
    },
    /// Blocks that have never been written were to be overwritten, which would change the map.
    /// Nothing was written.
    #[error(
        "inode {inode}: position {pos} is preallocated and was never written, and maps are not \
         changed here"
    )]
    Unwritten {
        /// The file's inode number.
        inode: u32,
        /// The first such position, bytes.
        pos: u64,
    },
    /// A write would go past the end of the file, whose size does not change here. Nothing was
    /// written.
    #[error("inode {inode}: a write up to byte {end} of a file of {size} bytes: it cannot grow")]
    PastEnd {
        /// The file's inode number.
        inode: u32,
        /// First byte behind the range.
        end: u64,
        /// Size of the file, bytes.
        size: u64,
    },
    /// The queue is one of another disk or partition than the filesystem's.
    #[error("a queue to {queue} bytes, but the filesystem is on a device of {device}")]
    OtherDevice {
        /// Size of the queue's disk or partition, bytes.
        queue: u64,
        /// Size of the filesystem's, bytes.
        device: u64,
    },
    /// A mapping was asked for in order to write, of a file that is open for reading.
    #[error("inode {inode}: it is open for reading only")]
    ReadOnly {
        /// The file's inode number.
        inode: u32,
    },
    /// Inline data was asked of a file that has none.
    #[error("inode {inode}: has no inline data")]
    NoInlineData {
        /// The file's inode number.
        inode: u32,
    },
    /// Metadata could not be read from the device.
    #[error("reading {length} bytes of metadata at byte {offset}: {error}")]
    Source {
        /// Byte offset from the start of the filesystem.
        offset: u64,
        /// Bytes that were to be read.
        length: usize,
        /// What the [`Source`](crate::Source) said.
        #[source]
        error: SourceError,
    },
    /// The mapping layer refused.
    #[error(transparent)]
    Iomap(Box<nvio_iomap::Error>),
}

impl From<nvio_iomap::Error> for Error {
    fn from(error: nvio_iomap::Error) -> Self {
        Self::Iomap(Box::new(error))
    }
}

impl nvio_iomap::FileError for Error {
    fn is_again(&self) -> bool {
        match self {
            Self::WouldBlock { .. } => true,
            Self::Iomap(error) => error.is_again(),
            _ => false,
        }
    }

    fn is_busy(&self) -> bool {
        matches!(self, Self::Iomap(error) if error.is_busy())
    }

    fn is_fall_back(&self) -> bool {
        matches!(self, Self::Iomap(error) if error.is_fall_back())
    }
}

impl Error {
    /// Whether the caller asked for what cannot be done: nothing has failed.
    pub(crate) fn is_refusal(&self) -> bool {
        use nvio_iomap::Error as Iomap;
        match self {
            Self::ReadOnly { .. }
            | Self::Protected { .. }
            | Self::Hole { .. }
            | Self::Unwritten { .. }
            | Self::PastEnd { .. }
            | Self::OtherDevice { .. } => true,
            Self::Iomap(error) => matches!(
                **error,
                Iomap::Misaligned { .. }
                    | Iomap::MisalignedMemory { .. }
                    | Iomap::NotAtomic { .. }
                    | Iomap::Flags(_)
                    | Iomap::Fault { .. }
            ),
            _ => false,
        }
    }
}

/// A feature of one inode that is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsupported {
    /// The contents are encrypted (`encrypt`), and there is no key.
    Encrypted,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encrypted => "is encrypted (feature encrypt), which is not supported",
        })
    }
}

/// What an error is about: an inode, or a path where one is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An inode, by number.
    Inode(u32),
    /// A path as it was given.
    Path(PathName),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inode(inode) => write!(f, "inode {inode}"),
            Self::Path(path) => path.fmt(f),
        }
    }
}

/// A path in an error: any bytes, shown on one line with what is not printable escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathName(Box<[u8]>);

impl PathName {
    /// The bytes of the path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for PathName {
    fn from(path: &[u8]) -> Self {
        Self(path.into())
    }
}

impl fmt::Display for PathName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_stay_small() {
        assert!(size_of::<Error>() <= 40, "{}", size_of::<Error>());
    }

    #[test]
    fn paths_print_on_one_line() {
        let path = PathName::from(&b"/a\nb\xffc\x1b/\xc3\xa4"[..]);
        assert_eq!(path.to_string(), "/a\\nb\\xffc\\u{1b}/\u{e4}");
    }

    #[test]
    fn one_line_messages() {
        let error = Error::NotADirectory { subject: Subject::Path(b"/etc/x".as_slice().into()) };
        assert_eq!(error.to_string(), "/etc/x: not a directory");
        let error = Error::NotAFile { inode: 12, kind: FileType::Fifo };
        assert_eq!(error.to_string(), "inode 12: is a fifo, not a regular file");
    }
}
