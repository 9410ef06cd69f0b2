//! `nvio ns`: the namespaces of a controller.

use std::process::ExitCode;

use clap::Args;
use indicatif::HumanBytes;
use nvio_driver::Controller;
use nvio_driver::spec::IdentifyNamespace;

use super::identify::field::identifier;
use crate::args::{ControllerArgs, Format};
use crate::error::{Error, one_line};
use crate::open;
use crate::output::print;
use crate::record::Record;

/// Show the namespaces of a controller: sizes, formats, identifiers.
#[derive(Debug, Args)]
pub struct Ns {
    #[command(flatten)]
    device: ControllerArgs,
    #[command(flatten)]
    format: Format,
}

impl Ns {
    /// Prints the active namespaces, or one of them.
    ///
    /// # Errors
    /// If the controller cannot be opened or identified.
    pub fn run(&self) -> Result<ExitCode, Error> {
        open::with_device(&self.device, |device| {
            let controller = device.controller();
            let shown = match self.device.namespace {
                Some(nsid) => vec![device.check_active(nsid)?],
                None => controller.namespace_ids()?,
            };
            let namespaces = shown.into_iter().map(|nsid| namespace(controller, nsid));
            let namespaces = namespaces.collect::<Result<Vec<Record>, Error>>()?;
            print(self.format, &namespaces, || match namespaces.is_empty() {
                true => "no active namespaces\n".to_owned(),
                false => table(&namespaces),
            })
        })
    }
}

fn namespace(controller: &Controller, nsid: u32) -> Result<Record, Error> {
    let identify = controller.identify_namespace(nsid)?;
    let unusable = controller.namespace(nsid).err().map(|error| one_line(&error));
    Ok(described(nsid, &identify, unusable))
}

/// Describes a namespace. The contents of `identify` are not trusted.
fn described(nsid: u32, identify: &IdentifyNamespace, unusable: Option<String>) -> Record {
    let format = identify.format();
    let lba_size = 1u64.checked_shl(format.lbads.into()).unwrap_or(0);
    let [size, capacity, used] = [identify.nsze, identify.ncap, identify.nuse]
        .map(|blocks| blocks.get().saturating_mul(lba_size));
    let metadata = match (format.ms.get(), identify.extended_metadata()) {
        (0, _) => "none".to_owned(),
        (bytes, true) => format!("{bytes} extended"),
        (bytes, false) => format!("{bytes} separate"),
    };
    let protection = match identify.protection_type() {
        0 => "none".to_owned(),
        kind => format!("type {kind}"),
    };
    let write_protected = identify.nsattr & 1 != 0;
    let note = write_protected.then_some("write protected");
    let notes: Vec<&str> = note.into_iter().chain(unusable.as_deref()).collect();
    let notes = notes.join("; ");
    let mut record = Record::default();
    record.value("NSID", "nsid", nsid);
    record.field("SIZE", "size", HumanBytes(size).to_string(), size);
    record.json("capacity", capacity);
    record.field("USED", "used", HumanBytes(used).to_string(), used);
    record.value("FORMAT", "format", identify.format_index());
    record.value("LBA", "lba_size", lba_size);
    record.field("METADATA", "metadata_size", metadata, format.ms.get());
    record.json("metadata_extended", identify.extended_metadata());
    record.field("PROTECTION", "protection_type", protection, identify.protection_type());
    record.json("write_protected", write_protected);
    record.optional("NGUID", "nguid", identifier(&identify.nguid));
    record.optional("EUI-64", "eui64", identifier(&identify.eui64));
    record.field("NOTE", "unusable", notes, unusable);
    record
}

fn table(namespaces: &[Record]) -> String {
    Record::table(namespaces, &[0, 1, 2, 3, 4])
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
        let wanted = ["3", "3.81 GiB", "976.56 MiB", "1", "4096", "8 extended", "type 2", nguid];
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
