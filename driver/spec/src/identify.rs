//! Identify data structures (Base 5.17.2, NVM 4.1.5).

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::IDENTIFY_SIZE;

/// Values of the Controller or Namespace Structure field (Base 5.17.1, figure 273).
///
/// See the [example](crate::Sqe#examples).
pub mod cns {
    /// Identify Namespace (NVM 4.1.5.1).
    pub const NAMESPACE: u8 = 0x00;
    /// Identify Controller (Base 5.17.2.1).
    pub const CONTROLLER: u8 = 0x01;
    /// Active namespace IDs above the command's NSID (Base 5.17.2.2).
    pub const ACTIVE_NAMESPACES: u8 = 0x02;
    /// Namespace identification descriptors (Base 5.17.2.3).
    pub const NAMESPACE_DESCRIPTORS: u8 = 0x03;
    /// I/O command set specific structure of a namespace (NVM 4.1.5.3).
    pub const COMMAND_SET_NAMESPACE: u8 = 0x05;
    /// I/O command set specific structure of the controller (NVM 4.1.5.4).
    pub const COMMAND_SET_CONTROLLER: u8 = 0x06;
    /// Allocated namespace IDs above the command's NSID (Base 5.17.2.9).
    pub const ALLOCATED_NAMESPACES: u8 = 0x10;
    /// Identify Namespace of an allocated namespace, attached or not (NVM 4.1.5.5).
    pub const ALLOCATED_NAMESPACE: u8 = 0x11;
    /// Controllers that are attached to a namespace (Base 5.17.2.11).
    pub const ATTACHED_CONTROLLERS: u8 = 0x12;
    /// Controllers of the subsystem (Base 5.17.2.12).
    pub const CONTROLLERS: u8 = 0x13;
}

/// Identify Controller of the NVM command set, 4096 bytes (NVM 4.1.5.4, figure 103). A field of 0
/// is unlimited.
///
/// See the [example](crate::IdentifyController#examples).
#[repr(C)]
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IdentifyNvmController {
    /// Verify Size Limit (VSL): a power of two of the smallest page.
    pub vsl: u8,
    /// Write Zeroes Size Limit (WZSL): a power of two of the smallest page.
    pub wzsl: u8,
    /// Write Uncorrectable Size Limit (WUSL): a power of two of the smallest page.
    pub wusl: u8,
    /// Dataset Management Ranges Limit (DMRL): ranges of one command.
    pub dmrl: u8,
    /// Dataset Management Range Size Limit (DMRSL): blocks of one range.
    pub dmrsl: U32,
    /// Dataset Management Size Limit (DMSL): blocks of one command.
    pub dmsl: U64,
    /// Reserved.
    pub reserved_16: [u8; 4080],
}

const _: () = assert!(size_of::<IdentifyNvmController>() == IDENTIFY_SIZE);

