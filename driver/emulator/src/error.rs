//! Errors of configuring and starting an emulator. A running controller reports errors as
//! completion statuses.

use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// An error of configuring or starting an emulator.
///
/// See the [example](crate).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is outside of what the specification or this crate allows.
    #[error("{setting} of {value} is not in {allowed}")]
    Setting {
        /// Name of the setting, as in the builder.
        setting: &'static str,
        /// Value of the setting.
        value: u64,
        /// Allowed values.
        allowed: &'static str,
    },
    /// No namespace was configured.
    #[error("the controller has no namespace")]
    NoNamespace,
    /// Two namespaces have the same identifier.
    #[error("namespace {nsid} is configured twice")]
    DuplicateNamespace {
        /// The identifier.
        nsid: u32,
    },
    /// A backing holds less than one logical block.
    #[error("namespace {nsid}: {bytes} bytes are less than one block of {block_size}")]
    TooSmall {
        /// The namespace.
        nsid: u32,
        /// Size of the backing in bytes.
        bytes: u64,
        /// Logical block size in bytes.
        block_size: u32,
    },
    /// An image could not be opened, locked or measured.
    #[error("image {path}: {source}")]
    Image {
        /// The image.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process has the image open in a way that conflicts.
    #[error("image {path} is in use by another emulator")]
    ImageInUse {
        /// The image.
        path: PathBuf,
    },
    /// The file with an image's metadata has another format, or is not such a file.
    #[error("{path} is not the metadata of this image in this format")]
    MetadataFormat {
        /// The file.
        path: PathBuf,
    },
    /// Memory for a backing or for the doorbells could not be allocated.
    #[error("{bytes} bytes of memory for {purpose}: {source}")]
    Memory {
        /// Purpose of the memory.
        purpose: &'static str,
        /// Size of the memory in bytes.
        bytes: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process listens on the socket.
    #[error("socket {path} is in use")]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// The socket's path exists and is not a socket.
    #[error("{path} exists and is not a socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket could not be created.
    #[error("socket {path}: {source}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A thread or its eventfd could not be created.
    #[error("starting the emulator's threads: {0}")]
    Thread(#[source] io::Error),
}

/// Returns [`Error::Setting`] unless the value is `good`.
pub(crate) fn require(
    good: bool,
    setting: &'static str,
    value: impl Into<u64>,
    allowed: &'static str,
) -> Result<(), Error> {
    if good { Ok(()) } else { Err(Error::Setting { setting, value: value.into(), allowed }) }
}

/// Returns [`Error::Setting`] unless the value is in a range.
pub(crate) fn require_in<T: Into<u64> + PartialOrd>(
    range: RangeInclusive<T>,
    setting: &'static str,
    value: T,
    allowed: &'static str,
) -> Result<(), Error> {
    require(range.contains(&value), setting, value, allowed)
}
