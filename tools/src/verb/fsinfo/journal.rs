//! The fields of the journal superblock in the words and the order of dumpe2fs.

use nvio_ext4::{CompatFeatures, JournalFields, SuperblockFields};
use serde_json::Value;

use super::report::{Report, uuid_json, uuid_text};

/// `s_checksum_type` of CRC-32C.
const CHECKSUM_CRC32C: u8 = 4;

/// Adds all fields. `superblock` is the superblock of the filesystem or of the journal device.
pub fn add(report: &mut Report, superblock: &SuperblockFields, journal: &JournalFields) {
    report.words("Journal features", journal.features());
    // In KiB, truncated to 32 bits.
    let size = (journal.block_size / 1024).wrapping_mul(journal.max_len);
    let text = if size < 8192 { format!("{size}k") } else { format!("{}M", size >> 10) };
    let bytes = u64::from(journal.block_size) * u64::from(journal.max_len);
    report.value("Total journal size", text, bytes);
    let block_size = 1024u64.checked_shl(superblock.log_block_size);
    if block_size != Some(journal.block_size.into()) {
        report.number("Journal block size", journal.block_size);
    }
    let fast = superblock.compat.contains(CompatFeatures::FAST_COMMIT);
    let fast = if fast { journal.fast_commit_blocks } else { 0 };
    report.number("Total journal blocks", journal.max_len);
    report.number("Max transaction length", journal.max_len.wrapping_sub(fast));
    report.number("Fast commit length", fast);
    if journal.first != 1 {
        report.number("Journal first block", journal.first);
    }
    let sequence = journal.sequence;
    report.value("Journal sequence", format!("{sequence:#010x}"), sequence);
    report.number("Journal start", journal.start);
    if journal.users != 1 {
        report.number("Journal number of users", journal.users);
    }
    if journal.has_commit_checksum() {
        report.word("Journal checksum type", "crc32");
    }
    if journal.has_checksum() {
        let kind = if journal.checksum_type == CHECKSUM_CRC32C { "crc32c" } else { "unknown" };
        report.word("Journal checksum type", kind);
        report.hex("Journal checksum", journal.checksum);
    }
    users(report, journal);
    if journal.error != 0 {
        report.value("Journal errno", journal.error.to_string(), journal.error);
    }
}

/// Adds the users of an external journal, a line for each.
fn users(report: &mut Report, journal: &JournalFields) {
    let named = journal.user_list.first().is_some_and(|uuid| *uuid != [0; 16]);
    if journal.users == 0 || (journal.users == 1 && !named) {
        return;
    }
    let mut lines = journal.user_list.iter().map(|&uuid| uuid_text(uuid));
    let values: Vec<Value> = journal.user_list.iter().map(|&uuid| uuid_json(uuid)).collect();
    report.value("Journal users", lines.next().unwrap_or_default(), values);
    lines.for_each(|line| report.more(line));
}
