//! `nvio ns`: the namespaces of a controller.

use nvio_driver::Controller;
use nvio_driver::spec::IdentifyNamespace;
use serde::Serialize;

use super::identify::field::identifier;
use crate::args::{ControllerArgs, Format};
use crate::error::Error;
use crate::open;
use crate::output::{Output, human_size};
use crate::table::Table;

#[derive(Serialize)]
struct Namespace {
    nsid: u32,
    size: u64,
    capacity: u64,
    used: u64,
    /// Index of the LBA format in use.
    format: usize,
    lba_size: u64,
    metadata_size: u16,
    /// Metadata is transferred at the end of each block, not in a separate buffer.
    metadata_extended: bool,
    /// Type of end-to-end protection; 0 is none.
    protection_type: u8,
    write_protected: bool,
    nguid: Option<String>,
    eui64: Option<String>,
    /// The reason why this driver cannot use the namespace.
    unusable: Option<String>,
}

/// Prints the active namespaces, or one of them.
///
/// # Errors
/// If the controller cannot be opened or identified.
pub fn run(args: &ControllerArgs, format: Format) -> Result<(), Error> {
    let device = open::device(args)?;
    let controller = device.controller();
    let shown = match args.namespace {
        Some(nsid) => vec![device.check_active(nsid)?],
        None => controller.namespace_ids()?,
    };
    let mut namespaces = Vec::with_capacity(shown.len());
    for nsid in shown {
        namespaces.push(namespace(controller, nsid)?);
    }
    let mut out = Output::new();
    if format.json {
        out.json(&namespaces)?;
    } else if namespaces.is_empty() {
        out.line("no active namespaces")?;
    } else {
        out.text(&table(&namespaces))?;
    }
    out.flush()
}

fn namespace(controller: &Controller, nsid: u32) -> Result<Namespace, Error> {
    let identify = controller.identify_namespace(nsid)?;
    let unusable = controller.namespace(nsid).err().map(|error| crate::error::one_line(&error));
    Ok(described(nsid, &identify, unusable))
}

/// The contents of `identify` are not trusted.
fn described(nsid: u32, identify: &IdentifyNamespace, unusable: Option<String>) -> Namespace {
    let format = identify.format();
    let lba_size = 1u64.checked_shl(format.lbads.into()).unwrap_or(0);
    let bytes = |blocks: u64| blocks.saturating_mul(lba_size);
    Namespace {
        nsid,
        size: bytes(identify.nsze.get()),
        capacity: bytes(identify.ncap.get()),
        used: bytes(identify.nuse.get()),
        format: identify.format_index(),
        lba_size,
        metadata_size: format.ms.get(),
        metadata_extended: identify.extended_metadata(),
        protection_type: identify.protection_type(),
        write_protected: identify.nsattr & 1 != 0,
        nguid: identifier(&identify.nguid),
        eui64: identifier(&identify.eui64),
        unusable,
    }
}

fn table(namespaces: &[Namespace]) -> String {
    let headings = [
        "NSID",
        "SIZE",
        "USED",
        "FORMAT",
        "LBA",
        "METADATA",
        "PROTECTION",
        "NGUID",
        "EUI-64",
        "NOTE",
    ];
    let mut table = Table::new(&headings, &[0, 1, 2, 3, 4]);
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for namespace in namespaces {
        let metadata = match (namespace.metadata_size, namespace.metadata_extended) {
            (0, _) => "none".to_owned(),
            (bytes, true) => format!("{bytes} extended"),
            (bytes, false) => format!("{bytes} separate"),
        };
        let protection = match namespace.protection_type {
            0 => "none".to_owned(),
            kind => format!("type {kind}"),
        };
        let write = namespace.write_protected.then(|| "write protected".to_owned());
        let notes: Vec<String> = write.into_iter().chain(namespace.unusable.clone()).collect();
        table.row([
            namespace.nsid.to_string(),
            human_size(namespace.size),
            human_size(namespace.used),
            namespace.format.to_string(),
            namespace.lba_size.to_string(),
            metadata,
            protection,
            dash(&namespace.nguid),
            dash(&namespace.eui64),
            notes.join("; "),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvio_driver::spec::LbaFormat;
    use zerocopy::{FromBytes, FromZeros};

    #[test]
    fn metadata_protection_and_identifiers_are_shown() {
        let mut identify = IdentifyNamespace::new_zeroed();
        (identify.nsze, identify.nuse) = (1_000_000.into(), 250_000.into());
        (identify.nlbaf, identify.flbas, identify.dps) = (1, 0x11, 0b1010);
        identify.lbaf[1] = LbaFormat { ms: 8.into(), lbads: 12, rp: 0 };
        identify.nguid[15] = 0xab;
        identify.eui64[0] = 1;
        let shown = described(3, &identify, Some("no driver".to_owned()));
        let text = table(&[shown]);
        let cells: Vec<&str> = text.lines().nth(1).unwrap().split("  ").map(str::trim).collect();
        let cells: Vec<&str> = cells.into_iter().filter(|cell| !cell.is_empty()).collect();
        let nguid = "000000000000000000000000000000ab";
        let wanted = ["3", "4.10 GB", "1.02 GB", "1", "4096", "8 extended", "type 2", nguid];
        assert_eq!(cells[..8], wanted);
        assert_eq!(cells[8..], ["0100000000000000", "no driver"]);
    }

    #[test]
    fn any_bytes_can_be_shown() {
        for byte in [0, 0x3f, 0x40, 0x80, 0xff] {
            let bytes = vec![byte; size_of::<IdentifyNamespace>()];
            let identify = IdentifyNamespace::read_from_bytes(&bytes).unwrap();
            assert_eq!(table(&[described(u32::MAX, &identify, None)]).lines().count(), 2);
        }
    }
}
