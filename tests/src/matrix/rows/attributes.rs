//! Rows for extended attributes, ACLs, project ids, quota and flags.

use std::fs;
use std::io;
use std::path::Path;

use super::super::contents::{large_attributes, standard};
use super::super::{Made, Row, Step};
use nvio_testkit::image::{text, tool};

pub const ROWS: &[Row] = &[
    Row::new("ea_inode", 64, "-b 4096 -O ea_inode", &[Step::Mounted("", large_attributes)]),
    Row::new(
        "ea_inode_1k_inode_128",
        64,
        "-b 1024 -I 128 -O ea_inode",
        &[Step::Mounted("", large_attributes)],
    ),
    Row::new(
        "ea_inode_no_csum",
        64,
        "-b 4096 -O ea_inode,^metadata_csum",
        &[Step::Mounted("", large_attributes)],
    ),
    Row::new(
        "projects_and_quota",
        64,
        "-b 4096",
        &[Step::Mounted("", standard), Step::Image(projects)],
    ),
    Row::new(
        "journal_data_flag",
        64,
        "-b 4096",
        &[Step::Mounted("", standard), Step::Image(journal_data), Step::Mounted("", written)],
    ),
    Row::new("no_xattrs", 64, "-b 1024 -O ^ext_attr", &[Step::Mounted("", plain)]),
];

fn plain(root: &Path) -> io::Result<()> {
    super::super::contents::second_tree(root)
}

/// Set by debugfs, because not every kernel can write to a filesystem with these features.
fn projects(made: &Made) -> io::Result<()> {
    made.debugfs(&[
        "set_inode_field /sizes/medium projid 1",
        "set_inode_field /sizes/513-bytes projid 65536",
        "set_inode_field /links projid 4294967294",
        "set_inode_field /links flags 0x20080000",
    ]);
    let quota = ["-Q", "usrquota,grpquota,prjquota"];
    tool("tune2fs", &[&["-O", "project,quota"], &quota[..], &[text(&made.image())]].concat());
    Ok(())
}

/// Sets the flag of files whose data is journaled.
fn journal_data(made: &Made) -> io::Result<()> {
    made.debugfs(&[
        "set_inode_field /sizes/medium flags 0x84000",
        "set_inode_field /sizes/513-bytes flags 0x84000",
    ]);
    Ok(())
}

fn written(root: &Path) -> io::Result<()> {
    fs::write(root.join("sizes/513-bytes"), vec![b'j'; 50_000])
}