/// Identify Controller, 4096 bytes (Base 5.17.2.1, figure 275).
///
/// # Examples
/// ```
/// use nvio_spec::IdentifyController;
/// use zerocopy::FromZeros;
///
/// // The controller fills the structure; a driver reads it from 4096 bytes of memory.
/// let mut identify = IdentifyController::new_zeroed();
/// identify.mn = *b"Model of a drive                        ";
/// identify.mdts = 5;
/// assert_eq!(identify.model(), "Model of a drive");
/// assert_eq!((identify.serial(), identify.firmware(), identify.nqn()), Default::default());
/// assert_eq!(identify.max_transfer(12), Some(128 << 10), "32 pages of 4 KiB");
/// assert!(!identify.has_write_cache() && !identify.has_extended_formats());
///
/// let state = &identify.psd[0];
/// assert_eq!((state.max_power(), state.idle_power(), state.active_power()), (0, None, None));
/// assert!(!state.is_non_operational());
/// ```
#[repr(C)]
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IdentifyController {
    /// PCI vendor.
    pub vid: U16,
    /// PCI subsystem vendor.
    pub ssvid: U16,
    /// Serial number, ASCII, padded with spaces.
    pub sn: [u8; 20],
    /// Model number, ASCII, padded with spaces.
    pub mn: [u8; 40],
    /// Firmware revision, ASCII, padded with spaces.
    pub fr: [u8; 8],
    /// Recommended arbitration burst, a power of two.
    pub rab: u8,
    /// IEEE OUI.
    pub ieee: [u8; 3],
    /// Multi-path and namespace sharing.
    pub cmic: u8,
    /// Maximum data transfer size: a power of two of the smallest page; 0 is unlimited.
    pub mdts: u8,
    /// Controller ID.
    pub cntlid: U16,
    /// Version, as the VS register.
    pub ver: U32,
    /// RTD3 resume latency, microseconds.
    pub rtd3r: U32,
    /// RTD3 entry latency, microseconds: how long a normal shutdown may take.
    pub rtd3e: U32,
    /// Optional asynchronous events supported.
    pub oaes: U32,
    /// Controller attributes.
    pub ctratt: U32,
    /// Read recovery levels supported, a bit each.
    pub rrls: U16,
    /// Reserved.
    pub reserved_102: [u8; 9],
    /// Controller type: 1 I/O, 2 discovery, 3 administrative; 0 not reported.
    pub cntrltype: u8,
    /// Globally unique identifier of the field replaceable unit.
    pub fguid: [u8; 16],
    /// Command retry delay times 1 to 3, 100 ms.
    pub crdt: [U16; 3],
    /// Reserved.
    pub reserved_134: [u8; 119],
    /// NVM subsystem report: bit 0 a storage device, bit 1 an enclosure.
    pub nvmsr: u8,
    /// Vital product data write cycle information.
    pub vwci: u8,
    /// Management endpoint capabilities.
    pub mec: u8,
    /// Optional admin commands supported.
    pub oacs: U16,
    /// Abort command limit, 0's based.
    pub acl: u8,
    /// Asynchronous event request limit, 0's based.
    pub aerl: u8,
    /// Firmware updates.
    pub frmw: u8,
    /// Log page attributes.
    pub lpa: u8,
    /// Error log entries, 0's based.
    pub elpe: u8,
    /// Power states supported, 0's based.
    pub npss: u8,
    /// Admin vendor specific configuration.
    pub avscc: u8,
    /// Autonomous power state transitions.
    pub apsta: u8,
    /// Warning composite temperature threshold, kelvin.
    pub wctemp: U16,
    /// Critical composite temperature threshold, kelvin.
    pub cctemp: U16,
    /// Maximum time for firmware activation, 100 ms.
    pub mtfa: U16,
    /// Host memory buffer preferred size, 4 KiB.
    pub hmpre: U32,
    /// Host memory buffer minimum size, 4 KiB.
    pub hmmin: U32,
    /// Total NVM capacity, bytes.
    pub tnvmcap: U128,
    /// Unallocated NVM capacity, bytes.
    pub unvmcap: U128,
    /// Replay protected memory block support.
    pub rpmbs: U32,
    /// Extended device self-test time, minutes.
    pub edstt: U16,
    /// Device self-test options.
    pub dsto: u8,
    /// Firmware update granularity, 4 KiB; 0 is not reported, ffh no restriction.
    pub fwug: u8,
    /// Keep alive granularity, 100 ms.
    pub kas: U16,
    /// Host controlled thermal management attributes.
    pub hctma: U16,
    /// Minimum thermal management temperature, kelvin.
    pub mntmt: U16,
    /// Maximum thermal management temperature, kelvin.
    pub mxtmt: U16,
    /// Sanitize capabilities.
    pub sanicap: U32,
    /// Host memory buffer minimum descriptor entry size, 4 KiB.
    pub hmminds: U32,
    /// Host memory buffer maximum descriptor entries.
    pub hmmaxd: U16,
    /// Largest NVM set identifier.
    pub nsetidmax: U16,
    /// Largest endurance group identifier.
    pub endgidmax: U16,
    /// Asymmetric namespace access transition time, seconds.
    pub anatt: u8,
    /// Asymmetric namespace access capabilities.
    pub anacap: u8,
    /// Largest ANA group identifier.
    pub anagrpmax: U32,
    /// Number of ANA groups.
    pub nanagrpid: U32,
    /// Persistent event log size, 64 KiB.
    pub pels: U32,
    /// Domain.
    pub domainid: U16,
    /// Reserved.
    pub reserved_358: [u8; 10],
    /// Largest endurance group capacity, bytes.
    pub megcap: U128,
    /// Reserved.
    pub reserved_384: [u8; 128],
    /// Submission queue entry sizes: required in bits 3:0, maximum in bits 7:4, powers of two.
    pub sqes: u8,
    /// Completion queue entry sizes, likewise.
    pub cqes: u8,
    /// Maximum outstanding commands; 0 is not reported.
    pub maxcmd: U16,
    /// Number of namespaces: the largest NSID that may be valid.
    pub nn: U32,
    /// Optional NVM commands supported.
    pub oncs: U16,
    /// Fused operations supported.
    pub fuses: U16,
    /// Format NVM attributes.
    pub fna: u8,
    /// Volatile write cache: bit 0 present.
    pub vwc: u8,
    /// Atomic write unit normal, blocks, 0's based.
    pub awun: U16,
    /// Atomic write unit power fail, blocks, 0's based.
    pub awupf: U16,
    /// I/O vendor specific configuration.
    pub icsvscc: u8,
    /// Namespace write protection capabilities.
    pub nwpc: u8,
    /// Atomic compare and write unit.
    pub acwu: U16,
    /// Copy descriptor formats supported.
    pub cdfs: U16,
    /// SGL support.
    pub sgls: U32,
    /// Maximum number of allowed namespaces; 0 is not reported.
    pub mnan: U32,
    /// Most namespaces attached in the domain; 0 is no limit.
    pub maxdna: U128,
    /// Most I/O controllers attached to a namespace; 0 is no limit.
    pub maxcna: U32,
    /// Reserved.
    pub reserved_564: [u8; 204],
    /// NVM subsystem NVMe Qualified Name, UTF-8, ended by NUL.
    pub subnqn: [u8; 256],
    /// Reserved.
    pub reserved_1024: [u8; 768],
    /// NVMe over Fabrics: queue capsules, in-capsule data, attributes.
    pub fabrics: [u8; 256],
    /// Power state descriptors.
    pub psd: [PowerState; 32],
    /// Vendor specific.
    pub vendor: [u8; 1024],
}

