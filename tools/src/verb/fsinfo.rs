//! `nvio fsinfo`: the superblock of a filesystem, in the words of dumpe2fs.
//!
//! It prints all lines of `dumpe2fs -h` of e2fsprogs 1.47.0. The differences:
//! - The line with the version of dumpe2fs and the empty line at the end are missing, because they do
//!   not describe the filesystem.
//! - Times after 2106 are right: 1.47.0 shows the lower 32 bits.
//! - Names of users come from /etc/passwd and /etc/group only: the command is one static program,
//!   which cannot query other databases.
//! - A superblock with a wrong checksum is refused: dumpe2fs shows it with a warning. A damaged
//!   journal or multi-mount protection block is an error, printed after everything that was read.
//! - Lifetime writes do not overflow to 0 near 2^64 KiB.

mod fields;
mod journal;
mod mmp;
mod report;

use std::process::ExitCode;

use clap::Args;

use crate::args::{Format, VolumeArgs};
use crate::error::Error;
use crate::open;
use crate::output::Output;
use report::Report;

/// Show the superblock of a filesystem, as `dumpe2fs -h`.
///
/// Works on a filesystem that needs recovery or is in use, and on an external journal.
#[derive(Debug, Args)]
pub struct Fsinfo {
    #[command(flatten)]
    volume: VolumeArgs,
    #[command(flatten)]
    format: Format,
}

impl Fsinfo {
    /// Prints the superblock, the superblock of the journal and the multi-mount protection block.
    ///
    /// # Errors
    /// If there is neither a filesystem nor a journal, or one of the structures is damaged. The
    /// others have been printed by then.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let inspection = open::inspection(&self.volume)?;
        let superblock = inspection.superblock();
        let mut report = Report::default();
        fields::add(&mut report, superblock);
        let journal = inspection.journal().map(|found| {
            found.iter().for_each(|found| journal::add(&mut report, superblock, found));
        });
        let mmp = inspection.mmp().map(|found| {
            found.iter().for_each(|found| mmp::add(&mut report, found));
        });
        let mut out = Output::new();
        if self.format.json {
            out.json(&report)?
        } else {
            report.print(&mut out)?
        }
        out.flush()?;
        drop(inspection);
        let device = || self.volume.controller.device.to_string();
        let damaged = journal.and(mmp).map_err(|error| Error::filesystem(device(), error));
        damaged.map(|()| ExitCode::SUCCESS)
    }
}
