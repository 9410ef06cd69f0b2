//! The fields of each structure: their offsets and widths.

/// A field of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    /// Byte offset in the structure.
    pub at: usize,
    /// Width in bytes: 1, 2, 4 or 8.
    pub width: usize,
    /// True for big-endian fields.
    pub big: bool,
}

type Table = &'static [(&'static str, usize, usize)];

pub const SUPERBLOCK: Table = &[
    ("inodes_count", 0x0, 4),
    ("blocks_count_lo", 0x4, 4),
    ("r_blocks_count_lo", 0x8, 4),
    ("free_blocks_lo", 0xc, 4),
    ("free_inodes", 0x10, 4),
    ("first_data_block", 0x14, 4),
    ("log_block_size", 0x18, 4),
    ("log_cluster_size", 0x1c, 4),
    ("blocks_per_group", 0x20, 4),
    ("clusters_per_group", 0x24, 4),
    ("inodes_per_group", 0x28, 4),
    ("mtime", 0x2c, 4),
    ("wtime", 0x30, 4),
    ("mnt_count", 0x34, 2),
    ("magic", 0x38, 2),
    ("state", 0x3a, 2),
    ("errors", 0x3c, 2),
    ("minor_rev", 0x3e, 2),
    ("creator_os", 0x48, 4),
    ("rev_level", 0x4c, 4),
    ("first_ino", 0x54, 4),
    ("inode_size", 0x58, 2),
    ("block_group_nr", 0x5a, 2),
    ("feature_compat", 0x5c, 4),
    ("feature_incompat", 0x60, 4),
    ("feature_ro_compat", 0x64, 4),
    ("uuid", 0x68, 8),
    ("reserved_gdt_blocks", 0xce, 2),
    ("journal_uuid", 0xd0, 8),
    ("journal_inum", 0xe0, 4),
    ("journal_dev", 0xe4, 4),
    ("last_orphan", 0xe8, 4),
    ("hash_seed", 0xec, 4),
    ("def_hash_version", 0xfc, 1),
    ("jnl_backup_type", 0xfd, 1),
    ("desc_size", 0xfe, 2),
    ("default_mount_opts", 0x100, 4),
    ("first_meta_bg", 0x104, 4),
    ("jnl_blocks", 0x10c, 4),
    ("jnl_size_hi", 0x148, 4),
    ("jnl_size", 0x14c, 4),
    ("blocks_count_hi", 0x150, 4),
    ("r_blocks_count_hi", 0x154, 4),
    ("free_blocks_hi", 0x158, 4),
    ("min_extra_isize", 0x15c, 2),
    ("want_extra_isize", 0x15e, 2),
    ("flags", 0x160, 4),
    ("mmp_interval", 0x166, 2),
    ("mmp_block", 0x168, 8),
    ("log_groups_per_flex", 0x174, 1),
    ("checksum_type", 0x175, 1),
    ("usr_quota_inum", 0x240, 4),
    ("backup_bgs", 0x24c, 4),
    ("lpf_ino", 0x268, 4),
    ("prj_quota_inum", 0x26c, 4),
    ("checksum_seed", 0x270, 4),
    ("encoding", 0x27c, 2),
    ("encoding_flags", 0x27e, 2),
    ("orphan_file_inum", 0x280, 4),
    ("checksum", 0x3fc, 4),
];

pub const DESCRIPTOR: Table = &[
    ("block_bitmap_lo", 0x0, 4),
    ("inode_bitmap_lo", 0x4, 4),
    ("inode_table_lo", 0x8, 4),
    ("free_blocks_lo", 0xc, 2),
    ("free_inodes_lo", 0xe, 2),
    ("used_dirs_lo", 0x10, 2),
    ("flags", 0x12, 2),
    ("itable_unused_lo", 0x1c, 2),
    ("checksum", 0x1e, 2),
];

pub const DESCRIPTOR_HIGH: Table = &[
    ("block_bitmap_hi", 0x20, 4),
    ("inode_bitmap_hi", 0x24, 4),
    ("inode_table_hi", 0x28, 4),
    ("itable_unused_hi", 0x32, 2),
];

