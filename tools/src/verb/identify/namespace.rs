//! The fields of Identify Namespace for the NVM command set (NVM 4.1.5.1, figure 97).

use nvio_driver::spec::IdentifyNamespace;

use super::field::Fields;

/// Decodes all fields in the order of the specification.
pub fn fields(id: &IdentifyNamespace) -> Fields {
    let mut fields = Fields::default();
    formats(&mut fields, id);
    limits(&mut fields, id);
    fields
}

fn formats(fields: &mut Fields, id: &IdentifyNamespace) {
    fields.meaning("NSZE", "size", id.nsze.get(), "blocks");
    fields.meaning("NCAP", "capacity", id.ncap.get(), "blocks");
    fields.meaning("NUSE", "utilization", id.nuse.get(), "blocks");
    const NSFEAT: [(u8, &str); 5] = [
        (0, "thin provisioning"),
        (1, "atomic units of its own"),
        (2, "deallocated or unwritten block error"),
        (3, "NGUID and EUI-64 are never reused"),
        (4, "preferred write and deallocate sizes"),
    ];
    fields.bits("NSFEAT", "features", id.nsfeat, &NSFEAT);
    fields.zeroes_based("NLBAF", "LBA formats", id.nlbaf, "formats");
    let place = if id.extended_metadata() { "extended" } else { "separate" };
    let format = format!("format {}, metadata {place}", id.format_index());
    fields.meaning("FLBAS", "formatted LBA size", id.flbas, format);
    const MC: [(u8, &str); 2] = [(0, "extended"), (1, "separate")];
    fields.bits("MC", "metadata capabilities", id.mc, &MC);
    const DPC: [(u8, &str); 5] = [
        (0, "type 1"),
        (1, "type 2"),
        (2, "type 3"),
        (3, "in the first bytes of the metadata"),
        (4, "in the last bytes of the metadata"),
    ];
    fields.bits("DPC", "protection capabilities", id.dpc, &DPC);
    let kind = match id.protection_type() {
        0 => "none".to_owned(),
        kind => format!("type {kind}"),
    };
    let place = [(3, "in the first bytes")];
    fields.bits_and_number("DPS", "protection in use", id.dps, &place, (7, kind));
    fields.bits("NMIC", "sharing", id.nmic, &[(0, "may be shared")]);
    const RESCAP: [(u8, &str); 8] = [
        (0, "persist through power loss"),
        (1, "write exclusive"),
        (2, "exclusive access"),
        (3, "write exclusive, registrants only"),
        (4, "exclusive access, registrants only"),
        (5, "write exclusive, all registrants"),
        (6, "exclusive access, all registrants"),
        (7, "ignore existing key of 1.3"),
    ];
    fields.bits("RESCAP", "reservation capabilities", id.rescap, &RESCAP);
    let progress = match id.fpi >> 7 {
        0 => "not reported".to_owned(),
        _ => format!("{} % remain", id.fpi & 0x7f),
    };
    fields.meaning("FPI", "format progress", id.fpi, progress);
    let deallocate = [(3, "Write Zeroes deallocates"), (4, "guard of deallocated blocks is a CRC")];
    let contents = match id.dlfeat & 7 {
        1 => "deallocated blocks read as zeroes",
        2 => "deallocated blocks read as ones",
        _ => "contents of deallocated blocks are not reported",
    };
    let contents = (7, contents.to_owned());
    fields.bits_and_number("DLFEAT", "deallocate features", id.dlfeat, &deallocate, contents);
}

fn limits(fields: &mut Fields, id: &IdentifyNamespace) {
    fields.zeroes_based("NAWUN", "atomic write unit, normal", id.nawun.get(), "blocks");
    fields.zeroes_based("NAWUPF", "atomic write unit, power fail", id.nawupf.get(), "blocks");
    fields.zeroes_based("NACWU", "atomic compare and write unit", id.nacwu.get(), "blocks");
    fields.zeroes_based("NABSN", "atomic boundary, normal", id.nabsn.get(), "blocks");
    fields.meaning("NABO", "atomic boundary offset", id.nabo.get(), "blocks");
    fields.zeroes_based("NABSPF", "atomic boundary, power fail", id.nabspf.get(), "blocks");
    fields.meaning("NOIOB", "optimal I/O boundary", id.noiob.get(), "blocks, 0 is none");
    fields.meaning("NVMCAP", "NVM capacity", id.nvmcap.get(), "bytes");
    fields.zeroes_based("NPWG", "preferred write granularity", id.npwg.get(), "blocks");
    fields.zeroes_based("NPWA", "preferred write alignment", id.npwa.get(), "blocks");
    fields.zeroes_based("NPDG", "preferred deallocate granularity", id.npdg.get(), "blocks");
    fields.zeroes_based("NPDA", "preferred deallocate alignment", id.npda.get(), "blocks");
    fields.zeroes_based("NOWS", "optimal write size", id.nows.get(), "blocks");
    fields.meaning("MSSRL", "longest source range of Copy", id.mssrl.get(), "blocks");
    fields.meaning("MCL", "longest Copy", id.mcl.get(), "blocks");
    fields.zeroes_based("MSRC", "most source ranges of Copy", id.msrc, "ranges");
    fields.number("ANAGRPID", "ANA group", id.anagrpid.get());
    fields.bits("NSATTR", "attributes", id.nsattr, &[(0, "write protected")]);
    fields.number("NVMSETID", "NVM set", id.nvmsetid.get());
    fields.number("ENDGID", "endurance group", id.endgid.get());
    fields.identifier("NGUID", "namespace GUID", &id.nguid);
    fields.identifier("EUI64", "EUI-64", &id.eui64);
}
