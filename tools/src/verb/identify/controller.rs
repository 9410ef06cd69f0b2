//! The fields of Identify Controller (Base 5.17.2.1, figure 275).

use nvio_driver::spec::register::Version;
use nvio_driver::spec::{IdentifyController, PowerState};

use super::field::Fields;
use crate::record::Record;

/// Decodes all fields in the order of the specification. `page_shift` is CAP.MPSMIN as a power of
/// two.
pub fn fields(id: &IdentifyController, page_shift: u32) -> Fields {
    let mut fields = Fields::default();
    capabilities(&mut fields, id, page_shift);
    admin(&mut fields, id);
    endurance(&mut fields, id);
    nvm(&mut fields, id);
    fields
}

/// Formats the IEEE OUI, which is stored with the least significant byte first.
pub fn oui(id: &IdentifyController) -> String {
    let [low, middle, high] = id.ieee;
    format!("{high:02x}-{middle:02x}-{low:02x}")
}

fn celsius(kelvin: u16) -> String {
    match kelvin {
        0 => "not reported".to_owned(),
        kelvin => format!("{} °C", i32::from(kelvin) - 273),
    }
}

fn power_of_two(exponent: u8) -> String {
    1u128.checked_shl(exponent.into()).map_or("impossible".to_owned(), |value| value.to_string())
}

/// Adds Controller Capabilities and Features.
fn capabilities(fields: &mut Fields, id: &IdentifyController, page_shift: u32) {
    let hex = |value: u16| format!("{value:#06x}");
    fields.meaning("VID", "PCI vendor", id.vid.get(), hex(id.vid.get()));
    fields.meaning("SSVID", "PCI subsystem vendor", id.ssvid.get(), hex(id.ssvid.get()));
    fields.text("SN", "serial number", id.serial());
    fields.text("MN", "model number", id.model());
    fields.text("FR", "firmware revision", id.firmware());
    let burst = if id.rab & 7 == 7 { "no limit".to_owned() } else { power_of_two(id.rab & 7) };
    fields.meaning("RAB", "recommended arbitration burst", id.rab, format!("{burst} commands"));
    fields.text("IEEE", "OUI", oui(id));
    const CMIC: [(u8, &str); 4] = [
        (0, "several ports"),
        (1, "several controllers"),
        (2, "an SR-IOV virtual function"),
        (3, "ANA reporting"),
    ];
    fields.bits("CMIC", "multi-path I/O and sharing", id.cmic, &CMIC);
    let most = id.max_transfer(page_shift);
    let most = most.map_or("no limit".to_owned(), |bytes| format!("{bytes} bytes"));
    fields.meaning("MDTS", "maximum data transfer size", id.mdts, most);
    fields.number("CNTLID", "controller ID", id.cntlid.get());
    let version = Version(id.ver.get());
    fields.meaning("VER", "version", id.ver.get(), version.to_string());
    fields.meaning("RTD3R", "RTD3 resume latency", id.rtd3r.get(), "µs");
    fields.meaning("RTD3E", "RTD3 entry latency", id.rtd3e.get(), "µs");
    const OAES: [(u8, &str); 9] = [
        (8, "namespace attributes"),
        (9, "firmware activation"),
        (11, "asymmetric namespace access"),
        (12, "predictable latency event aggregate"),
        (13, "LBA status information"),
        (14, "endurance group event aggregate"),
        (15, "normal NVM subsystem shutdown"),
        (27, "zone descriptors"),
        (31, "discovery log page"),
    ];
    fields.bits("OAES", "optional asynchronous events", id.oaes.get(), &OAES);
    const CTRATT: [(u8, &str); 16] = [
        (0, "128-bit host identifier"),
        (1, "non-operational power state permissive mode"),
        (2, "NVM sets"),
        (3, "read recovery levels"),
        (4, "endurance groups"),
        (5, "predictable latency mode"),
        (6, "traffic based keep alive"),
        (7, "namespace granularity"),
        (8, "SQ associations"),
        (9, "UUID list"),
        (10, "multi-domain subsystem"),
        (11, "fixed capacity management"),
        (12, "variable capacity management"),
        (13, "delete endurance group"),
        (14, "delete NVM set"),
        (15, "extended LBA formats"),
    ];
    fields.bits("CTRATT", "controller attributes", id.ctratt.get(), &CTRATT);
    let levels = [(4, "default"), (15, "fast fail")];
    fields.bits("RRLS", "read recovery levels", id.rrls.get(), &levels);
    let kind = match id.cntrltype {
        0 => "not reported",
        1 => "I/O controller",
        2 => "discovery controller",
        3 => "administrative controller",
        _ => "reserved",
    };
    fields.meaning("CNTRLTYPE", "controller type", id.cntrltype, kind);
    fields.identifier("FGUID", "FRU GUID", &id.fguid);
    for (name, time) in ["CRDT1", "CRDT2", "CRDT3"].into_iter().zip(id.crdt) {
        fields.meaning(name, "command retry delay time", time.get(), "100 ms");
    }
    const NVMSR: [(u8, &str); 2] = [(0, "storage device"), (1, "enclosure")];
    fields.bits("NVMSR", "NVM subsystem report", id.nvmsr, &NVMSR);
    let cycles = (0x7f, format!("{} cycles remain", id.vwci & 0x7f));
    let valid = [(7, "valid")];
    fields.bits_and_number("VWCI", "VPD write cycle information", id.vwci, &valid, cycles);
    const MEC: [(u8, &str); 2] = [(0, "SMBus or I2C"), (1, "PCIe VDM")];
    fields.bits("MEC", "management endpoint capabilities", id.mec, &MEC);
}

