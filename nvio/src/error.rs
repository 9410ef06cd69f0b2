//! The error type of the library.

use std::fmt;
use std::io;
use std::path::PathBuf;

use nvio_driver::Error as DriverError;
use nvio_ext4::{Error as FsError, PathName};
use nvio_iomap::{Error as IomapError, FileError as _};

use crate::in_use::ImageUser;
use crate::partition::{self, PartitionTable};
use crate::recognise::Format;

/// An error of this library. [`Display`](std::fmt::Display) prints one line with the cause.
///
/// It converts to [`std::io::Error`] with the fitting [`io::ErrorKind`]:
///
/// # Examples
/// ```
/// let error = nvio::Volume::open("/nonexistent.img").unwrap_err();
/// assert!(error.to_string().starts_with("cannot open /nonexistent.img: No such file"));
/// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
/// assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::NotFound);
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The PCI function is not an NVMe controller, or sysfs cannot be read.
    #[error(transparent)]
    Pci(#[from] nvio_driver::pci::Error),
    /// The controller could not be opened.
    #[error("cannot open {device}: {error}")]
    Open {
        /// The name of the device.
        device: String,
        /// The error of the driver.
        #[source]
        error: DriverError,
    },
    /// The controller or a queue failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The embedded controller could not serve an image.
    #[error("cannot serve {}: {error}", .image.display())]
    Emulate {
        /// The image.
        image: PathBuf,
        /// The error of the embedded controller.
        #[source]
        error: nvio_emulator::Error,
    },
    /// An image could not be opened.
    #[error("cannot {action} {}: {error}", .path.display())]
    Image {
        /// The attempted operation, a verb.
        action: &'static str,
        /// The image.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        error: io::Error,
    },
    /// An image that is to be written to is in use: mounted, attached to a loop device, or open for
    /// writing in another process.
    #[error("{} is in use: {user}", .path.display())]
    ImageInUse {
        /// The image.
        path: PathBuf,
        /// The user.
        user: ImageUser,
    },
    /// A path that is neither a regular file nor a block device.
    #[error("{} is a {kind}, not an image", .path.display())]
    NotAnImage {
        /// The path.
        path: PathBuf,
        /// The type of the file.
        kind: &'static str,
    },
    /// The volume is an image that is read without a controller.
    #[error("the image is read without a controller")]
    NoController,
    /// The controller has no active namespace.
    #[error("the controller has no active namespace")]
    NoNamespaces,
    /// The selected namespace is not active.
    #[error("namespace {nsid} is not active; the controller has {}", list(.active))]
    NoSuchNamespace {
        /// The selected identifier.
        nsid: u32,
        /// The identifiers of the active namespaces.
        active: Vec<u32>,
    },
    /// The partition could not be found.
    #[error(transparent)]
    Partition(#[from] partition::Error),
    /// The layer between filesystem and device failed.
    #[error(transparent)]
    Iomap(#[from] IomapError),
    /// The device has no filesystem that can be opened.
    #[error("{device}: {error}")]
    Filesystem {
        /// The name of the device.
        device: String,
        /// The error of the filesystem.
        #[source]
        error: FsError,
    },
    /// The device holds something else than an ext4 filesystem.
    #[error("{device}: not an ext4 filesystem{found}")]
    NotExt4 {
        /// The name of the device.
        device: String,
        /// The contents of the device.
        found: Box<Found>,
    },
    /// The device has no partition table.
    #[error("{device}: {error}{}", held(.format.as_ref()))]
    Unpartitioned {
        /// The name of the device.
        device: String,
        /// The recognised contents of the whole device.
        format: Option<&'static Format>,
        /// The error of the table, which is part of the message.
        error: partition::Error,
    },
    /// The offset is not before the end of the device or the partition.
    #[error("the offset {offset} is not inside of the {size} bytes of the device or partition")]
    Offset {
        /// The offset in bytes.
        offset: u64,
        /// Size of the device or partition in bytes.
        size: u64,
    },
    /// The filesystem begins inside of a block of a device that reads whole blocks.
    #[error("byte {offset} is inside of a block: the device has {block_bytes}-byte blocks")]
    Misaligned {
        /// First byte of the filesystem.
        offset: u64,
        /// Logical block in bytes.
        block_bytes: u32,
    },
    /// The filesystem can be read, but not written to.
    #[error("{device}: {error}")]
    NotWritable {
        /// The name of the device.
        device: String,
        /// The error of the filesystem.
        #[source]
        error: FsError,
    },
    /// A path of the filesystem could not be found or opened.
    #[error("{}", at_path(.path, .error))]
    Path {
        /// The path.
        path: PathName,
        /// The error of the filesystem.
        #[source]
        error: FsError,
    },
    /// An open file could not be read or written.
    #[error(transparent)]
    File(#[from] FsError),
    /// The options of a file exclude each other.
    #[error("the options of the file cannot be used: {reason}")]
    FileOptions {
        /// The rule that they violate.
        reason: &'static str,
    },
    /// The options of an open file do not allow the call.
    #[error("the file is not open for {operation}")]
    NotOpenFor {
        /// Reading or writing.
        operation: &'static str,
    },
    /// The file is too large to be read into memory as a whole.
    #[error("{path}: {size} bytes are too many for one read, the limit is {max}")]
    TooLarge {
        /// The path.
        path: PathName,
        /// Size of the file in bytes.
        size: u64,
        /// Limit in bytes.
        max: u64,
    },
    /// The contents of the file are not UTF-8.
    #[error("{path}: the contents are not valid UTF-8")]
    NotUtf8 {
        /// The path.
        path: PathName,
    },
    /// The file ended before the buffer was full.
    #[error("the file ends at byte {size}, before the end of the range at byte {end}")]
    UnexpectedEnd {
        /// Size of the file in bytes.
        size: u64,
        /// The byte after the range.
        end: u64,
    },
}

/// The contents of a device that has no ext4 filesystem at the selected place.
///
/// See the [example](Format#examples).
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Found {
    /// The format at the place.
    pub format: Option<&'static Format>,
    /// The number of the selected partition.
    pub partition: Option<u32>,
    /// The partitions of the device.
    pub partitions: Option<PartitionTable>,
}

impl Found {
    pub(crate) fn is_nothing(&self) -> bool {
        self.format.is_none() && self.partitions.is_none()
    }
}

/// Continues the sentence "not an ext4 filesystem".
impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format, partition, partitions } = self;
        match (format, partition, partitions) {
            // A disk image may begin with the magic number of a boot format.
            (_, None, Some(table)) => {
                write!(f, " but a disk with partitions; the {} has {table}", table.scheme)?;
                return warn(f, table);
            }
            (Some(format), ..) => write!(f, " but {}; {}", format.object, format.advice)?,
            _ => {}
        }
        if let (Some(number), Some(table)) = (partition, partitions) {
            write!(f, "; partition {number} was selected, and the {} has {table}", table.scheme)?;
            warn(f, table)?;
        }
        Ok(())
    }
}

