//! Rows for directories: hashes, sizes and names.

use std::io;

use super::super::contents::{
    big_directories, casefolded, encrypted, entries_60_000, standard, subdirectories_65_000,
    three_levels,
};
use super::super::{Made, Oracle, Row, Step};
use nvio_testkit::image::{text, tool};

pub const ROWS: &[Row] = &[
    hashed("htree_legacy_signed", &[Step::Image(legacy_signed), BIG]),
    hashed("htree_legacy_unsigned", &[Step::Image(legacy_unsigned), BIG]),
    hashed("htree_half_md4_signed", &[Step::Image(half_md4_signed), BIG]),
    hashed("htree_half_md4_unsigned", &[Step::Image(half_md4_unsigned), BIG]),
    hashed("htree_tea_signed", &[Step::Image(tea_signed), BIG]),
    hashed("htree_tea_unsigned", &[Step::Image(tea_unsigned), BIG]),
    Row::new(
        "htree_no_csum_no_filetype",
        64,
        "-b 1024 -O ^metadata_csum,^filetype",
        &[Step::Image(tea_unsigned), BIG],
    ),
    Row::standard("no_filetype", 64, "-b 4096 -O ^filetype"),
    Row::standard("no_dir_index", 64, "-b 1024 -O ^dir_index"),
    Row::new("entries_60_000", 64, "-b 4096", &[Step::Mounted("", entries_60_000)]),
    Row::new(
        "large_dir_of_three_levels",
        64,
        "-b 1024 -O large_dir",
        &[Step::Mounted("", three_levels)],
    ),
    Row::new(
        "subdirectories_65_000",
        128,
        "-b 1024 -I 128 -N 66000",
        &[Step::Mounted("", subdirectories_65_000)],
    ),
    Row {
        oracle: Oracle::Offline,
        ..Row::new(
            "casefold",
            32,
            "-b 4096 -O casefold -E encoding=utf8",
            &[Step::Folder(casefolded), Step::Image(fold)],
        )
    },
    Row::new("encrypted", 32, "-b 4096 -O encrypt", &[Step::Mounted("", encrypted)]),
    Row::new(
        "encrypt_without_encrypted_files",
        64,
        "-b 4096 -O encrypt,stable_inodes",
        &[Step::Mounted("", standard)],
    ),
];

const BIG: Step = Step::Mounted("", big_directories);

const fn hashed(name: &'static str, steps: &'static [Step]) -> Row {
    Row::new(name, 64, "-b 1024", steps)
}

/// Sets the hash function. `version` is s_def_hash_version; 1 in s_flags means signed characters, 2
/// unsigned.
fn hash(made: &Made, version: &str, flags: u32) -> io::Result<()> {
    let flags = format!("set_super_value flags {flags}");
    made.debugfs(&[&format!("set_super_value def_hash_version {version}"), &flags]);
    Ok(())
}

fn legacy_signed(made: &Made) -> io::Result<()> {
    hash(made, "legacy", 1)
}

fn legacy_unsigned(made: &Made) -> io::Result<()> {
    hash(made, "legacy", 2)
}

fn half_md4_signed(made: &Made) -> io::Result<()> {
    hash(made, "half_md4", 1)
}

fn half_md4_unsigned(made: &Made) -> io::Result<()> {
    hash(made, "half_md4", 2)
}

fn tea_signed(made: &Made) -> io::Result<()> {
    hash(made, "tea", 1)
}

fn tea_unsigned(made: &Made) -> io::Result<()> {
    hash(made, "tea", 2)
}

/// Makes the directories ignore case, and rebuilds their hashes with e2fsck.
fn fold(made: &Made) -> io::Result<()> {
    made.debugfs(&[
        "set_inode_field /folded flags 0x40080000",
        "set_inode_field /folded-large flags 0x40080000",
    ]);
    // Exit code 1 means that e2fsck has changed the image.
    let e2fsck = format!("e2fsck -f -y -D {}; [ $? -le 1 ]", text(&made.image()));
    tool("sh", &["-c", &e2fsck]);
    Ok(())
}
