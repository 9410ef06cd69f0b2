//! Rows for the maps of files.

use std::io;
use std::path::Path;

use super::super::contents::{self, deep_trees, every_second_block, inline, last_block, standard};
use super::super::{Made, Oracle, Row, Step};

const INLINE: &str = "data=writeback";

pub const ROWS: &[Row] = &[
    Row::new("extents_depth_3", 128, "-b 1024 -N 2048", &[Step::Mounted("", deep_trees)]),
    Row::new(
        "extents_depth_5",
        64,
        "-b 1024",
        &[Step::Mounted("", some_extents), Step::Image(deepen)],
    ),
    Row::new(
        "extents_depth_5_no_csum",
        64,
        "-b 4096 -O ^metadata_csum,^64bit",
        &[Step::Mounted("", some_extents), Step::Image(deepen)],
    ),
    Row::new("logical_block_2_32_less_2", 64, "-b 4096", &[Step::Mounted("", last_block)]),
    Row::new("logical_block_2_32_less_2_1k", 64, "-b 1024", &[Step::Mounted("", last_block)]),
    Row::new("huge_file", 32, "-b 4096", &[Step::Mounted("", standard), Step::Image(count_blocks)]),
    Row::pointers("ext2_1k", 64, "-t ext2 -b 1024"),
    Row::pointers("ext2_4k", 64, "-t ext2 -b 4096 -I 128"),
    Row::pointers("ext3_1k", 64, "-t ext3 -b 1024"),
    Row::pointers("ext3_2k", 64, "-t ext3 -b 2048"),
    Row::pointers("ext3_4k", 64, "-t ext3 -b 4096 -I 128"),
    Row::pointers("ext4_without_extents", 64, "-b 1024 -O ^extent,^64bit"),
    Row::new(
        "pointers_and_extents",
        96,
        "-t ext3 -b 1024",
        &[
            Step::Mounted("", contents::pointers),
            Step::Image(with_extents),
            Step::Mounted("", contents::second_tree),
        ],
    ),
    Row::new(
        "inline_data",
        64,
        "-b 4096 -O inline_data -J size=16",
        &[Step::Mounted(INLINE, inline)],
    ),
    Row::new(
        "inline_data_inode_1024",
        64,
        "-b 4096 -I 1024 -O inline_data -J size=16",
        &[Step::Mounted(INLINE, inline)],
    ),
    Row::new(
        "inline_data_1k_no_csum",
        64,
        "-b 1024 -O inline_data,^metadata_csum -J size=16",
        &[Step::Mounted(INLINE, inline)],
    ),
    Row {
        oracle: Oracle::Offline,
        ..Row::new(
            "inline_data_of_a_folder",
            64,
            "-b 4096 -O inline_data",
            &[Step::Folder(contents::folder)],
        )
    },
];

fn some_extents(root: &Path) -> io::Result<()> {
    for pieces in [1, 2, 3, 4, 50] {
        every_second_block(&root.join(format!("pieces-{pieces}")), 4096, pieces)?;
    }
    contents::preallocated_pieces(&root.join("unwritten"))
}

/// Adds levels above the root of each tree, until it has five levels of index blocks.
fn deepen(made: &Made) -> io::Result<()> {
    for (name, depth) in [
        ("pieces-1", 5),
        ("pieces-2", 1),
        ("pieces-3", 2),
        ("pieces-4", 4),
        ("pieces-50", 4),
        ("unwritten", 4),
    ] {
        let open = format!("extent_open {name}");
        let mut lines = vec![open.as_str()];
        for _ in 0..depth {
            lines.extend(["root", "split_node"]);
        }
        lines.push("extent_close");
        made.debugfs(&lines);
    }
    Ok(())
}

/// Sets block counts of 48 bits, and counts in blocks of the filesystem.
fn count_blocks(made: &Made) -> io::Result<()> {
    made.debugfs(&[
        "set_inode_field /sizes/medium blocks 0x12345678",
        "set_inode_field /sizes/medium blocks_hi 0x9abc",
        "set_inode_field /sizes/513-bytes flags 0xc0000",
        "set_inode_field /sizes/513-bytes blocks 3",
        "set_inode_field /sizes/513-bytes blocks_hi 0x0001",
    ]);
    Ok(())
}

fn with_extents(made: &Made) -> io::Result<()> {
    use nvio_testkit::image::{text, tool};
    tool("tune2fs", &["-O", "extents,uninit_bg,dir_index", text(&made.image())]);
    tool("e2fsck", &["-f", "-p", text(&made.image())]);
    Ok(())
}