/// Adds Admin Command Set Attributes and Optional Controller Capabilities.
fn admin(fields: &mut Fields, id: &IdentifyController) {
    const OACS: [(u8, &str); 11] = [
        (0, "Security Send and Receive"),
        (1, "Format NVM"),
        (2, "Firmware Download and Commit"),
        (3, "Namespace Management and Attachment"),
        (4, "Device Self-test"),
        (5, "Directives"),
        (6, "NVMe-MI Send and Receive"),
        (7, "Virtualization Management"),
        (8, "Doorbell Buffer Config"),
        (9, "Get LBA Status"),
        (10, "Command and Feature Lockdown"),
    ];
    fields.bits("OACS", "optional admin commands", id.oacs.get(), &OACS);
    fields.zeroes_based("ACL", "abort command limit", id.acl, "at once");
    fields.zeroes_based("AERL", "asynchronous event request limit", id.aerl, "at once");
    const FRMW: [(u8, &str); 3] = [
        (0, "slot 1 read-only"),
        (4, "activation without reset"),
        (5, "multiple update detection"),
    ];
    let slots = (0xe, format!("{} slots", id.frmw >> 1 & 7));
    fields.bits_and_number("FRMW", "firmware updates", id.frmw, &FRMW, slots);
    const LPA: [(u8, &str); 7] = [
        (0, "health of each namespace"),
        (1, "commands supported and effects"),
        (2, "extended data"),
        (3, "telemetry"),
        (4, "persistent event log"),
        (5, "supported log pages"),
        (6, "telemetry data area 4"),
    ];
    fields.bits("LPA", "log page attributes", id.lpa, &LPA);
    fields.zeroes_based("ELPE", "error log page entries", id.elpe, "entries");
    fields.zeroes_based("NPSS", "power states", id.npss, "states");
    let vendor = [(0, "the format of the specification")];
    fields.bits("AVSCC", "admin vendor specific commands", id.avscc, &vendor);
    fields.bits("APSTA", "autonomous power state transitions", id.apsta, &[(0, "supported")]);
    let (warning, critical) = (id.wctemp.get(), id.cctemp.get());
    fields.meaning("WCTEMP", "warning temperature", warning, celsius(warning));
    fields.meaning("CCTEMP", "critical temperature", critical, celsius(critical));
    fields.meaning("MTFA", "maximum time of firmware activation", id.mtfa.get(), "100 ms");
    fields.meaning("HMPRE", "host memory buffer, preferred", id.hmpre.get(), "4 KiB");
    fields.meaning("HMMIN", "host memory buffer, minimum", id.hmmin.get(), "4 KiB");
    fields.meaning("TNVMCAP", "total NVM capacity", id.tnvmcap.get(), "bytes");
    fields.meaning("UNVMCAP", "unallocated NVM capacity", id.unvmcap.get(), "bytes");
    let rpmb = id.rpmbs.get();
    let units = format!("{} units of {} x 128 KiB", rpmb & 7, (rpmb >> 16 & 0xff) + 1);
    fields.meaning("RPMBS", "replay protected memory block", rpmb, units);
    fields.meaning("EDSTT", "extended self-test time", id.edstt.get(), "minutes");
    fields.bits("DSTO", "self-test options", id.dsto, &[(0, "one at a time in the subsystem")]);
    let granularity = match id.fwug {
        0 => "not reported",
        0xff => "no restriction",
        _ => "4 KiB",
    };
    fields.meaning("FWUG", "firmware update granularity", id.fwug, granularity);
    fields.meaning("KAS", "keep alive granularity", id.kas.get(), "100 ms");
    let (low, high) = (id.mntmt.get(), id.mxtmt.get());
    fields.bits("HCTMA", "host controlled thermal management", id.hctma.get(), &[(0, "supported")]);
    fields.meaning("MNTMT", "minimum thermal management temperature", low, celsius(low));
    fields.meaning("MXTMT", "maximum thermal management temperature", high, celsius(high));
    const SANICAP: [(u8, &str); 6] = [
        (0, "crypto erase"),
        (1, "block erase"),
        (2, "overwrite"),
        (29, "No-Deallocate inhibited"),
        (30, "media modified after sanitize: no"),
        (31, "media modified after sanitize: yes"),
    ];
    fields.bits("SANICAP", "sanitize capabilities", id.sanicap.get(), &SANICAP);
}

