//! `nvio find`: entries below a directory that meet conditions.

mod glob;
mod number;
mod perm;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use nvio::Volume;
use nvio_ext4::{FileType, Inode, Timestamp, WalkEvent};

use self::number::{Number, Size};
use self::perm::Permissions;
use super::stat::Record;
use crate::args::{Format, VolumeArgs};
use crate::error::{Error, Failures};
use crate::name::rooted;
use crate::open;
use crate::output::{JsonArray, Output};

const DAY: i64 = 86_400;

/// The paths and conditions of `nvio find`.
#[derive(Clone, Debug, Args)]
pub struct FindArgs {
    /// Paths in the filesystem.
    #[arg(default_value = "/")]
    paths: Vec<OsString>,
    /// The name matches a shell pattern: *, ? and [a-z].
    #[arg(long, value_name = "PATTERN")]
    name: Option<OsString>,
    /// The whole path matches a shell pattern; * and ? match slashes, too.
    #[arg(long, value_name = "PATTERN")]
    path: Option<OsString>,
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
}

/// A file type, by its letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind(FileType);

impl std::str::FromStr for Kind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match text {
            "f" => FileType::Regular,
            "d" => FileType::Directory,
            "l" => FileType::Symlink,
            "p" => FileType::Fifo,
            "s" => FileType::Socket,
            "b" => FileType::BlockDevice,
            "c" => FileType::CharDevice,
            _ => return Err("a type is one of f d l p s b c; separate several by commas"),
        }))
    }
}

/// Prints the paths that meet all conditions. JSON has the fields of `nvio ls -l`.
///
/// # Errors
/// If the filesystem cannot be opened or standard output fails. Other failures are printed.
pub fn run(volume: &VolumeArgs, args: &FindArgs, format: Format) -> Result<ExitCode, Error> {
    let volume = open::volume(volume)?;
    let newer = match &args.newer {
        Some(path) => Some(volume.symlink_metadata(rooted(path))?.mtime()),
        None => None,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let mut find = Find {
        volume: &volume,
        args,
        newer,
        now: Timestamp { seconds: now, nanoseconds: 0 },
        json: format.json,
        out: Output::new(),
        array: JsonArray::default(),
        failures: Failures::default(),
    };
    for path in &args.paths {
        find.operand(&rooted(path))?;
    }
    let Find { mut out, array, failures, .. } = find;
    if format.json {
        array.end(&mut out)?;
    }
    out.flush()?;
    Ok(failures.code())
}

struct Find<'a> {
    volume: &'a Volume,
    args: &'a FindArgs,
    newer: Option<Timestamp>,
    now: Timestamp,
    json: bool,
    out: Output,
    array: JsonArray,
    failures: Failures,
}

impl Find<'_> {
    fn operand(&mut self, path: &[u8]) -> Result<(), Error> {
        let Some(inode) = self.failures.absorb(self.volume.symlink_metadata(path))? else {
            return Ok(());
        };
        // Entries of the path are at depth 1, and the walk enters their directory at depth 0.
        let Some(deepest) = self.args.maxdepth.unwrap_or(usize::MAX).checked_sub(1) else {
            return self.visit(path, base(path), &inode, 0);
        };
        let mut walk = self.volume.filesystem().walk(path, &inode).max_depth(deepest);
        while let Some(step) = walk.step() {
            match step {
                Ok(visit) => {
                    let is_operand = visit.event == WalkEvent::Enter && visit.depth == 0;
                    if is_operand || (visit.event == WalkEvent::Entry && visit.depth == 0) {
                        self.visit(path, base(path), visit.inode, 0)?;
                    } else if visit.event == WalkEvent::Entry {
                        self.visit(visit.path, visit.name, visit.inode, visit.depth)?;
                    }
                }
                Err(error) => {
                    let error = Error::path(walk.path())(error);
                    self.failures.report(&error);
                }
            }
        }
        Ok(())
    }

    fn visit(
        &mut self,
        path: &[u8],
        name: &[u8],
        inode: &Inode,
        depth: usize,
    ) -> Result<(), Error> {
        if depth < self.args.mindepth || !self.matches(path, name, inode) {
            return Ok(());
        }
        if self.json {
            let Some(target) = self.failures.absorb(open::target(self.volume, path, inode))? else {
                return Ok(());
            };
            let target = target.as_deref();
            let record = Record { path, inode, target, all: true, attributes: None };
            return self.array.push(&mut self.out, &record);
        }
        if self.args.print0 {
            self.out.bytes(path)?;
            return self.out.bytes(b"\0");
        }
        self.out.name(path)?;
        self.out.line("")
    }

    fn matches(&self, path: &[u8], name: &[u8], inode: &Inode) -> bool {
        let args = self.args;
        let number = |wanted: &Option<Number>, value: u64| {
            wanted.is_none_or(|wanted| wanted.matches(i128::from(value)))
        };
        let glob = |pattern: &Option<OsString>, text: &[u8]| {
            pattern.as_ref().is_none_or(|pattern| glob::matches(pattern.as_bytes(), text))
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
        i128::from(self.now.seconds.saturating_sub(inode.mtime().seconds).div_euclid(DAY))
    }
}

/// Returns the last component of a path, which `--name` matches.
fn base(path: &[u8]) -> &[u8] {
    let last = path.split(|&byte| byte == b'/').rfind(|part| !part.is_empty());
    last.unwrap_or(b"/")
}
