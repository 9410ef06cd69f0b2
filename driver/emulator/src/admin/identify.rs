//! Identify data structures (Base 5.17).

use nvio_spec::namespace::{ControllerList, oacs};
use nvio_spec::protection::{dpc, mc};
use nvio_spec::{
    ExtendedFormat, IDENTIFY_SIZE, IdentifyController, IdentifyNamespace, IdentifyNvmController,
    IdentifyNvmNamespace, InformationFormat, NSID_ALL, NamespaceList, Sqe, Status, cns, lpa,
    status,
};
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromZeros, IntoBytes};

use crate::admin::events as event;
use crate::admin::features::{KEEP_ALIVE_GRANULARITY, WARNING_TEMPERATURE};
use crate::admin::health;
use crate::config::Config;
use crate::config::format::{BlockFormat, FORMATS};
use crate::config::namespace::NamespaceConfig;
use crate::config::quirk::Quirk;
use crate::controller::registers::VERSION;
use crate::controller::state::Controller;
use crate::host::sgl;
use crate::media::namespace::Namespace;
use crate::media::namespaces::Namespaces;

/// Firmware revision: the version of this crate.
pub(crate) const FIRMWARE: &str = env!("CARGO_PKG_VERSION");

/// Vendor identifier, "NV". It is not assigned to a vendor, so that no driver's quirks apply.
pub(crate) const VENDOR_ID: u16 = 0x4e56;
/// Identifier of the controller (CNTLID): the only one of its subsystem.
pub(crate) const CONTROLLER_ID: u16 = 0;
/// CTRATT: formats may be extended.
const ELBAS: u32 = 1 << 15;
/// DLFEAT: deallocated blocks read as zeroes; Write Zeroes can deallocate.
const DEALLOCATED_ARE_ZEROES: u8 = 0b1001;

impl Controller {
    /// Returns the data structure of an Identify command.
    pub(crate) fn identify(&self, sqe: &Sqe) -> Result<Vec<u8>, Status> {
        let (nsid, namespaces) = (sqe.nsid.get(), &self.media.namespaces);
        match sqe.cdw10.as_bytes()[0] {
            cns::NAMESPACE | cns::CONTROLLER => {}
            _ if self.config.has_quirk(Quirk::IdentifyController) => {
                return Ok(identify_controller(&self.config, namespaces));
            }
            _ if self.config.has_quirk(Quirk::Version10) => return Err(status::INVALID_FIELD),
            _ => {}
        }
        // CNS is the low byte. The controller identifier above applies to other structures.
        match sqe.cdw10.as_bytes()[0] {
            cns::NAMESPACE => namespace(nsid, namespaces, namespaces.active(nsid)),
            cns::CONTROLLER => Ok(identify_controller(&self.config, namespaces)),
            cns::ACTIVE_NAMESPACES => identifiers(nsid, namespaces.iter()),
            cns::NAMESPACE_DESCRIPTORS => descriptors(&self.config, nsid, namespaces),
            // CSI selects the NVM command set, which has no limits besides MDTS here.
            cns::COMMAND_SET_CONTROLLER if sqe.cdw11.get() >> 24 == 0 => {
                Ok(IdentifyNvmController::new_zeroed().as_bytes().to_vec())
            }
            cns::COMMAND_SET_NAMESPACE if sqe.cdw11.get() >> 24 == 0 => {
                Ok(extended_formats(namespaces.active(nsid)))
            }
            cns if namespaces.can_be_managed() => allocated(cns, sqe, namespaces),
            _ => Err(status::INVALID_FIELD),
        }
    }
}

