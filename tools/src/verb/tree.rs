//! `nvio tree`: draws a directory and the entries below it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::Args;
use nvio_ext4::{Inode, WalkEvent};

use super::stat;
use crate::args::{ColorArgs, Format, VolumeArgs};
use crate::error::Error;
use crate::listing::Listing;
use crate::name::{base_name, rooted};
use crate::open;

/// Show a directory and the entries below it as a tree.
#[derive(Debug, Args)]
pub struct Tree {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Path in the filesystem.
    #[arg(default_value = "/")]
    path: OsString,
    /// Descend at most this deep; 1 is the entries of the directory itself.
    #[arg(short = 'L', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_depth: Option<u32>,
    #[command(flatten)]
    color: ColorArgs,
    #[command(flatten)]
    format: Format,
}

impl Tree {
    /// Draws the tree, and prints the number of directories and files below its root.
    ///
    /// # Errors
    /// If the filesystem cannot be opened, the path does not exist, or standard output fails. Other
    /// failures are printed, and the entry is marked in the tree.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let volume = open::volume(&self.volume)?;
        let root = rooted(&self.path);
        let inode = volume.metadata(&root)?;
        let deepest = self.max_depth.map_or(usize::MAX, |depth| depth as usize - 1);
        let mut walk = volume.filesystem().walk(&root, &inode).max_depth(deepest);
        let mut listing = Listing::new(&volume, self.format);
        listing.out.color(self.color.color);
        let mut drawing = Drawing { listing, lasts: Vec::new(), directories: 0, files: 0 };
        if !drawing.listing.is_json() {
            drawing.listing.out.name_line(self.path.as_bytes(), None)?;
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
                Ok(inode) => drawing.entry(walk.path(), &inode, depth, walk.is_last()),
                Err(error) => {
                    if walk.failed_at_entry() {
                        drawing.unreadable(walk.path(), depth, walk.is_last())?;
                    }
                    Err(error)
                }
            };
            drawing.listing.failures.absorb(found)?;
        }
        drawing.end()
    }
}

struct Drawing<'a> {
    listing: Listing<'a>,
    /// For each level from the root: true if the entry is the last of its directory.
    lasts: Vec<bool>,
    directories: u64,
    files: u64,
}

impl Drawing<'_> {
    fn entry(
        &mut self,
        path: &[u8],
        inode: &Inode,
        depth: usize,
        is_last: bool,
    ) -> Result<(), Error> {
        let counter = if inode.is_dir() { &mut self.directories } else { &mut self.files };
        *counter += 1;
        let target = open::target(self.listing.volume, path, inode);
        let known = target.as_ref().ok().and_then(|target| target.as_deref());
        if self.listing.is_json() {
            let mut record = stat::brief(path, inode);
            record.json("depth", depth);
            if let Some(target) = known {
                record.json_bytes("target", target);
            }
            self.listing.push(&record)?;
        } else {
            self.branch(depth, is_last)?;
            self.listing.entry_line(path, base_name(path), inode, known)?;
        }
        target.map(|_| ())
    }

    fn unreadable(&mut self, path: &[u8], depth: usize, is_last: bool) -> Result<(), Error> {
        if self.listing.is_json() {
            return Ok(());
        }
        self.branch(depth, is_last)?;
        self.listing.out.name(base_name(path))?;
        self.listing.out.line(" [cannot be read]")
    }

    /// Prints the branches before the name of an entry.
    fn branch(&mut self, depth: usize, is_last: bool) -> Result<(), Error> {
        self.lasts.resize(depth.saturating_sub(1), false);
        for &above in &self.lasts {
            self.listing.out.text(if above { "    " } else { "\u{2502}\u{a0}\u{a0} " })?;
        }
        self.lasts.push(is_last);
        let corner = if is_last { '\u{2514}' } else { '\u{251c}' };
        self.listing.out.text(&format!("{corner}\u{2500}\u{2500} "))
    }

    fn end(mut self) -> Result<ExitCode, Error> {
        if !self.listing.is_json() {
            let directories = if self.directories == 1 { "directory" } else { "directories" };
            let files = if self.files == 1 { "file" } else { "files" };
            let (d, f) = (self.directories, self.files);
            self.listing.out.line(&format!("\n{d} {directories}, {f} {files}"))?;
        }
        self.listing.end()
    }
}
