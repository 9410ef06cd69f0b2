//! `nvio put`: copies files of this machine to the device.

mod attributes;
mod contents;
mod tree;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use indicatif::ProgressBar;
use nvio::{Inode, JournaledVolume};

use self::tree::Putter;
use crate::args::VolumeArgs;
use crate::create::To;
use crate::error::Error;
use crate::interrupt;
use crate::name::{self, escaped, join, rooted};
use crate::open;
use crate::progress;

/// Copy files from this machine to the device.
///
/// Holes stay holes, and hard links among the files are kept. Files have the permissions of their
/// sources, belong to user 0 and group 0, and have the times of now; -p keeps them. An existing file
/// is replaced when its copy is complete. All is durable when the command exits. Data is written to
/// free blocks through the journal; the filesystem must not be mounted.
#[derive(Debug, Args)]
pub struct Put {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Copy directories with all their entries, and links and special files as such.
    #[arg(short, long)]
    recursive: bool,
    /// Keep owners, modes, times, extended attributes and access control lists.
    #[arg(short, long)]
    preserve: bool,
    /// Files of this machine.
    #[arg(required = true, value_name = "HOSTPATH")]
    paths: Vec<PathBuf>,
    /// The target in the filesystem: a directory to copy into, or a new name.
    #[arg(required = true, value_name = "TARGET")]
    target: OsString,
}

impl Put {
    /// Copies the files into the target if it is a directory, else to that name. A path without a last name,
    /// such as `folder/.`, stands for its entries.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or closed, or several paths were to be copied to a target that is
    /// not a directory. All other failures are printed, and the copy continues.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let volume = open::journaled_volume(&self.volume)?;
        let target = rooted(&self.target);
        let found = volume.lookup(&target);
        let into = found.as_ref().ok().filter(|inode| inode.is_dir());
        if into.is_none() && (self.paths.len() > 1 || target.ends_with(b"/")) {
            return Err(not_a_directory(&target, found.is_ok(), self.paths.len()));
        }
        let bar = self.progress();
        let report = format!("{}: the copy is incomplete", escaped(&target));
        interrupt::report_at_end(name::one_line(&report));
        let images = self.volume.images();
        let mut putter = Putter::new(&volume, self.recursive, self.preserve, bar.clone(), &images);
        let mut names = HashSet::new();
        for source in &self.paths {
            let put = match last_name(source) {
                Some(name) if !names.insert(name.to_owned()) => {
                    let target = path_of(&join(&target, name.as_bytes()));
                    let by = name::one_line(&source.display().to_string());
                    Err(Error::JustCreated { target, by })
                }
                name => put(&mut putter, &volume, (source, name), (&target, into)),
            };
            putter.report(put);
        }
        let code = putter.end();
        bar.set_message("making it durable");
        let closed = volume.close();
        bar.finish_and_clear();
        closed?;
        Ok(code)
    }

    fn progress(&self) -> ProgressBar {
        let size = match &self.paths[..] {
            [path] => fs::metadata(path).ok().filter(Metadata::is_file).map(|file| file.len()),
            _ => None,
        };
        size.map_or_else(progress::spinner, progress::bar)
    }
}

/// Copies one operand.
fn put(
    putter: &mut Putter<'_>,
    volume: &JournaledVolume,
    (source, name): (&Path, Option<&OsStr>),
    (target, into): (&[u8], Option<&Inode>),
) -> Result<(), Error> {
    match (name, into) {
        (None, Some(directory)) => putter.entries(source, directory, target),
        (Some(name), Some(directory)) => {
            let path = join(target, name.as_bytes());
            putter
                .put(source, To { parent: directory.number(), name: name.as_bytes(), path: &path })
        }
        (_, None) => {
            let start = target.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
            let (above, name) = target.split_at(start);
            let parent = volume.lookup(above).map_err(Error::path(above))?;
            putter.put(source, To { parent: parent.number(), name, path: target })
        }
    }
}

/// Returns the last name of a path of this machine. A path that ends in a dot component has none.
fn last_name(path: &Path) -> Option<&OsStr> {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    let last = bytes.get(..end)?.rsplit(|&byte| byte == b'/').next()?;
    (!matches!(last, b"" | b"." | b"..")).then(|| OsStr::from_bytes(last))
}

/// Returns a path in the filesystem, as an error has it.
fn path_of(path: &[u8]) -> PathBuf {
    OsStr::from_bytes(path).into()
}

/// Returns the error of a target that must be a directory.
fn not_a_directory(target: &[u8], exists: bool, paths: usize) -> Error {
    let state = if exists { "is not a directory" } else { "does not exist" };
    let advice = match paths {
        1 => "leave out the slash to copy to that name",
        _ => "several paths need a directory; `nvio mkdir` creates one",
    };
    Error::TargetNotDirectory { target: path_of(target), state, advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_names() {
        for (path, name) in [
            ("a/b", Some("b")),
            ("a/b//", Some("b")),
            ("a/.", None),
            ("a/./", None),
            ("..", None),
            ("/", None),
            ("...", Some("...")),
        ] {
            assert_eq!(last_name(Path::new(path)), name.map(OsStr::new), "{path}");
        }
    }
}
