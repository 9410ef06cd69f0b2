//! Rows for features that are rejected by name, and for those that do not concern readers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::super::contents::{folder, standard};
use super::super::{Made, Oracle, Row, Step};
use nvio_testkit::image;

pub const ROWS: &[Row] = &[
    Row::refused("unknown_incompat", "-b 4096", &[Step::Image(unknown_incompat)], &["0x40000000"]),
    Row::new(
        "unknown_ro_compat",
        64,
        "-b 4096",
        &[Step::Mounted("", standard), Step::Image(unknown_ro_compat)],
    ),
    Row::new(
        "unknown_compat",
        64,
        "-b 4096",
        &[Step::Mounted("", standard), Step::Image(unknown_compat)],
    ),
    Row::refused("compression", "-b 4096", &[Step::Image(compression)], &["compression"]),
    Row::refused("journal_device", "-O journal_dev -b 4096", &[], &["journal_dev"]),
    Row::new(
        "mmp_clean",
        64,
        "-b 4096 -O mmp -E mmp_update_interval=1",
        &[Step::Mounted("", standard)],
    ),
    Row::refused(
        "mmp_active",
        "-b 4096 -O mmp -E mmp_update_interval=1",
        &[Step::Dirty("", |_| Ok(Vec::new()))],
        &["multi-mount protection"],
    ),
    Row::refused("mmp_fsck", "-b 1024 -O mmp", &[Step::Image(mmp_fsck)], &["multi-mount"]),
    Row::new(
        "many_features",
        64,
        "-b 4096 -O ea_inode,large_dir,mmp,verity,encrypt,orphan_file,fast_commit,stable_inodes",
        &[Step::Mounted("", standard)],
    ),
    Row::new(
        "few_features",
        64,
        "-b 1024 -I 128 -O none,extents,has_journal",
        &[Step::Mounted("", standard)],
    ),
    Row::new(
        "no_large_file_no_huge_file",
        64,
        "-b 4096 -O ^large_file,^huge_file,^dir_nlink,^extra_isize",
        &[Step::Mounted("", super::super::contents::second_tree)],
    ),
    Row::pointers("revision_0", 64, "-t ext2 -r 0 -b 1024"),
    Row::standard("no_journal", 64, "-b 4096 -O ^has_journal"),
    Row::new("read_only", 64, "-b 4096", &[Step::Mounted("", standard), Step::Image(read_only)]),
    Row {
        oracle: Oracle::Offline,
        ..Row::new("verity", 64, "-b 4096 -O verity", &[Step::Folder(folder), Step::Image(verity)])
    },
];

const COMPAT: usize = 0x5c;
const INCOMPAT: usize = 0x60;
const RO_COMPAT: usize = 0x64;

fn add_feature(made: &Made, set: usize, bit: u32) -> io::Result<()> {
    image::edit_superblock(&made.image(), |block| {
        let bytes = &mut block[set..set + 4];
        let features = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) | bit;
        bytes.copy_from_slice(&features.to_le_bytes());
    });
    Ok(())
}

fn unknown_incompat(made: &Made) -> io::Result<()> {
    add_feature(made, INCOMPAT, 0x4000_0000)
}

fn unknown_ro_compat(made: &Made) -> io::Result<()> {
    add_feature(made, RO_COMPAT, 0x4000_0000)
}

fn unknown_compat(made: &Made) -> io::Result<()> {
    add_feature(made, COMPAT, 0x4000_0000)
}

fn compression(made: &Made) -> io::Result<()> {
    add_feature(made, INCOMPAT, 0x1)
}

fn read_only(made: &Made) -> io::Result<()> {
    add_feature(made, RO_COMPAT, 0x1000)
}

/// Marks the filesystem as being checked by e2fsck (EXT4_MMP_SEQ_FSCK in the multi-mount protection
/// block).
fn mmp_fsck(made: &Made) -> io::Result<()> {
    const SEQ_FSCK: u32 = 0xe24d_4d50;
    let file = File::options().read(true).write(true).open(made.image())?;
    let mut superblock = [0; 1024];
    file.read_exact_at(&mut superblock, 1024)?;
    let field = |at: usize| superblock[at..at + 8].try_into().map(u64::from_le_bytes);
    let at = field(0x168).expect("eight bytes") * 1024;
    let mut block = [0; 1024];
    file.read_exact_at(&mut block, at)?;
    block[4..8].copy_from_slice(&SEQ_FSCK.to_le_bytes());
    // The seed is the filesystem's: the checksum of its UUID.
    let seed = image::crc32c(&superblock[0x68..0x78]);
    let checksum = image::crc32c_of(seed, &block[..1020]);
    block[1020..].copy_from_slice(&checksum.to_le_bytes());
    file.write_all_at(&block, at)
}

/// Sets the flag of fs-verity. The hash tree is after the end of the file.
fn verity(made: &Made) -> io::Result<()> {
    made.debugfs(&[
        "set_inode_field /sizes/131072-bytes flags 0x180000",
        "set_inode_field /sizes/1-bytes flags 0x180000",
    ]);
    Ok(())
}
