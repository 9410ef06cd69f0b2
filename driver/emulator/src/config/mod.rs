//! Settings of a controller, their ranges and their defaults.

pub(crate) mod atomic;
pub(crate) mod format;
pub(crate) mod metadata;
pub(crate) mod namespace;
pub(crate) mod quirk;

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::config::atomic::{AtomicUnits, Atomics};
use crate::config::format::LARGEST;
use crate::config::namespace::{Backing, CopyLimits, NamespaceConfig};
use crate::config::quirk::Quirk;
use crate::error::{Error, require, require_in};
use crate::faults::Faults;
use crate::faults::service::Service;

/// Largest namespace identifier that can be configured, so that the active namespaces fit one list.
///
/// See the [example](crate::NamespaceConfig#examples).
pub const NSID_MAX: u32 = 1024;
/// Largest size of the doorbell area in bytes, which bounds queues times stride.
const DOORBELL_AREA_BYTES_MAX: u64 = 64 << 20;

/// Largest number of interrupt vectors, the limit of MSI-X (PCI 6.8.2).
const VECTORS_MAX: u16 = 2048;

/// The settings of a controller. [`Config::default`] is a controller like a common drive, without
/// namespaces: 64 queue pairs of up to 4096 entries, transfers of up to 128 KiB, host pages of 4 to
/// 64 KiB. See [`Controller`](crate::Controller) for an example.
///
/// # Examples
/// ```
/// use nvio_emulator::{Backing, Config, Controller, Faults, NamespaceConfig, Quirk, Service};
///
/// let config = Config::new()
///     .namespace(NamespaceConfig::new(Backing::memory(1 << 20)))
///     .serial("TEST0001")
///     .model("A drive")
///     .mdts(Some(5))
///     .crdt([10, 50, 100])
///     .max_queues(4)
///     .max_queue_entries(256)
///     .doorbell_stride(4)
///     .page_sizes(4096, 65536)
///     .faults(Faults::new())
///     .service(Service::new())
///     .write_cache(1 << 20)
///     .atomic_writes(8, 1)
///     .format_nvm(true)
///     .namespace_management(16 << 20)
///     .shadow_doorbells(true)
///     .sgl(true)
///     .controller_memory(1 << 20)
///     .intx(false)
///     .pci_id(0x144d, 0xa821)
///     .quirk(Quirk::OnesAfterReset);
/// let controller = Controller::new(&config)?;
///
/// // A buffer that is announced as before NVMe 1.4.
/// let namespace = NamespaceConfig::new(Backing::memory(1 << 20));
/// let legacy = Config::new().namespace(namespace).legacy_controller_memory(1 << 20);
/// let controller = Controller::new(&legacy)?;
/// # Ok::<(), nvio_emulator::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) namespaces: Vec<NamespaceConfig>,
    pub(crate) serial: String,
    pub(crate) model: String,
    pub(crate) mdts: Option<u8>,
    pub(crate) crdt: [u16; 3],
    pub(crate) max_queues: u16,
    pub(crate) max_queue_entries: u32,
    pub(crate) doorbell_stride: u32,
    pub(crate) min_page_size: u32,
    pub(crate) max_page_size: u32,
    pub(crate) faults: Faults,
    pub(crate) service: Service,
    pub(crate) write_cache: Option<u64>,
    pub(crate) atomics: AtomicUnits,
    pub(crate) format_nvm: bool,
    pub(crate) unallocated: Option<u64>,
    pub(crate) shadow_doorbells: bool,
    pub(crate) sgl: bool,
    pub(crate) controller_memory: Option<BufferConfig>,
    pub(crate) intx: bool,
    pub(crate) quirks: Vec<Quirk>,
    /// PCI vendor and device ID; `None` for those of the emulator.
    pub(crate) pci_id: Option<(u16, u16)>,
    pub(crate) socket: Option<PathBuf>,
}

/// The settings of a Controller Memory Buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BufferConfig {
    /// Size in bytes, a multiple of 4096.
    pub(crate) bytes: u64,
    /// The buffer needs no CMBMSC and is at the address of its BAR, as in NVMe 1.2 and 1.3.
    pub(crate) legacy: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namespaces: Vec::new(),
            serial: "NVIO00000001".into(),
            model: "nvio embedded controller".into(),
            mdts: Some(5),
            crdt: [0; 3],
            max_queues: 64,
            max_queue_entries: 4096,
            doorbell_stride: 4,
            min_page_size: 4 << 10,
            max_page_size: 64 << 10,
            faults: Faults::new(),
            service: Service::new(),
            write_cache: None,
            atomics: AtomicUnits::default(),
            format_nvm: false,
            unallocated: None,
            shadow_doorbells: false,
            sgl: false,
            controller_memory: None,
            intx: false,
            quirks: Vec::new(),
            pci_id: None,
            socket: None,
        }
    }
}

