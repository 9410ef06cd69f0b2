//! `nvio du`: space that files and directories occupy.

use std::collections::HashSet;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use clap::builder::ArgPredicate;
use nvio_ext4::{Inode, InodeNumber, WalkEvent};

use crate::args::{Format, Human, VolumeArgs};
use crate::error::Error;
use crate::listing::Listing;
use crate::open;
use crate::operand::{InodeArgs, Operand, Operands};
use crate::output::human_blocks;
use crate::record::Record;

/// Show the space that files and directories occupy, as du does.
///
/// Sizes are in KiB. A file with several names counts once.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Du {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Paths in the filesystem: names, shell patterns, or <N> for inode N.
    #[arg(default_value = "/", default_value_if("inode", ArgPredicate::IsPresent, None))]
    paths: Vec<OsString>,
    #[command(flatten)]
    inodes: InodeArgs,
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
    #[command(flatten)]
    human: Human,
    #[command(flatten)]
    format: Format,
}

impl Du {
    /// Prints the space that each path occupies.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or standard output fails. Other failures are printed, and
    /// the entry is left out.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let volume = open::volume(&self.volume)?;
        let listing = Listing::new(&volume, self.format);
        let most = if self.summarize { 0 } else { self.max_depth.unwrap_or(usize::MAX) };
        let operands = Operands::new(&volume, &self.paths, &self.inodes);
        let several = operands.all.len() > 1;
        let mut usage = Usage { args: self, listing, seen: HashSet::new(), several, most };
        let mut total = 0u64;
        for operand in operands.all {
            let sum = operand.and_then(|operand| usage.operand(&operand));
            let sum = usage.listing.failures.absorb(sum)?.unwrap_or(0);
            total = total.saturating_add(sum);
        }
        if self.total {
            usage.show(total, None)?;
        }
        usage.listing.end()
    }
}

struct Usage<'a> {
    args: &'a Du,
    listing: Listing<'a>,
    /// Inodes that were counted: files with several names, and with several paths every inode.
    seen: HashSet<InodeNumber>,
    /// Several files are named.
    several: bool,
    /// Greatest depth that is shown.
    most: usize,
}

impl Usage<'_> {
    /// Prints a path and the entries below it, and returns the sum.
    fn operand(&mut self, operand: &Operand) -> Result<u64, Error> {
        let (path, inode) = (&*operand.path, operand.symlink_metadata(self.listing.volume)?);
        let mut walk = self.listing.volume.filesystem().walk(path, &inode);
        // The bytes so far of each directory that is open.
        let mut stack: Vec<u64> = Vec::new();
        // The directory that the walk enters next, if it can be read.
        let mut entered: Option<(Vec<u8>, u64, usize)> = None;
        let mut sum = 0;
        while let Some(step) = walk.step() {
            let visit = match step {
                Ok(visit) => visit,
                Err(error) => {
                    let error = Error::path(walk.path())(error);
                    self.listing.failures.report(&error);
                    // A directory counts even if its entries cannot be read.
                    if let Some((path, bytes, depth)) = entered.take() {
                        add(&mut stack, &mut sum, bytes);
                        self.directory(bytes, &path, depth)?;
                    }
                    continue;
                }
            };
            match visit.event {
                WalkEvent::Enter => {
                    stack.push(match entered.take() {
                        Some((_, bytes, _)) => bytes,
                        None if self.is_new(visit.inode) => self.bytes(visit.inode),
                        // An earlier path contained this one.
                        None => break,
                    });
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
                    if visit.depth == 0 || (self.args.all && visit.depth <= self.most) {
                        self.show(bytes, Some(visit.path))?;
                    }
                }
                WalkEvent::Leave => {
                    let bytes = stack.pop().unwrap_or(0);
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
        if self.listing.is_json() {
            let mut line = Record::default();
            match path {
                Some(path) => line.json_bytes("path", path),
                None => line.json("total", true),
            }
            line.json("bytes", bytes);
            return self.listing.push(&line);
        }
        let size = match () {
            () if self.args.bytes => bytes.to_string(),
            () if self.args.human.human => human_blocks(bytes),
            () => bytes.div_ceil(1024).to_string(),
        };
        self.listing.out.text(&format!("{size}\t"))?;
        self.listing.out.name_line(path.unwrap_or(b"total"), None)
    }
}

/// Adds bytes to the innermost open directory, or to the sum of the path.
fn add(stack: &mut [u64], sum: &mut u64, bytes: u64) {
    let to = stack.last_mut().unwrap_or(sum);
    *to = to.saturating_add(bytes);
}
