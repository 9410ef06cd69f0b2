//! `nvio touch`: changes times.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp as Time;
use nvio::ext4::Timestamp;

use crate::args::VolumeArgs;
use crate::error::Error;

/// Set the times of files.
///
/// The times are those of the last access and of the last change. They are written through the journal.
/// The filesystem must not be mounted. Files are not created.
#[derive(Debug, Args)]
pub struct Touch {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Set this time, with its offset to UTC: 2026-01-31T12:00:00Z. By default the time of now.
    #[arg(short, long, value_name = "TIME")]
    date: Option<Time>,
    /// Set the time of the last access only.
    #[arg(short, long)]
    access: bool,
    /// Set the time of the last change only.
    #[arg(short, long)]
    modification: bool,
    /// Paths in the filesystem.
    #[arg(required = true)]
    paths: Vec<OsString>,
}

impl Touch {
    /// Sets the times of each path.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or closed. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let time = self.date.unwrap_or_else(Time::now);
        // A time before 1970 has negative nanoseconds.
        let seconds = time.as_nanosecond().div_euclid(1_000_000_000);
        let nanoseconds = time.as_nanosecond().rem_euclid(1_000_000_000);
        let time = Timestamp {
            seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
            nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
        };
        let both = self.access == self.modification;
        let (atime, mtime) = (both || self.access, both || self.modification);
        super::each(&self.volume, &self.paths, |volume, inode| {
            let (atime, mtime) = (atime.then_some(time), mtime.then_some(time));
            volume.filesystem().set_times(inode.number(), atime, mtime)
        })
    }
}
