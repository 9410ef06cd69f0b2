//! `nvio truncate`: changes sizes.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

use crate::args::VolumeArgs;
use crate::error::Error;
use crate::units::size;

/// Set the size of files.
///
/// Blocks after the end are freed; new bytes read as zeroes, without blocks. The change is written
/// through the journal. The filesystem must not be mounted.
#[derive(Debug, Args)]
pub struct Truncate {
    #[command(flatten)]
    volume: VolumeArgs,
    /// The size.
    #[arg(short, long, value_parser = size::<u64>)]
    size: u64,
    /// Paths in the filesystem.
    #[arg(required = true)]
    paths: Vec<OsString>,
}

impl Truncate {
    /// Sets the size of each path.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or closed. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        super::each(&self.volume, &self.paths, |volume, inode| {
            volume.filesystem().truncate(inode.number(), self.size)
        })
    }
}
