//! Rows for block sizes, inode sizes, block groups, and filesystems that were changed after their
//! creation.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::super::contents::{bigalloc, scattered_directories, second_tree, standard};
use super::super::{Made, Row, Step};
use nvio_testkit::image::{text, tool};

pub const ROWS: &[Row] = &[
    Row::standard("block_1k", 64, "-b 1024"),
    Row::standard("block_2k", 64, "-b 2048"),
    Row::standard("block_4k", 64, "-b 4096"),
    Row::folder("block_8k", 64, "-b 8192"),
    Row::folder("block_16k", 64, "-b 16384"),
    Row::folder("block_32k", 128, "-b 32768"),
    Row::folder("block_64k", 128, "-b 65536"),
    Row::folder("block_64k_no_csum", 128, "-b 65536 -O ^metadata_csum,^64bit"),
    Row::standard("inode_128", 64, "-b 4096 -I 128"),
    Row::standard("inode_128_1k_no_64bit", 64, "-b 1024 -I 128 -O ^64bit"),
    Row::standard("inode_512", 64, "-b 4096 -I 512"),
    Row::standard("inode_1024", 64, "-b 4096 -I 1024"),
    Row::standard("inode_4096", 96, "-b 4096 -I 4096 -N 2048"),
    Row::standard("no_64bit", 64, "-b 4096 -O ^64bit"),
    Row::standard("no_64bit_1k", 64, "-b 1024 -O ^64bit"),
    Row::standard("no_metadata_csum", 64, "-b 4096 -O ^metadata_csum"),
    Row::standard("no_metadata_csum_no_64bit_2k", 64, "-b 2048 -O ^metadata_csum,^64bit"),
    Row::standard("no_flex_bg", 64, "-b 4096 -O ^flex_bg"),
    Row::standard("no_flex_bg_1k_inode_128", 64, "-b 1024 -I 128 -O ^flex_bg,^metadata_csum"),
    Row::standard("flex_bg_large", 64, "-b 1024 -g 1024 -G 256"),
    Row::standard("meta_bg", 64, "-b 1024 -g 1024 -O meta_bg,^resize_inode"),
    Row::standard("meta_bg_no_64bit", 64, "-b 1024 -g 512 -O meta_bg,^resize_inode,^64bit"),
    Row::new(
        "first_meta_bg",
        64,
        "-b 1024 -g 512 -O meta_bg,^resize_inode",
        &[Step::Mounted("", standard), Step::Image(first_meta_bg), Step::Mounted("", second_tree)],
    ),
    Row::standard("sparse_super2", 64, "-b 1024 -O sparse_super2"),
    Row::standard("no_sparse_super", 64, "-b 1024 -g 2048 -O ^sparse_super,^resize_inode"),
    Row::standard("uninit_bg", 64, "-b 2048 -O ^metadata_csum,uninit_bg"),
    Row::standard("uninit_bg_no_64bit", 64, "-b 1024 -O ^metadata_csum,uninit_bg,^64bit"),
    Row::standard("csum_seed", 64, "-b 4096 -O metadata_csum_seed"),
    Row::new(
        "csum_seed_new_uuid",
        64,
        "-b 1024 -O metadata_csum_seed",
        &[Step::Mounted("", standard), Step::Image(new_uuid)],
    ),
    Row::standard("many_groups_1k", 64, "-b 1024 -g 512 -N 16384"),
    Row::new(
        "block_numbers_of_48_bits",
        0,
        "-b 4096 -O sparse_super2,^resize_inode,^has_journal -N 2097152 -E lazy_itable_init=1",
        &[Step::Image(thirty_two_tebibytes), Step::Mounted("noinit_itable", scattered_directories)],
    ),
    Row::new(
        "tables_never_initialised",
        64,
        "-b 1024 -E lazy_itable_init=1,lazy_journal_init=1,nodiscard",
        &[Step::Image(over_garbage), Step::Mounted("noinit_itable", standard)],
    ),
    Row::new(
        "tables_never_initialised_uninit_bg",
        64,
        "-b 4096 -O ^metadata_csum,uninit_bg -E lazy_itable_init=1,lazy_journal_init=1,nodiscard",
        &[Step::Image(over_garbage), Step::Mounted("noinit_itable", standard)],
    ),
    Row::new(
        "grown",
        32,
        "-b 1024",
        &[Step::Mounted("", standard), Step::Image(grow), Step::Mounted("", second_tree)],
    ),
    Row::new(
        "shrunk",
        160,
        "-b 1024",
        &[Step::Mounted("", standard), Step::Image(shrink), Step::Mounted("", second_tree)],
    ),
    Row::new(
        "converted_to_64bit",
        64,
        "-b 1024 -O ^64bit",
        &[Step::Mounted("", standard), Step::Image(to_64bit), Step::Mounted("", second_tree)],
    ),
    Row::new(
        "converted_to_metadata_csum",
        64,
        "-b 4096 -O ^metadata_csum,uninit_bg",
        &[Step::Mounted("", standard), Step::Image(to_metadata_csum)],
    ),
    Row::new(
        "converted_from_inode_128",
        64,
        "-b 4096 -I 128 -O ^flex_bg",
        &[Step::Mounted("", standard), Step::Image(to_inode_256), Step::Mounted("", second_tree)],
    ),
    Row::new("bigalloc", 128, "-b 4096 -C 65536 -O bigalloc", &[Step::Mounted("", bigalloc)]),
    Row::new(
        "bigalloc_1k",
        64,
        "-b 1024 -C 4096 -O bigalloc,meta_bg,^resize_inode",
        &[Step::Mounted("", bigalloc)],
    ),
];

