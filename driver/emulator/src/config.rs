//! What a controller is made of: its settings, their ranges and their defaults.

use std::collections::BTreeSet;
use std::path::PathBuf;

use nvio_spec::protection::{ProtectionInfo, ProtectionType};

use crate::copy::CopyLimits;
use crate::error::Error;
use crate::fault::Faults;
use crate::metadata::{Metadata, Protection};
use crate::service::Service;

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
    metadata: u16,
    extended: bool,
    protection: Option<Protection>,
    pub(crate) copy_limits: CopyLimits,
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
        }
    }

    /// Size of a logical block in bytes: a power of two, 512 to 65,536.
    pub fn block_size(mut self, bytes: u32) -> Self {
        self.block_size = bytes;
        self
    }

    /// The identifier, 1 to [`MAX_NSID`]. Without it, a namespace gets the identifier after that
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
    /// metadata or the last (NVM 5.2; DPS). Blocks that were never written are not checked, and
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

    /// What blocks have besides their data.
    pub(crate) fn blocks_metadata(&self) -> Option<Metadata> {
        let Self { metadata: bytes, extended, protection, .. } = *self;
        (bytes != 0).then_some(Metadata { bytes, extended, protection })
    }

    fn check(&self) -> Result<(), Error> {
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
        require(fits, "metadata with protection", bytes.into(), "8 bytes and above")
    }
}

/// Largest namespace identifier that can be configured: the active namespaces fit one list.
pub const MAX_NSID: u32 = 1024;
/// Largest size of the doorbell area in bytes; it bounds queues times stride.
const MAX_DOORBELL_AREA: u64 = 64 << 20;

/// The settings of a controller. [`Config::default`] is a controller without namespaces that is
/// like a common drive: 64 queue pairs of up to 4096 entries, transfers of up to 128 KiB, host
/// pages of 4 to 64 KiB.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) namespaces: Vec<NamespaceConfig>,
    pub(crate) serial: String,
    pub(crate) model: String,
    pub(crate) mdts: Option<u8>,
    pub(crate) max_queues: u16,
    pub(crate) max_queue_entries: u32,
    pub(crate) doorbell_stride: u32,
    pub(crate) min_page_size: u32,
    pub(crate) max_page_size: u32,
    pub(crate) faults: Faults,
    pub(crate) service: Service,
    pub(crate) write_cache: Option<u64>,
    pub(crate) shadow_doorbells: bool,
    pub(crate) sgl: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namespaces: Vec::new(),
            serial: "NVIO00000001".into(),
            model: "nvio embedded controller".into(),
            mdts: Some(5),
            max_queues: 64,
            max_queue_entries: 4096,
            doorbell_stride: 4,
            min_page_size: 4 << 10,
            max_page_size: 64 << 10,
            faults: Faults::new(),
            service: Service::new(),
            write_cache: None,
            shadow_doorbells: false,
            sgl: false,
        }
    }
}

impl Config {
    /// The default settings; the same as [`Config::default`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a namespace. At least one is needed.
    pub fn namespace(mut self, namespace: NamespaceConfig) -> Self {
        self.namespaces.push(namespace);
        self
    }

    /// Serial number: up to 20 characters of printable ASCII.
    pub fn serial(mut self, serial: impl Into<String>) -> Self {
        self.serial = serial.into();
        self
    }

