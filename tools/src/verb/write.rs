//! `nvio write`: writes standard input to a file.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::Args;
use nvio::IoMode;
use nvio_iomap::{BOUNCE_BYTES_MAX, IoArgs, IoFlags};

use crate::args::VolumeArgs;
use crate::error::Error;
use crate::interrupt;
use crate::name::{self, rooted};
use crate::open;
use crate::progress;
use crate::units::size;

/// Write standard input to a file, over its bytes.
///
/// Without --grow the file keeps its size, its blocks and its times: only existing bytes are replaced.
/// Input that does not fit is refused before its first byte is written. The filesystem must not be
/// mounted.
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
    /// Make all data durable with one sync at the end, and report the errors of it.
    #[arg(long)]
    pub sync: bool,
    /// Allocate blocks where the file has none, and let it grow. Blocks, size and times are changed
    /// through the journal.
    #[arg(long)]
    grow: bool,
    #[command(flatten)]
    mode: Mode,
}

/// The way of the data to the device.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Mode {
    /// Write past the cache. This is the default.
    #[arg(long)]
    direct: bool,
    /// Write to the cache, which writes to the device in large commands, also later.
    #[arg(long)]
    buffered: bool,
    /// Write to the cache, and the blocks of each write to the device at once.
    #[arg(long)]
    writethrough: bool,
}

impl Mode {
    fn get(&self) -> IoMode {
        match self {
            Self { buffered: true, .. } => IoMode::Buffered,
            Self { writethrough: true, .. } => IoMode::Writethrough,
            Self { .. } => IoMode::Direct,
        }
    }
}

impl Write {
    /// Overwrites the bytes from the offset on.
    ///
    /// # Errors
    /// If the filesystem or the file cannot be written to, or the range is not inside of the file.
    /// A range that cannot be written as a whole is refused before its first byte. If the device
    /// fails, the bytes before the failure have been written.
    pub fn run(&self) -> Result<ExitCode, Error> {
        if self.grow {
            return self.let_grow();
        }
        let volume = open::writable_volume(&self.volume)?;
        let path = rooted(&self.path);
        let inode = volume.metadata(&path)?;
        if inode.is_dir() {
            return Err(Error::directory(&path));
        }
        let mut file = volume.open_writable(&path)?;
        let room = file.size().saturating_sub(self.offset);
        let mut input = Input::read(room).map_err(|source| Error::Input { written: 0, source })?;
        let refused = |written| {
            let path = name::escaped(&path);
            move |source| Error::Write { path, written, source }
        };
        file.check_range(self.offset, input.length).map_err(refused(0))?;
        let failed = |written| {
            let refused = refused(written);
            move |error| match error {
                nvio::Error::File(source) => refused(source),
                other => other.into(),
            }
        };
        let bar = progress::bar(input.length);
        let flags = if self.dsync { IoFlags::DSYNC } else { IoFlags::empty() };
        let mut buffer = Vec::with_capacity(BOUNCE_BYTES_MAX);
        let mut written = 0;
        loop {
            let path = name::escaped(&path);
            interrupt::report_at_end(match self.mode.get() {
                IoMode::Direct => format!("{path}: at least {written} bytes were written"),
                IoMode::Buffered | IoMode::Writethrough => {
                    format!("{path}: of {written} bytes, some may not be on the device")
                }
            });
            let pos = self.offset.saturating_add(written);
            // Up to the next multiple of the buffer's size, so that the next write is aligned.
            let most = BOUNCE_BYTES_MAX as u64 - pos % BOUNCE_BYTES_MAX as u64;
            buffer.clear();
            let read = input.data.by_ref().take(most).read_to_end(&mut buffer);
            read.map_err(|source| Error::Input { written, source })?;
            if buffer.is_empty() {
                break;
            }
            let io = IoArgs::at(pos).flags(flags);
            file.write_at_with(self.mode.get(), io, &buffer).map_err(failed(written))?;
            written += buffer.len() as u64;
            bar.set_position(written);
        }
        if self.sync || self.mode.get() != IoMode::Direct {
            // The cache has to say whether its data arrived.
            bar.set_message("writing to the device");
            file.sync_data().map_err(failed(written))?;
        }
        bar.finish_and_clear();
        Ok(ExitCode::SUCCESS)
    }
}

impl Write {
    /// Writes standard input to its end, with blocks that are allocated for it.
    fn let_grow(&self) -> Result<ExitCode, Error> {
        let volume = open::journaled_volume(&self.volume)?;
        let path_bytes = rooted(&self.path);
        let mut file = volume.open_file(&path_bytes)?;
        let flags = if self.dsync { IoFlags::DSYNC } else { IoFlags::empty() };
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(input_failed(0))?);
        let length = remaining(&stdin).map_err(input_failed(0))?;
        let bar = progress::bar(length.unwrap_or(0));
        let (mut buffer, mut written) = (Vec::new(), 0);
        loop {
            let path = name::escaped(&path_bytes);
            interrupt::report_at_end(format!("{path}: of {written} bytes, some may be lost"));
            let pos = self.offset.saturating_add(written);
            // Up to the next multiple of the buffer's size, so that the next write is aligned.
            let most = BOUNCE_BYTES_MAX as u64 - pos % BOUNCE_BYTES_MAX as u64;
            buffer.clear();
            let read =
                stdin.try_clone().and_then(|stdin| stdin.take(most).read_to_end(&mut buffer));
            read.map_err(input_failed(written))?;
            if buffer.is_empty() {
                break;
            }
            let failed = |error| match error {
                nvio::Error::File(source) => {
                    Error::Write { path: name::escaped(&path_bytes), written, source }
                }
                other => other.into(),
            };
            let io = IoArgs::at(pos).flags(flags);
            file.write_at_with(self.mode.get(), io, &buffer).map_err(failed)?;
            written += buffer.len() as u64;
            bar.set_position(written);
        }
        bar.set_message("writing to the device");
        // The cache has to say whether its data arrived.
        file.sync_all()?;
        drop(file);
        volume.close()?;
        bar.finish_and_clear();
        Ok(ExitCode::SUCCESS)
    }
}

fn input_failed(written: u64) -> impl Fn(io::Error) -> Error {
    move |source| Error::Input { written, source }
}

/// Standard input, whose length is known before its first byte is written.
struct Input {
    data: Box<dyn Read>,
    length: u64,
}

impl Input {
    /// Finds the length of standard input. A pipe is read to its end: up to 1 MiB into memory, more
    /// into a temporary file without a name. At most one byte more is read than there is `room` for,
    /// because a longer input is refused anyway.
    fn read(room: u64) -> io::Result<Self> {
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        if let Some(length) = remaining(&stdin)? {
            return Ok(Self { data: Box::new(stdin.take(length)), length });
        }
        let mut spool = tempfile::spooled_tempfile(BOUNCE_BYTES_MAX);
        let length = io::copy(&mut stdin.take(room.saturating_add(1)), &mut spool)?;
        spool.rewind()?;
        Ok(Self { data: Box::new(spool), length })
    }
}

/// Returns the bytes from the position of a regular file to its end, or `None` for another file.
///
/// # Errors
/// If the position cannot be read.
pub fn remaining(mut file: &File) -> io::Result<Option<u64>> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    Ok(Some(metadata.len().saturating_sub(file.stream_position()?)))
}
