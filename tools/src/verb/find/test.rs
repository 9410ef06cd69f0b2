//! Tests of an entry.

use std::ffi::OsString;

use nvio_ext4::{FileType, Inode, Timestamp};

use super::number::{Number, Size};
use super::perm::Permissions;
use crate::glob::Glob;
use crate::name::base_name;

const DAY: i64 = 86_400;

/// Function that returns a numeric property of an inode.
pub type Field = fn(&Inode) -> u64;
/// Function that returns a time of an inode.
pub type Time = fn(&Inode) -> Timestamp;

/// A test of an entry.
#[derive(Clone, Debug)]
pub enum Test {
    /// The name matches.
    Name(Glob),
    /// The path matches.
    Path(Glob),
    /// The type is one of these.
    Kinds(Vec<FileType>),
    /// The size, rounded up to a unit.
    Size(Size),
    /// Whole days since a time of the inode.
    Days(Time, Number),
    /// Minutes since a time of the inode.
    Minutes(Time, Number),
    /// Modified later than the file at a path of the filesystem.
    Newer(OsString),
    /// Modified later than this time.
    NewerThan(Timestamp),
    /// A number of the inode.
    Number(Field, Number),
    /// The permissions.
    Permissions(Permissions),
    /// A file or a directory without contents.
    Empty,
}

impl Test {
    /// Returns true if an entry passes. `now` is in seconds since 1970, and `is_empty` reads a
    /// directory.
    pub fn passes(
        &self,
        path: &[u8],
        inode: &Inode,
        now: i64,
        is_empty: impl FnOnce() -> bool,
    ) -> bool {
        let age = |time: &Time| now.saturating_sub(time(inode).seconds);
        match self {
            Self::Name(pattern) => pattern.matches(base_name(path)),
            Self::Path(pattern) => pattern.matches(path),
            Self::Kinds(kinds) => kinds.contains(&inode.kind()),
            Self::Size(size) => size.matches(inode.size()),
            Self::Days(time, days) => days.matches(age(time).div_euclid(DAY).into()),
            Self::Minutes(time, minutes) => minutes.matches_minutes(age(time).into()),
            // Replaced by `NewerThan` before the search.
            Self::Newer(_) => false,
            Self::NewerThan(time) => inode.mtime() > *time,
            Self::Number(field, number) => number.matches(field(inode).into()),
            Self::Permissions(permissions) => permissions.matches(inode.permissions()),
            Self::Empty => match inode.kind() {
                FileType::Regular => inode.size() == 0,
                FileType::Directory => is_empty(),
                _ => false,
            },
        }
    }
}
