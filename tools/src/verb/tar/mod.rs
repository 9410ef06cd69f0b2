//! `nvio tar`: an archive of files and trees, and files from an archive.

mod archive;
mod create;
mod extract;
mod input;
mod read;
mod segments;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Args};

use self::create::Archiver;
use self::extract::Extractor;
use self::input::Input;
use self::segments::Segments;
use crate::args::{Format, VolumeArgs};
use crate::error::Error;
use crate::interrupt;
use crate::name::{self, escaped, rooted};
use crate::open;
use crate::operand::{InodeArgs, Operands};
use crate::output::print;
use crate::record::Record;
use crate::target::Target;

/// Write files and trees as a tar archive, or extract one with -x.
///
/// A written archive has the POSIX format (pax): names and sizes of any length, times in nanoseconds, extended
/// attributes, access control lists, hard links, and holes. Members have no leading slash. Extract it
/// with `tar -x --xattrs --xattrs-include='*' --acls`, or with -x.
///
/// -x reads the formats of GNU tar, POSIX and ustar. Files have the owners (by number), modes, times, attributes
/// and lists of the archive. An existing file is replaced when its successor is complete; directories are
/// merged. A leading slash is left out. Members with `..` in their names or below a symbolic link are
/// refused. All is durable when the command exits. The filesystem must not be mounted.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("with_summary"))]
pub struct Tar {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Paths in the filesystem: names, shell patterns, or <N> for inode N. By default all files. With -x the
    /// directory to extract into.
    paths: Vec<OsString>,
    #[command(flatten)]
    inodes: InodeArgs,
    /// Write to this file, which must not exist yet.
    #[arg(short, long, value_name = "FILE", group = "with_summary")]
    output: Option<PathBuf>,
    /// Extract an archive into a directory of the filesystem, which is / by default.
    #[arg(short = 'x', long, group = "with_summary", conflicts_with = "inode")]
    pub extract: bool,
    /// With -x, read this file. By default, and for -, standard input.
    #[arg(short = 'f', long, value_name = "FILE", requires = "extract")]
    input: Option<PathBuf>,
    /// With -x, the directory to extract into, as for tar(1).
    #[arg(short = 'C', long, value_name = "DIR", requires = "extract", conflicts_with = "paths")]
    directory: Option<OsString>,
    /// With --output or -x, write a summary in JSON.
    #[arg(long, requires = "with_summary")]
    json: bool,
}

impl Tar {
    /// Returns true if an archive is to be extracted into several directories.
    pub fn has_several_targets(&self) -> bool {
        self.extract && self.paths.len() > 1
    }

    /// Writes or extracts an archive.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or closed, or the input or output fails. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        if self.extract { self.extract() } else { self.create() }
    }

    /// Writes the archive. A file that cannot be read is left out, or ends in zeroes.
    fn create(&self) -> Result<ExitCode, Error> {
        let volume = open::volume(&self.volume)?;
        let target = Target::new(self.output.as_deref())?;
        if target.is_terminal() {
            return Err(Error::ArchiveToTerminal);
        }
        let root = [OsString::from("/")];
        let is_all = self.paths.is_empty() && self.inodes.inode.is_empty();
        let paths = if is_all { &root } else { &self.paths[..] };
        let operands = Operands::new(&volume, paths, &self.inodes);
        let mut tar = Archiver::new(&volume, target)?;
        for operand in operands.all {
            let added = operand.and_then(|operand| tar.operand(&operand));
            tar.absorb(added)?;
        }
        let bytes = tar.archive.end()?;
        tar.progress.finish_and_clear();
        tar.failures.damage(&volume);
        self.summary(tar.archive.members, bytes)?;
        Ok(tar.failures.code())
    }

    /// Extracts the archive, as far as it is sound.
    fn extract(&self) -> Result<ExitCode, Error> {
        let target = self.directory.as_ref().or(self.paths.first());
        let target = target.map_or_else(|| b"/".to_vec(), |target| rooted(target));
        let input = Input::open(self.input.as_deref())?;
        let volume = open::journaled_volume(&self.volume)?;
        let directory = volume.lookup(&target).map_err(Error::path(&target))?;
        if !directory.is_dir() {
            let advice = "`nvio mkdir` creates a directory to extract into";
            let state = "is not a directory";
            let target = PathBuf::from(escaped(&target));
            return Err(Error::TargetNotDirectory { target, state, advice });
        }
        let report = format!("{}: the archive is not extracted to its end", escaped(&target));
        interrupt::report_at_end(name::one_line(&report));
        let bar = input.progress();
        let mut extractor =
            Extractor::new(&volume, input, bar.clone(), (directory.number(), target));
        extractor.run();
        let (members, bytes, code) = extractor.end();
        bar.set_message("making it durable");
        let closed = volume.close();
        bar.finish_and_clear();
        closed?;
        self.summary(members, bytes)?;
        Ok(code)
    }

    fn summary(&self, members: u64, bytes: u64) -> Result<(), Error> {
        if !self.json {
            return Ok(());
        }
        let mut report = Record::default();
        report.json("members", members);
        report.json("bytes", bytes);
        print(Format { json: true }, &report, String::new).map(drop)
    }
}
