//! The driver's error type.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nvio_spec::Status;

use crate::pci;
use crate::pci::address::PciAddress;

/// An error of the driver: of the system, of a controller, or of a request.
///
/// # Examples
/// ```
/// use nvio_driver::{Address, Controller, Error};
///
/// let error = Controller::open(&Address::vfio_user("/nonexistent")).err();
/// assert!(matches!(error, Some(Error::VfioUser { step: "connect", .. })));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{call} failed")]
    System {
        /// The call.
        call: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The PCI function cannot be used, or sysfs cannot be read.
    #[error(transparent)]
    Pci(#[from] pci::Error),
    /// The PCI function is not bound to vfio-pci.
    #[error("{address} is bound to {driver}, not to vfio-pci")]
    NotBound {
        /// The function.
        address: PciAddress,
        /// The driver of the function, or "no driver".
        driver: String,
    },
    /// A step of the kernel's VFIO failed.
    #[error("VFIO: {step}")]
    Vfio {
        /// The failed step.
        step: &'static str,
        /// The error of VFIO.
        source: vfio_ioctls::VfioError,
    },
    /// A file of VFIO could not be opened.
    #[error("cannot open {}{}", path.display(), vfio_hint(source))]
    VfioFile {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Memory could not be mapped for DMA because the process may not lock that much.
    #[error(
        "mapping {bytes} bytes for DMA, with {locked} locked already, exceeds RLIMIT_MEMLOCK \
         ({limit} bytes): raise it with `ulimit -l` or ask for a smaller arena"
    )]
    MemoryLock {
        /// Bytes to be mapped.
        bytes: usize,
        /// Bytes that the process has locked.
        locked: u64,
        /// The limit.
        limit: u64,
    },
    /// A command to a vfio-user server failed, or its reply cannot be parsed.
    #[error("vfio-user server {}: {step}", socket.display())]
    VfioUser {
        /// The socket.
        socket: PathBuf,
        /// The failed step.
        step: &'static str,
        /// The error number in the reply, or the error of the socket.
        source: io::Error,
    },
    /// A vfio-user server did not reply in time.
    #[error("vfio-user server {}: no reply within {after:?}", socket.display())]
    VfioUserSilent {
        /// The socket.
        socket: PathBuf,
        /// The bound of the wait, which follows from [`Options`](crate::Options).
        after: Duration,
    },
    /// A register or doorbell is outside of the part of the BAR that can be mapped.
    #[error("BAR0 offset {offset:#x} is outside the {length:#x} bytes that can be mapped")]
    OutsideBar {
        /// Offset in BAR0, bytes.
        offset: u64,
        /// Length of the part that can be mapped, bytes.
        length: u64,
    },
    /// The device does not answer: it was removed or lost power, or its vfio-user server has closed
    /// the connection.
    #[error("the controller is gone: it was removed, or its server has ended")]
    Gone,
    /// [`Controller::shut_down`](crate::Controller::shut_down) was called.
    #[error("the controller was shut down")]
    ShutDown,
    /// The controller reports a fatal error (CSTS.CFS).
    #[error("the controller reports a fatal error (CSTS {csts:#010x})")]
    Fatal {
        /// The value of CSTS.
        csts: u32,
    },
    /// An operation took longer than its bound.
    #[error("{what} took longer than {} ms", after.as_millis())]
    Timeout {
        /// The operation.
        what: &'static str,
        /// The bound.
        after: Duration,
    },
    /// The controller completed a command with an error status.
    #[error("{command} failed: {status}")]
    Command {
        /// The command.
        command: &'static str,
        /// The status.
        status: Status,
    },
    /// An I/O command of a transfer failed.
    #[error("{command} of {blocks} blocks at LBA {lba} of namespace {nsid} failed: {status}")]
    Io {
        /// The command.
        command: &'static str,
        /// The namespace.
        nsid: u32,
        /// First block of the command.
        lba: u64,
        /// Blocks of the command.
        blocks: u64,
        /// The controller's status.
        status: Status,
    },
    /// The driver, the controller or the namespace does not support a feature.
    #[error("{what} is not supported: {detail}")]
    Unsupported {
        /// The feature.
        what: &'static str,
        /// The values seen.
        detail: String,
    },
    /// A field of a structure has an impossible value.
    #[error("{structure}: {field} is {value}")]
    Invalid {
        /// The structure.
        structure: &'static str,
        /// The field.
        field: &'static str,
        /// Value of the field.
        value: u64,
    },
    /// The namespace does not exist or is not active.
    #[error("namespace {nsid} is not active on this controller")]
    NoNamespace {
        /// The namespace ID.
        nsid: u32,
    },
    /// A namespace cannot be changed while it has handles.
    #[error("{handles} handles of namespace {nsid} are in use: drop them before it is changed")]
    NamespaceInUse {
        /// The namespace ID.
        nsid: u32,
        /// Number of handles, clones included.
        handles: usize,
    },
    /// The controller formats or erases all namespaces at once, and has others.
    #[error("the controller would format or erase all namespaces, and not only {nsid}")]
    FormatsAll {
        /// ID of the namespace to be formatted.
        nsid: u32,
    },
    /// The DMA arena has no free range of that size.
    #[error("no {bytes} contiguous bytes are free in the DMA arena of {arena} bytes")]
    ArenaFull {
        /// Requested bytes.
        bytes: usize,
        /// Size of the arena.
        arena: usize,
    },
    /// A buffer uses a part of the requested range of an arena.
    #[error("a buffer uses a part of the {bytes} bytes at {offset:#x} of the arena")]
    InUse {
        /// Offset in the arena, bytes.
        offset: usize,
        /// Requested bytes.
        bytes: usize,
    },
    /// Memory to be registered is empty, or not inside its file.
    #[error("the {bytes} bytes at {offset:#x} are empty or outside of a file of {size} bytes")]
    OutsideFile {
        /// Offset in the file, bytes.
        offset: u64,
        /// Requested bytes.
        bytes: usize,
        /// Size of the file.
        size: u64,
    },
    /// The device cannot see more ranges of memory.
    #[error(
        "the device sees {limit} ranges of memory, and no more can be mapped: register fewer, \
         larger ones (the limit of VFIO is dma_entry_limit of the module vfio_iommu_type1)"
    )]
    MappingLimit {
        /// Most ranges.
        limit: usize,
    },
    /// A range of I/O virtual addresses is mapped already.
    #[error("I/O addresses {iova:#x} + {bytes:#x} overlap what the device sees already")]
    MappingExists {
        /// First address.
        iova: u64,
        /// Length in bytes.
        bytes: usize,
    },
    /// All I/O queues that the controller granted are in use.
    #[error("all {granted} I/O queues that the controller granted are in use")]
    NoQueue {
        /// Queues granted.
        granted: u16,
    },
    /// The maximum number of commands is in flight. Poll, then retry (EAGAIN).
    #[error("all {capacity} slots of the queue are in flight")]
    QueueFull {
        /// Maximum number of commands in flight
        /// ([`QueuePair::capacity`](crate::QueuePair::capacity)); for an
        /// [`AsyncQueue`](crate::AsyncQueue), of futures that wait.
        capacity: usize,
    },
    /// A reset was requested.
    #[error("a reset was requested")]
    ResetRequested,
    /// The controller did not come back from a reset, and accepts no commands.
    #[error("the controller did not come back from a reset")]
    ResetFailed,
    /// The controller was opened read-only.
    #[error("the controller was opened read-only, without Options::writable")]
    ReadOnly,
    /// The buffers of a command cannot be described by PRPs, and the controller does not support
    /// SGLs that describe them.
    #[error(
        "the buffers of a command begin or end inside a page, and the controller has no SGLs \
         or not enough room for them"
    )]
    Scattered,
    /// Metadata of the wrong size for a command.
    #[error("{bytes} bytes of metadata for a command that needs {needed}")]
    MetadataSize {
        /// Bytes of the caller's metadata.
        bytes: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// A range is not inside the namespace.
    #[error("LBA {lba} + {blocks} is outside the {size} blocks of namespace {nsid}")]
    OutOfRange {
        /// First block.
        lba: u64,
        /// Blocks.
        blocks: u64,
        /// Blocks of the namespace.
        size: u64,
        /// The namespace.
        nsid: u32,
    },
    /// A length or address is not a multiple of the device's alignment.
    #[error("{value} bytes is not a multiple of {align}")]
    Misaligned {
        /// The length or address.
        value: u64,
        /// The alignment.
        align: u64,
    },
    /// A transfer is empty or larger than one command can carry.
    #[error("a transfer of {bytes} bytes does not fit one command (1 to {max} bytes)")]
    TransferSize {
        /// Requested bytes.
        bytes: usize,
        /// Most bytes for one command.
        max: usize,
    },
}

impl Error {
    /// Returns the function that makes the error of the system call `call`.
    pub(crate) fn system<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { call, source: source.into() }
    }

    /// Returns the error of a command that completed with `status`, if it is one.
    pub(crate) fn of_status(command: &'static str, status: Status) -> Result<()> {
        if status.is_success() { Ok(()) } else { Err(Self::Command { command, status }) }
    }

    pub(crate) fn invalid(
        structure: &'static str,
        field: &'static str,
        value: impl Into<u64>,
    ) -> Self {
        Self::Invalid { structure, field, value: value.into() }
    }

    pub(crate) fn unsupported(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Unsupported { what, detail: detail.into() }
    }
}

/// The result of a function of this crate.
///
/// See the [example](crate::Error#examples).
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Returns the step that makes a file of VFIO accessible.
fn vfio_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            " (the owner of the file may use the device: as root, `chown` it, or pass it to the \
             container with permission to read and write)"
        }
        io::ErrorKind::NotFound => {
            " (as root, `modprobe vfio-pci vfio_iommu_type1`; a container needs the file, too)"
        }
        io::ErrorKind::ResourceBusy => " (another process drives the device)",
        _ => "",
    }
}
