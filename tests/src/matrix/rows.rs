//! The table of images.

use super::contents::{folder, pointers, standard};
use super::{Oracle, Row, Step};

/// A row that is a way to make a filesystem, with the standard tree.
const fn made(name: &'static str, mib: u64, mkfs: &'static str) -> Row {
    Row { name, mib, mkfs, steps: &[Step::Mounted("", standard)], oracle: Oracle::Kernel }
}

/// A row whose files are mapped by block pointers.
const fn old(name: &'static str, mib: u64, mkfs: &'static str) -> Row {
    Row { name, mib, mkfs, steps: &[Step::Mounted("", pointers)], oracle: Oracle::Kernel }
}

/// A row of a block size above the kernel's page size.
const fn large_blocks(name: &'static str, mib: u64, mkfs: &'static str) -> Row {
    Row { name, mib, mkfs, steps: &[Step::Folder(folder)], oracle: Oracle::Offline }
}

/// All of them.
pub const ROWS: &[Row] = &[
    made("block_1k", 64, "-b 1024"),
    made("block_2k", 64, "-b 2048"),
    made("block_4k", 64, "-b 4096"),
    large_blocks("block_8k", 64, "-b 8192"),
    large_blocks("block_16k", 64, "-b 16384"),
    large_blocks("block_32k", 128, "-b 32768"),
    large_blocks("block_64k", 128, "-b 65536"),
    large_blocks("block_64k_no_csum", 128, "-b 65536 -O ^metadata_csum,^64bit"),
    made("inode_128", 64, "-b 4096 -I 128"),
    made("inode_128_1k_no_64bit", 64, "-b 1024 -I 128 -O ^64bit"),
    made("inode_512", 64, "-b 4096 -I 512"),
    made("inode_1024", 64, "-b 4096 -I 1024"),
    made("inode_4096", 96, "-b 4096 -I 4096 -N 2048"),
    made("no_64bit", 64, "-b 4096 -O ^64bit"),
    made("no_64bit_1k", 64, "-b 1024 -O ^64bit"),
    made("no_metadata_csum", 64, "-b 4096 -O ^metadata_csum"),
    made("no_metadata_csum_no_64bit_2k", 64, "-b 2048 -O ^metadata_csum,^64bit"),
    made("no_flex_bg", 64, "-b 4096 -O ^flex_bg"),
    made("no_flex_bg_1k_inode_128", 64, "-b 1024 -I 128 -O ^flex_bg,^metadata_csum"),
    made("meta_bg", 64, "-b 1024 -O meta_bg,^resize_inode"),
    made("meta_bg_no_64bit", 64, "-b 1024 -g 1024 -O meta_bg,^resize_inode,^64bit"),
    made("sparse_super2", 64, "-b 1024 -O sparse_super2"),
    made("uninit_bg", 64, "-b 2048 -O ^metadata_csum,uninit_bg"),
    made("uninit_bg_no_64bit", 64, "-b 1024 -O ^metadata_csum,uninit_bg,^64bit"),
    made("csum_seed", 64, "-b 4096 -O metadata_csum_seed"),
    made("many_groups_1k", 64, "-b 1024 -g 512 -N 16384"),
    made("no_journal", 64, "-b 4096 -O ^has_journal"),
    made("no_filetype", 64, "-b 4096 -O ^filetype"),
    made("no_dir_index", 64, "-b 1024 -O ^dir_index"),
    old("ext2_1k", 64, "-t ext2 -b 1024"),
    old("ext2_4k", 64, "-t ext2 -b 4096 -I 128"),
    old("ext2_rev0", 64, "-t ext2 -r 0 -b 1024"),
    old("ext3_1k", 64, "-t ext3 -b 1024"),
    old("ext3_4k", 64, "-t ext3 -b 4096 -I 128"),
];

/// The row `name`.
pub fn row(name: &str) -> &'static Row {
    ROWS.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no row {name}"))
}
