//! The fields of the superblock in the words and the order of dumpe2fs.

use nvio_ext4::{
    CompatFeatures, ErrorRecord, IncompatFeatures, RoCompatFeatures, SuperblockFields, Timestamp,
};

use super::report::Report;
use crate::users;

/// Single bits of the default mount options. Two further bits hold the journalling mode.
const MOUNT_OPTIONS: [(u32, &str); 9] = [
    (0x1, "debug"),
    (0x2, "bsdgroups"),
    (0x4, "user_xattr"),
    (0x8, "acl"),
    (0x10, "uid16"),
    (0x100, "nobarrier"),
    (0x200, "block_validity"),
    (0x400, "discard"),
    (0x800, "nodelalloc"),
];
const JOURNAL_MODES: u32 = 0x60;

const FLAGS: [(u32, &str); 3] =
    [(0x1, "signed_directory_hash"), (0x2, "unsigned_directory_hash"), (0x4, "test_filesystem")];

/// Names of errors, from number 1.
const ERROR_CODES: [&str; 17] = [
    "UNKNOWN",
    "EIO",
    "ENOMEM",
    "EFSBADCRC",
    "EFSCORRUPTED",
    "ENOSPC",
    "ENOKEY",
    "EROFS",
    "EFBIG",
    "EEXIST",
    "ERANGE",
    "EOVERFLOW",
    "EBUSY",
    "ENOTDIR",
    "ENOTEMPTY",
    "ESHUTDOWN",
    "EFAULT",
];

/// Adds all fields.
pub fn add(report: &mut Report, fields: &SuperblockFields) {
    identity(report, fields);
    policy(report, fields);
    counts(report, fields);
    groups(report, fields);
    history(report, fields);
    inodes(report, fields);
    journal(report, fields);
    errors(report, fields);
    extras(report, fields);
}

fn identity(report: &mut Report, fields: &SuperblockFields) {
    report.bytes("Filesystem volume name", &fields.label, "<none>");
    report.bytes("Last mounted on", &fields.last_mounted, "<not available>");
    report.uuid("Filesystem UUID", fields.uuid);
    report.word("Filesystem magic number", format!("0x{:04X}", fields.magic));
    let revision = match fields.revision {
        0 => "original",
        1 => "dynamic",
        _ => "unknown",
    };
    let text = format!("{} ({revision})", fields.revision);
    report.value("Filesystem revision #", text, fields.revision);
    let words = fields.compat.words().chain(fields.incompat.words());
    let words = words.chain(fields.ro_compat.words()).collect();
    report.words("Filesystem features", words);
}

fn policy(report: &mut Report, fields: &SuperblockFields) {
    if fields.flags != 0 {
        let set = FLAGS.iter().filter(|(bit, _)| fields.flags & bit != 0);
        let names: Vec<&str> = set.map(|&(_, name)| name).collect();
        // dumpe2fs prints a blank after each.
        let text: String = names.iter().map(|name| format!("{name} ")).collect();
        let text = if names.is_empty() { "(none)".to_owned() } else { text };
        report.value("Filesystem flags", text, names);
    }
    report.words("Default mount options", mount_options(fields.default_mount_options));
    if !fields.mount_options.is_empty() {
        report.bytes("Mount options", &fields.mount_options, "");
    }
    let clean = if fields.state & 0x1 != 0 { "clean" } else { "not clean" };
    let errors = if fields.state & 0x2 != 0 { " with errors" } else { "" };
    report.word("Filesystem state", format!("{clean}{errors}"));
    let behavior = match fields.errors {
        1 => "Continue",
        2 => "Remount read-only",
        3 => "Panic",
        _ => "Unknown (continue)",
    };
    report.word("Errors behavior", behavior);
    let systems = ["Linux", "Hurd", "Masix", "FreeBSD", "Lites"];
    let system = usize::try_from(fields.creator_os).ok().and_then(|os| systems.get(os));
    report.word("Filesystem OS type", *system.unwrap_or(&"(unknown os)"));
}

fn mount_options(bits: u32) -> Vec<String> {
    let mode = match bits & JOURNAL_MODES {
        0x20 => Some("journal_data"),
        0x40 => Some("journal_data_ordered"),
        JOURNAL_MODES => Some("journal_data_writeback"),
        _ => None,
    };
    let others = (0..32).filter_map(|shift: u32| {
        let bit = 1 << shift;
        let name = MOUNT_OPTIONS.iter().find(|(known, _)| *known == bit);
        let name = name.map_or_else(|| format!("MNTOPT_{shift}"), |&(_, name)| name.to_owned());
        (bits & bit & !JOURNAL_MODES != 0).then_some(name)
    });
    mode.map(str::to_owned).into_iter().chain(others).collect()
}

fn counts(report: &mut Report, fields: &SuperblockFields) {
    report.number("Inode count", fields.inodes_count);
    report.number("Block count", fields.blocks_count);
    report.number("Reserved block count", fields.reserved_blocks);
    report.nonzero("Overhead clusters", fields.overhead_clusters);
    report.number("Free blocks", fields.free_blocks);
    report.number("Free inodes", fields.free_inodes);
    report.number("First block", fields.first_data_block);
    report.number("Block size", shifted(1024, fields.log_block_size));
}

