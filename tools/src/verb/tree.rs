//! `nvio tree`: draws a directory and the entries below it.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use clap::builder::ArgPredicate;
use nvio_ext4::{Inode, WalkEvent};

use super::stat;
use crate::args::{ColorArgs, Format, VolumeArgs};
use crate::error::Error;
use crate::listing::Listing;
use crate::name::base_name;
use crate::open;
use crate::operand::{InodeArgs, Operand, Operands};
use crate::output::Output;

/// Show directories and the entries below them as trees.
#[derive(Debug, Args)]
pub struct Tree {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Paths in the filesystem: names, shell patterns, or <N> for inode N.
    #[arg(default_value = "/", default_value_if("inode", ArgPredicate::IsPresent, None))]
    paths: Vec<OsString>,
    #[command(flatten)]
    inodes: InodeArgs,
    /// Descend at most this deep; 1 is the entries of the directory itself.
    #[arg(short = 'L', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_depth: Option<u32>,
    #[command(flatten)]
    color: ColorArgs,
    #[command(flatten)]
    format: Format,
}

impl Tree {
    /// Draws the trees, and prints the number of directories and files below their roots.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or standard output fails. Other failures are printed, and
    /// an entry that cannot be read is marked in the tree.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let volume = open::volume(&self.volume)?;
        let operands = Operands::new(&volume, &self.paths, &self.inodes);
        let mut listing = Listing::new(&volume, self.format);
        listing.out.color(self.color.color);
        let mut drawing = Drawing { lasts: Vec::new(), roots: 0, directories: 0, files: 0 };
        let deepest = self.max_depth.map_or(usize::MAX, |depth| depth as usize - 1);
        listing.operands(operands, |listing, operand| drawing.tree(listing, operand, deepest))?;
        drawing.end(listing)
    }
}

struct Drawing {
    /// For each level from the root: true if the entry is the last of its directory.
    lasts: Vec<bool>,
    roots: u64,
    directories: u64,
    files: u64,
}

impl Drawing {
    fn tree(
        &mut self,
        listing: &mut Listing<'_>,
        operand: &Operand,
        deepest: usize,
    ) -> Result<(), Error> {
        let inode = operand.metadata(listing.volume)?;
        let mut walk = listing.volume.filesystem().walk(&operand.path, &inode).max_depth(deepest);
        self.roots += 1;
        if !listing.is_json() {
            let root = operand.path.get(operand.added..).unwrap_or_default();
            listing.out.name_line(if root.is_empty() { b"/" } else { root }, None)?;
        }
        let mut depth = 0;
        while let Some(step) = walk.step() {
            let found = match step {
                Ok(visit) => {
                    depth = visit.depth + usize::from(visit.event == WalkEvent::Enter);
                    if visit.event != WalkEvent::Entry || visit.depth == 0 {
                        continue;
                    }
                    Ok(visit.inode.clone())
                }
                Err(error) => Err(Error::path(walk.path())(error)),
            };
            let found = match found {
                Ok(inode) => self.entry(listing, walk.path(), &inode, depth, walk.is_last()),
                Err(error) => {
                    if walk.failed_at_entry() {
                        self.unreadable(listing, walk.path(), depth, walk.is_last())?;
                    }
                    Err(error)
                }
            };
            listing.failures.absorb(found)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        listing: &mut Listing<'_>,
        path: &[u8],
        inode: &Inode,
        depth: usize,
        is_last: bool,
    ) -> Result<(), Error> {
        let counter = if inode.is_dir() { &mut self.directories } else { &mut self.files };
        *counter += 1;
        let target = open::target(listing.volume, path, inode);
        let known = target.as_ref().ok().and_then(|target| target.as_deref());
        if listing.is_json() {
            let mut record = stat::brief(path, inode);
            record.json("depth", depth);
            if let Some(target) = known {
                record.json_bytes("target", target);
            }
            listing.push(&record)?;
        } else {
            self.branch(&mut listing.out, depth, is_last)?;
            listing.entry_line(path, base_name(path), inode, known)?;
        }
        target.map(|_| ())
    }

    fn unreadable(
        &mut self,
        listing: &mut Listing<'_>,
        path: &[u8],
        depth: usize,
        is_last: bool,
    ) -> Result<(), Error> {
        if listing.is_json() {
            return Ok(());
        }
        self.branch(&mut listing.out, depth, is_last)?;
        listing.out.name(base_name(path))?;
        listing.out.line(" [cannot be read]")
    }

    /// Prints the branches before the name of an entry.
    fn branch(&mut self, out: &mut Output, depth: usize, is_last: bool) -> Result<(), Error> {
        self.lasts.resize(depth.saturating_sub(1), false);
        for &above in &self.lasts {
            out.text(if above { "    " } else { "\u{2502}\u{a0}\u{a0} " })?;
        }
        self.lasts.push(is_last);
        let corner = if is_last { '\u{2514}' } else { '\u{251c}' };
        out.text(&format!("{corner}\u{2500}\u{2500} "))
    }

    /// Prints the sums, unless no root could be read.
    fn end(self, mut listing: Listing<'_>) -> Result<ExitCode, Error> {
        if !listing.is_json() && self.roots > 0 {
            let directories = if self.directories == 1 { "directory" } else { "directories" };
            let files = if self.files == 1 { "file" } else { "files" };
            let (d, f) = (self.directories, self.files);
            listing.out.line(&format!("\n{d} {directories}, {f} {files}"))?;
        }
        listing.end()
    }
}
