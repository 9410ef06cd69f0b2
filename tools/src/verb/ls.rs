//! `nvio ls`: lists directories.

mod line;
mod order;
mod sorted;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use nvio_ext4::{Inode, WalkEvent, WalkOrder};

use super::stat;
use crate::args::{ColorArgs, Format, Human, VolumeArgs};
use crate::attributes::Attributes;
use crate::error::Error;
use crate::listing::Listing;
use crate::name::base_name;
use crate::open;
use crate::operand::{InodeArgs, Operand, Operands};
use line::Lines;
use order::Order;

/// List directories as ls does, one name a line.
///
/// All names except . and .. are shown. Times are UTC, owners are numbers, and sizes are exact
/// unless -h is given. Directories are listed after the other PATHS.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Ls {
    #[command(flatten)]
    pub volume: VolumeArgs,
    /// Paths in the filesystem: names, shell patterns, or <N> for inode N.
    #[arg(default_value = "/")]
    pub paths: Vec<OsString>,
    /// Show mode, links, owner, size and time.
    #[arg(short, long)]
    pub long: bool,
    /// Show . and .., too.
    #[arg(short, long)]
    pub all: bool,
    /// Show all names except . and .., which is the default.
    #[arg(short = 'A', long, overrides_with = "all")]
    pub almost_all: bool,
    /// Show one name a line, which is the default.
    #[arg(short = '1')]
    pub one: bool,
    /// Show directories themselves, not their entries.
    #[arg(short, long, conflicts_with = "recursive")]
    pub directory: bool,
    /// Show the inode number.
    #[arg(short, long)]
    pub inode: bool,
    /// Show owners as numbers, which is the default.
    #[arg(short, long)]
    pub numeric_uid_gid: bool,
    /// List the directories below, too.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    #[command(flatten)]
    order: Order,
    /// With --long, show extended attributes and access control lists, too.
    #[arg(long, requires = "long")]
    pub xattrs: bool,
    #[command(flatten)]
    pub human: Human,
    #[command(flatten)]
    pub color: ColorArgs,
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
        let mut listing = Listing::new(&volume, self.format);
        listing.out.color(self.color.color);
        let lines = Lines::new(self.human.human);
        let operands = Operands::new(&volume, &self.paths, &InodeArgs::default()).all;
        let several = operands.len() > 1;
        let mut lister = Lister { args: self, listing, lines, several, first: true };
        let mut found = Vec::new();
        for operand in operands {
            let looked_up = operand.and_then(|operand| {
                let inode = lister.operand(&operand)?;
                Ok((operand.path, inode))
            });
            found.extend(lister.listing.failures.absorb(looked_up)?);
        }
        found.sort_by(|a, b| self.order.compare((&a.0, Some(&a.1)), (&b.0, Some(&b.1))));
        let (directories, others): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(_, inode)| inode.is_dir() && !self.directory);
        for (path, inode) in others {
            lister.first = false;
            let shown = lister.entry(&path, &path, &inode);
            lister.listing.failures.absorb(shown)?;
        }
        for (path, inode) in directories {
            if self.order.is_default() && !self.all {
                lister.walk(&path, &inode)?;
            } else {
                lister.sorted(&path, &inode)?;
            }
        }
        lister.listing.end()
    }
}

struct Lister<'a> {
    args: &'a Ls,
    listing: Listing<'a>,
    lines: Lines,
    /// Several files are named.
    several: bool,
    /// True until something was printed.
    first: bool,
}

impl Lister<'_> {
    /// Looks up a path of the command line. As in ls, a symbolic link is followed unless its own
    /// details are to be shown.
    fn operand(&self, operand: &Operand) -> Result<Inode, Error> {
        let volume = self.listing.volume;
        let itself = self.args.long || self.args.directory;
        if itself { operand.symlink_metadata(volume) } else { operand.metadata(volume) }
    }

    /// Lists a directory by name, one entry at a time, because it may have millions.
    fn walk(&mut self, path: &[u8], inode: &Inode) -> Result<(), Error> {
        let max_depth = if self.args.recursive { usize::MAX } else { 0 };
        let walk = self.listing.volume.filesystem().walk(path, inode);
        let mut walk = walk.order(WalkOrder::ByDirectory).max_depth(max_depth);
        while let Some(visit) = walk.step() {
            match visit {
                Ok(visit) if visit.event == WalkEvent::Entry => {
                    let shown = self.entry(visit.path, visit.name, visit.inode);
                    self.listing.failures.absorb(shown)?;
                }
                Ok(visit) if visit.event == WalkEvent::Enter => self.heading(visit.path)?,
                Ok(_) => {}
                Err(error) => {
                    self.listing.failures.report(&Error::path(walk.path())(error));
                    if walk.failed_at_entry() {
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
        if self.args.inode {
            self.listing.out.text(&line::unknown_inode())?;
        }
        if self.args.long {
            self.listing.out.text(&line::unknown())?;
        }
        self.listing.out.name_line(base_name(path), None)
    }

    fn heading(&mut self, directory: &[u8]) -> Result<(), Error> {
        let several = self.args.recursive || self.several;
        if several && !self.listing.is_json() {
            self.listing.out.text(if self.first { "" } else { "\n" })?;
            self.listing.out.name(directory)?;
            self.listing.out.line(":")?;
        }
        self.first = false;
        Ok(())
    }

    fn entry(&mut self, path: &[u8], shown: &[u8], inode: &Inode) -> Result<(), Error> {
        if self.listing.is_json() {
            return self.json(path, inode);
        }
        let volume = self.listing.volume;
        if self.args.inode {
            self.listing.out.text(&line::inode_number(inode))?;
        }
        if !self.args.long {
            return self.listing.entry_line(path, shown, inode, None);
        }
        let target = open::target(volume, path, inode)?;
        let target = target.as_deref();
        let has_acl = volume.filesystem().has_acl(inode).map_err(Error::path(path));
        let has_acl = match self.args.xattrs {
            // Their damage is reported below.
            true => has_acl.unwrap_or(false),
            false => self.listing.failures.absorb(has_acl)?.unwrap_or(false),
        };
        let attributes = match self.args.xattrs {
            true => Attributes::read(volume, path, inode, &mut self.listing.failures).lines(),
            false => Vec::new(),
        };
        self.listing.out.bytes(self.lines.begin(inode, stat::size(inode, target), has_acl))?;
        self.listing.entry_line(path, shown, inode, target)?;
        for (heading, line) in attributes {
            self.listing.out.line(&format!("    {heading}: {line}"))?;
        }
        Ok(())
    }

    fn json(&mut self, path: &[u8], inode: &Inode) -> Result<(), Error> {
        if !self.args.long {
            return self.listing.push(&stat::brief(path, inode));
        }
        let volume = self.listing.volume;
        let target = open::target(volume, path, inode)?;
        let mut record = stat::long(path, inode, target.as_deref());
        if self.args.xattrs {
            let failures = &mut self.listing.failures;
            Attributes::read(volume, path, inode, failures).add_to(&mut record);
        }
        self.listing.push(&record)
    }
}
