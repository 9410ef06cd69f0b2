//! `nvio cat`: writes files to standard output.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use nvio_iomap::BOUNCE_BYTES_MAX;

use crate::args::{Format, VolumeArgs};
use crate::error::Error;
use crate::listing::Listing;
use crate::open;
use crate::units::size;

/// Write files to standard output, one after the other.
#[derive(Debug, Args)]
pub struct Cat {
    #[command(flatten)]
    pub volume: VolumeArgs,
    /// Paths in the filesystem.
    #[arg(required = true)]
    pub paths: Vec<OsString>,
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
        let mut queue = volume.queue()?;
        let mut buffer = vec![0; BOUNCE_BYTES_MAX];
        let mut listing = Listing::new(&volume, Format { json: false });
        listing.paths(&self.paths, |listing, path| {
            let inode = volume.metadata(path)?;
            if inode.is_dir() {
                return Err(Error::directory(path));
            }
            let mut file = volume.filesystem().file(&inode).map_err(Error::path(path))?;
            let length = self.length.unwrap_or(u64::MAX);
            let end = self.offset.saturating_add(length).min(file.size());
            let mut at = self.offset;
            while at < end {
                let part = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
                let read = file.read_at(&mut queue, at, &mut buffer[..part]);
                let read = read.map_err(Error::path(path))?;
                if read == 0 {
                    break;
                }
                listing.out.bytes(&buffer[..read])?;
                at += read as u64;
            }
            Ok(())
        })?;
        listing.end()
    }
}
