//! `nvio cat`: writes files to standard output.

use std::ffi::OsString;

use nvio::{Queue, Volume};
use nvio_iomap::BOUNCE_BYTES_MAX;

use crate::args::VolumeArgs;
use crate::error::Error;
use crate::name::{self, rooted};
use crate::open;
use crate::output::Output;

/// Writes a range of each file.
///
/// # Errors
/// If a file cannot be read. Everything before it has been written.
pub fn run(
    args: &VolumeArgs,
    paths: &[OsString],
    offset: u64,
    length: Option<u64>,
) -> Result<(), Error> {
    let volume = open::volume(args)?;
    let mut queue = volume.queue()?;
    let mut out = Output::new();
    let mut buffer = vec![0; BOUNCE_BYTES_MAX];
    for path in paths {
        let path = rooted(path);
        one(&volume, &mut queue, &path, offset, length, &mut buffer, &mut out)?;
    }
    out.flush()
}

fn one(
    volume: &Volume,
    queue: &mut Queue,
    path: &[u8],
    offset: u64,
    length: Option<u64>,
    buffer: &mut [u8],
    out: &mut Output,
) -> Result<(), Error> {
    let inode = volume.metadata(path)?;
    if inode.is_dir() {
        return Err(Error::Directory { path: name::escaped(path) });
    }
    let mut file = volume.filesystem().file(&inode).map_err(Error::path(path))?;
    let size = file.size();
    let end = length.map_or(size, |length| offset.saturating_add(length).min(size));
    let mut at = offset;
    while at < end {
        let part = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let read = file.read_at(queue, at, &mut buffer[..part]).map_err(Error::path(path))?;
        if read == 0 {
            break;
        }
        out.bytes(&buffer[..read])?;
        at += read as u64;
    }
    Ok(())
}