impl Config {
    /// Creates the settings of [`Config::default`].
    ///
    /// See the [example](Self#examples).
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a namespace. At least one is required, unless [`Self::namespace_management`] is
    /// offered.
    ///
    /// See the [example](Self#examples).
    pub fn namespace(mut self, namespace: NamespaceConfig) -> Self {
        self.namespaces.push(namespace);
        self
    }

    /// Sets the serial number: up to 20 characters of printable ASCII.
    ///
    /// See the [example](Self#examples).
    pub fn serial(mut self, serial: impl Into<String>) -> Self {
        self.serial = serial.into();
        self
    }

    /// Sets the model number: up to 40 characters of printable ASCII.
    ///
    /// See the [example](Self#examples).
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = model.into();
        self
    }

    /// Sets the largest transfer of one command: the smallest host page times two to this power, 1
    /// to 15. With `None` only the number of blocks is limited, to 65,536 (MDTS, Base 5.17.2.1).
    ///
    /// See the [example](Self#examples).
    pub fn mdts(mut self, power: Option<u8>) -> Self {
        self.mdts = power;
        self
    }

    /// Sets Command Retry Delay Times 1 to 3 in units of 100 ms, 0 by default (CRDT1 to CRDT3, Base
    /// 5.17.2.1). Statuses of faults carry a Command Retry Delay only after the host has enabled
    /// it (ACRE).
    ///
    /// See the [example](Self#examples).
    pub fn crdt(mut self, delays: [u16; 3]) -> Self {
        self.crdt = delays;
        self
    }

    /// Sets the largest number of I/O queue pairs that the controller grants, 1 to 65,534.
    ///
    /// See the [example](Self#examples).
    pub fn max_queues(mut self, pairs: u16) -> Self {
        self.max_queues = pairs;
        self
    }

    /// Sets the largest number of entries of an I/O queue, 2 to 65,536 (CAP.MQES).
    ///
    /// See the [example](Self#examples).
    pub fn max_queue_entries(mut self, entries: u32) -> Self {
        self.max_queue_entries = entries;
        self
    }

    /// Sets the bytes from one doorbell to the next: a power of two, 4 to 131,072 (CAP.DSTRD).
    ///
    /// See the [example](Self#examples).
    pub fn doorbell_stride(mut self, bytes: u32) -> Self {
        self.doorbell_stride = bytes;
        self
    }

    /// Sets the smallest and largest host page in bytes: powers of two, 4 KiB to 128 MiB
    /// (CAP.MPSMIN and CAP.MPSMAX).
    ///
    /// See the [example](Self#examples).
    pub fn page_sizes(mut self, min: u32, max: u32) -> Self {
        self.min_page_size = min;
        self.max_page_size = max;
        self
    }

    /// Sets the faults; none by default.
    ///
    /// See the [example](Self#examples).
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Sets the speed of I/O commands; the speed of the machine by default.
    ///
    /// See the [example](Self#examples).
    pub fn service(mut self, service: Service) -> Self {
        self.service = service;
        self
    }

    /// Adds a volatile write cache of this many bytes to each writable namespace, 64 KiB to 1 GiB.
    /// Writes stay in it until a Flush, a write with FUA to their blocks, the end of the Volatile
    /// Write Cache feature, a shutdown, or until the cache is full; then the block written first is
    /// stored. [`Controller::power_cut`](crate::Controller::power_cut) loses cached blocks. Write
    /// Zeroes and Deallocate of more blocks than fit, or than 65,536, are stored at once.
    ///
    /// Without it only an image has a volatile cache, the page cache of this machine, which a
    /// simulated power cut does not lose.
    ///
    /// See the [example](Self#examples).
    pub fn write_cache(mut self, bytes: u64) -> Self {
        self.write_cache = Some(bytes);
        self
    }

    /// Sets the blocks of the largest write that is atomic in every namespace: in normal operation
    /// (AWUN), and when the power fails (AWUPF, at most the former); 1 to 65,536, 1 by default.
    /// [`NamespaceConfig::atomic_writes`] sets larger units for one namespace.
    ///
    /// With [`Self::write_cache`] a power cut stores or loses a write of up to AWUPF blocks as a
    /// whole, even without a Flush; writes that overlap are stored or lost together. The unit has
    /// to fit the cache, and 1 MiB. Commands are executed one after the other, so every write is
    /// atomic in normal operation.
    ///
    /// See the [example](Self#examples).
    pub fn atomic_writes(mut self, normal: u32, power_fail: u32) -> Self {
        self.atomics = AtomicUnits { normal, power_fail };
        self
    }

    /// Offers Format NVM (Base 5.14; OACS bit 1); not by default. Memory and null namespaces can
    /// then have blocks of 512 bytes with 0 or 8 bytes of metadata, and blocks of 4096 bytes with
    /// 0, 8 or 64 bytes. A format destroys their data. An image keeps its format and is zeroed.
    /// User data can be erased, but not cryptographically.
    ///
    /// See the [example](Self#examples).
    pub fn format_nvm(mut self, offered: bool) -> Self {
        self.format_nvm = offered;
        self
    }

    /// Offers Namespace Management and Namespace Attachment (Base 5.23, 5.22; OACS bit 3), with
    /// `unallocated` bytes of memory for new namespaces. There can be up to [`NSID_MAX`]
    /// namespaces. Deleting one returns its capacity to the unallocated bytes; the file of an image
    /// stays as it is. A new controller has the configured namespaces again.
    ///
    /// See the [example](Self#examples).
    pub fn namespace_management(mut self, unallocated: u64) -> Self {
        self.unallocated = Some(unallocated);
        self
    }

    /// Returns the number of interrupt vectors: one for each completion queue, as far as they go.
    pub(crate) fn vectors(&self) -> u16 {
        VECTORS_MAX.min(self.max_queues + 1)
    }

    /// Returns true if namespaces that are not images have several formats.
    pub(crate) fn offers_formats(&self) -> bool {
        self.format_nvm || self.unallocated.is_some()
    }

    /// Offers doorbells in host memory (Doorbell Buffer Config, Base 5.8; OACS bit 8); not by
    /// default. The doorbells of all queues must then fit the smallest page.
    ///
    /// The host has to ring this controller whenever EventIdx requests it: an I/O submission queue
    /// that was empty is not read before its doorbell is written.
    ///
    /// See the [example](Self#examples).
    pub fn shadow_doorbells(mut self, offered: bool) -> Self {
        self.shadow_doorbells = offered;
        self
    }

    /// Offers SGLs for I/O commands (Base 4.1.2; SGLS), with data blocks of any alignment and bit
    /// buckets; not by default. A list describes exactly the transferred bytes, in at most 65,536
    /// descriptors.
    ///
    /// See the [example](Self#examples).
    pub fn sgl(mut self, offered: bool) -> Self {
        self.sgl = offered;
        self
    }

    /// Adds a Controller Memory Buffer of this many bytes, a multiple of 4096 up to 1 GiB, in BAR
    /// 2, for submission queues (Base 8.5; CAP.CMBS). The host enables it with CMBMSC, which sets
    /// the addresses of queues in it.
    ///
    /// See the [example](Self#examples).
    pub fn controller_memory(mut self, bytes: u64) -> Self {
        self.controller_memory = Some(BufferConfig { bytes, legacy: false });
        self
    }

    /// Adds a Controller Memory Buffer as before NVMe 1.4: it needs no enabling, and its addresses
    /// are those of BAR 2 in PCI configuration space, with memory space enabled. A BAR 2 at address
    /// 0 is not placed.
    ///
    /// See the [example](Self#examples).
    pub fn legacy_controller_memory(mut self, bytes: u64) -> Self {
        self.controller_memory = Some(BufferConfig { bytes, legacy: true });
        self
    }

    /// Sets whether the controller requires working interrupts, as SPDK's vfio-user target does;
    /// not by default.
    ///
    /// Interrupts are enabled while Interrupt Disable is clear in the PCI Command register (INTx),
    /// or while MSI-X Enable is set. A completion queue with interrupts, such as the admin queue,
    /// then needs an eventfd for its vector: the first completion without one sets CSTS.CFS. While
    /// interrupts are disabled, no eventfd is signalled. By default an eventfd is signalled
    /// whenever there is one.
    ///
    /// See the [example](Self#examples).
    pub fn intx(mut self, required: bool) -> Self {
        self.intx = required;
        self
    }

    /// Adds a difference from the specification or from a usual controller.
    ///
    /// See the [example](Self#examples).
    pub fn quirk(mut self, quirk: Quirk) -> Self {
        self.quirks.push(quirk);
        self
    }

    pub(crate) fn has_quirk(&self, quirk: Quirk) -> bool {
        self.quirks.contains(&quirk)
    }

    /// Sets the PCI vendor and device ID of an [`Emulator`](crate::Emulator), by which a driver knows
    /// the quirks of a controller. The default is not assigned to any vendor.
    ///
    /// See the [example](Self#examples).
    pub fn pci_id(mut self, vendor: u16, device: u16) -> Self {
        self.pci_id = Some((vendor, device));
        self
    }

    /// Sets the path of the socket of an [`Emulator`](crate::Emulator). The default is in a private
    /// directory that only this user can enter. A socket of a dead process is replaced.
    ///
    /// See the [example](Self::start).
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// Checks every setting and assigns namespace identifiers, ascending.
    pub(crate) fn check(&self) -> Result<Vec<(u32, NamespaceConfig)>, Error> {
        let (min, max) = (self.min_page_size, self.max_page_size);
        for (setting, size) in [("page_sizes min", min), ("page_sizes max", max)] {
            let good = size.is_power_of_two() && (1 << 12..=1 << 27).contains(&size);
            require(good, setting, size, "powers of two from 4096 to 134217728")?;
        }
        require(min <= max, "page_sizes max", max, "min and above")?;
        let stride = self.doorbell_stride;
        let good = stride.is_power_of_two() && (4..=128 << 10).contains(&stride);
        require(good, "doorbell_stride", stride, "powers of two from 4 to 131072")?;
        require_in(2..=65_536, "max_queue_entries", self.max_queue_entries, "2 to 65536")?;
        require_in(1..=65_534, "max_queues", self.max_queues, "1 to 65534")?;
        let area = 2 * (u64::from(self.max_queues) + 1) * u64::from(self.doorbell_stride);
        require(area <= DOORBELL_AREA_BYTES_MAX, "doorbell area", area, "64 MiB")?;
        let fits = !self.shadow_doorbells || area <= u64::from(self.min_page_size);
        require(fits, "area of shadow doorbells", area, "the smallest page")?;
        if let Some(mdts) = self.mdts {
            require_in(1..=15, "mdts", mdts, "1 to 15")?;
        }
        if let Some(bytes) = self.write_cache {
            require_in(64 << 10..=1 << 30, "write_cache", bytes, "64 KiB to 1 GiB")?;
        }
        self.atomics.check()?;
        if self.unallocated.is_some() {
            Atomics::default().check(self.atomics, LARGEST, self.write_cache)?;
        }
        if let Some(BufferConfig { bytes, .. }) = self.controller_memory {
            let good = bytes.is_multiple_of(4096) && (1..=1 << 30).contains(&bytes);
            require(good, "controller_memory", bytes, "multiples of 4096 up to 1 GiB")?;
        }
        self.faults.check()?;
        self.service.check()?;
        text("serial", &self.serial, 20)?;
        text("model", &self.model, 40)?;
        self.numbered_namespaces()
    }

    fn numbered_namespaces(&self) -> Result<Vec<(u32, NamespaceConfig)>, Error> {
        if self.namespaces.is_empty() && self.unallocated.is_none() {
            return Err(Error::NoNamespace);
        }
        let mut seen = BTreeSet::new();
        let mut next = 1;
        let mut numbered = Vec::with_capacity(self.namespaces.len());
        for namespace in &self.namespaces {
            let nsid = namespace.nsid.unwrap_or(next);
            require_in(1..=NSID_MAX, "nsid", nsid, "1 to 1024")?;
            if !seen.insert(nsid) {
                return Err(Error::DuplicateNamespace { nsid });
            }
            namespace.check(self)?;
            next = nsid + 1;
            numbered.push((nsid, namespace.clone()));
        }
        numbered.sort_by_key(|(nsid, _)| *nsid);
        Ok(numbered)
    }
}