fn identify_controller(config: &Config, namespaces: &Namespaces) -> Vec<u8> {
    let mut data = IdentifyController::new_zeroed();
    data.vid = U16::new(VENDOR_ID);
    data.ssvid = U16::new(VENDOR_ID);
    pad(&mut data.sn, &config.serial);
    pad(&mut data.mn, &config.model);
    pad(&mut data.fr, FIRMWARE);
    data.mdts = config.mdts.unwrap_or(0);
    data.crdt = config.crdt.map(U16::new);
    data.cntlid = U16::new(CONTROLLER_ID);
    // NVMe 1.0 has neither VER nor CNTRLTYPE.
    if !config.has_quirk(Quirk::Version10) {
        data.ver = U32::new(VERSION.0);
        // An I/O controller.
        data.cntrltype = 1;
    }
    let offers_doorbells = config.shadow_doorbells || config.has_quirk(Quirk::NoDoorbellBuffer);
    data.oacs = U16::new(
        if offers_doorbells { oacs::DOORBELL_BUFFER_CONFIG } else { 0 }
            | if config.format_nvm { oacs::FORMAT_NVM } else { 0 }
            | if namespaces.can_be_managed() { oacs::NAMESPACE_MANAGEMENT } else { 0 },
    );
    let is_extended =
        |namespace: &Namespace| namespace.config.information != InformationFormat::USUAL;
    data.ctratt = U32::new(if namespaces.iter().any(is_extended) { ELBAS } else { 0 });
    data.oaes = U32::new(namespaces.notices());
    data.acl = 3;
    data.aerl = event::REQUESTS_MAX - 1;
    // One read-only firmware slot.
    data.frmw = 0b11;
    data.lpa = lpa::COMMAND_EFFECTS | lpa::EXTENDED_DATA | lpa::SUPPORTED_LOG_PAGES;
    data.elpe = health::ERROR_LOG_ENTRIES - 1;
    data.wctemp = U16::new(WARNING_TEMPERATURE);
    data.cctemp = U16::new(WARNING_TEMPERATURE + 10);
    data.tnvmcap = U128::new(namespaces.bytes());
    data.unvmcap = U128::new(namespaces.unallocated().into());
    data.kas = U16::new(KEEP_ALIVE_GRANULARITY);
    data.sqes = 0x66;
    data.cqes = 0x44;
    data.nn = U32::new(namespaces.number());
    // Compare, Dataset Management, Write Zeroes, Verify, Copy.
    data.oncs = U16::new(1 | 1 << 2 | 1 << 3 | 1 << 7 | 1 << 8);
    // Copy descriptor format 0.
    data.cdfs = U16::new(1);
    // A cache is present or not; Flush accepts the broadcast identifier.
    data.vwc = 0b110 | u8::from(namespaces.have_write_cache());
    data.sgls = U32::new(if config.sgl { sgl::SUPPORT } else { 0 });
    data.awun = zeroes_based(config.atomics.normal);
    data.awupf = zeroes_based(config.atomics.power_fail);
    let nqn = format!("nqn.2014.08.org.nvmexpress:uuid:{}", hyphenated(uuid(config, 0, 0)));
    data.subnqn[..nqn.len()].copy_from_slice(nqn.as_bytes());
    data.psd[0].mp = U16::new(100);
    data.as_bytes().to_vec()
}

/// Returns the namespace identification descriptors: a UUID (Base 5.17.2.3).
fn descriptors(config: &Config, nsid: u32, namespaces: &Namespaces) -> Result<Vec<u8>, Status> {
    let namespace = namespaces.active(nsid).ok_or(status::INVALID_NAMESPACE)?;
    let mut data = vec![0; IDENTIFY_SIZE];
    // NIDT 3h, a UUID of 16 bytes.
    data[..4].copy_from_slice(&[3, 16, 0, 0]);
    data[4..20].copy_from_slice(&uuid(config, nsid, namespace.created).to_be_bytes());
    Ok(data)
}

/// Returns a UUID (version 8, RFC 9562), which depends on the serial number, the namespace
/// identifier and the number of the created namespace only.
fn uuid(config: &Config, nsid: u32, created: u32) -> u128 {
    let half = |seed: u8| {
        let created = created.to_le_bytes().into_iter().filter(|_| created != 0);
        let bytes = config.serial.bytes().chain([seed]).chain(nsid.to_le_bytes()).chain(created);
        // FNV-1a, of 64 bits.
        let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        u128::from(bytes.fold(0xcbf2_9ce4_8422_2325, mix))
    };
    let (version, variant) = (0xf << 76, 0b11 << 62);
    (half(0) << 64 | half(1)) & !version & !variant | 8 << 76 | 0b10 << 62
}

/// Returns the formats of the protection information of a namespace (NVM 4.1.5.3).
fn extended_formats(namespace: Option<&Namespace>) -> Vec<u8> {
    let mut data = IdentifyNvmNamespace::new_zeroed();
    if let Some(namespace) = namespace {
        let information = namespace.config.information;
        let format = ExtendedFormat::new(information.guard(), information.storage_tag_bits());
        data.elbaf[..namespace.formats().len()].fill(format);
    }
    data.as_bytes().to_vec()
}

fn describe(data: &mut IdentifyNamespace, namespace: &Namespace) {
    data.nsze = U64::new(namespace.blocks);
    data.ncap = U64::new(namespace.blocks);
    data.nuse = U64::new(namespace.blocks);
    let NamespaceConfig { atomics, copy_limits, noiob, .. } = &namespace.config;
    if let Some(own) = atomics.own {
        // NSABP: the namespace has atomic units of its own.
        data.nsfeat |= 1 << 1;
        data.nawun = zeroes_based(own.normal);
        data.nawupf = zeroes_based(own.power_fail);
    }
    if let Some(boundary) = atomics.boundary {
        data.nabsn = zeroes_based(boundary.blocks);
        data.nabspf = data.nabsn;
        data.nabo = U16::new(boundary.offset);
    }
    data.mssrl = U16::new(copy_limits.range);
    data.mcl = U32::new(copy_limits.total);
    data.msrc = copy_limits.ranges.saturating_sub(1).to_le_bytes()[0];
    data.noiob = U16::new(*noiob);
    data.nvmcap = U128::new(u128::from(namespace.blocks) << namespace.block_shift);
    data.dlfeat = DEALLOCATED_ARE_ZEROES;
    data.nsattr = namespace.write_protected.into();
    let formats = namespace.formats();
    list_formats(data, &formats);
    data.flbas = namespace.format_index();
    let can_change = formats.len() > 1;
    if can_change {
        capabilities(data);
        data.dpc |= if namespace.allows_first { dpc::FIRST } else { 0 };
    }
    if let Some(metadata) = namespace.metadata {
        data.flbas |= u8::from(metadata.extended) << 4;
        data.mc |= if metadata.extended { mc::EXTENDED } else { mc::SEPARATE };
        if let Some(protection) = metadata.protection {
            let place = if protection.first { dpc::FIRST } else { dpc::LAST };
            data.dpc |= place | 1 << (protection.kind.number() - 1);
            data.dps = metadata.dps();
        }
    }
}