const _: () = assert!(size_of::<IdentifyController>() == IDENTIFY_SIZE);
const _: () = assert!(std::mem::offset_of!(IdentifyController, oacs) == 256);
const _: () = assert!(std::mem::offset_of!(IdentifyController, cntrltype) == 111);
const _: () = assert!(std::mem::offset_of!(IdentifyController, nvmsr) == 253);
const _: () = assert!(std::mem::offset_of!(IdentifyController, tnvmcap) == 280);
const _: () = assert!(std::mem::offset_of!(IdentifyController, sanicap) == 328);
const _: () = assert!(std::mem::offset_of!(IdentifyController, megcap) == 368);
const _: () = assert!(std::mem::offset_of!(IdentifyController, sqes) == 512);
const _: () = assert!(std::mem::offset_of!(IdentifyController, sgls) == 536);
const _: () = assert!(std::mem::offset_of!(IdentifyController, subnqn) == 768);
const _: () = assert!(std::mem::offset_of!(IdentifyController, psd) == 2048);

impl IdentifyController {
    /// Returns the serial number as text.
    ///
    /// See the [example](Self#examples).
    pub fn serial(&self) -> String {
        text(&self.sn)
    }

    /// Returns the model number as text.
    ///
    /// See the [example](Self#examples).
    pub fn model(&self) -> String {
        text(&self.mn)
    }

    /// Returns the firmware revision as text.
    ///
    /// See the [example](Self#examples).
    pub fn firmware(&self) -> String {
        text(&self.fr)
    }

