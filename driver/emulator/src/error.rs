//! What can go wrong before the controller runs. Once it runs, errors are completion statuses.

use std::io;
use std::path::PathBuf;

/// Why an emulator could not be configured or started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is outside of what the specification or this crate allows.
    #[error("{setting} of {value} is not in {allowed}")]
    Setting {
        /// The setting, as the builder names it.
        setting: &'static str,
        /// What was asked for.
        value: u64,
        /// What is allowed.
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
    /// The file with the metadata of an image was made with another format, or is something else.
    #[error("{path} is not the metadata of this image in this format")]
    MetadataFormat {
        /// The file.
        path: PathBuf,
    },
    /// Memory for a backing or for the doorbells could not be had.
    #[error("{bytes} bytes of memory for {purpose}: {source}")]
    Memory {
        /// What the memory is for.
        purpose: &'static str,
        /// How much was asked for.
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
    /// Something that is not a socket is where the socket is to be.
    #[error("{path} exists and is not a socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket could not be made.
    #[error("socket {path}: {source}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A thread or what it needs could not be made.
    #[error("starting the emulator's threads: {0}")]
    Thread(#[source] io::Error),
}
