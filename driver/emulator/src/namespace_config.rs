//! What a namespace is to be: its backing, its blocks and its limits.

use std::path::PathBuf;

use nvio_spec::protection::{ProtectionInfo, ProtectionType};

use crate::atomic::{AtomicUnits, Atomics, Boundary};
use crate::config::{Config, require};
use crate::copy::CopyLimits;
use crate::error::Error;
use crate::format::LARGEST;
use crate::metadata::{Metadata, Protection};

/// Where the blocks of a namespace are.
#[derive(Clone, Debug)]
pub enum Backing {
    /// A file or a block device.
    ///
    /// It is locked against other emulators: shared when read-only, else exclusive. What is left
    /// over after the last whole logical block is not reachable; a warning is logged.
    Image {
        /// Its path.
        path: PathBuf,
        /// Open it without write permission; the namespace is then write protected, and commands
        /// that change it end with Namespace is Write Protected (Base 8.12).
        read_only: bool,
    },
    /// Memory of this process, zeroed, of this many bytes; gone when the emulator is.
    Memory(u64),
    /// Nothing, of this many bytes: commands are checked and completed, no data is moved, and
    /// Compare finds no difference. For measuring what is above it.
    Null(u64),
}

impl Backing {
    /// An image file or block device; see [`Backing::Image`].
    pub fn image(path: impl Into<PathBuf>, read_only: bool) -> Self {
        Self::Image { path: path.into(), read_only }
    }

    /// Memory of `bytes` bytes; see [`Backing::Memory`].
    pub fn memory(bytes: u64) -> Self {
        Self::Memory(bytes)
    }

    /// Nothing of `bytes` bytes; see [`Backing::Null`].
    pub fn null(bytes: u64) -> Self {
        Self::Null(bytes)
    }
}

/// A namespace to be.
#[derive(Clone, Debug)]
pub struct NamespaceConfig {
    pub(crate) backing: Backing,
    pub(crate) block_size: u32,
    pub(crate) nsid: Option<u32>,
    pub(crate) noiob: u16,
    pub(crate) metadata: u16,
    pub(crate) extended: bool,
    pub(crate) protection: Option<Protection>,
    pub(crate) copy_limits: CopyLimits,
    pub(crate) atomics: Atomics,
}

impl NamespaceConfig {
    /// A namespace on `backing`, with blocks of 512 bytes without metadata, the next free
    /// identifier and no optimal I/O boundary.
    pub fn new(backing: Backing) -> Self {
        Self {
            backing,
            block_size: 512,
            nsid: None,
            noiob: 0,
            metadata: 0,
            extended: false,
            protection: None,
            copy_limits: CopyLimits::default(),
            atomics: Atomics::default(),
        }
    }

    /// Size of a logical block in bytes: a power of two, 512 to 65,536.
    pub fn block_size(mut self, bytes: u32) -> Self {
        self.block_size = bytes;
        self
    }

    /// The identifier, 1 to [`MAX_NSID`](crate::MAX_NSID). Without it, a namespace gets the identifier after that
    /// of the namespace before it. Identifiers left out are inactive namespaces.
    pub fn nsid(mut self, nsid: u32) -> Self {
        self.nsid = Some(nsid);
        self
    }

    /// Optimal I/O boundary in blocks, 0 for none (NOIOB, NVM 4.1.5.1).
    pub fn noiob(mut self, blocks: u16) -> Self {
        self.noiob = blocks;
        self
    }

    /// Metadata of `bytes` bytes for each block, a multiple of 4 up to 128, 0 for none;
    /// transferred at the end of each block if `extended`, else in a buffer of its own
    /// (NVM 4.1.5.1: LBAF.MS, FLBAS bit 4).
    ///
    /// It is kept beside the data: for an image file in a sparse file whose name is that of the
    /// image with `.meta` after it, which is made if it is not there, and refused if it was made
    /// with other settings; for everything else in memory. What changes the image without it
    /// leaves metadata that does not fit.
    pub fn metadata(mut self, bytes: u16, extended: bool) -> Self {
        (self.metadata, self.extended) = (bytes, extended);
        self
    }

    /// Protection information of this type with a 16-bit guard, as the first eight bytes of the
    /// metadata or the last (NVM 5.2; DPS). First is for controllers before version 1.4; this one
    /// does it to stand in for them. Blocks that were never written are not checked, and
    /// neither is what a null backing has, when it is read.
    pub fn protection(mut self, kind: ProtectionType, first: bool) -> Self {
        self.protection = Some(Protection { kind, first });
        self
    }

    /// What a Copy command may be at most (NVM 4.1.5.1): `range` blocks of one source range
    /// (MSSRL), `total` blocks of all of them (MCL), and `ranges` source ranges, up to 256 (MSRC).
    /// Without it 256, 4096 and 128.
    pub fn copy_limits(mut self, range: u16, total: u32, ranges: u16) -> Self {
        self.copy_limits = CopyLimits { range, total, ranges };
        self
    }

    /// Blocks of the largest write that is atomic in this namespace, as
    /// [`Config::atomic_writes`](crate::Config::atomic_writes) has it for all of them, and not
    /// less (NAWUN, NAWUPF; NSFEAT bit 1).
    pub fn atomic_writes(mut self, normal: u32, power_fail: u32) -> Self {
        self.atomics.own = Some(AtomicUnits { normal, power_fail });
        self
    }

    /// Writes that cross a boundary of this many blocks, from the block `offset` on, are atomic
    /// only as far as those of every namespace are (NABSN and NABSPF, NABO). It is not less than
    /// what [`Self::atomic_writes`] says, and 2 or more; `offset` is at most `blocks`.
    pub fn atomic_boundary(mut self, blocks: u32, offset: u16) -> Self {
        self.atomics.boundary = Some(Boundary { blocks, offset });
        self
    }

    /// What blocks have besides their data.
    pub(crate) fn blocks_metadata(&self) -> Option<Metadata> {
        let Self { metadata: bytes, extended, protection, .. } = *self;
        (bytes != 0).then_some(Metadata { bytes, extended, protection })
    }

    /// Checks every setting but the identifier, given what holds for all namespaces.
    pub(crate) fn check(&self, shared: &Config) -> Result<(), Error> {
        let size = self.block_size;
        let good = size.is_power_of_two() && (512..=65_536).contains(&size);
        require(good, "block_size", size.into(), "powers of two from 512 to 65536")?;
        let bytes = self.metadata;
        let good = bytes.is_multiple_of(4) && bytes <= 128;
        require(good, "metadata", bytes.into(), "multiples of 4 up to 128")?;
        let CopyLimits { range, total, ranges } = self.copy_limits;
        require((1..=256).contains(&ranges), "copy ranges", ranges.into(), "1 to 256")?;
        require(range >= 1, "copy range", range.into(), "1 to 65535")?;
        let good = total >= u32::from(range);
        require(good, "copy total", total.into(), "those of one range and above")?;
        let fits = self.protection.is_none() || usize::from(bytes) >= ProtectionInfo::SIZE;
        require(fits, "metadata with protection", bytes.into(), "8 bytes and above")?;
        let is_image = matches!(self.backing, Backing::Image { .. });
        let largest = if shared.offers_formats() && !is_image { LARGEST } else { 0 };
        self.atomics.check(shared.atomics, size.max(largest), shared.write_cache)
    }
}
