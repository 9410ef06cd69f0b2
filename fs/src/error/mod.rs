//! The errors of this crate.

pub(crate) mod path_name;
pub(crate) mod reasons;

use std::fmt;
use std::io::{self, ErrorKind};

use nvio_iomap::FileError;

use crate::blocks::source::SourceError;
use crate::error::path_name::PathName;
use crate::error::reasons::{
    BadAttribute, BadRange, MmpHolder, NotWritable, Protected, WrongJournal,
};
use crate::format::corrupt::{Corrupt, Problem, Structure};
use crate::format::features::IncompatFeatures;
use crate::format::file_type::FileType;
use crate::format::superblock_copy::SuperblockCopy;
use crate::format::uuid::Uuid;
use crate::number::InodeNumber;

/// An error of this crate. [`Display`](fmt::Display) prints one line, with the next step for the
/// user where there is one.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// # let fs = nvio_ext4::Filesystem::open(std::fs::File::open(&image)?)?;
/// use std::io::ErrorKind;
///
/// use nvio_ext4::{Error, Subject};
///
/// let error = fs.lookup("/etc/missing").unwrap_err();
/// assert_eq!(error.to_string(), "/etc/missing: no such file or directory");
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert!(matches!(error, Error::NotFound { .. }));
/// assert_eq!(std::io::Error::from(error).kind(), ErrorKind::NotFound);
///
/// let error = fs.read_dir(&fs.lookup("/hello.txt")?).unwrap_err();
/// assert!(matches!(error, Error::NotADirectory { subject: Subject::Inode(_), .. }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device has no ext2, ext3 or ext4 superblock.
    #[error("not an ext4 filesystem: the magic number at byte 1080 is {magic:#06x}, not 0xef53")]
    NotExt4 {
        /// The number found at the place of the magic number.
        magic: u16,
    },
    /// The superblock cannot be used, but there are copies of it.
    #[error("{error}; copies of the superblock are in blocks {}", list(.copies))]
    BadSuperblock {
        /// The error of the superblock.
        error: Box<Error>,
        /// The first copies that were found.
        copies: Box<[SuperblockCopy]>,
    },
    /// The device is smaller than the filesystem.
    #[error("truncated: the filesystem has {needed} bytes, the device only {device}")]
    Truncated {
        /// Size of the filesystem or of the superblock, bytes.
        needed: u64,
        /// Size of the device, bytes.
        device: u64,
    },
    /// The filesystem's block size is smaller than the device's.
    #[error(
        "the filesystem's block size is {block} bytes, but the device's is {device}: the filesystem \
         was created on a device with smaller blocks"
    )]
    BlockTooSmall {
        /// Block size of the filesystem, bytes.
        block: u32,
        /// Logical block size of the device, bytes.
        device: u32,
    },
    /// The filesystem was not unmounted, and its newest metadata is in the journal. A filesystem
    /// that is only read is recovered in memory, unless
    /// [`Recovery::Refuse`](crate::Recovery::Refuse) is set; one that is written to must be
    /// recovered first.
    #[error("the journal needs recovery: mount the filesystem once, or run e2fsck on it")]
    NeedsRecovery,
    /// The journal needs recovery, and is on another device, which was not passed to `open`.
    #[error(
        "the journal needs recovery, and is on another device, with UUID {}, which was not passed",
        Uuid(uuid)
    )]
    NeedsJournal {
        /// UUID of the journal's device.
        uuid: [u8; 16],
    },
    /// The device that was passed as the journal does not hold this filesystem's journal.
    #[error("external journal: {0}")]
    WrongJournal(Box<WrongJournal>),
    /// The journal uses features that this crate does not support.
    #[error(
        "the journal uses features that are not supported (incompat {incompat:#x}, ro_compat \
         {ro_compat:#x})"
    )]
    UnsupportedJournal {
        /// The unsupported incompatible features, and only those.
        incompat: u32,
        /// The unsupported read-only compatible features, and only those.
        ro_compat: u32,
    },
    /// The filesystem uses incompatible features that this crate does not support.
    #[error("{}", .features.refusal())]
    UnsupportedFeature {
        /// The unsupported features, and only those.
        features: IncompatFeatures,
    },
    /// This inode needs an unsupported feature; other inodes can be read.
    #[error("inode {inode}: {what}")]
    UnsupportedInode {
        /// Number of the inode.
        inode: InodeNumber,
        /// The unsupported feature.
        what: Unsupported,
    },
    /// Multi-mount protection: another host has mounted the filesystem, or e2fsck is checking it.
    #[error(
        "multi-mount protection: {0}; unmount it there, or, if that host is gone, run \
         tune2fs -E clear_mmp"
    )]
    InUse(Box<MmpHolder>),
    /// The filesystem is damaged.
    #[error("{0}")]
    Corrupt(Box<Corrupt>),
    /// The inode number is 0 or larger than the count of inodes.
    #[error("there is no inode {inode}: inodes are numbered from 1 to {count}")]
    NoSuchInode {
        /// The requested number.
        inode: InodeNumber,
        /// The filesystem's count of inodes.
        count: u32,
    },
    /// The inode is free.
    #[error("inode {inode} is not in use")]
    InodeNotInUse {
        /// Number of the inode.
        inode: InodeNumber,
    },
    /// A component of the path does not exist.
    #[error("{path}: no such file or directory")]
    NotFound {
        /// The path as the caller passed it.
        path: PathName,
    },
    /// A file that is not a directory was used as one.
    #[error("{subject}: not a directory")]
    NotADirectory {
        /// The file.
        subject: Subject,
    },
    /// A directory was used as a file.
    #[error("inode {inode}: is a directory")]
    IsADirectory {
        /// Number of the inode.
        inode: InodeNumber,
    },
    /// A file without data, or a symbolic link, was used as a regular file.
    #[error("inode {inode}: is a {kind}, not a regular file")]
    NotAFile {
        /// Number of the inode.
        inode: InodeNumber,
        /// Type of the inode.
        kind: FileType,
    },
    /// A file that is not a symbolic link was used as one.
    #[error("inode {inode}: is a {kind}, not a symbolic link")]
    NotASymlink {
        /// Number of the inode.
        inode: InodeNumber,
        /// Type of the inode.
        kind: FileType,
    },
    /// More than [`MAX_SYMLINKS`](crate::MAX_SYMLINKS) symbolic links in one lookup (ELOOP).
    #[error("{path}: more than 40 symbolic links")]
    SymlinkLoop {
        /// The path as the caller passed it.
        path: PathName,
    },
    /// A component of a path is longer than 255 bytes (ENAMETOOLONG).
    #[error("the name has {length} bytes, the maximum is 255")]
    NameTooLong {
        /// Length of the component, bytes.
        length: usize,
    },
    /// Directories are nested deeper than the limit of a walk.
    #[error("inode {inode}: directories are nested more than {limit} deep")]
    TooDeep {
        /// Number of the directory's inode.
        inode: InodeNumber,
        /// The limit, directories.
        limit: usize,
    },
    /// The mapping is not cached, and [`Op::NOWAIT`](nvio_iomap::Op::NOWAIT) forbids metadata I/O
    /// (EAGAIN).
    #[error("inode {inode}: the mapping of position {pos} is not cached")]
    WouldBlock {
        /// The file's inode number.
        inode: InodeNumber,
        /// The position to map, bytes.
        pos: u64,
    },
    /// The filesystem can be read, but not written to.
    #[error("the filesystem cannot be written to: {0}")]
    NotWritable(NotWritable),
    /// This file can be read, but not written to.
    #[error("inode {inode} cannot be written to: {why}")]
    Protected {
        /// The file's inode number.
        inode: InodeNumber,
        /// The reason.
        why: Protected,
    },
    /// A hole was to be overwritten, which would need blocks. Nothing was written.
    #[error("inode {inode}: position {pos} is in a hole, and blocks cannot be allocated")]
    Hole {
        /// The file's inode number.
        inode: InodeNumber,
        /// The first position in a hole, bytes.
        pos: u64,
    },
    /// The range to overwrite contains unwritten blocks, and this crate does not convert
    /// extents. Nothing was written.
    #[error(
        "inode {inode}: position {pos} is in an unwritten extent, and extents cannot be converted"
    )]
    Unwritten {
        /// The file's inode number.
        inode: InodeNumber,
        /// The first position in a hole, bytes.
        pos: u64,
    },
    /// A write would go past the end of the file, whose size does not change here. Nothing was
    /// written.
    #[error(
        "inode {inode}: the write ends at byte {end}, but the file has {size} bytes and cannot grow"
    )]
    PastEnd {
        /// The file's inode number.
        inode: InodeNumber,
        /// First byte after the range.
        end: u64,
        /// Size of the file, bytes.
        size: u64,
    },
    /// The queue is one of another disk or partition than the filesystem's.
    #[error("the queue's device has {queue} bytes, but the filesystem's has {device}")]
    OtherDevice {
        /// Size of the queue's disk or partition, bytes.
        queue: u64,
        /// Size of the filesystem's disk or partition, bytes.
        device: u64,
    },
    /// The file is open in another cache.
    #[error("inode {inode} is open in another cache: close it there first")]
    OtherCache {
        /// The file's inode number.
        inode: InodeNumber,
    },
    /// A mapping was asked for in order to write, of a file that is open for reading.
    #[error("inode {inode} is open for reading only")]
    ReadOnly {
        /// The file's inode number.
        inode: InodeNumber,
    },
    /// Inline data was asked of a file that has none.
    #[error("inode {inode} has no inline data")]
    NoInlineData {
        /// The file's inode number.
        inode: InodeNumber,
    },
    /// Metadata could not be read from the device.
    #[error("reading {length} bytes of metadata at byte {offset}: {error}")]
    Source {
        /// Byte offset from the start of the filesystem.
        offset: u64,
        /// Length of the read, bytes.
        length: usize,
        /// The error of the [`BlockSource`](crate::BlockSource).
        #[source]
        error: SourceError,
    },
    /// Metadata could not be written to the device.
    #[error("writing {length} bytes of metadata at byte {offset}: {error}")]
    Sink {
        /// Byte offset from the start of the filesystem.
        offset: u64,
        /// Length of the write, bytes; 0 for a flush.
        length: usize,
        /// The error of the [`BlockDevice`](crate::BlockDevice).
        #[source]
        error: SourceError,
    },
    /// The file would be larger than its map, or the filesystem, allows (EFBIG).
    #[error("inode {inode}: the file would be too large")]
    FileTooLarge {
        /// The file's inode number.
        inode: InodeNumber,
    },
    /// A range cannot be taken out of a file, or put in (EINVAL).
    #[error("inode {inode}: {why}")]
    BadRange {
        /// The file's inode number.
        inode: InodeNumber,
        /// The reason.
        why: BadRange,
    },
    /// An extended attribute cannot be set or removed.
    #[error("inode {inode}: {why}")]
    BadAttribute {
        /// Number of the inode.
        inode: InodeNumber,
        /// The reason.
        why: BadAttribute,
    },
    /// Blocks cannot be moved, because writes to them have not ended.
    #[error("inode {inode} has writes in flight to blocks that would move: wait for them first")]
    InFlight {
        /// The file's inode number.
        inode: InodeNumber,
    },
    /// No inode is free.
    #[error("no free inode is left on the filesystem")]
    NoInodes,
    /// No block is free.
    #[error("no space left on the filesystem")]
    NoSpace,
    /// The hash tree of a directory has as many levels and nodes as it can have (ENOSPC).
    #[error("directory, inode {inode}: its hash tree is full")]
    DirectoryFull {
        /// Number of the directory's inode.
        inode: InodeNumber,
    },
    /// The directory has an entry of this name already (EEXIST).
    #[error("{name}: exists already")]
    AlreadyExists {
        /// The name.
        name: PathName,
    },
    /// No entry can have this name: it is empty, "." or "..", or has a slash or a zero byte (EINVAL).
    #[error("{name:?}: not a possible name", name = .name.to_string())]
    InvalidName {
        /// The name.
        name: PathName,
    },
    /// A directory that is to be replaced has entries (ENOTEMPTY).
    #[error("directory, inode {inode}: is not empty")]
    DirectoryNotEmpty {
        /// Number of the directory's inode.
        inode: InodeNumber,
    },
    /// The inode has as many links as its count of links allows (EMLINK).
    #[error("inode {inode}: has too many links")]
    TooManyLinks {
        /// Number of the inode.
        inode: InodeNumber,
    },
    /// The inode has another project id than the directory, which hands its own down (EXDEV).
    #[error("inode {inode}: has another project id than the directory")]
    OtherProject {
        /// Number of the inode.
        inode: InodeNumber,
    },
    /// A directory was to be moved into itself, or below itself (EINVAL).
    #[error("directory, inode {inode}: cannot be moved into itself")]
    IntoItself {
        /// Number of the directory's inode.
        inode: InodeNumber,
    },
    /// A change has more blocks than the journal has room for.
    #[error(
        "a change of {blocks} blocks does not fit into the journal, which has room for {limit}"
    )]
    ChangeTooLarge {
        /// Number of blocks of the change.
        blocks: usize,
        /// Maximum number of blocks of a change.
        limit: usize,
    },
    /// A write to the journal failed before, so that nothing can be changed until the filesystem is
    /// opened again.
    #[error(
        "a write to the journal failed: nothing can be changed until the filesystem is reopened"
    )]
    JournalAborted,
    /// The filesystem was closed, and can only be read through the handles that are left.
    #[error("the filesystem was closed: nothing can be changed any more")]
    Closed,
    /// The mapping layer rejected the request.
    #[error(transparent)]
    Iomap(Box<nvio_iomap::Error>),
}