fn groups(report: &mut Report, fields: &SuperblockFields) {
    let bigalloc = fields.ro_compat.contains(RoCompatFeatures::BIGALLOC);
    let (size, count) = match bigalloc {
        true => ("Cluster size", "Clusters per group"),
        false => ("Fragment size", "Fragments per group"),
    };
    report.number(size, shifted(1024, fields.log_cluster_size));
    if fields.incompat.contains(IncompatFeatures::BITS64) {
        report.number("Group descriptor size", fields.descriptor_size);
    }
    report.nonzero("Reserved GDT blocks", fields.reserved_gdt_blocks);
    report.number("Blocks per group", fields.blocks_per_group);
    report.number(count, fields.clusters_per_group);
    report.number("Inodes per group", fields.inodes_per_group);
    let inode_size = if fields.revision == 0 { 128 } else { u64::from(fields.inode_size) };
    let bytes = u64::from(fields.inodes_per_group) * inode_size;
    let blocks = bytes.div_ceil(shifted(1024, fields.log_block_size).max(1));
    report.number("Inode blocks per group", blocks);
    report.nonzero("RAID stride", fields.raid_stride);
    report.nonzero("RAID stripe width", fields.raid_stripe_width);
    report.nonzero("First meta block group", fields.first_meta_bg);
    if fields.log_groups_per_flex != 0 {
        report.number("Flex block group size", shifted(1, fields.log_groups_per_flex.into()));
    }
}

/// Returns a size that is stored as a power of two, or 0 if it does not fit into 64 bits.
fn shifted(unit: u64, by: u32) -> u64 {
    if by < 32 { unit << by } else { 0 }
}

fn history(report: &mut Report, fields: &SuperblockFields) {
    if fields.mkfs_time != Timestamp::default() {
        report.time("Filesystem created", fields.mkfs_time);
    }
    if fields.mount_time == Timestamp::default() {
        report.value("Last mount time", "n/a", ());
    } else {
        report.time("Last mount time", fields.mount_time);
    }
    report.time("Last write time", fields.write_time);
    report.number("Mount count", fields.mount_count);
    let most = fields.max_mount_count;
    report.value("Maximum mount count", most.to_string(), most);
    report.time("Last checked", fields.last_check);
    let interval = fields.check_interval;
    let text = format!("{interval} ({})", interval_text(interval));
    report.value("Check interval", text, interval);
    if interval != 0 {
        let seconds = fields.last_check.seconds.saturating_add(interval.into());
        report.time("Next check after", Timestamp { seconds, nanoseconds: 0 });
    }
    if fields.kbytes_written != 0 {
        let kib = fields.kbytes_written;
        report.value("Lifetime writes", written(kib), kib);
    }
    let (uid, gid) = (fields.reserved_uid, fields.reserved_gid);
    let user = users::user(uid.into()).unwrap_or_else(|| "unknown".to_owned());
    let group = users::group(gid.into()).unwrap_or_else(|| "unknown".to_owned());
    report.value("Reserved blocks uid", format!("{uid} (user {user})"), uid);
    report.value("Reserved blocks gid", format!("{gid} (group {group})"), gid);
}

/// Formats an interval as months of 30 days, weeks, days, and a time of day.
fn interval_text(seconds: u32) -> String {
    const DAY: u32 = 86_400;
    let mut left = seconds;
    let mut parts = Vec::new();
    for (unit, name) in [(30 * DAY, "month"), (7 * DAY, "week"), (DAY, "day")] {
        let count = left / unit;
        left %= unit;
        if count > 0 {
            parts.push(format!("{count} {name}{}", if count > 1 { "s" } else { "" }));
        }
    }
    if left > 0 {
        parts.push(format!("{}:{:02}:{:02}", left / 3600, left / 60 % 60, left % 60));
    }
    if parts.is_empty() { "<none>".to_owned() } else { parts.join(", ") }
}

/// Formats a size in the largest unit that leaves at least 8 of it, rounded.
fn written(kib: u64) -> String {
    for (shift, unit) in [(0, "kB"), (10, "MB"), (20, "GB"), (30, "TB")] {
        if kib < 1 << (shift + 13) {
            let half = if shift == 0 { 0 } else { 1 << (shift - 1) };
            return format!("{} {unit}", (kib + half) >> shift);
        }
    }
    format!("{} PB", (u128::from(kib) + (1 << 39)) >> 40)
}

fn inodes(report: &mut Report, fields: &SuperblockFields) {
    if fields.revision == 0 {
        return;
    }
    report.number("First inode", fields.first_inode);
    report.number("Inode size", fields.inode_size);
    report.nonzero("Required extra isize", fields.min_extra_isize);
    report.nonzero("Desired extra isize", fields.want_extra_isize);
}