    /// Model number: up to 40 characters of printable ASCII.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = model.into();
        self
    }

    /// Largest transfer of one command: the smallest host page times two to this power, 1 to 15;
    /// `None` is no limit but that of 65,536 blocks (MDTS, Base 5.17.2.1).
    pub fn mdts(mut self, power: Option<u8>) -> Self {
        self.mdts = power;
        self
    }

    /// I/O queue pairs, 1 to 65,534: what the controller grants at most, whatever is asked for.
    pub fn max_queues(mut self, pairs: u16) -> Self {
        self.max_queues = pairs;
        self
    }

    /// Entries of an I/O queue at most, 2 to 65,536 (CAP.MQES).
    pub fn max_queue_entries(mut self, entries: u32) -> Self {
        self.max_queue_entries = entries;
        self
    }

    /// Bytes from one doorbell to the next: a power of two, 4 to 131,072 (CAP.DSTRD).
    pub fn doorbell_stride(mut self, bytes: u32) -> Self {
        self.doorbell_stride = bytes;
        self
    }

    /// Smallest and largest host page in bytes: powers of two, 4 KiB to 128 MiB (CAP.MPSMIN and
    /// CAP.MPSMAX).
    pub fn page_sizes(mut self, min: u32, max: u32) -> Self {
        self.min_page_size = min;
        self.max_page_size = max;
        self
    }

    /// What is to go wrong; nothing without it.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// How fast I/O commands are; as fast as the machine without it.
    pub fn service(mut self, service: Service) -> Self {
        self.service = service;
        self
    }

    /// A volatile write cache of this many bytes for each namespace that can be written, 64 KiB
    /// to 1 GiB. Writes stay in it until a Flush, a write with FUA to their blocks, the end of
    /// the Volatile Write Cache feature, a shutdown, or until there is no more room; then the
    /// block written first is stored. [`Controller::power_cut`](crate::Controller::power_cut)
    /// takes what is in it. Write Zeroes and Deallocate of more blocks than fit, or than 65,536,
    /// are stored at once.
    ///
    /// Without it only an image has a volatile cache, that of this machine, which a simulated
    /// power cut does not reach.
    pub fn write_cache(mut self, bytes: u64) -> Self {
        self.write_cache = Some(bytes);
        self
    }

    /// Whether the host may lend memory for doorbells (Doorbell Buffer Config, Base 5.8; OACS
    /// bit 8); not by default. The doorbells of all queues must then fit the smallest page.
    ///
    /// The controller is one that has to be rung when EventIdx asks for it: an I/O submission
    /// queue that was empty is not looked at before its doorbell is written.
    pub fn shadow_doorbells(mut self, offered: bool) -> Self {
        self.shadow_doorbells = offered;
        self
    }

    /// Whether I/O commands may use SGLs (Base 4.1.2; SGLS), with data blocks of any alignment
    /// and bit buckets; not by default. Lists describe just what is transferred, in at most
    /// 65,536 descriptors.
    pub fn sgl(mut self, offered: bool) -> Self {
        self.sgl = offered;
        self
    }

    /// Checks every setting and gives each namespace its identifier, ascending.
    pub(crate) fn check(&self) -> Result<Vec<(u32, NamespaceConfig)>, Error> {
        let power_of_two = |setting, value: u32, min: u32, max: u32, allowed| {
            let good = value.is_power_of_two() && (min..=max).contains(&value);
            require(good, setting, value.into(), allowed)
        };
        let pages = "powers of two from 4096 to 134217728";
        power_of_two("page_sizes min", self.min_page_size, 1 << 12, 1 << 27, pages)?;
        power_of_two("page_sizes max", self.max_page_size, 1 << 12, 1 << 27, pages)?;
        let ordered = self.min_page_size <= self.max_page_size;
        require(ordered, "page_sizes max", self.max_page_size.into(), "min and above")?;
        let strides = "powers of two from 4 to 131072";
        power_of_two("doorbell_stride", self.doorbell_stride, 4, 128 << 10, strides)?;
        let entries = self.max_queue_entries;
        let good = (2..=65_536).contains(&entries);
        require(good, "max_queue_entries", entries.into(), "2 to 65536")?;
        let good = (1..=65_534).contains(&self.max_queues);
        require(good, "max_queues", self.max_queues.into(), "1 to 65534")?;
        let area = 2 * (u64::from(self.max_queues) + 1) * u64::from(self.doorbell_stride);
        require(area <= MAX_DOORBELL_AREA, "doorbell area", area, "64 MiB")?;
        let fits = !self.shadow_doorbells || area <= u64::from(self.min_page_size);
        require(fits, "area of shadow doorbells", area, "the smallest page")?;
        if let Some(mdts) = self.mdts {
            require((1..=15).contains(&mdts), "mdts", mdts.into(), "1 to 15")?;
        }
        if let Some(bytes) = self.write_cache {
            let good = (64 << 10..=1 << 30).contains(&bytes);
            require(good, "write_cache", bytes, "64 KiB to 1 GiB")?;
        }
        self.faults.check()?;
        self.service.check()?;
        text("serial", &self.serial, 20)?;
        text("model", &self.model, 40)?;
        self.numbered_namespaces()
    }

    fn numbered_namespaces(&self) -> Result<Vec<(u32, NamespaceConfig)>, Error> {
        if self.namespaces.is_empty() {
            return Err(Error::NoNamespace);
        }
        let mut seen = BTreeSet::new();
        let mut next = 1;
        let mut numbered = Vec::with_capacity(self.namespaces.len());
        for namespace in &self.namespaces {
            let nsid = namespace.nsid.unwrap_or(next);
            require((1..=MAX_NSID).contains(&nsid), "nsid", nsid.into(), "1 to 1024")?;
            if !seen.insert(nsid) {
                return Err(Error::DuplicateNamespace { nsid });
            }
            namespace.check()?;
            next = nsid + 1;
            numbered.push((nsid, namespace.clone()));
        }
        numbered.sort_by_key(|(nsid, _)| *nsid);
        Ok(numbered)
    }
}

