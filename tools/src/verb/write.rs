//! `nvio write`: overwrites bytes of a file with standard input.

use std::ffi::OsString;
use std::io::{self, Read};

use nvio_ext4::WritableFile;
use nvio_iomap::{BOUNCE_BYTES_MAX, Cursor, IoArgs, IoFlags};

use crate::args::VolumeArgs;
use crate::error::Error;
use crate::name::{self, rooted};
use crate::open;

/// Overwrites the bytes from `offset` on.
///
/// # Errors
/// If the filesystem or the file cannot be written to, or the range is not inside of the file. The
/// bytes before the failure have been written.
pub fn run(args: &VolumeArgs, path: &OsString, offset: u64, dsync: bool) -> Result<(), Error> {
    let volume = open::writable_volume(args)?;
    let path = rooted(path);
    let inode = volume.metadata(&path)?;
    if inode.is_dir() {
        return Err(Error::Directory { path: name::escaped(&path) });
    }
    let mut file = volume.open_writable(&path)?;
    let mut queue = volume.writable_queue()?;
    let flags = if dsync { IoFlags::DSYNC } else { IoFlags::empty() };
    let mut input = io::stdin().lock();
    let mut buffer = vec![0; BOUNCE_BYTES_MAX];
    let mut written = 0;
    loop {
        let pos = offset.saturating_add(written);
        let bytes = fill(&mut input, until_piece(&mut buffer, pos));
        let bytes = bytes.map_err(|source| Error::Input { written, source })?;
        if bytes.is_empty() {
            return Ok(());
        }
        let io = IoArgs::at(pos).flags(flags);
        let done = file.write_from(&mut queue, io, &mut Cursor::new(&*bytes));
        written += done.map_err(|source| refused(&file, &path, written, source))? as u64;
    }
}

/// Returns the part of the buffer up to the next multiple of its length in the file, so that the
/// next write is aligned.
fn until_piece(buffer: &mut [u8], pos: u64) -> &mut [u8] {
    let before = usize::try_from(pos % BOUNCE_BYTES_MAX as u64).unwrap_or(0);
    &mut buffer[before..]
}

/// Reads until the buffer is full or the input ends.
fn fill<'a>(input: &mut impl Read, buffer: &'a mut [u8]) -> io::Result<&'a mut [u8]> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(&mut buffer[..filled])
}

fn refused(file: &WritableFile, path: &[u8], written: u64, source: nvio_ext4::Error) -> Error {
    log::debug!("inode {}: {source}", file.inode().number());
    Error::Write { path: name::escaped(path), written, source }
}
