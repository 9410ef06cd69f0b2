//! Extended attributes, ACLs, project ids, quota, flags.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::super::contents::{large_attributes, standard};
use super::super::{Row, Step};
use crate::sys;

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
        "-b 4096 -O project,quota -E quotatype=usrquota:grpquota:prjquota",
        &[Step::Mounted("prjquota", projects)],
    ),
    Row::new("journal_data_flag", 64, "-b 4096", &[Step::Mounted("", journal_data)]),
    Row::new("no_xattrs", 64, "-b 1024 -O ^ext_attr", &[Step::Mounted("", plain)]),
];

fn plain(root: &Path) -> io::Result<()> {
    super::super::contents::second_tree(root)
}

fn projects(root: &Path) -> io::Result<()> {
    const PROJECT_INHERIT: u32 = 0x2000_0000;
    standard(root)?;
    let directory = root.join("projects");
    fs::create_dir(&directory)?;
    for project in [1, 65_536, 4_294_967_294] {
        let below = directory.join(project.to_string());
        fs::create_dir(&below)?;
        sys::set_project(&File::open(&below)?, project)?;
        sys::add_flags(&File::open(&below)?, PROJECT_INHERIT)?;
        fs::write(below.join("inherits"), "project")?;
        let other = below.join("other");
        fs::write(&other, "project")?;
        sys::set_project(&File::open(&other)?, project / 2)?;
    }
    Ok(())
}

/// Files whose data goes through the journal, written before and after they were told to.
fn journal_data(root: &Path) -> io::Result<()> {
    const JOURNAL_DATA: u32 = 0x4000;
    standard(root)?;
    let path = root.join("journalled");
    fs::write(&path, vec![b'j'; 50_000])?;
    sys::add_flags(&File::open(&path)?, JOURNAL_DATA)?;
    fs::write(&path, vec![b'k'; 70_000])
}