impl NamespaceConfig {
    /// Checks every setting but the identifier against the settings of the controller.
    pub(crate) fn check(&self, shared: &Config) -> Result<(), Error> {
        let (size, metadata) = (self.block_size, self.metadata);
        let good = size.is_power_of_two() && (512..=65_536).contains(&size);
        require(good, "block_size", size, "powers of two from 512 to 65536")?;
        let good = metadata.is_multiple_of(4) && metadata <= 128;
        require(good, "metadata", metadata, "multiples of 4 up to 128")?;
        let CopyLimits { range, total, ranges } = self.copy_limits;
        require_in(1..=256, "copy ranges", ranges, "1 to 256")?;
        require(range >= 1, "copy range", range, "1 to 65535")?;
        require(total >= range.into(), "copy total", total, "those of one range and above")?;
        let needed = self.protection.map_or(0, |protection| protection.format.size());
        let fits = usize::from(metadata) >= needed;
        require(fits, "metadata with protection", metadata, "the protection information")?;
        let is_image = matches!(self.backing, Backing::Image { .. });
        let largest = if shared.offers_formats() && !is_image { LARGEST } else { 0 };
        self.atomics.check(shared.atomics, size.max(largest), shared.write_cache)
    }
}

/// Checks an Identify string, which is ASCII of fixed length. The number in the error is its
/// length.
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
        for bytes in [0, 4095, (1 << 30) + 4096] {
            assert_eq!(setting(one().controller_memory(bytes)), "controller_memory");
        }
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