fn journal(report: &mut Report, fields: &SuperblockFields) {
    report.uuid_if_any("Journal UUID", fields.journal_uuid);
    report.nonzero("Journal inode", fields.journal_inode);
    if fields.journal_device != 0 {
        report.word("Journal device", format!("{:#06x}", fields.journal_device));
    }
    report.nonzero("First orphan inode", fields.last_orphan);
    let version = fields.default_hash_version;
    if fields.compat.contains(CompatFeatures::DIR_INDEX) || version != 0 {
        let names = ["legacy", "half_md4", "tea"];
        let name = names.get(usize::from(version));
        let name = name.map_or_else(|| format!("HASHALG_{version}"), |&name| name.to_owned());
        report.word("Default directory hash", name);
    }
    report.uuid_if_any("Directory Hash Seed", fields.hash_seed);
    match fields.journal_backup_type {
        0 => (),
        1 => report.word("Journal backup", "inode blocks"),
        kind => report.word("Journal backup", format!("type {kind}")),
    }
    let backups: Vec<u32> = fields.backup_groups.into_iter().filter(|&group| group != 0).collect();
    if !backups.is_empty() {
        // dumpe2fs prints a blank after each.
        let text: String = backups.iter().map(|group| format!("{group} ")).collect();
        report.value("Backup block groups", text, backups);
    }
    let (inode, id, blocks, list) = fields.snapshot;
    if inode != 0 {
        report.number("Snapshot inode", inode);
        report.number("Snapshot ID", id);
        report.number("Snapshot reserved blocks", blocks);
    }
    report.nonzero("Snapshot list head", list);
}

fn errors(report: &mut Report, fields: &SuperblockFields) {
    report.nonzero("FS Error count", fields.error_count);
    error(report, &fields.first_error, "First");
    error(report, &fields.last_error, "Last");
}

/// Adds the record of the first or the last error.
fn error(report: &mut Report, record: &ErrorRecord, which: &str) {
    if record.time == Timestamp::default() {
        return;
    }
    let key = |field: &str| format!("{which} error {field}");
    report.time(&key("time"), record.time);
    report.bytes(&key("function"), &record.function, "");
    report.number(&key("line #"), record.line);
    report.nonzero(&key("inode #"), record.inode);
    report.nonzero(&key("block #"), record.block);
    if let Some(at) = usize::from(record.code).checked_sub(1) {
        let unknown = || format!("UNKNOWN_ERRCODE_{}", record.code);
        let name = ERROR_CODES.get(at).map_or_else(unknown, |&name| name.to_owned());
        report.word(&key("err"), name);
    }
}

fn extras(report: &mut Report, fields: &SuperblockFields) {
    if fields.incompat.contains(IncompatFeatures::MMP) {
        report.number("MMP block number", fields.mmp_block);
        report.number("MMP update interval", fields.mmp_interval);
    }
    let [user, group, project] = fields.quota_inodes;
    report.nonzero("User quota inode", user);
    report.nonzero("Group quota inode", group);
    report.nonzero("Project quota inode", project);
    if fields.ro_compat.contains(RoCompatFeatures::METADATA_CSUM) {
        let kind = if fields.checksum_type == 1 { "crc32c" } else { "unknown" };
        report.word("Checksum type", kind);
        report.hex("Checksum", fields.checksum);
    }
    report.uuid_if_any("Encryption PW Salt", fields.encrypt_salt);
    if fields.incompat.contains(IncompatFeatures::CSUM_SEED) {
        report.hex("Checksum seed", fields.checksum_seed);
    }
    if fields.incompat.contains(IncompatFeatures::CASEFOLD) {
        let encoding = match fields.encoding {
            1 => "utf8-12.1".to_owned(),
            other => format!("UNKNOWN_ENCODING_{other}"),
        };
        report.word("Character encoding", encoding);
    }
    if fields.compat.contains(CompatFeatures::ORPHAN_FILE) {
        report.number("Orphan file inode", fields.orphan_file_inode);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values as dumpe2fs prints them.
    #[test]
    fn intervals_and_writes() {
        for (seconds, shown) in [
            (0, "<none>"),
            (86_400, "1 day"),
            (8_986_429, "3 months, 2 weeks, 0:13:49"),
            (u32::MAX, "1657 months, 6:28:15"),
        ] {
            assert_eq!(interval_text(seconds), shown);
        }
        for (kib, shown) in [
            (8191, "8191 kB"),
            (8192, "8 MB"),
            (0xff_ffff, "16 GB"),
            (0xffff_ffff_ffff, "256 PB"),
            (u64::MAX, "16777216 PB"),
        ] {
            assert_eq!(written(kib), shown);
        }
    }

    #[test]
    fn options_that_are_on_without_being_given() {
        assert_eq!(mount_options(0xc), ["user_xattr", "acl"]);
        assert_eq!(mount_options(0x60 | 0x80), ["journal_data_writeback", "MNTOPT_7"]);
        assert_eq!(mount_options(0x20), ["journal_data"]);
        assert_eq!(mount_options(u32::MAX).len(), 31);
    }
}