/// Adds the limits of the host memory buffer, NVM sets, endurance groups, and ANA.
fn endurance(fields: &mut Fields, id: &IdentifyController) {
    fields.meaning("HMMINDS", "host memory buffer, smallest entry", id.hmminds.get(), "4 KiB");
    fields.number("HMMAXD", "host memory buffer, most entries", id.hmmaxd.get());
    fields.number("NSETIDMAX", "largest NVM set ID", id.nsetidmax.get());
    fields.number("ENDGIDMAX", "largest endurance group ID", id.endgidmax.get());
    fields.meaning("ANATT", "ANA transition time", id.anatt, "s");
    const ANACAP: [(u8, &str); 7] = [
        (0, "optimized"),
        (1, "non-optimized"),
        (2, "inaccessible"),
        (3, "persistent loss"),
        (4, "change"),
        (6, "ANAGRPID does not change"),
        (7, "non-zero ANAGRPID"),
    ];
    fields.bits("ANACAP", "ANA capabilities", id.anacap, &ANACAP);
    fields.number("ANAGRPMAX", "largest ANA group ID", id.anagrpmax.get());
    fields.number("NANAGRPID", "ANA groups", id.nanagrpid.get());
    fields.meaning("PELS", "persistent event log size", id.pels.get(), "64 KiB");
    fields.number("DOMAINID", "domain", id.domainid.get());
    fields.meaning("MEGCAP", "largest endurance group capacity", id.megcap.get(), "bytes");
}

