//! `nvio du`: space that files and directories occupy.

use std::collections::HashSet;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use nvio::Volume;
use nvio_ext4::{Inode, WalkEvent};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::args::{Format, VolumeArgs};
use crate::error::{Error, Failures};
use crate::name::{self, rooted};
use crate::open;
use crate::output::{JsonArray, Output, human_blocks};

/// The options of `nvio du`.
#[derive(Clone, Debug, Args)]
pub struct DuArgs {
    /// Paths in the filesystem.
    #[arg(default_value = "/")]
    paths: Vec<OsString>,
    /// Show files too, not only directories.
    #[arg(short, long, conflicts_with = "summarize")]
    all: bool,
    /// Show only the sum of each path.
    #[arg(short, long, conflicts_with = "max_depth")]
    summarize: bool,
    /// Show entries at most this deep. Deeper entries are counted in the sums.
    #[arg(short = 'd', long, value_name = "N")]
    max_depth: Option<usize>,
    /// Show the sum of all paths, too.
    #[arg(short = 'c', long)]
    total: bool,
    /// Count the sizes of files, not the space that they occupy.
    #[arg(long)]
    apparent_size: bool,
    /// Show the sizes of files in bytes; implies --apparent-size.
    #[arg(short, long, conflicts_with = "human")]
    bytes: bool,
}

/// Prints the space that each path occupies.
///
/// # Errors
/// If the filesystem cannot be opened or standard output fails. Other failures are printed, and
/// the entry is left out.
pub fn run(
    volume: &VolumeArgs,
    args: &DuArgs,
    human: bool,
    format: Format,
) -> Result<ExitCode, Error> {
    let volume = open::volume(volume)?;
    let mut usage = Usage {
        args,
        human,
        json: format.json,
        out: Output::new(),
        array: JsonArray::default(),
        failures: Failures::default(),
        seen: HashSet::new(),
        several: args.paths.len() > 1,
        most: if args.summarize { 0 } else { args.max_depth.unwrap_or(usize::MAX) },
    };
    let mut total = 0u64;
    for path in &args.paths {
        total = total.saturating_add(usage.operand(&volume, &rooted(path))?);
    }
    if args.total {
        usage.show(total, None)?;
    }
    let Usage { mut out, array, failures, .. } = usage;
    if format.json {
        array.end(&mut out)?;
    }
    out.flush()?;
    Ok(failures.code())
}

struct Usage<'a> {
    args: &'a DuArgs,
    human: bool,
    json: bool,
    out: Output,
    array: JsonArray,
    failures: Failures,
    /// Inodes that were counted: files with several names, and with several paths every inode.
    seen: HashSet<u32>,
    several: bool,
    /// Greatest depth that is shown.
    most: usize,
}

/// A directory whose entries are being counted.
struct Open {
    bytes: u64,
}

/// A line of the output, for JSON.
struct Line<'a> {
    path: Option<&'a [u8]>,
    bytes: u64,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.path {
            Some(path) => name::entry(&mut map, "path", path)?,
            None => map.serialize_entry("total", &true)?,
        }
        map.serialize_entry("bytes", &self.bytes)?;
        map.end()
    }
}

impl Usage<'_> {
    /// Prints a path and the entries below it, and returns the sum.
    fn operand(&mut self, volume: &Volume, path: &[u8]) -> Result<u64, Error> {
        let Some(inode) = self.failures.absorb(volume.symlink_metadata(path))? else {
            return Ok(0);
        };
        let mut walk = volume.filesystem().walk(path, &inode);
        let mut stack: Vec<Open> = Vec::new();
        // The directory that the walk enters next, if it can be read.
        let mut entered: Option<(Vec<u8>, u64, usize)> = None;
        let mut sum = 0;
        while let Some(step) = walk.step() {
            let visit = match step {
                Ok(visit) => visit,
                Err(error) => {
                    let error = Error::path(walk.path())(error);
                    self.failures.report(&error);
                    // A directory counts even if its entries cannot be read.
                    if let Some((path, bytes, depth)) = entered.take() {
                        add(&mut stack, &mut sum, bytes);
                        self.directory(bytes, &path, depth)?;
                    }
                    continue;
                }
            };
            let is_first = visit.depth == 0;
            match visit.event {
                WalkEvent::Enter => {
                    let bytes = match entered.take() {
                        Some((_, bytes, _)) => bytes,
                        None if self.is_new(visit.inode) => self.bytes(visit.inode),
                        // An earlier path contained this one.
                        None => break,
                    };
                    stack.push(Open { bytes });
                }
                WalkEvent::Entry if !self.is_new(visit.inode) => {
                    if visit.inode.is_dir() {
                        walk.skip();
                    }
                }
                WalkEvent::Entry if visit.inode.is_dir() => {
                    entered = Some((visit.path.to_vec(), self.bytes(visit.inode), visit.depth));
                }
                WalkEvent::Entry => {
                    let bytes = self.bytes(visit.inode);
                    add(&mut stack, &mut sum, bytes);
                    if is_first || (self.args.all && visit.depth <= self.most) {
                        self.show(bytes, Some(visit.path))?;
                    }
                }
                WalkEvent::Leave => {
                    let bytes = stack.pop().map_or(0, |open| open.bytes);
                    add(&mut stack, &mut sum, bytes);
                    self.directory(bytes, visit.path, visit.depth)?;
                }
            }
        }
        Ok(sum)
    }

    /// Returns true if the inode was not counted yet.
    fn is_new(&mut self, inode: &Inode) -> bool {
        let once = self.several || (!inode.is_dir() && inode.links() > 1);
        !once || self.seen.insert(inode.number())
    }

    fn bytes(&self, inode: &Inode) -> u64 {
        match self.args.apparent_size || self.args.bytes {
            true => inode.size(),
            false => inode.blocks_512().saturating_mul(512),
        }
    }

    fn directory(&mut self, bytes: u64, path: &[u8], depth: usize) -> Result<(), Error> {
        if depth <= self.most { self.show(bytes, Some(path)) } else { Ok(()) }
    }

    fn show(&mut self, bytes: u64, path: Option<&[u8]>) -> Result<(), Error> {
        if self.json {
            return self.array.push(&mut self.out, &Line { path, bytes });
        }
        let size = match () {
            () if self.args.bytes => bytes.to_string(),
            () if self.human => human_blocks(bytes),
            () => bytes.div_ceil(1024).to_string(),
        };
        self.out.text(&format!("{size}\t"))?;
        self.out.name(path.unwrap_or(b"total"))?;
        self.out.line("")
    }
}

/// Adds bytes to the innermost open directory, or to the sum of the path.
fn add(stack: &mut [Open], sum: &mut u64, bytes: u64) {
    let to = stack.last_mut().map_or(sum, |open| &mut open.bytes);
    *to = to.saturating_add(bytes);
}
