//! The paths of the command line: names, shell patterns, and inodes by number.
//!
//! A path that exists is taken literally. Otherwise `<N>` is inode N, as in debugfs, and a path with
//! `*`, `?` or `[` is a pattern. As in a shell, `*` does not match a slash, nor a dot at the start of a
//! name; the component `**` matches any number of directories.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use nvio::{Inode, Volume};
use nvio_ext4::{InodeNumber, WalkEvent};

use crate::error::Error;
use crate::glob::Glob;
use crate::name::rooted;

/// Maximum number of names that a pattern is replaced by. Links that lead to their own directory
/// make endless numbers of names.
const MATCHES_MAX: usize = 1 << 20;

/// Inodes that are given by number.
#[derive(Clone, Debug, Default, Args)]
pub struct InodeArgs {
    /// Use the inode of this number, as the path <N> does.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub inode: Vec<u32>,
}

/// A file, named by its path or its inode number.
#[derive(Clone, Debug)]
pub struct Operand {
    /// The absolute path, or `<N>`.
    pub path: Vec<u8>,
    /// Number of bytes at the start of `path` that the command line does not have.
    pub added: usize,
    number: Option<InodeNumber>,
}

impl Operand {
    fn new(path: &OsStr) -> Self {
        let added = usize::from(!path.as_bytes().starts_with(b"/"));
        Self { path: rooted(path), added, number: None }
    }

    fn of_inode(number: u32) -> Self {
        let path = format!("<{number}>").into_bytes();
        Self { path, added: 0, number: Some(number.into()) }
    }

    /// Returns the inode. A symbolic link is followed if it is named by its path.
    ///
    /// # Errors
    /// If the inode does not exist or is damaged.
    pub fn metadata(&self, volume: &Volume) -> Result<Inode, Error> {
        match self.number {
            Some(number) => self.numbered(volume, number),
            None => Ok(volume.metadata(&self.path)?),
        }
    }

    /// Returns the inode. A symbolic link is not followed.
    ///
    /// # Errors
    /// As [`metadata`](Self::metadata).
    pub fn symlink_metadata(&self, volume: &Volume) -> Result<Inode, Error> {
        match self.number {
            Some(number) => self.numbered(volume, number),
            None => Ok(volume.symlink_metadata(&self.path)?),
        }
    }

    fn numbered(&self, volume: &Volume, number: InodeNumber) -> Result<Inode, Error> {
        volume.filesystem().inode(number).map_err(Error::path(&self.path))
    }

    fn exists(&self, volume: &Volume) -> bool {
        volume.symlink_metadata(&self.path).is_ok()
    }
}

/// The files that a command line names.
pub struct Operands {
    /// The files in the order of the command line. The names that a pattern matches are sorted.
    pub all: Vec<Result<Operand, Error>>,
    /// True if one file was named, not by a pattern.
    pub is_single: bool,
}

impl Operands {
    /// Looks up which files `paths` name, and adds `inodes`.
    pub fn new(volume: &Volume, paths: &[OsString], inodes: &InodeArgs) -> Self {
        let mut operands = Self { all: Vec::new(), is_single: false };
        let mut patterns = 0;
        for path in paths {
            let operand = Operand::new(path);
            if let Some(number) = number(path).filter(|_| !operand.exists(volume)) {
                operands.all.push(Ok(Operand::of_inode(number)));
            } else if is_pattern(path.as_bytes()) && !operand.exists(volume) {
                patterns += 1;
                operands.expand(volume, &operand);
            } else {
                operands.all.push(Ok(operand));
            }
        }
        operands.all.extend(inodes.inode.iter().map(|&number| Ok(Operand::of_inode(number))));
        operands.is_single = patterns == 0 && operands.all.len() == 1;
        operands
    }

