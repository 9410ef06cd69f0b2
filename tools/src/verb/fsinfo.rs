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

use crate::args::{Format, VolumeArgs};
use crate::error::Error;
use crate::open;
use crate::output::Output;
use report::Report;

/// Prints the superblock, the superblock of the journal and the multi-mount protection block.
///
/// # Errors
/// If there is neither a filesystem nor a journal, or one of the structures is damaged. The others
/// have been printed by then.
pub fn run(args: &VolumeArgs, format: Format) -> Result<(), Error> {
    let inspection = open::inspection(args)?;
    let superblock = inspection.superblock();
    let mut report = Report::default();
    fields::add(&mut report, superblock);
    let mut damage = None;
    match inspection.journal() {
        Ok(Some(found)) => journal::add(&mut report, superblock, &found),
        Ok(None) => (),
        Err(error) => damage = Some(error),
    }
    match inspection.mmp() {
        Ok(Some(found)) => mmp::add(&mut report, &found),
        Ok(None) => (),
        Err(error) => damage = damage.or(Some(error)),
    }
    let mut out = Output::new();
    if format.json {
        out.json(&report)?
    } else {
        report.text(&mut out)?
    }
    out.flush()?;
    drop(inspection);
    damage.map_or(Ok(()), |error| Err(Error::filesystem(args.controller.device.to_string(), error)))
}
