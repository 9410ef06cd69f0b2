//! `nvio find`: entries below a directory that meet conditions.

mod expression;
pub mod gnu;
mod number;
mod options;
mod perm;
mod test;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::builder::ArgPredicate;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use nvio_ext4::{Inode, Visit, WalkEvent};

use self::expression::Expression;
use self::test::Test;
use super::stat;
use crate::args::{Format, VolumeArgs};
use crate::error::Error;
use crate::listing::Listing;
use crate::name::{base_name, rooted};
use crate::open;
use crate::operand::{InodeArgs, Operand, Operands};

/// Find entries of a directory and below it, as find does.
///
/// Options may have one dash, as in find: -name '*.gz' -type f. All tests must hold, unless they are
/// joined by -o; ! negates a test, and ( ) groups. N is a number: 5 is exactly 5, +5 is more, -5 is
/// less.
#[derive(Debug, Args)]
struct FindArgs {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Paths in the filesystem: names, shell patterns, or <N> for inode N.
    #[arg(default_value = "/", default_value_if("inode", ArgPredicate::IsPresent, None))]
    paths: Vec<OsString>,
    #[command(flatten)]
    inodes: InodeArgs,
    /// Descend at most this deep; 0 is PATHS themselves.
    #[arg(long, value_name = "N")]
    maxdepth: Option<usize>,
    /// Show only entries at least this deep.
    #[arg(long, value_name = "N", default_value_t = 0)]
    mindepth: usize,
    /// End each path with a newline, which is the default.
    #[arg(long, conflicts_with_all = ["print0", "json"])]
    print: bool,
    /// End each path with a zero byte, not a newline.
    #[arg(long, conflicts_with = "json")]
    print0: bool,
    /// Stay on the filesystem, which is always so.
    #[arg(long, alias = "mount")]
    xdev: bool,
    #[command(flatten)]
    format: Format,
}

/// The verb: its options, and the expression of its tests.
#[derive(Debug)]
pub struct Find {
    args: FindArgs,
    expression: Expression,
}

impl FromArgMatches for Find {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let options = options::options();
        let ids = options.iter().map(|option| option.get_id().as_str());
        let expression = Expression::of_matches(matches, ids)?;
        Ok(Self { args: FindArgs::from_arg_matches(matches)?, expression })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Find {
    fn augment_args(command: Command) -> Command {
        FindArgs::augment_args(command).args(options::options())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl Find {
    /// Prints the paths for which the expression holds. JSON has the fields of `nvio ls -l`.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or standard output fails. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let volume = open::volume(&self.args.volume)?;
        let mut expression = self.expression.clone();
        expression.for_each(&mut |test| {
            if let Test::Newer(path) = test {
                *test = Test::NewerThan(volume.symlink_metadata(rooted(path))?.mtime());
            }
            Ok::<(), Error>(())
        })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let mut listing = Listing::new(&volume, self.args.format);
        let search = Search { args: &self.args, expression, now };
        let operands = Operands::new(&volume, &self.args.paths, &self.args.inodes);
        listing.operands(operands, |listing, operand| search.operand(listing, operand))?;
        listing.end()
    }
}

struct Search<'a> {
    args: &'a FindArgs,
    expression: Expression,
    /// Seconds since 1970.
    now: i64,
}

impl Search<'_> {
    fn operand(&self, listing: &mut Listing<'_>, operand: &Operand) -> Result<(), Error> {
        let (path, inode) = (&*operand.path, operand.symlink_metadata(listing.volume)?);
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
        if depth < self.args.mindepth {
            return Ok(());
        }
        let mut failure = None;
        let holds = self.expression.holds(&mut |test| {
            test.passes(path, inode, self.now, || match is_empty(listing, path, inode) {
                Ok(is_empty) => is_empty,
                Err(error) => {
                    failure = Some(error);
                    false
                }
            })
        });
        if let Some(error) = failure {
            return Err(error);
        }
        if !holds {
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
}

/// Returns true if a directory has no entries.
fn is_empty(listing: &Listing<'_>, path: &[u8], inode: &Inode) -> Result<bool, Error> {
    let entries = listing.volume.filesystem().read_dir(inode).map_err(Error::path(path))?;
    for entry in entries {
        let name = entry.map_err(Error::path(path))?.name;
        if ![&b"."[..], b".."].contains(&name.as_slice()) {
            return Ok(false);
        }
    }
    Ok(true)
}