/// Adds NVM Command Set Attributes.
fn nvm(fields: &mut Fields, id: &IdentifyController) {
    let sizes =
        |value: u8| format!("{} to {} bytes", power_of_two(value & 0xf), power_of_two(value >> 4));
    fields.meaning("SQES", "submission queue entry size", id.sqes, sizes(id.sqes));
    fields.meaning("CQES", "completion queue entry size", id.cqes, sizes(id.cqes));
    fields.number("MAXCMD", "most outstanding commands", id.maxcmd.get());
    fields.number("NN", "largest namespace ID", id.nn.get());
    const ONCS: [(u8, &str); 9] = [
        (0, "Compare"),
        (1, "Write Uncorrectable"),
        (2, "Dataset Management"),
        (3, "Write Zeroes"),
        (4, "Save and Select of features"),
        (5, "reservations"),
        (6, "Timestamp"),
        (7, "Verify"),
        (8, "Copy"),
    ];
    fields.bits("ONCS", "optional NVM commands", id.oncs.get(), &ONCS);
    fields.bits("FUSES", "fused operations", id.fuses.get(), &[(0, "Compare and Write")]);
    const FNA: [(u8, &str); 4] = [
        (0, "Format applies to all namespaces"),
        (1, "secure erase applies to all namespaces"),
        (2, "cryptographic erase"),
        (3, "no format of all namespaces at once"),
    ];
    fields.bits("FNA", "Format NVM attributes", id.fna, &FNA);
    let flush = match id.vwc >> 1 & 3 {
        2 => "Flush is of one namespace",
        3 => "Flush may be of all namespaces",
        _ => "whether Flush may be of all namespaces is not reported",
    };
    let (present, flush) = ([(0, "present")], (6, flush.to_owned()));
    fields.bits_and_number("VWC", "volatile write cache", id.vwc, &present, flush);
    fields.zeroes_based("AWUN", "atomic write unit, normal", id.awun.get(), "blocks");
    fields.zeroes_based("AWUPF", "atomic write unit, power fail", id.awupf.get(), "blocks");
    let vendor = [(0, "the format of the specification")];
    fields.bits("ICSVSCC", "I/O vendor specific commands", id.icsvscc, &vendor);
    const NWPC: [(u8, &str); 3] =
        [(0, "write protection"), (1, "until a power cycle"), (2, "permanent")];
    fields.bits("NWPC", "namespace write protection", id.nwpc, &NWPC);
    fields.zeroes_based("ACWU", "atomic compare and write unit", id.acwu.get(), "blocks");
    let formats = [(0, "format 0"), (1, "format 1")];
    fields.bits("CDFS", "copy descriptor formats", id.cdfs.get(), &formats);
    let sgls = id.sgls.get();
    const SGLS: [(u8, &str); 8] = [
        (2, "keyed SGL data block"),
        (16, "bit bucket"),
        (17, "metadata of one contiguous buffer"),
        (18, "SGLs longer than the data"),
        (19, "metadata by SGL"),
        (20, "offsets as addresses"),
        (21, "transport SGL data block"),
        (22, "SGLs in CMB submission queues"),
    ];
    let alignment = match sgls & 3 {
        1 => "any alignment",
        2 => "dword alignment",
        _ => "none",
    };
    let alignment = (3, alignment.to_owned());
    fields.bits_and_number("SGLS", "scatter gather lists", sgls, &SGLS, alignment);
    fields.number("MNAN", "most namespaces", id.mnan.get());
    fields.number("MAXDNA", "most attachments in the domain", id.maxdna.get());
    fields.number("MAXCNA", "most controllers of a namespace", id.maxcna.get());
    fields.text("SUBNQN", "subsystem NQN", id.nqn());
}

/// Describes the supported power states (Base 5.17.2.1, figure 276). Relative throughput and latency
/// are 0 for the best state.
pub fn power_states(id: &IdentifyController) -> Vec<Record> {
    let states = id.psd.iter().take(usize::from(id.npss.min(31)) + 1).enumerate();
    let watts = |power: Option<u64>| match power {
        None => "-".to_owned(),
        Some(power) => format!("{}.{:04}", power / 1_000_000, power % 1_000_000 / 100),
    };
    let record = |(index, state): (usize, &PowerState)| {
        let most = Some(state.max_power()).filter(|&power| power != 0);
        let mut record = Record::default();
        record.text("  STATE", index.to_string());
        for (heading, key, power) in [
            ("MAX W", "max_microwatts", most),
            ("IDLE W", "idle_microwatts", state.idle_power()),
            ("ACTIVE W", "active_microwatts", state.active_power()),
        ] {
            record.field(heading, key, watts(power), power);
        }
        record.value("ENTRY µs", "entry_microseconds", state.enlat.get());
        record.value("EXIT µs", "exit_microseconds", state.exlat.get());
        for (heading, key, throughput, latency) in [
            ("READ", "read", state.rrt & 31, state.rrl & 31),
            ("WRITE", "write", state.rwt & 31, state.rwl & 31),
        ] {
            record.field(heading, key, format!("{throughput}/{latency}"), [throughput, latency]);
        }
        let operational = !state.is_non_operational();
        let text = if operational { "" } else { "non-operational" };
        record.field("", "operational", text, operational);
        record
    };
    states.map(record).collect()
}

/// Formats power states as a table, in watts.
pub fn power_table(states: &[Record]) -> String {
    Record::table(states, &[0, 1, 2, 3, 4, 5])
}
