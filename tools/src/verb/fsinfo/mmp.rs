//! The multi-mount protection block in the words of dumpe2fs.

use nvio_ext4::MmpFields;
use serde_json::json;

use super::report::Report;
use crate::time;

/// Adds all fields.
pub fn add(report: &mut Report, mmp: &MmpFields) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (node, device) = (text(mmp.node.as_bytes()), text(mmp.device.as_bytes()));
    // As printf("%#8x") prints it: 0 has no prefix.
    let sequence = match mmp.sequence {
        0 => "00000000".to_owned(),
        sequence => format!("{sequence:#08x}"),
    };
    let seconds = mmp.time.seconds;
    report.section(
        "MMP_block",
        vec![
            ("mmp_magic", format!("{:#x}", mmp.magic), json!(format!("{:#x}", mmp.magic))),
            ("mmp_check_interval", mmp.check_interval.to_string(), json!(mmp.check_interval)),
            ("mmp_sequence", sequence, json!(format!("{:#010x}", mmp.sequence))),
            ("mmp_update_date", time::local(mmp.time), json!(time::utc(mmp.time))),
            ("mmp_update_time", seconds.to_string(), json!(seconds)),
            ("mmp_node_name", node.clone(), json!(node)),
            ("mmp_device_name", device.clone(), json!(device)),
        ],
    );
}