pub(crate) fn require(
    good: bool,
    setting: &'static str,
    value: u64,
    allowed: &'static str,
) -> Result<(), Error> {
    if good { Ok(()) } else { Err(Error::Setting { setting, value, allowed }) }
}

/// Identify strings are ASCII of fixed length; the number in the error is the length.
fn text(setting: &'static str, text: &str, max: usize) -> Result<(), Error> {
    let good = text.len() <= max && text.bytes().all(|b| (0x20..0x7f).contains(&b));
    require(good, setting, text.len() as u64, "printable ASCII that fits the field")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Config {
        Config::new().namespace(NamespaceConfig::new(Backing::null(1 << 20)))
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let setting = |config: Config| match config.check() {
            Err(Error::Setting { setting, .. }) => setting,
            other => panic!("{other:?}"),
        };
        assert_eq!(setting(one().mdts(Some(0))), "mdts");
        assert_eq!(setting(one().max_queues(0)), "max_queues");
        assert_eq!(setting(one().max_queue_entries(1)), "max_queue_entries");
        assert_eq!(setting(one().max_queue_entries(65_537)), "max_queue_entries");
        assert_eq!(setting(one().doorbell_stride(12)), "doorbell_stride");
        assert_eq!(setting(one().page_sizes(8192, 4096)), "page_sizes max");
        assert_eq!(setting(one().page_sizes(2048, 4096)), "page_sizes min");
        assert_eq!(setting(one().serial("x".repeat(21))), "serial");
        assert_eq!(setting(one().model("tab\t")), "model");
        assert_eq!(setting(one().max_queues(65_534).doorbell_stride(128 << 10)), "doorbell area");
        let blocks = NamespaceConfig::new(Backing::null(1 << 20)).block_size(520);
        assert_eq!(setting(Config::new().namespace(blocks)), "block_size");
    }

    #[test]
    fn namespaces_are_numbered_in_order_and_may_leave_gaps() {
        let namespace = || NamespaceConfig::new(Backing::null(1 << 20));
        let config = Config::new()
            .namespace(namespace())
            .namespace(namespace().nsid(5))
            .namespace(namespace())
            .namespace(namespace().nsid(2));
        let ids: Vec<u32> = config.check().unwrap().into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [1, 2, 5, 6]);
        let twice = one().namespace(namespace().nsid(1));
        assert!(matches!(twice.check(), Err(Error::DuplicateNamespace { nsid: 1 })));
        assert!(matches!(Config::new().check(), Err(Error::NoNamespace)));
    }
}
