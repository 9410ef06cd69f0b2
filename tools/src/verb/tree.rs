//! `nvio tree`: draws a directory and the entries below it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use nvio::Volume;
use nvio_ext4::{Inode, WalkEvent};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::stat::kind;
use crate::args::{Format, VolumeArgs};
use crate::error::{Error, Failures};
use crate::name::{self, rooted};
use crate::open;
use crate::output::{JsonArray, Output};

/// An entry of the JSON array, in the order of the tree.
struct Entry<'a> {
    path: &'a [u8],
    inode: &'a Inode,
    depth: usize,
    target: Option<&'a [u8]>,
}

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        name::entry(&mut map, "path", self.path)?;
        map.serialize_entry("kind", kind(self.inode.kind()))?;
        map.serialize_entry("inode", &self.inode.number())?;
        map.serialize_entry("depth", &self.depth)?;
        if let Some(target) = self.target {
            name::entry(&mut map, "target", target)?;
        }
        map.end()
    }
}

/// Draws the tree, and prints the number of directories and files below its root.
///
/// # Errors
/// If the filesystem cannot be opened, the path does not exist, or standard output fails. Other
/// failures are printed, and the entry is marked in the tree.
pub fn run(
    args: &VolumeArgs,
    path: &OsString,
    max_depth: Option<u32>,
    format: Format,
) -> Result<ExitCode, Error> {
    let volume = open::volume(args)?;
    let root = rooted(path);
    let inode = volume.metadata(&root)?;
    let deepest = max_depth.map_or(usize::MAX, |depth| depth as usize - 1);
    let mut walk = volume.filesystem().walk(&root, &inode).max_depth(deepest);
    let mut tree = Tree::new(&volume, format.json);
    if !tree.json {
        tree.out.name(path.as_bytes())?;
        tree.out.line("")?;
    }
    let mut failures = Failures::default();
    let mut depth = 0;
    // True if the walk enters the directory of the last line next.
    let mut entering = true;
    while let Some(step) = walk.step() {
        let found = match step {
            Ok(visit) => {
                entering = visit.event == WalkEvent::Entry && visit.inode.is_dir();
                depth = visit.depth + usize::from(visit.event == WalkEvent::Enter);
                if visit.event != WalkEvent::Entry || visit.depth == 0 {
                    continue;
                }
                Ok(visit.inode.clone())
            }
            Err(error) => Err(Error::path(walk.path())(error)),
        };
        let found = match found {
            Ok(inode) => tree.entry(walk.path(), &inode, depth, walk.is_last()),
            Err(error) if std::mem::take(&mut entering) => Err(error),
            Err(error) => {
                tree.unreadable(walk.path(), depth, walk.is_last())?;
                Err(error)
            }
        };
        failures.absorb(found)?;
    }
    tree.end()?;
    Ok(failures.code())
}

struct Tree<'a> {
    volume: &'a Volume,
    json: bool,
    out: Output,
    array: JsonArray,
    /// For each level from the root: true if the entry is the last of its directory.
    lasts: Vec<bool>,
    directories: u64,
    files: u64,
}

impl<'a> Tree<'a> {
    fn new(volume: &'a Volume, json: bool) -> Self {
        Self {
            volume,
            json,
            out: Output::new(),
            array: JsonArray::default(),
            lasts: Vec::new(),
            directories: 0,
            files: 0,
        }
    }

    fn entry(
        &mut self,
        path: &[u8],
        inode: &Inode,
        depth: usize,
        is_last: bool,
    ) -> Result<(), Error> {
        let counter = if inode.is_dir() { &mut self.directories } else { &mut self.files };
        *counter += 1;
        let target = open::target(self.volume, path, inode);
        let known = target.as_ref().ok().and_then(|target| target.as_deref());
        if self.json {
            self.array.push(&mut self.out, &Entry { path, inode, depth, target: known })?;
        } else {
            self.branch(path, depth, is_last)?;
            if let Some(target) = known {
                self.out.text(" -> ")?;
                self.out.name(target)?;
            }
            self.out.line("")?;
        }
        target.map(|_| ())
    }

    fn unreadable(&mut self, path: &[u8], depth: usize, is_last: bool) -> Result<(), Error> {
        if self.json {
            return Ok(());
        }
        self.branch(path, depth, is_last)?;
        self.out.line(" [cannot be read]")
    }

    /// Prints the branches and the name of an entry.
    fn branch(&mut self, path: &[u8], depth: usize, is_last: bool) -> Result<(), Error> {
        self.lasts.resize(depth.saturating_sub(1), false);
        for &above in &self.lasts {
            self.out.text(if above { "    " } else { "\u{2502}\u{a0}\u{a0} " })?;
        }
        self.lasts.push(is_last);
        self.out.text(if is_last {
            "\u{2514}\u{2500}\u{2500} "
        } else {
            "\u{251c}\u{2500}\u{2500} "
        })?;
        self.out.name(path.rsplit(|&byte| byte == b'/').next().unwrap_or_default())
    }

    fn end(mut self) -> Result<(), Error> {
        if self.json {
            self.array.end(&mut self.out)?;
        } else {
            let s = if self.files == 1 { "" } else { "s" };
            let directories = match self.directories {
                1 => "1 directory".to_owned(),
                count => format!("{count} directories"),
            };
            self.out.line(&format!("\n{directories}, {} file{s}", self.files))?;
        }
        self.out.flush()
    }
}
