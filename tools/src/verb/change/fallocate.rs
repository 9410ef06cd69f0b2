//! `nvio fallocate`: allocates blocks, and frees them.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

use crate::args::VolumeArgs;
use crate::error::Error;
use crate::units::size;

/// Allocate blocks for a range of a file, or free them.
///
/// New blocks read as zeroes. The change is written through the journal. The filesystem must not be
/// mounted.
#[derive(Debug, Args)]
pub struct Fallocate {
    #[command(flatten)]
    volume: VolumeArgs,
    /// First byte of the range.
    #[arg(short, long, value_name = "SIZE", value_parser = size::<u64>, default_value = "0")]
    offset: u64,
    /// Length of the range.
    #[arg(short, long, value_name = "SIZE", value_parser = size::<u64>)]
    length: u64,
    /// Keep the size of the file, also if the range ends after it.
    #[arg(short = 'n', long)]
    keep_size: bool,
    /// Free the blocks of the range, which then reads as zeroes. The size does not change.
    #[arg(short, long, conflicts_with = "keep_size")]
    punch_hole: bool,
    /// Paths in the filesystem.
    #[arg(required = true)]
    paths: Vec<OsString>,
}

impl Fallocate {
    /// Changes the blocks of each path.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or closed. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let (offset, length) = (self.offset, self.length);
        super::each(&self.volume, &self.paths, |volume, inode| match self.punch_hole {
            true => volume.filesystem().punch_hole(inode.number(), offset, length),
            false => volume.filesystem().allocate(inode.number(), offset, length, self.keep_size),
        })
    }
}
