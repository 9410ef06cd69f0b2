//! Settings of a namespace: its backing, its blocks and its limits.

use std::path::PathBuf;

use nvio_spec::InformationFormat;
use nvio_spec::protection::ProtectionType;

use crate::config::atomic::{AtomicUnits, Atomics, Boundary};
use crate::config::metadata::{Metadata, Protection};

/// The storage of a namespace's blocks.
///
/// # Examples
/// ```
/// use nvio_emulator::{Backing, NamespaceConfig};
///
/// let image = NamespaceConfig::new(Backing::image("disk.img", true));
/// let memory = NamespaceConfig::new(Backing::memory(64 << 20));
/// // 1 TiB that stores nothing: for measurements.
/// let null = NamespaceConfig::new(Backing::null(1 << 40));
/// ```
#[derive(Clone, Debug)]
pub enum Backing {
    /// A file or a block device.
    ///
    /// The file is locked against other emulators: shared when read-only, otherwise exclusive.
    /// Bytes after the last whole logical block are not reachable; a warning is logged.
    Image {
        /// Path of the file or device.
        path: PathBuf,
        /// Open the file without write permission. The namespace is then write protected, and
        /// commands that change it end with Namespace is Write Protected (Base 8.12).
        read_only: bool,
    },
    /// Zeroed memory of this process, of this many bytes, freed with the emulator.
    Memory(u64),
    /// No storage, of this many bytes: commands are checked and completed, no data is transferred,
    /// and Compare finds no difference. It measures the cost of the layers above.
    Null(u64),
}

impl Backing {
    /// Creates a [`Backing::Image`].
    ///
    /// See the [example](Self#examples).
    pub fn image(path: impl Into<PathBuf>, read_only: bool) -> Self {
        Self::Image { path: path.into(), read_only }
    }

    /// Creates a [`Backing::Memory`] of `bytes` bytes.
    ///
    /// See the [example](Self#examples).
    pub fn memory(bytes: u64) -> Self {
        Self::Memory(bytes)
    }

    /// Creates a [`Backing::Null`] of `bytes` bytes.
    ///
    /// See the [example](Self#examples).
    pub fn null(bytes: u64) -> Self {
        Self::Null(bytes)
    }
}

/// Limits of a Copy command (NVM 4.1.5.1, figure 97).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CopyLimits {
    /// Blocks of one source range (MSSRL).
    pub(crate) range: u16,
    /// Blocks of all source ranges together (MCL).
    pub(crate) total: u32,
    /// Source ranges; MSRC is this number, 0's based.
    pub(crate) ranges: u16,
}

impl Default for CopyLimits {
    fn default() -> Self {
        Self { range: 256, total: 4096, ranges: 128 }
    }
}

/// The settings of a namespace; see [`Backing`] for an example.
///
/// # Examples
/// ```
/// use nvio_emulator::{Backing, Config, Controller, NamespaceConfig};
/// use nvio_spec::InformationFormat;
/// use nvio_spec::protection::ProtectionType;
///
/// // Blocks of 4 KiB with eight bytes of protection information, as namespace 5.
/// let namespace = NamespaceConfig::new(Backing::memory(1 << 20))
///     .nsid(5)
///     .block_size(4096)
///     .metadata(8, false)
///     .protection(ProtectionType::ONE, false)
///     .information(InformationFormat::USUAL)
///     .noiob(32)
///     .copy_limits(64, 256, 4)
///     .atomic_writes(4, 2)
///     .atomic_boundary(8, 0);
/// let controller = Controller::new(&Config::new().namespace(namespace))?;
/// # Ok::<(), nvio_emulator::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct NamespaceConfig {
    pub(crate) backing: Backing,
    pub(crate) block_size: u32,
    pub(crate) nsid: Option<u32>,
    pub(crate) noiob: u16,
    pub(crate) metadata: u16,
    pub(crate) extended: bool,
    pub(crate) protection: Option<Protection>,
    pub(crate) information: InformationFormat,
    pub(crate) copy_limits: CopyLimits,
    pub(crate) atomics: Atomics,
}

impl NamespaceConfig {
    /// Creates a namespace on `backing`, with blocks of 512 bytes without metadata, the next free
    /// identifier and no optimal I/O boundary.
    ///
    /// See the [example](Self#examples).
    pub fn new(backing: Backing) -> Self {
        Self {
            backing,
            block_size: 512,
            nsid: None,
            noiob: 0,
            metadata: 0,
            extended: false,
            protection: None,
            information: InformationFormat::USUAL,
            copy_limits: CopyLimits::default(),
            atomics: Atomics::default(),
        }
    }

