//! `nvio find`: entries below a directory that meet conditions.

mod glob;
mod number;
mod perm;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use nvio_ext4::{FileType, Inode, Timestamp, Visit, WalkEvent};

use self::glob::Glob;
use self::number::{Number, Size};
use self::perm::Permissions;
use super::stat::{self, KINDS};
use crate::args::{Format, VolumeArgs};
use crate::error::Error;
use crate::listing::Listing;
use crate::name::{base_name, rooted};
use crate::open;

const DAY: i64 = 86_400;

/// Find entries of a directory and below it, as find does. All conditions must hold.
///
/// N is a number: 5 is exactly 5, +5 is more, -5 is less.
#[derive(Debug, Args)]
pub struct Find {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Paths in the filesystem.
    #[arg(default_value = "/")]
    paths: Vec<OsString>,
    /// The name matches a shell pattern: *, ? and [a-z].
    #[arg(long, value_name = "PATTERN", value_parser = OsStringValueParser::new().try_map(Glob::new))]
    name: Option<Glob>,
    /// The whole path matches a shell pattern; * and ? match slashes, too.
    #[arg(long, value_name = "PATTERN", value_parser = OsStringValueParser::new().try_map(Glob::new))]
    path: Option<Glob>,
    /// The type is one of these, separated by commas: f file, d directory, l symbolic link, p pipe,
    /// s socket, b block device, c character device.
    #[arg(long = "type", value_name = "fdlpsbc", value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// The size in units, rounded up: c bytes, b 512 bytes (the default), k, M, G.
    #[arg(long, value_name = "N[cbkMG]", allow_hyphen_values = true)]
    size: Option<Size>,
    /// Modified this many whole days ago; fractions are dropped.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    mtime: Option<Number>,
    /// Modified later than the file at this path of the filesystem.
    #[arg(long, value_name = "PATH")]
    newer: Option<OsString>,
    /// The user ID of the owner.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    uid: Option<Number>,
    /// The group ID.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    gid: Option<Number>,
    /// The permissions in octal: exactly these; with - all of these; with / any of these.
    #[arg(long, value_name = "[-/]MODE", allow_hyphen_values = true)]
    perm: Option<Permissions>,
    /// The inode number.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    inum: Option<Number>,
    /// The number of hard links.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    links: Option<Number>,
    /// Descend at most this deep; 0 is PATHS themselves.
    #[arg(long, value_name = "N")]
    maxdepth: Option<usize>,
    /// Show only entries at least this deep.
    #[arg(long, value_name = "N", default_value_t = 0)]
    mindepth: usize,
    /// End each path with a zero byte, not a newline.
    #[arg(long, conflicts_with = "json")]
    print0: bool,
    #[command(flatten)]
    format: Format,
}

/// A file type, by its letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind(FileType);

impl std::str::FromStr for Kind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut kinds = KINDS.iter().filter(|(_, letter, _)| text.chars().eq([*letter]));
        let kind = kinds.next().map(|(kind, ..)| Self(*kind));
        kind.ok_or("a type is one of f d l p s b c; separate several by commas")
    }
}

impl Find {
    /// Prints the paths that meet all conditions. JSON has the fields of `nvio ls -l`.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or standard output fails. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let volume = open::volume(&self.volume)?;
        let newer = match &self.newer {
            Some(path) => Some(volume.symlink_metadata(rooted(path))?.mtime()),
            None => None,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let mut listing = Listing::new(&volume, self.format);
        let search = Search { args: self, newer, now };
        listing.paths(&self.paths, |listing, path| search.operand(listing, path))?;
        listing.end()
    }
}

struct Search<'a> {
    args: &'a Find,
    newer: Option<Timestamp>,
    /// Seconds since 1970.
    now: i64,
}

impl Search<'_> {
    fn operand(&self, listing: &mut Listing<'_>, path: &[u8]) -> Result<(), Error> {
        let inode = listing.volume.symlink_metadata(path)?;
        // Entries of the path are at depth 1, and the walk enters their directory at depth 0.
        let Some(deepest) = self.args.maxdepth.unwrap_or(usize::MAX).checked_sub(1) else {
            let (event, name) = (WalkEvent::Entry, base_name(path));
            return self.visit(listing, &Visit { event, path, name, inode: &inode, depth: 0 });
        };
        let mut walk = listing.volume.filesystem().walk(path, &inode).max_depth(deepest);
        while let Some(step) = walk.step() {
            let shown = match step {
                Ok(visit) if visit.event == WalkEvent::Leave => continue,
                // A directory below the path was visited as an entry before it is entered.
                Ok(visit) if visit.event == WalkEvent::Enter && visit.depth > 0 => continue,
                Ok(visit) => self.visit(listing, &visit),
                Err(error) => Err(Error::path(walk.path())(error)),
            };
            listing.failures.absorb(shown)?;
        }
        Ok(())
    }

    fn visit(&self, listing: &mut Listing<'_>, visit: &Visit<'_>) -> Result<(), Error> {
        let &Visit { path, inode, depth, .. } = visit;
        if depth < self.args.mindepth || !self.matches(path, base_name(path), inode) {
            return Ok(());
        }
        if listing.is_json() {
            let target = open::target(listing.volume, path, inode)?;
            return listing.push(&stat::full(path, inode, target.as_deref()));
        }
        if self.args.print0 {
            listing.out.bytes(path)?;
            return listing.out.bytes(b"\0");
        }
        listing.out.name_line(path, None)
    }

    fn matches(&self, path: &[u8], name: &[u8], inode: &Inode) -> bool {
        let args = self.args;
        let number = |wanted: &Option<Number>, value: u64| {
            wanted.is_none_or(|wanted| wanted.matches(i128::from(value)))
        };
        let glob = |pattern: &Option<Glob>, text: &[u8]| {
            pattern.as_ref().is_none_or(|pattern| pattern.matches(text))
        };
        glob(&args.name, name)
            && glob(&args.path, path)
            && (args.kinds.is_empty() || args.kinds.contains(&Kind(inode.kind())))
            && args.size.is_none_or(|size| size.matches(inode.size()))
            && args.mtime.is_none_or(|days| days.matches(self.age(inode)))
            && self.newer.is_none_or(|newer| inode.mtime() > newer)
            && number(&args.uid, inode.uid().into())
            && number(&args.gid, inode.gid().into())
            && args.perm.is_none_or(|perm| perm.matches(inode.permissions()))
            && number(&args.inum, inode.number().into())
            && number(&args.links, inode.links().into())
    }

    /// Returns the whole days since the last modification.
    fn age(&self, inode: &Inode) -> i128 {
        i128::from(self.now.saturating_sub(inode.mtime().seconds).div_euclid(DAY))
    }
}
