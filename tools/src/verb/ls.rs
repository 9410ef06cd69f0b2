//! `nvio ls`: lists directories, one entry at a time.

mod line;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use nvio_ext4::{Inode, WalkEvent, WalkOrder};

use super::stat;
use crate::args::{Format, VolumeArgs};
use crate::attributes::Attributes;
use crate::error::Error;
use crate::listing::Listing;
use crate::name::{base_name, rooted};
use crate::open;
use line::Lines;

/// List directories. All names except . and .. are shown; sizes are exact, times are UTC.
#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    pub volume: VolumeArgs,
    /// Paths in the filesystem.
    #[arg(default_value = "/")]
    pub paths: Vec<OsString>,
    /// Show mode, links, owner, size and time.
    #[arg(short, long)]
    pub long: bool,
    /// List the directories below, too.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// With --long and --json, show extended attributes and access control lists, too.
    #[arg(long, requires_all = ["long", "json"])]
    pub xattrs: bool,
    #[command(flatten)]
    pub format: Format,
}

impl Ls {
    /// Lists each path: a directory's entries, or the path itself if it is something else.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or standard output fails. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let volume = open::volume(&self.volume)?;
        let listing = Listing::new(&volume, self.format);
        let mut lister = Lister { args: self, listing, lines: Lines::default(), first: true };
        for path in &self.paths {
            let listed = lister.operand(&rooted(path));
            lister.listing.failures.absorb(listed)?;
        }
        lister.listing.end()
    }
}

struct Lister<'a> {
    args: &'a Ls,
    listing: Listing<'a>,
    lines: Lines,
    /// True until something was printed.
    first: bool,
}

impl Lister<'_> {
    fn operand(&mut self, path: &[u8]) -> Result<(), Error> {
        // As ls does: a link is followed unless its own details are to be shown.
        let inode = if self.args.long {
            self.listing.volume.symlink_metadata(path)?
        } else {
            self.listing.volume.metadata(path)?
        };
        if !inode.is_dir() {
            self.first = false;
            return self.entry(path, path, &inode);
        }
        let max_depth = if self.args.recursive { usize::MAX } else { 0 };
        let walk = self.listing.volume.filesystem().walk(path, &inode);
        let mut walk = walk.order(WalkOrder::ByDirectory).max_depth(max_depth);
        // True while the walk is in the entries of a directory.
        let mut inside = false;
        while let Some(visit) = walk.step() {
            match visit {
                Ok(visit) if visit.event == WalkEvent::Entry => {
                    let shown = self.entry(visit.path, visit.name, visit.inode);
                    self.listing.failures.absorb(shown)?;
                }
                Ok(visit) => {
                    inside = visit.event == WalkEvent::Enter;
                    if inside {
                        self.heading(visit.path)?;
                    }
                }
                Err(error) => {
                    self.listing.failures.report(&Error::path(walk.path())(error));
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
        if self.listing.is_json() {
            return Ok(());
        }
        if self.args.long {
            self.listing.out.text(&line::unknown())?;
        }
        self.listing.out.name_line(base_name(path), None)
    }

    fn heading(&mut self, directory: &[u8]) -> Result<(), Error> {
        let several = self.args.recursive || self.args.paths.len() > 1;
        if several && !self.listing.is_json() {
            self.listing.out.text(if self.first { "" } else { "\n" })?;
            self.listing.out.name(directory)?;
            self.listing.out.line(":")?;
        }
        self.first = false;
        Ok(())
    }

    fn entry(&mut self, path: &[u8], shown: &[u8], inode: &Inode) -> Result<(), Error> {
        if !self.args.long {
            if self.listing.is_json() {
                return self.listing.push(&stat::brief(path, inode));
            }
            return self.listing.out.name_line(shown, None);
        }
        let volume = self.listing.volume;
        let target = open::target(volume, path, inode)?;
        let target = target.as_deref();
        if self.listing.is_json() {
            let mut record = stat::long(path, inode, target);
            if self.args.xattrs {
                Attributes::read(volume, path, inode)?.add_to(&mut record);
            }
            return self.listing.push(&record);
        }
        let has_acl = volume.filesystem().has_acl(inode).map_err(Error::path(path))?;
        self.listing.out.bytes(self.lines.begin(inode, stat::size(inode, target), has_acl))?;
        self.listing.out.name_line(shown, target)
    }
}