impl Structure {
    /// Returns the error for `problem` in this structure.
    #[cold]
    pub(crate) fn corrupt(self, problem: Problem) -> Error {
        Error::Corrupt(Box::new(Corrupt::new(self, problem)))
    }

    /// Returns an error unless `good`: the value of `field` violates `rule`.
    pub(crate) fn ensure(
        self,
        good: bool,
        field: &'static str,
        value: impl Into<u64>,
        rule: &'static str,
    ) -> Result<(), Error> {
        let value = value.into();
        if good { Ok(()) } else { Err(self.corrupt(Problem::Field { field, value, rule })) }
    }
}

impl Error {
    /// Returns the kind of the [`io::Error`] that this error converts to. If the operating system
    /// reported an error to the source or the queue, the kind is the one of that error.
    ///
    /// See the [example](Self#examples).
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::NoSuchInode { .. } | Self::InodeNotInUse { .. } => {
                ErrorKind::NotFound
            }
            Self::NotADirectory { .. } => ErrorKind::NotADirectory,
            Self::IsADirectory { .. } => ErrorKind::IsADirectory,
            Self::NotAFile { .. }
            | Self::NotASymlink { .. }
            | Self::SymlinkLoop { .. }
            | Self::TooDeep { .. }
            | Self::BadRange { .. }
            | Self::InvalidName { .. }
            | Self::IntoItself { .. }
            | Self::OtherDevice { .. } => ErrorKind::InvalidInput,
            Self::NameTooLong { .. } => ErrorKind::InvalidFilename,
            Self::BadAttribute { why, .. } => match why {
                BadAttribute::NameTooLong { .. } | BadAttribute::List => ErrorKind::InvalidInput,
                BadAttribute::Name | BadAttribute::ListOfLink => ErrorKind::Unsupported,
                BadAttribute::ValueTooLong { .. } => ErrorKind::ArgumentListTooLong,
                BadAttribute::Exists => ErrorKind::AlreadyExists,
                BadAttribute::Missing => ErrorKind::NotFound,
                BadAttribute::NoRoom => ErrorKind::StorageFull,
                BadAttribute::UserOfOther | BadAttribute::DefaultOfOther => {
                    ErrorKind::PermissionDenied
                }
            },
            Self::WouldBlock { .. } => ErrorKind::WouldBlock,
            Self::NotWritable(_) | Self::NeedsRecovery | Self::JournalAborted | Self::Closed => {
                ErrorKind::ReadOnlyFilesystem
            }
            Self::Protected { .. } | Self::ReadOnly { .. } => ErrorKind::PermissionDenied,
            Self::PastEnd { .. } | Self::FileTooLarge { .. } => ErrorKind::FileTooLarge,
            Self::NoSpace | Self::NoInodes | Self::DirectoryFull { .. } => ErrorKind::StorageFull,
            Self::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            Self::DirectoryNotEmpty { .. } => ErrorKind::DirectoryNotEmpty,
            Self::TooManyLinks { .. } => ErrorKind::TooManyLinks,
            Self::OtherProject { .. } => ErrorKind::CrossesDevices,
            Self::ChangeTooLarge { .. } => ErrorKind::FileTooLarge,
            Self::UnsupportedFeature { .. }
            | Self::UnsupportedInode { .. }
            | Self::UnsupportedJournal { .. }
            | Self::Hole { .. }
            | Self::Unwritten { .. } => ErrorKind::Unsupported,
            Self::InUse(_) | Self::OtherCache { .. } | Self::InFlight { .. } => {
                ErrorKind::ResourceBusy
            }
            Self::NotExt4 { .. }
            | Self::BadSuperblock { .. }
            | Self::Truncated { .. }
            | Self::BlockTooSmall { .. }
            | Self::WrongJournal(_)
            | Self::Corrupt(_) => ErrorKind::InvalidData,
            Self::Iomap(error) if error.is_again() => ErrorKind::WouldBlock,
            Self::Iomap(error) => system_kind(&**error),
            Self::Source { error, .. } | Self::Sink { error, .. } => system_kind(&**error),
            Self::NeedsJournal { .. } | Self::NoInlineData { .. } => ErrorKind::Other,
        }
    }
}