    /// Returns the NVMe Qualified Name of the subsystem; empty when not reported.
    ///
    /// See the [example](Self#examples).
    pub fn nqn(&self) -> String {
        text(&self.subnqn)
    }

    /// Returns the largest transfer of one command in bytes, from the smallest page size as a power
    /// of two (CAP.MPSMIN). `None` is unlimited, as is a limit beyond 64 bits.
    ///
    /// See the [example](Self#examples).
    pub fn max_transfer(&self, min_page_shift: u32) -> Option<u64> {
        match self.mdts {
            0 => None,
            mdts => 1u64.checked_shl(u32::from(mdts).checked_add(min_page_shift)?),
        }
    }

    /// Returns true if there is a volatile write cache (VWC bit 0).
    ///
    /// See the [example](Self#examples).
    pub fn has_write_cache(&self) -> bool {
        self.vwc & 1 != 0
    }
}

/// Returns ASCII as the specification pads it: up to the first NUL, without surrounding spaces, and
/// with what is not printable replaced, since a device chose it and a terminal will show it.
pub(crate) fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    let printable = |&b: &u8| if (0x20..0x7f).contains(&b) { char::from(b) } else { '?' };
    field[..end].iter().map(printable).collect::<String>().trim().to_owned()
}

/// A power state descriptor, 32 bytes (Base 5.17.2.1, figure 276).
///
/// See the [example](crate::IdentifyController#examples).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PowerState {
    /// Maximum power, in 10 mW, or 0.1 mW when bit 0 of `flags` is set.
    pub mp: U16,
    /// Reserved.
    pub reserved_2: u8,
    /// Bit 0: scale of `mp`; bit 1: non-operational.
    pub flags: u8,
    /// Entry latency, microseconds.
    pub enlat: U32,
    /// Exit latency, microseconds.
    pub exlat: U32,
    /// Relative read throughput, 0 the best.
    pub rrt: u8,
    /// Relative read latency, 0 the best.
    pub rrl: u8,
    /// Relative write throughput, 0 the best.
    pub rwt: u8,
    /// Relative write latency, 0 the best.
    pub rwl: u8,
    /// Idle power, in the scale of `ips`.
    pub idlp: U16,
    /// Idle power scale, bits 7:6: 1 is 0.1 mW, 2 is 10 mW, 0 not reported.
    pub ips: u8,
    /// Reserved.
    pub reserved_19: u8,
    /// Active power, in the scale of `aps`.
    pub actp: U16,
    /// Active power workload in bits 2:0; its scale in bits 7:6, as `ips`.
    pub aps: u8,
    /// Reserved.
    pub reserved_23: [u8; 9],
}

const _: () = assert!(size_of::<PowerState>() == 32);

impl PowerState {
    /// Returns the maximum power in microwatts; 0 is not reported.
    ///
    /// See the [example](crate::IdentifyController#examples).
    pub fn max_power(&self) -> u64 {
        let unit = if self.flags & 1 == 0 { 10_000 } else { 100 };
        u64::from(self.mp.get()) * unit
    }

    /// Returns the idle power in microwatts, where it is reported.
    ///
    /// See the [example](crate::IdentifyController#examples).
    pub fn idle_power(&self) -> Option<u64> {
        scaled_power(self.idlp.get(), self.ips)
    }

    /// Returns the active power in microwatts, where it is reported.
    ///
    /// See the [example](crate::IdentifyController#examples).
    pub fn active_power(&self) -> Option<u64> {
        scaled_power(self.actp.get(), self.aps)
    }

    /// Returns true if I/O commands are not processed in this state.
    ///
    /// See the [example](crate::IdentifyController#examples).
    pub fn is_non_operational(&self) -> bool {
        self.flags & 2 != 0
    }
}

/// Returns a power of the scale in bits 7:6, in microwatts.
fn scaled_power(value: u16, scale: u8) -> Option<u64> {
    match scale >> 6 {
        1 => Some(u64::from(value) * 100),
        2 => Some(u64::from(value) * 10_000),
        _ => None,
    }
}