/// Lists the formats of a namespace, up to 16.
fn list_formats(data: &mut IdentifyNamespace, formats: &[BlockFormat]) {
    data.nlbaf = formats.len().saturating_sub(1).to_le_bytes()[0];
    for (to, from) in data.lbaf.iter_mut().zip(formats) {
        *to = from.describe();
    }
}

/// Sets the metadata capabilities of the formats that have metadata.
fn capabilities(data: &mut IdentifyNamespace) {
    data.mc = mc::EXTENDED | mc::SEPARATE;
    data.dpc = dpc::TYPES | dpc::LAST;
}

/// Returns Identify Namespace of an identifier: zeroes if it has no namespace (NVM 4.1.5.1); for
/// the broadcast value the common capabilities of namespaces that can be created.
fn namespace(
    nsid: u32,
    namespaces: &Namespaces,
    found: Option<&Namespace>,
) -> Result<Vec<u8>, Status> {
    let mut data = IdentifyNamespace::new_zeroed();
    if nsid == NSID_ALL && namespaces.can_be_managed() {
        list_formats(&mut data, &FORMATS);
        capabilities(&mut data);
        data.dlfeat = DEALLOCATED_ARE_ZEROES;
    } else if nsid == 0 || nsid > namespaces.number() {
        return Err(status::INVALID_NAMESPACE);
    }
    if let Some(namespace) = found {
        describe(&mut data, namespace);
    }
    Ok(data.as_bytes().to_vec())
}

/// Returns the data structures of controllers with namespace management (Base 5.17.2.9 to
/// 5.17.2.12).
fn allocated(cns: u8, sqe: &Sqe, namespaces: &Namespaces) -> Result<Vec<u8>, Status> {
    let nsid = sqe.nsid.get();
    let mut all = namespaces.allocated();
    match cns {
        cns::ALLOCATED_NAMESPACES => identifiers(nsid, all),
        cns::ALLOCATED_NAMESPACE => {
            if nsid == NSID_ALL {
                return Err(status::INVALID_NAMESPACE);
            }
            namespace(nsid, namespaces, all.find(|namespace| namespace.nsid == nsid))
        }
        cns::ATTACHED_CONTROLLERS | cns::CONTROLLERS => {
            let of_namespace = cns == cns::ATTACHED_CONTROLLERS;
            if of_namespace && (nsid == 0 || nsid > namespaces.number()) {
                return Err(status::INVALID_NAMESPACE);
            }
            // This controller, unless CDW10 starts the list above its identifier.
            let is_listed = !of_namespace || namespaces.active(nsid).is_some();
            let from = sqe.cdw10.get() >> 16;
            let ids = &[CONTROLLER_ID][..usize::from(is_listed && from <= CONTROLLER_ID.into())];
            Ok(ControllerList::new(ids).as_bytes().to_vec())
        }
        _ => Err(status::INVALID_FIELD),
    }
}

/// Returns the namespace identifiers above `nsid` (Base 5.17.2.2, 5.17.2.9).
fn identifiers<'a>(
    nsid: u32,
    namespaces: impl Iterator<Item = &'a Namespace>,
) -> Result<Vec<u8>, Status> {
    if nsid >= NSID_ALL - 1 {
        return Err(status::INVALID_NAMESPACE);
    }
    let mut data = NamespaceList::new_zeroed();
    let above = namespaces.map(|namespace| namespace.nsid).filter(|&id| id > nsid);
    for (entry, id) in data.nsid.iter_mut().zip(above) {
        *entry = U32::new(id);
    }
    Ok(data.as_bytes().to_vec())
}

/// Encodes a count of 1 to 65,536 as a 0's based value.
fn zeroes_based(count: u32) -> U16 {
    U16::new((count.saturating_sub(1) & 0xffff) as u16)
}

/// Copies text to a field and pads it with spaces. Text that does not fit is truncated.
pub(crate) fn pad(field: &mut [u8], text: &str) {
    field.fill(b' ');
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
}

fn hyphenated(uuid: u128) -> String {
    let hex = format!("{uuid:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