fn warn(f: &mut fmt::Formatter<'_>, table: &PartitionTable) -> fmt::Result {
    table.warnings.iter().try_for_each(|warning| write!(f, "; {warning}"))
}

fn held(format: Option<&&'static Format>) -> String {
    format.map(|format| format!("; the whole device is {}", format.object)).unwrap_or_default()
}

impl Error {
    pub(crate) fn path(path: &[u8]) -> impl Fn(FsError) -> Self + '_ {
        |error| Self::Path { path: path.into(), error }
    }

    /// Returns the kind of the [`io::Error`] that this error converts to.
    ///
    /// See the [example](Self#examples).
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Pci(_) | Self::NoNamespaces | Self::NoSuchNamespace { .. } => {
                io::ErrorKind::NotFound
            }
            Self::Open { error, .. } | Self::Driver(error) => driver_kind(error),
            Self::Emulate { error, .. } => os_kind(error),
            Self::Image { error, .. } => error.kind(),
            Self::ImageInUse { .. } => io::ErrorKind::ResourceBusy,
            Self::NotAnImage { .. }
            | Self::NoController
            | Self::Offset { .. }
            | Self::FileOptions { .. }
            | Self::Misaligned { .. } => io::ErrorKind::InvalidInput,
            Self::Unpartitioned { .. } => io::ErrorKind::NotFound,
            Self::NotExt4 { .. } => io::ErrorKind::InvalidData,
            Self::Partition(error) => match error {
                partition::Error::NoTable { .. } | partition::Error::NoPartition { .. } => {
                    io::ErrorKind::NotFound
                }
                partition::Error::Read(error) => error.kind(),
                _ => io::ErrorKind::InvalidData,
            },
            Self::Iomap(error) => iomap_kind(error),
            Self::Filesystem { error, .. }
            | Self::NotWritable { error, .. }
            | Self::Path { error, .. }
            | Self::File(error) => fs_kind(error),
            Self::NotOpenFor { .. } => io::ErrorKind::PermissionDenied,
            Self::TooLarge { .. } => io::ErrorKind::FileTooLarge,
            Self::NotUtf8 { .. } => io::ErrorKind::InvalidData,
            Self::UnexpectedEnd { .. } => io::ErrorKind::UnexpectedEof,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}

