//! `nvio write`: overwrites bytes of a file with standard input.

use std::ffi::OsString;
use std::io::{self, Read};
use std::process::ExitCode;

use clap::Args;
use nvio_iomap::{BOUNCE_BYTES_MAX, Cursor, IoArgs, IoFlags};

use crate::args::VolumeArgs;
use crate::error::Error;
use crate::name::{self, rooted};
use crate::open;
use crate::units::size;

/// Overwrite bytes of a file with standard input.
///
/// The file keeps its size, its blocks and its times: only existing bytes are replaced. The
/// filesystem must not be mounted.
#[derive(Debug, Args)]
pub struct Write {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Path in the filesystem.
    pub path: OsString,
    /// Begin at this byte of the file.
    #[arg(long, value_name = "SIZE", value_parser = size::<u64>, default_value = "0")]
    pub offset: u64,
    /// Make each MiB durable before reading the next. By default data is durable when the
    /// command exits.
    #[arg(long)]
    pub dsync: bool,
}

impl Write {
    /// Overwrites the bytes from the offset on.
    ///
    /// # Errors
    /// If the filesystem or the file cannot be written to, or the range is not inside of the file.
    /// The bytes before the failure have been written.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let volume = open::writable_volume(&self.volume)?;
        let path = rooted(&self.path);
        let inode = volume.metadata(&path)?;
        if inode.is_dir() {
            return Err(Error::directory(&path));
        }
        let mut file = volume.open_writable(&path)?;
        let mut queue = volume.writable_queue()?;
        let flags = if self.dsync { IoFlags::DSYNC } else { IoFlags::empty() };
        let mut input = io::stdin().lock();
        let mut buffer = Vec::with_capacity(BOUNCE_BYTES_MAX);
        let mut written = 0;
        loop {
            let pos = self.offset.saturating_add(written);
            // Up to the next multiple of the buffer's size, so that the next write is aligned.
            let most = BOUNCE_BYTES_MAX as u64 - pos % BOUNCE_BYTES_MAX as u64;
            buffer.clear();
            let read = input.by_ref().take(most).read_to_end(&mut buffer);
            read.map_err(|source| Error::Input { written, source })?;
            if buffer.is_empty() {
                return Ok(ExitCode::SUCCESS);
            }
            let io = IoArgs::at(pos).flags(flags);
            let done = file.write_from(&mut queue, io, &mut Cursor::new(&*buffer));
            let path = || name::escaped(&path);
            let done = done.map_err(|source| Error::Write { path: path(), written, source })?;
            written += done as u64;
        }
    }
}