/// Joins the places of copies by commas.
fn list(copies: &[SuperblockCopy]) -> String {
    copies.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns the kind of the first error of the operating system among an error and its causes.
fn system_kind(error: &(dyn std::error::Error + 'static)) -> ErrorKind {
    let causes = std::iter::successors(Some(error), |&cause| cause.source());
    let mut kinds = causes.filter_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
    kinds.next().unwrap_or(ErrorKind::Other)
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<Corrupt> for Error {
    fn from(damage: Corrupt) -> Self {
        Self::Corrupt(Box::new(damage))
    }
}

impl From<nvio_iomap::Error> for Error {
    fn from(error: nvio_iomap::Error) -> Self {
        Self::Iomap(Box::new(error))
    }
}

impl FileError for Error {
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
    /// Returns true if the request was invalid or unsupported, and no I/O has failed.
    pub(crate) fn is_refusal(&self) -> bool {
        use nvio_iomap::Error as Iomap;
        match self {
            Self::ReadOnly { .. }
            | Self::Protected { .. }
            | Self::Hole { .. }
            | Self::Unwritten { .. }
            | Self::PastEnd { .. }
            | Self::OtherDevice { .. }
            | Self::OtherCache { .. } => true,
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

/// A feature that is unsupported for an inode.
///
/// See the [example](Error#examples).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsupported {
    /// The contents are encrypted (`encrypt`), and this crate has no key.
    #[error("is encrypted (feature encrypt), which is not supported")]
    Encrypted,
    /// The file has block pointers instead of extents, and its map cannot be changed.
    #[error("has block pointers instead of extents, whose change is not supported")]
    IndirectBlocks,
    /// The directory ignores case (`casefold`), and its entries cannot be changed.
    #[error("ignores case (feature casefold), which changes do not support")]
    CaseFolded,
    /// The directory has a hash tree that other programs may not use, or hash in another way, because of
    /// features or flags of the filesystem.
    #[error("has a hash tree that the filesystem's features or flags do not allow for; run e2fsck")]
    HashTree,
}

/// The file that an error is about: its path where that is known, else its inode.
///
/// See the [example](Error#examples).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An inode, by number.
    Inode(InodeNumber),
    /// A path as the caller passed it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_stay_small() {
        assert!(size_of::<Error>() <= 40, "{}", size_of::<Error>());
    }

    #[test]
    fn kinds_survive() {
        let kind = |error: Error| io::Error::from(error).kind();
        let system: SourceError = io::Error::from(ErrorKind::PermissionDenied).into();
        let source = Error::Source { offset: 0, length: 1, error: system };
        assert_eq!(kind(source), ErrorKind::PermissionDenied);
        assert_eq!(kind(nvio_iomap::Error::Busy.into()), ErrorKind::WouldBlock);
        assert_eq!(kind(Error::NotFound { path: b"/a"[..].into() }), ErrorKind::NotFound);
        assert_eq!(kind(Error::IsADirectory { inode: 2.into() }), ErrorKind::IsADirectory);
        assert_eq!(kind(Error::NotExt4 { magic: 0 }), ErrorKind::InvalidData);
    }

    #[test]
    fn one_line_messages() {
        let error = Error::NotADirectory { subject: Subject::Path(b"/etc/x".as_slice().into()) };
        assert_eq!(error.to_string(), "/etc/x: not a directory");
        let error = Error::NotAFile { inode: 12.into(), kind: FileType::Fifo };
        assert_eq!(error.to_string(), "inode 12: is a fifo, not a regular file");
    }
}