    /// Sets the size of a logical block in bytes: a power of two, 512 to 65,536.
    ///
    /// See the [example](Self#examples).
    pub fn block_size(mut self, bytes: u32) -> Self {
        self.block_size = bytes;
        self
    }

    /// Sets the identifier, 1 to [`NSID_MAX`](crate::NSID_MAX). Without it, the identifier follows
    /// that of the namespace before. Identifiers left out are inactive namespaces.
    ///
    /// See the [example](Self#examples).
    pub fn nsid(mut self, nsid: u32) -> Self {
        self.nsid = Some(nsid);
        self
    }

    /// Sets the optimal I/O boundary in blocks, 0 for none (NOIOB, NVM 4.1.5.1).
    ///
    /// See the [example](Self#examples).
    pub fn noiob(mut self, blocks: u16) -> Self {
        self.noiob = blocks;
        self
    }

    /// Adds metadata of `bytes` bytes to each block, a multiple of 4 up to 128, 0 for none. It is
    /// transferred at the end of each block if `extended`, otherwise in a buffer of its own (NVM
    /// 4.1.5.1: LBAF.MS, FLBAS bit 4).
    ///
    /// The metadata of an image file is stored in a sparse file beside it, with `.meta` appended to
    /// the name. The file is created if it does not exist, and refused if it was created with other
    /// settings. The metadata of other backings is in memory. A program that changes the image
    /// alone leaves stale metadata.
    ///
    /// See the [example](Self#examples).
    pub fn metadata(mut self, bytes: u16, extended: bool) -> Self {
        (self.metadata, self.extended) = (bytes, extended);
        self
    }

    /// Adds protection information of this type with a 16-bit guard, in the first eight bytes of
    /// the metadata or the last (NVM 5.2; DPS). The first bytes are for controllers before version
    /// 1.4, which this one imitates. Blocks that were never written are not checked, nor are reads
    /// of a null backing.
    ///
    /// See the [example](Self#examples).
    pub fn protection(mut self, kind: ProtectionType, first: bool) -> Self {
        self.protection = Some(Protection { kind, first, format: self.information });
        self
    }

    /// Sets the format of the protection information (NVM 5.2.1); a 16-bit guard without a storage
    /// tag by default. The metadata needs at least [`InformationFormat::size`] bytes.
    ///
    /// See the [example](Self#examples).
    pub fn information(mut self, format: InformationFormat) -> Self {
        self.information = format;
        self.protection = self.protection.map(|protection| Protection { format, ..protection });
        self
    }

    /// Sets the limits of a Copy command (NVM 4.1.5.1): `range` blocks of one source range (MSSRL),
    /// `total` blocks of all ranges (MCL), and `ranges` source ranges, up to 256 (MSRC). The
    /// defaults are 256, 4096 and 128.
    ///
    /// See the [example](Self#examples).
    pub fn copy_limits(mut self, range: u16, total: u32, ranges: u16) -> Self {
        self.copy_limits = CopyLimits { range, total, ranges };
        self
    }

    /// Sets the blocks of the largest write that is atomic in this namespace, not less than
    /// [`Config::atomic_writes`](crate::Config::atomic_writes) (NAWUN, NAWUPF; NSFEAT bit 1).
    ///
    /// See the [example](Self#examples).
    pub fn atomic_writes(mut self, normal: u32, power_fail: u32) -> Self {
        self.atomics.own = Some(AtomicUnits { normal, power_fail });
        self
    }

    /// Sets atomic boundaries every `blocks` blocks, 2 or more, from block `offset` on. A write
    /// that crosses one is atomic only up to the units of every namespace (NABSN and NABSPF, NABO).
    /// `blocks` is not less than the units of [`Self::atomic_writes`]; `offset` is at most
    /// `blocks`.
    ///
    /// See the [example](Self#examples).
    pub fn atomic_boundary(mut self, blocks: u32, offset: u16) -> Self {
        self.atomics.boundary = Some(Boundary { blocks, offset });
        self
    }

    /// Returns the metadata of the blocks, if they have any.
    pub(crate) fn blocks_metadata(&self) -> Option<Metadata> {
        let Self { metadata: bytes, extended, protection, .. } = *self;
        (bytes != 0).then_some(Metadata { bytes, extended, protection })
    }
}
