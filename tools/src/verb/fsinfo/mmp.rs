//! The multi-mount protection block in the words of dumpe2fs.

use nvio_ext4::MmpFields;

use super::report::Report;
use crate::record::Record;
use crate::time;

/// Adds all fields.
pub fn add(report: &mut Report, mmp: &MmpFields) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // As printf("%#8x") prints it: 0 has no prefix.
    let sequence = match mmp.sequence {
        0 => "00000000".to_owned(),
        sequence => format!("{sequence:#08x}"),
    };
    let mut fields = Record::default();
    fields.value("mmp_magic", "mmp_magic", format!("{:#x}", mmp.magic));
    fields.value("mmp_check_interval", "mmp_check_interval", mmp.check_interval);
    fields.field("mmp_sequence", "mmp_sequence", sequence, format!("{:#010x}", mmp.sequence));
    fields.field("mmp_update_date", "mmp_update_date", time::local(mmp.time), time::utc(mmp.time));
    fields.value("mmp_update_time", "mmp_update_time", mmp.time.seconds);
    fields.value("mmp_node_name", "mmp_node_name", text(mmp.node.as_bytes()));
    fields.value("mmp_device_name", "mmp_device_name", text(mmp.device.as_bytes()));
    report.section("MMP_block", fields);
}
