//! `nvio sha256`: checksums of files.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use nvio::Inode;
use nvio_ext4::WalkEvent;
use sha2::{Digest, Sha256 as Hasher};

use crate::args::{Format, VolumeArgs};
use crate::contents::Contents;
use crate::error::Error;
use crate::listing::Listing;
use crate::name::{escaped, hex};
use crate::open;
use crate::operand::{InodeArgs, Operand, Operands};
use crate::record::Record;

/// Show the SHA-256 of files, for sha256sum -c.
///
/// The names in the output begin as PATHS do: with relative PATHS, `sha256sum -c` checks the output
/// in the directory where the filesystem, or a copy of it, is mounted.
#[derive(Debug, Args)]
pub struct Sha256 {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Paths in the filesystem: names, shell patterns, or <N> for inode N.
    #[arg(required_unless_present = "inode")]
    paths: Vec<OsString>,
    #[command(flatten)]
    inodes: InodeArgs,
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
        let operands = Operands::new(&volume, &self.paths, &self.inodes);
        let mut listing = match self.recursive {
            true => Listing::new(&volume, self.format),
            false => Listing::of_operands(&volume, self.format, &operands),
        };
        let mut sums =
            Sums { recursive: self.recursive, contents: Contents::new(&volume)?, prefix: 0 };
        listing.operands(operands, |listing, operand| sums.operand(listing, operand))?;
        listing.end()
    }
}

struct Sums<'a> {
    recursive: bool,
    contents: Contents<'a>,
    /// Number of bytes of absolute paths that the names in the output begin after.
    prefix: usize,
}

impl Sums<'_> {
    fn operand(&mut self, listing: &mut Listing<'_>, operand: &Operand) -> Result<(), Error> {
        self.prefix = operand.added;
        let (path, inode) = (&*operand.path, operand.metadata(listing.volume)?);
        if !inode.is_dir() {
            return self.file(listing, path, &inode);
        }
        if !self.recursive {
            let advice = "`nvio sha256 -r` includes the files below it";
            return Err(Error::Directory { path: escaped(path), advice });
        }
        let mut walk = listing.volume.filesystem().walk(path, &inode);
        while let Some(step) = walk.step() {
            match step {
                Ok(visit) if visit.event == WalkEvent::Entry && visit.inode.is_file() => {
                    let shown = self.file(listing, visit.path, visit.inode);
                    listing.failures.absorb(shown)?;
                }
                Ok(_) => {}
                Err(error) => listing.failures.report(&Error::path(walk.path())(error)),
            }
        }
        Ok(())
    }

    fn file(&mut self, listing: &mut Listing<'_>, path: &[u8], inode: &Inode) -> Result<(), Error> {
        let mut hasher = Hasher::new();
        let mut file = self.contents.open(path, inode)?;
        self.contents.read(path, &mut file, 0..u64::MAX, |piece| {
            hasher.update(piece);
            Ok(())
        })?;
        let sum = hex(&hasher.finalize());
        if listing.is_json() {
            let mut record = Record::default();
            record.json_bytes("path", path);
            record.json("sha256", sum);
            return listing.push(&record);
        }
        listing.out.bytes(&line(&sum, path.get(self.prefix..).unwrap_or_default()))
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
