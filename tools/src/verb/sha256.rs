//! `nvio sha256`: checksums of files.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::Args;
use nvio::Inode;
use nvio_ext4::WalkEvent;
use sha2::{Digest, Sha256 as Hasher};

use crate::args::{Format, VolumeArgs};
use crate::contents::Contents;
use crate::error::Error;
use crate::listing::Listing;
use crate::name::{escaped, hex, rooted};
use crate::open;
use crate::record::Record;

/// Show the SHA-256 of files, for sha256sum -c.
///
/// The names in the output begin as PATHS do: with relative PATHS, `sha256sum -c` checks the output
/// in the directory where the filesystem, or a copy of it, is mounted.
#[derive(Debug, Args)]
pub struct Sha256 {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Paths in the filesystem.
    #[arg(required = true)]
    paths: Vec<OsString>,
    /// Include the files below directories, but not the targets of symbolic links there.
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    format: Format,
}

impl Sha256 {
    /// Prints a line for each file. JSON is an array, or an object for one path without -r.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or standard output fails. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let volume = open::volume(&self.volume)?;
        let listing = match self.recursive {
            true => Listing::new(&volume, self.format),
            false => Listing::of_paths(&volume, self.format, &self.paths),
        };
        let mut sums = Sums { listing, contents: Contents::new(&volume)?, prefix: 0 };
        for path in &self.paths {
            sums.operand(path, self.recursive)?;
        }
        sums.listing.end()
    }
}

struct Sums<'a> {
    listing: Listing<'a>,
    contents: Contents<'a>,
    /// Number of bytes of absolute paths that the names in the output begin after.
    prefix: usize,
}

impl Sums<'_> {
    fn operand(&mut self, path: &OsStr, recursive: bool) -> Result<(), Error> {
        self.prefix = usize::from(!path.as_bytes().starts_with(b"/"));
        let path = rooted(path);
        let volume = self.listing.volume;
        let inode = volume.metadata(&path);
        let Some(inode) = self.listing.failures.absorb(inode)? else { return Ok(()) };
        if !inode.is_dir() {
            return self.file(&path, &inode);
        }
        if !recursive {
            let advice = "`nvio sha256 -r` includes the files below it";
            let error = Error::Directory { path: escaped(&path), advice };
            self.listing.failures.report(&error);
            return Ok(());
        }
        let mut walk = volume.filesystem().walk(&path, &inode);
        while let Some(step) = walk.step() {
            match step {
                Ok(visit) if visit.event == WalkEvent::Entry && visit.inode.is_file() => {
                    self.file(visit.path, visit.inode)?;
                }
                Ok(_) => {}
                Err(error) => self.listing.failures.report(&Error::path(walk.path())(error)),
            }
        }
        Ok(())
    }

    /// Prints the line of a file, or its failure.
    fn file(&mut self, path: &[u8], inode: &Inode) -> Result<(), Error> {
        let mut hasher = Hasher::new();
        let read = self.contents.read(path, inode, (0, u64::MAX), |piece| {
            hasher.update(piece);
            Ok(())
        });
        if self.listing.failures.absorb(read)?.is_none() {
            return Ok(());
        }
        let sum = hex(&hasher.finalize());
        if self.listing.is_json() {
            let mut record = Record::default();
            record.json_bytes("path", path);
            record.json("sha256", sum);
            return self.listing.push(&record);
        }
        self.listing.out.bytes(&line(&sum, path.get(self.prefix..).unwrap_or_default()))
    }
}

/// Formats a line as sha256sum does: a backslash at its start means that the name has escapes.
fn line(sum: &str, name: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        b'\\' => b"\\\\".to_vec(),
        b'\n' => b"\\n".to_vec(),
        b'\r' => b"\\r".to_vec(),
        _ => vec![*byte],
    };
    let escaped: Vec<u8> = name.iter().flat_map(escape).collect();
    let mark: &[u8] = if escaped.len() > name.len() { b"\\" } else { b"" };
    [mark, sum.as_bytes(), b"  ", &escaped, b"\n"].concat()
}