fn new_uuid(made: &Made) -> io::Result<()> {
    tool("tune2fs", &["-U", "01234567-89ab-cdef-0123-456789abcdef", text(&made.image())]);
    Ok(())
}

fn thirty_two_tebibytes(made: &Made) -> io::Result<()> {
    File::create(made.image())?.set_len(32 << 40)?;
    made.mkfs_here(&[]);
    Ok(())
}

/// Fills the device with other data, most of which is not overwritten.
fn over_garbage(made: &Made) -> io::Result<()> {
    let garbage = vec![0xa5; 1 << 20];
    let file = File::options().write(true).open(made.image())?;
    for offset in (0..file.metadata()?.len()).step_by(garbage.len()) {
        file.write_all_at(&garbage, offset)?;
    }
    made.mkfs_here(&[]);
    Ok(())
}

fn check(made: &Made) {
    tool("e2fsck", &["-f", "-p", text(&made.image())]);
}

fn grow(made: &Made) -> io::Result<()> {
    check(made);
    tool("resize2fs", &[text(&made.image()), "150M"]);
    Ok(())
}

fn shrink(made: &Made) -> io::Result<()> {
    check(made);
    tool("resize2fs", &[text(&made.image()), "48M"]);
    File::options().write(true).open(made.image())?.set_len(48 << 20)
}

fn to_64bit(made: &Made) -> io::Result<()> {
    check(made);
    tool("resize2fs", &["-b", text(&made.image())]);
    Ok(())
}

fn to_metadata_csum(made: &Made) -> io::Result<()> {
    check(made);
    tool("tune2fs", &["-O", "metadata_csum", text(&made.image())]);
    Ok(())
}

fn to_inode_256(made: &Made) -> io::Result<()> {
    check(made);
    tool("tune2fs", &["-I", "256", text(&made.image())]);
    Ok(())
}

/// Moves the first group of `meta_bg`: the descriptors before it are in their usual place.
fn first_meta_bg(made: &Made) -> io::Result<()> {
    made.debugfs(&["set_super_value first_meta_bg 1"]);
    Ok(())
}