fn fs_kind(error: &FsError) -> io::ErrorKind {
    match error {
        FsError::Iomap(error) => iomap_kind(error),
        error => error.kind(),
    }
}

fn iomap_kind(error: &IomapError) -> io::ErrorKind {
    match error {
        error if error.is_again() => io::ErrorKind::WouldBlock,
        IomapError::Misaligned { .. }
        | IomapError::MisalignedMemory { .. }
        | IomapError::NotAtomic { .. }
        | IomapError::OutsideDisk { .. }
        | IomapError::Flags(_) => io::ErrorKind::InvalidInput,
        IomapError::NoMemory => io::ErrorKind::OutOfMemory,
        IomapError::Driver(error) => driver_kind(error),
        _ => io::ErrorKind::Other,
    }
}

fn driver_kind(error: &DriverError) -> io::ErrorKind {
    use io::ErrorKind;
    match error {
        DriverError::QueueFull { .. } => ErrorKind::WouldBlock,
        DriverError::NoQueue { .. } | DriverError::NamespaceInUse { .. } => ErrorKind::ResourceBusy,
        DriverError::NoNamespace { .. } | DriverError::Gone => ErrorKind::NotFound,
        DriverError::Timeout { .. } | DriverError::VfioUserSilent { .. } => ErrorKind::TimedOut,
        DriverError::ArenaFull { .. } | DriverError::MemoryLock { .. } => ErrorKind::OutOfMemory,
        DriverError::Unsupported { .. } => ErrorKind::Unsupported,
        DriverError::Invalid { .. } => ErrorKind::InvalidData,
        DriverError::ReadOnly => ErrorKind::PermissionDenied,
        DriverError::Misaligned { .. }
        | DriverError::OutOfRange { .. }
        | DriverError::TransferSize { .. } => ErrorKind::InvalidInput,
        error => os_kind(error),
    }
}

/// Returns the kind of the first error of the operating system among an error and its causes.
fn os_kind(error: &(dyn std::error::Error + 'static)) -> io::ErrorKind {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return error.kind();
        }
        next = cause.source();
    }
    io::ErrorKind::Other
}

/// Prefixes an error with the path. Some errors of the filesystem begin with it already, others
/// with the number of the inode.
fn at_path(path: &PathName, error: &FsError) -> String {
    let (path, text) = (path.to_string(), error.to_string());
    if text.starts_with(&path) { text } else { format!("{path}: {text}") }
}

fn list(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_printed_once() {
        let path = PathName::from(&b"/a"[..]);
        let error = Error::path(b"/a")(FsError::NotFound { path });
        assert_eq!(error.to_string(), "/a: no such file or directory");
        let error = Error::path(b"/a")(FsError::IsADirectory { inode: 2.into() });
        assert_eq!(error.to_string(), "/a: inode 2: is a directory");
    }

    #[test]
    fn kinds_survive() {
        let kind = |error: Error| io::Error::from(error).kind();
        let os = || io::Error::from(io::ErrorKind::PermissionDenied);
        let driver = DriverError::System { call: "open", source: os() };
        assert_eq!(kind(driver.into()), io::ErrorKind::PermissionDenied);
        let source = FsError::Source { offset: 0, length: 1, error: os().into() };
        assert_eq!(kind(source.into()), io::ErrorKind::PermissionDenied);
        let busy = FsError::from(IomapError::Busy);
        assert_eq!(kind(busy.into()), io::ErrorKind::WouldBlock);
        assert_eq!(
            kind(FsError::IsADirectory { inode: 2.into() }.into()),
            io::ErrorKind::IsADirectory
        );
    }
}