/// An LBA format, 4 bytes (NVM 4.1.5.1, figure 98).
///
/// See the [example](crate::IdentifyNamespace#examples).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LbaFormat {
    /// Metadata bytes for each block.
    pub ms: U16,
    /// Size of a block, as a power of two; 0 is a format that is not available.
    pub lbads: u8,
    /// Relative performance, 0 best to 3 degraded.
    pub rp: u8,
}

const _: () = assert!(size_of::<LbaFormat>() == 4);

/// Identify Namespace for the NVM command set, 4096 bytes (NVM 4.1.5.1, figure 97).
///
/// # Examples
/// ```
/// use nvio_spec::IdentifyNamespace;
/// use zerocopy::FromZeros;
///
/// let mut identify = IdentifyNamespace::new_zeroed();
/// identify.lbaf[1].lbads = 12;
/// identify.nlbaf = 1;
/// identify.flbas = 1;
/// assert_eq!((identify.format_index(), identify.format().lbads), (1, 12));
/// assert!(!identify.extended_metadata());
/// assert_eq!(identify.protection_type(), 0);
/// ```
#[repr(C)]
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IdentifyNamespace {
    /// Size in blocks; 0 for a namespace that is not active.
    pub nsze: U64,
    /// Capacity in blocks.
    pub ncap: U64,
    /// Utilisation in blocks.
    pub nuse: U64,
    /// Features.
    pub nsfeat: u8,
    /// Number of LBA formats, 0's based.
    pub nlbaf: u8,
    /// Format in use: index in bits 3:0 and 6:5 (its high bits); bit 4: metadata is extended.
    pub flbas: u8,
    /// Metadata capabilities.
    pub mc: u8,
    /// Protection information capabilities.
    pub dpc: u8,
    /// Protection information settings: type in bits 2:0; bit 3: in the first bytes.
    pub dps: u8,
    /// Sharing.
    pub nmic: u8,
    /// Reservation capabilities.
    pub rescap: u8,
    /// Format progress.
    pub fpi: u8,
    /// Deallocate features.
    pub dlfeat: u8,
    /// Atomic write unit normal, blocks, 0's based.
    pub nawun: U16,
    /// Atomic write unit power fail, blocks, 0's based.
    pub nawupf: U16,
    /// Atomic compare and write unit.
    pub nacwu: U16,
    /// Atomic boundary size, normal.
    pub nabsn: U16,
    /// Atomic boundary offset.
    pub nabo: U16,
    /// Atomic boundary size, power fail.
    pub nabspf: U16,
    /// Optimal I/O boundary in blocks; 0 is none.
    pub noiob: U16,
    /// NVM capacity, bytes.
    pub nvmcap: U128,
    /// Preferred write granularity, blocks, 0's based.
    pub npwg: U16,
    /// Preferred write alignment, blocks, 0's based.
    pub npwa: U16,
    /// Preferred deallocate granularity, blocks, 0's based.
    pub npdg: U16,
    /// Preferred deallocate alignment, blocks, 0's based.
    pub npda: U16,
    /// Optimal write size, blocks, 0's based.
    pub nows: U16,
    /// Maximum single source range length of Copy.
    pub mssrl: U16,
    /// Maximum copy length.
    pub mcl: U32,
    /// Maximum source range count of Copy, 0's based.
    pub msrc: u8,
    /// Reserved.
    pub reserved_81: [u8; 11],
    /// ANA group.
    pub anagrpid: U32,
    /// Reserved.
    pub reserved_96: [u8; 3],
    /// Attributes.
    pub nsattr: u8,
    /// NVM set.
    pub nvmsetid: U16,
    /// Endurance group.
    pub endgid: U16,
    /// Namespace GUID.
    pub nguid: [u8; 16],
    /// IEEE EUI-64.
    pub eui64: [u8; 8],
    /// LBA formats.
    pub lbaf: [LbaFormat; 64],
    /// Vendor specific.
    pub vendor: [u8; 3712],
}

