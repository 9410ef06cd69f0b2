//! `nvio fsinfo`: what a filesystem says of itself, in the words of dumpe2fs.
//!
//! All lines of `dumpe2fs -h` are there, as those of e2fsprogs 1.47.0 are. What differs:
//! - The line with dumpe2fs's own version, which goes to standard error there, and the empty line at
//!   the end: they say nothing of the filesystem.
//! - Times after 2106 are right: 1.47.0 shows the lower 32 bits.
//! - Names of users come from /etc/passwd and /etc/group only: the command is one static program,
//!   which cannot ask other sources.
//! - A superblock with a wrong checksum is refused: dumpe2fs shows it with a warning. A journal or a
//!   multi-mount protection block that is damaged is an error after all that could be read.
//! - What was ever written does not overflow to 0 near 2^64 KiB.

mod fields;
mod journal;
mod mmp;
mod report;

use crate::cli::{Format, VolumeArgs};
use crate::error::Error;
use crate::open;
use crate::output::Output;
use report::Report;

/// Shows the superblock, the journal's superblock and the multi-mount protection block.
///
/// # Errors
/// If there is no filesystem and no journal. What can be read has been written when something else
/// is damaged.
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