    fn expand(&mut self, volume: &Volume, pattern: &Operand) {
        match matches(volume, &pattern.path) {
            Ok(paths) if paths.is_empty() => {
                let path = crate::name::escaped(&pattern.path);
                self.all.push(Err(Error::NoMatch { path }));
            }
            Ok(paths) => {
                let operand = |path| Ok(Operand { path, added: pattern.added, number: None });
                self.all.extend(paths.into_iter().map(operand));
            }
            Err(error) => self.all.push(Err(error)),
        }
    }
}

/// Parses `<N>`.
fn number(path: &OsStr) -> Option<u32> {
    let digits = path.to_str()?.strip_prefix('<')?.strip_suffix('>')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| b"*?[".contains(byte))
}

/// Returns the paths that a pattern matches, sorted.
fn matches(volume: &Volume, pattern: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let mut found = vec![Vec::new()];
    // At the end, `**` also matches what is not a directory.
    let ends_deep = pattern.ends_with(b"/**");
    let components = pattern.split(|&byte| byte == b'/').filter(|part| !part.is_empty());
    let mut components = components.peekable();
    while let Some(component) = components.next() {
        let mut next = Vec::new();
        for path in found {
            match component {
                b"**" => {
                    let files = ends_deep && components.peek().is_none();
                    below(volume, path, files, &mut next);
                }
                _ if is_pattern(component) => entries(volume, &path, component, &mut next)?,
                _ => next.push([&path, &b"/"[..], component].concat()),
            }
            if next.len() > MATCHES_MAX {
                let path = crate::name::escaped(pattern);
                return Err(Error::TooManyMatches { path, max: MATCHES_MAX });
            }
        }
        next.sort_unstable();
        next.dedup();
        found = next;
    }
    if pattern.ends_with(b"/") {
        found.iter_mut().for_each(|path| path.push(b'/'));
    }
    found.retain(|path| volume.symlink_metadata(path).is_ok());
    Ok(found)
}

/// Adds the entries of a directory whose names match. A path that is not a directory has none.
fn entries(
    volume: &Volume,
    path: &[u8],
    component: &[u8],
    found: &mut Vec<Vec<u8>>,
) -> Result<(), Error> {
    if !volume.metadata(path).is_ok_and(|inode| inode.is_dir()) {
        return Ok(());
    }
    let glob = Glob::new(OsStr::from_bytes(component).to_owned())
        .map_err(|_| Error::LongPattern { path: crate::name::escaped(component) })?;
    for entry in volume.read_dir(path)? {
        let name = entry?.name;
        let is_dot = [&b"."[..], b".."].contains(&&*name);
        let is_hidden = name.starts_with(b".") && !component.starts_with(b".");
        if !is_dot && !is_hidden && glob.matches(&name) {
            found.push([path, b"/", &name].concat());
        }
    }
    Ok(())
}

/// Adds a directory and the directories below it, and with `files` all other entries below it.
fn below(volume: &Volume, path: Vec<u8>, files: bool, found: &mut Vec<Vec<u8>>) {
    let inode = match volume.metadata(&path) {
        Ok(inode) if inode.is_dir() => inode,
        _ => return,
    };
    let mut walk = volume.filesystem().walk(&path, &inode);
    while let Some(step) = walk.step() {
        // Damage is reported by the verb, if it comes there.
        let Ok(visit) = step else { continue };
        if visit.event != WalkEvent::Entry {
            continue;
        }
        let is_dir = visit.inode.is_dir();
        if visit.name.starts_with(b".") {
            if is_dir {
                walk.skip();
            }
        } else if (is_dir || files) && found.len() < MATCHES_MAX {
            found.push(visit.path.to_vec());
        }
    }
    found.push(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_angle_brackets() {
        let number = |text: &str| number(OsStr::new(text));
        assert_eq!((number("<2>"), number("<4294967295>")), (Some(2), Some(u32::MAX)));
        for text in ["<>", "<-1>", "<+1>", "<4294967296>", "2", "<2", "/<2>", "<2>/a"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