const _: () = assert!(size_of::<IdentifyNamespace>() == IDENTIFY_SIZE);
const _: () = assert!(std::mem::offset_of!(IdentifyNamespace, nvmcap) == 48);
const _: () = assert!(std::mem::offset_of!(IdentifyNamespace, nguid) == 104);
const _: () = assert!(std::mem::offset_of!(IdentifyNamespace, lbaf) == 128);

impl IdentifyNamespace {
    /// Returns the index into `lbaf` of the format in use, 0 to 63. Bits 6:5 count only when the
    /// namespace has more than 16 formats.
    ///
    /// See the [example](Self#examples).
    pub fn format_index(&self) -> usize {
        let low = usize::from(self.flbas & 0xf);
        let high = usize::from(self.flbas >> 5 & 3);
        if self.nlbaf > 15 { high << 4 | low } else { low }
    }

    /// Returns the format in use.
    ///
    /// See the [example](Self#examples).
    pub fn format(&self) -> LbaFormat {
        self.lbaf[self.format_index()]
    }

    /// Returns true if metadata travels at the end of each block rather than in a buffer of its
    /// own.
    ///
    /// See the [example](Self#examples).
    pub fn extended_metadata(&self) -> bool {
        self.flbas >> 4 & 1 != 0
    }

    /// Returns the type of protection information, 0 (none) to 3.
    ///
    /// See the [example](Self#examples).
    pub fn protection_type(&self) -> u8 {
        self.dps & 7
    }
}

/// A list of namespace IDs, ascending, ended by 0 (Base 5.17.2.2).
///
/// # Examples
/// ```
/// use nvio_spec::NamespaceList;
/// use zerocopy::FromZeros;
///
/// let mut list = NamespaceList::new_zeroed();
/// list.nsid[0].set(1);
/// list.nsid[1].set(7);
/// assert_eq!(list.ids().collect::<Vec<_>>(), [1, 7]);
/// ```
#[repr(C)]
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NamespaceList {
    /// The IDs.
    pub nsid: [U32; 1024],
}

const _: () = assert!(size_of::<NamespaceList>() == IDENTIFY_SIZE);

impl NamespaceList {
    /// Returns the IDs up to the terminating 0.
    ///
    /// See the [example](Self#examples).
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.nsid.iter().map(|id| id.get()).take_while(|&id| id != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn text_is_trimmed_and_cannot_drive_a_terminal() {
        let mut identify = IdentifyController::new_zeroed();
        identify.mn.fill(b' ');
        identify.mn[..14].copy_from_slice(b"nvio \x1b[31mred\xff");
        assert_eq!(identify.model(), "nvio ?[31mred?");
        assert_eq!(identify.serial(), "");
    }

    #[test]
    fn transfer_limit_counts_from_the_smallest_page() {
        let mut identify = IdentifyController::new_zeroed();
        assert_eq!(identify.max_transfer(12), None);
        identify.mdts = 5;
        assert_eq!(identify.max_transfer(12), Some(128 << 10));
        identify.mdts = 255;
        assert_eq!(identify.max_transfer(12), None);
    }

    #[test]
    fn power_is_in_microwatts_whatever_its_scale() {
        let mut state = PowerState { mp: U16::new(2_500), ..Default::default() };
        assert_eq!((state.max_power(), state.idle_power()), (25_000_000, None));
        (state.flags, state.ips, state.aps) = (3, 1 << 6, 2 << 6 | 1);
        (state.idlp, state.actp) = (U16::new(50), U16::new(800));
        assert_eq!((state.max_power(), state.idle_power()), (250_000, Some(5_000)));
        assert_eq!(state.active_power(), Some(8_000_000));
        assert!(state.is_non_operational());
    }

    #[test]
    fn format_index_uses_its_high_bits_only_with_many_formats() {
        let mut identify = IdentifyNamespace::new_zeroed();
        identify.flbas = 0b0110_0001;
        assert_eq!(identify.format_index(), 1);
        identify.nlbaf = 40;
        assert_eq!(identify.format_index(), 49);
    }
}
