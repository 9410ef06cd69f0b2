//! `nvio ls`: lists directories, one entry at a time.

mod line;

use std::ffi::OsString;
use std::process::ExitCode;

use nvio::Volume;
use nvio_ext4::{Inode, WalkEvent, WalkOrder};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::stat::{self, Record, kind};
use crate::args::VolumeArgs;
use crate::attributes::Attributes;
use crate::error::{Error, Failures};
use crate::name::{self, rooted};
use crate::open;
use crate::output::{JsonArray, Output};
use line::Lines;

/// The options of `nvio ls`.
#[derive(Clone, Copy)]
pub struct Options {
    /// Shows mode, links, owner, size and time.
    pub long: bool,
    /// Lists the directories below.
    pub recursive: bool,
    /// Adds extended attributes to JSON.
    pub xattrs: bool,
    /// Writes JSON.
    pub json: bool,
}

/// A path and its inode number, for JSON.
struct Brief<'a> {
    path: &'a [u8],
    inode: &'a Inode,
}

impl Serialize for Brief<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        name::entry(&mut map, "path", self.path)?;
        map.serialize_entry("kind", kind(self.inode.kind()))?;
        map.serialize_entry("inode", &self.inode.number())?;
        map.end()
    }
}

/// Lists each path: a directory's entries, or the path itself if it is something else.
///
/// # Errors
/// If the filesystem cannot be opened or standard output fails. Other failures are printed.
pub fn run(args: &VolumeArgs, paths: &[OsString], options: Options) -> Result<ExitCode, Error> {
    let volume = open::volume(args)?;
    let mut listing = Listing {
        volume: &volume,
        out: Output::new(),
        array: JsonArray::default(),
        lines: Lines::default(),
        failures: Failures::default(),
        options,
        headings: options.recursive || paths.len() > 1,
        first: true,
    };
    for path in paths {
        let path = rooted(path);
        let listed = listing.operand(&path);
        listing.failures.absorb(listed)?;
    }
    let Listing { mut out, array, failures, .. } = listing;
    if options.json {
        array.end(&mut out)?;
    }
    out.flush()?;
    Ok(failures.code())
}

struct Listing<'a> {
    volume: &'a Volume,
    out: Output,
    array: JsonArray,
    lines: Lines,
    options: Options,
    failures: Failures,
    headings: bool,
    first: bool,
}

impl Listing<'_> {
    fn operand(&mut self, path: &[u8]) -> Result<(), Error> {
        // As ls does: a link is followed unless its own details are to be shown.
        let inode = if self.options.long {
            self.volume.symlink_metadata(path)?
        } else {
            self.volume.metadata(path)?
        };
        if !inode.is_dir() {
            self.first = false;
            return self.entry(path, path, &inode);
        }
        let max_depth = if self.options.recursive { usize::MAX } else { 0 };
        let walk = self.volume.filesystem().walk(path, &inode);
        let mut walk = walk.order(WalkOrder::ByDirectory).max_depth(max_depth);
        // True while the walk is in the entries of a directory.
        let mut inside = false;
        while let Some(visit) = walk.step() {
            match visit {
                Ok(visit) if visit.event == WalkEvent::Entry => {
                    let shown = self.entry(visit.path, visit.name, visit.inode);
                    self.failures.absorb(shown)?;
                }
                Ok(visit) => {
                    inside = visit.event == WalkEvent::Enter;
                    if inside {
                        self.heading(visit.path)?;
                    }
                }
                Err(error) => {
                    self.failures.report(&Error::path(walk.path())(error));
                    if inside {
                        self.unreadable(walk.path())?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Prints the name of an entry that cannot be read, without details.
    fn unreadable(&mut self, path: &[u8]) -> Result<(), Error> {
        if self.options.json {
            return Ok(());
        }
        if self.options.long {
            self.out.text(&line::unknown())?;
        }
        self.out.name(path.rsplit(|&byte| byte == b'/').next().unwrap_or_default())?;
        self.out.line("")
    }

    fn heading(&mut self, directory: &[u8]) -> Result<(), Error> {
        if self.headings && !self.options.json {
            self.out.text(if self.first { "" } else { "\n" })?;
            self.out.name(directory)?;
            self.out.line(":")?;
        }
        self.first = false;
        Ok(())
    }

    fn entry(&mut self, path: &[u8], shown: &[u8], inode: &Inode) -> Result<(), Error> {
        if !self.options.long {
            if self.options.json {
                return self.array.push(&mut self.out, &Brief { path, inode });
            }
            self.out.name(shown)?;
            return self.out.line("");
        }
        let target = open::target(self.volume, path, inode)?;
        if self.options.json {
            let attributes = match self.options.xattrs {
                true => Some(Attributes::read(self.volume, path, inode)?),
                false => None,
            };
            let record = Record {
                path,
                inode,
                target: target.as_deref(),
                all: false,
                attributes: attributes.as_ref(),
            };
            return self.array.push(&mut self.out, &record);
        }
        let has_acl = self.volume.filesystem().has_acl(inode).map_err(Error::path(path))?;
        let size = stat::size(inode, target.as_deref());
        self.out.bytes(self.lines.begin(inode, size, has_acl))?;
        self.out.name(shown)?;
        if let Some(target) = &target {
            self.out.text(" -> ")?;
            self.out.name(target)?;
        }
        self.out.line("")
    }
}
