//! `nvio fallocate`: allocates blocks, frees them, and moves them inside a file.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

use crate::args::VolumeArgs;
use crate::error::Error;
use crate::units::size;

/// Allocate blocks for a range of a file, free them, or move them.
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
    #[arg(short, long, conflicts_with = "keep_size", group = "mode")]
    punch_hole: bool,
    /// Zero the range, by blocks that are marked as unwritten.
    #[arg(short, long, group = "mode")]
    zero_range: bool,
    /// Take the range, of whole blocks, out of the file.
    #[arg(short, long, conflicts_with = "keep_size", group = "mode")]
    collapse_range: bool,
    /// Put a hole of whole blocks into the file.
    #[arg(short, long, conflicts_with = "keep_size", group = "mode")]
    insert_range: bool,
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
        super::each(&self.volume, &self.paths, |volume, inode| {
            let (fs, number) = (volume.filesystem(), inode.number());
            match () {
                () if self.punch_hole => fs.punch_hole(number, offset, length),
                () if self.zero_range => fs.zero_range(number, offset, length, self.keep_size),
                () if self.collapse_range => fs.collapse_range(number, offset, length),
                () if self.insert_range => fs.insert_range(number, offset, length),
                () => fs.allocate(number, offset, length, self.keep_size),
            }
        })
    }
}