pub const INODE: Table = &[
    ("mode", 0x0, 2),
    ("uid", 0x2, 2),
    ("size_lo", 0x4, 4),
    ("atime", 0x8, 4),
    ("ctime", 0xc, 4),
    ("mtime", 0x10, 4),
    ("dtime", 0x14, 4),
    ("gid", 0x18, 2),
    ("links", 0x1a, 2),
    ("blocks_lo", 0x1c, 4),
    ("flags", 0x20, 4),
    ("osd1", 0x24, 4),
    ("generation", 0x64, 4),
    ("file_acl_lo", 0x68, 4),
    ("size_hi", 0x6c, 4),
    ("blocks_hi", 0x74, 2),
    ("file_acl_hi", 0x76, 2),
    ("uid_hi", 0x78, 2),
    ("gid_hi", 0x7a, 2),
    ("checksum_lo", 0x7c, 2),
];

pub const INODE_EXTRA: Table = &[
    ("extra_isize", 0x80, 2),
    ("checksum_hi", 0x82, 2),
    ("ctime_extra", 0x84, 4),
    ("mtime_extra", 0x88, 4),
    ("atime_extra", 0x8c, 4),
    ("crtime", 0x90, 4),
    ("crtime_extra", 0x94, 4),
    ("version_hi", 0x98, 4),
    ("projid", 0x9c, 4),
];

pub const EXTENT_HEADER: Table =
    &[("magic", 0, 2), ("entries", 2, 2), ("max", 4, 2), ("depth", 6, 2), ("generation", 8, 4)];

pub const EXTENT: Table =
    &[("logical", 0, 4), ("length", 4, 2), ("start_hi", 6, 2), ("start_lo", 8, 4)];

pub const EXTENT_INDEX: Table = &[("logical", 0, 4), ("leaf_lo", 4, 4), ("leaf_hi", 8, 2)];

pub const DIR_ENTRY: Table =
    &[("inode", 0, 4), ("rec_len", 4, 2), ("name_len", 6, 1), ("file_type", 7, 1)];

pub const HTREE_ROOT: Table = &[
    ("dot inode", 0, 4),
    ("dot rec_len", 4, 2),
    ("dotdot inode", 12, 4),
    ("dotdot rec_len", 16, 2),
    ("reserved", 24, 4),
    ("hash_version", 28, 1),
    ("info_length", 29, 1),
    ("levels", 30, 1),
    ("unused_flags", 31, 1),
];

pub const HTREE_COUNT: Table = &[("limit", 0, 2), ("count", 2, 2), ("block", 4, 4)];
pub const HTREE_ENTRY: Table = &[("hash", 0, 4), ("block", 4, 4)];

pub const MMP: Table = &[
    ("magic", 0, 4),
    ("sequence", 4, 4),
    ("time", 8, 8),
    ("interval", 0x70, 2),
    ("checksum", 0x3fc, 4),
];

pub const XATTR_HEADER: Table =
    &[("magic", 0, 4), ("refcount", 4, 4), ("blocks", 8, 4), ("hash", 12, 4), ("checksum", 16, 4)];

pub const XATTR_ENTRY: Table = &[
    ("name_len", 0, 1),
    ("name_index", 1, 1),
    ("value_offs", 2, 2),
    ("value_inum", 4, 4),
    ("value_size", 8, 4),
    ("hash", 12, 4),
];

pub const JOURNAL_HEADER: Table = &[("magic", 0, 4), ("blocktype", 4, 4), ("sequence", 8, 4)];

pub const JOURNAL_SUPERBLOCK: Table = &[
    ("blocksize", 12, 4),
    ("maxlen", 16, 4),
    ("first", 20, 4),
    ("first sequence", 24, 4),
    ("start", 28, 4),
    ("errno", 32, 4),
    ("feature_compat", 36, 4),
    ("feature_incompat", 40, 4),
    ("feature_ro_compat", 44, 4),
    ("uuid", 48, 8),
    ("nr_users", 64, 4),
    ("checksum_type", 80, 1),
    ("num_fc_blocks", 84, 4),
    ("head", 88, 4),
    ("checksum", 252, 4),
];

pub const COMMIT: Table = &[
    ("checksum_type", 12, 1),
    ("checksum_size", 13, 1),
    ("checksum", 16, 4),
    ("commit_sec", 48, 8),
    ("commit_nsec", 56, 4),
];

/// Returns the fields of a table, for a structure at byte `base`.
pub fn fields(table: Table, base: usize) -> impl Iterator<Item = Field> {
    table.iter().map(move |&(name, at, width)| Field { name, at: base + at, width, big: false })
}

/// Returns the big-endian fields of a table, for a structure at byte `base`.
pub fn big_fields(table: Table, base: usize) -> impl Iterator<Item = Field> {
    fields(table, base).map(|field| Field { big: true, ..field })
}
