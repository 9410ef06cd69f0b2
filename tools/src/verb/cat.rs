//! `nvio cat`: writes files to standard output.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

use crate::args::{Format, VolumeArgs};
use crate::contents::Contents;
use crate::error::Error;
use crate::listing::Listing;
use crate::open;
use crate::operand::{InodeArgs, Operands};
use crate::units::size;

/// Write files to standard output, one after the other.
#[derive(Debug, Args)]
pub struct Cat {
    #[command(flatten)]
    pub volume: VolumeArgs,
    /// Paths in the filesystem: names, shell patterns, or <N> for inode N.
    #[arg(required_unless_present = "inode")]
    pub paths: Vec<OsString>,
    #[command(flatten)]
    inodes: InodeArgs,
    /// Skip this many bytes of each file.
    #[arg(long, value_name = "SIZE", value_parser = size::<u64>, default_value = "0")]
    pub offset: u64,
    /// Write at most this many bytes of each file.
    #[arg(long, value_name = "SIZE", value_parser = size::<u64>)]
    pub length: Option<u64>,
}

impl Cat {
    /// Writes a range of each file.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or standard output fails. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let volume = open::volume(&self.volume)?;
        let mut contents = Contents::new(&volume)?;
        let end = self.offset.saturating_add(self.length.unwrap_or(u64::MAX));
        let mut listing = Listing::new(&volume, Format { json: false });
        let operands = Operands::new(&volume, &self.paths, &self.inodes);
        listing.operands(operands, |listing, operand| {
            let (path, inode) = (&*operand.path, operand.metadata(&volume)?);
            if inode.is_dir() {
                return Err(Error::directory(path));
            }
            let mut file = contents.open(path, &inode)?;
            contents.read(path, &mut file, self.offset..end, |piece| listing.out.bytes(piece))
        })?;
        listing.end()
    }
}
