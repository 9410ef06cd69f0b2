//! `nvio stat`: the fields of an inode.

use std::ffi::OsString;

use nvio_ext4::{FileType, Inode, Timestamp};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::args::{Format, VolumeArgs};
use crate::attributes::Attributes;
use crate::error::Error;
use crate::name::{self, rooted};
use crate::open;
use crate::output::{JsonArray, Output};
use crate::time;

/// An inode and its path, for JSON.
pub struct Record<'a> {
    /// The path.
    pub path: &'a [u8],
    /// The inode.
    pub inode: &'a Inode,
    /// The target of a symbolic link.
    pub target: Option<&'a [u8]>,
    /// Adds blocks, flags and the other fields that `ls -l` does not show.
    pub all: bool,
    /// Extended attributes, if they are shown.
    pub attributes: Option<&'a Attributes>,
}

/// Returns the size in bytes as stat(2) reports it. The size of a symbolic link is the length of
/// its target, which is stored with another length if it is encrypted.
pub fn size(inode: &Inode, target: Option<&[u8]>) -> u64 {
    target.and_then(|target| target.len().try_into().ok()).unwrap_or_else(|| inode.size())
}

#[derive(Serialize)]
struct Time {
    seconds: i64,
    nanoseconds: u32,
}

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Self { seconds: time.seconds, nanoseconds: time.nanoseconds }
    }
}

#[derive(Serialize)]
struct DeviceNumber {
    major: u32,
    minor: u32,
}

/// A mode as octal text.
struct Octal(u16);

impl Serialize for Octal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:07o}", self.0))
    }
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inode = self.inode;
        let mut map = serializer.serialize_map(None)?;
        name::entry(&mut map, "path", self.path)?;
        map.serialize_entry("kind", kind(inode.kind()))?;
        map.serialize_entry("mode", &Octal(inode.mode()))?;
        map.serialize_entry("uid", &inode.uid())?;
        map.serialize_entry("gid", &inode.gid())?;
        map.serialize_entry("size", &size(inode, self.target))?;
        map.serialize_entry("links", &inode.links())?;
        map.serialize_entry("inode", &inode.number())?;
        map.serialize_entry("mtime", &Time::from(inode.mtime()))?;
        map.serialize_entry("atime", &Time::from(inode.atime()))?;
        map.serialize_entry("ctime", &Time::from(inode.ctime()))?;
        if let Some(target) = self.target {
            name::entry(&mut map, "target", target)?;
        }
        if let Some((major, minor)) = inode.rdev() {
            map.serialize_entry("rdev", &DeviceNumber { major, minor })?;
        }
        if self.all {
            map.serialize_entry("crtime", &inode.crtime().map(Time::from))?;
            map.serialize_entry("blocks_512", &inode.blocks_512())?;
            map.serialize_entry("flags", &format!("{:#010x}", inode.flags().bits()))?;
            map.serialize_entry("generation", &inode.generation())?;
            map.serialize_entry("project", &inode.project())?;
        }
        if let Some(attributes) = self.attributes {
            attributes.entries(&mut map)?;
        }
        map.end()
    }
}

/// Returns the word for a file type.
pub fn kind(kind: FileType) -> &'static str {
    match kind {
        FileType::Regular => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::CharDevice => "character-device",
        FileType::BlockDevice => "block-device",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
    }
}

/// Returns a mode as `ls -l` shows it.
pub fn mode_text(mode: u16) -> String {
    mode_bytes(mode).map(char::from).iter().collect()
}

/// Returns a mode as `ls -l` shows it, in ASCII.
pub fn mode_bytes(mode: u16) -> [u8; 10] {
    let mut text = [b'-'; 10];
    text[0] = match FileType::from_mode(mode) {
        Some(FileType::Regular) => b'-',
        Some(FileType::Directory) => b'd',
        Some(FileType::Symlink) => b'l',
        Some(FileType::CharDevice) => b'c',
        Some(FileType::BlockDevice) => b'b',
        Some(FileType::Fifo) => b'p',
        Some(FileType::Socket) => b's',
        None => b'?',
    };
    // Set-user-ID, set-group-ID and sticky replace an x.
    let classes = [(6, 0o4000, b's'), (3, 0o2000, b's'), (0, 0o1000, b't')];
    for (part, (shift, special, letter)) in text[1..].chunks_exact_mut(3).zip(classes) {
        let bits = mode >> shift;
        let set = |bit: u16, letter: u8| if bits & bit != 0 { letter } else { b'-' };
        let execute = match (mode & special != 0, bits & 1 != 0) {
            (false, _) => set(1, b'x'),
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        };
        part.copy_from_slice(&[set(4, b'r'), set(2, b'w'), execute]);
    }
    text
}

/// Prints inodes. JSON is an object for one path, and an array for several.
///
/// # Errors
/// If a path cannot be found or read.
pub fn run(args: &VolumeArgs, paths: &[OsString], format: Format) -> Result<(), Error> {
    let volume = open::volume(args)?;
    let mut out = Output::new();
    let mut array = JsonArray::default();
    for path in paths {
        let path = rooted(path);
        let inode = volume.symlink_metadata(&path)?;
        let target = open::target(&volume, &path, &inode)?;
        let attributes = Attributes::read(&volume, &path, &inode)?;
        let record = Record {
            path: &path,
            inode: &inode,
            target: target.as_deref(),
            all: true,
            attributes: Some(&attributes),
        };
        match (format.json, paths.len()) {
            (true, 1) => out.json(&record)?,
            (true, _) => array.push(&mut out, &record)?,
            (false, _) => text(&mut out, &record)?,
        }
    }
    if format.json && paths.len() > 1 {
        array.end(&mut out)?;
    }
    out.flush()
}

fn text(out: &mut Output, record: &Record<'_>) -> Result<(), Error> {
    let inode = record.inode;
    out.text("    Path: ")?;
    out.name(record.path)?;
    if let Some(target) = record.target {
        out.text(" -> ")?;
        out.name(target)?;
    }
    let mode = inode.mode();
    let device = inode.rdev().map(|(major, minor)| format!("  Device: {major}:{minor}"));
    let times = [
        ("  Access", Some(inode.atime())),
        ("  Modify", Some(inode.mtime())),
        ("  Change", Some(inode.ctime())),
        ("   Birth", inode.crtime()),
    ];
    out.line("")?;
    out.line(&format!(
        "    Size: {}  Blocks: {} of 512  Kind: {}{}",
        size(inode, record.target),
        inode.blocks_512(),
        inode.kind(),
        device.unwrap_or_default()
    ))?;
    out.line(&format!("   Inode: {}  Links: {}", inode.number(), inode.links()))?;
    let permissions = inode.permissions();
    out.line(&format!(
        "    Mode: {permissions:04o} {}  Uid: {}  Gid: {}",
        mode_text(mode),
        inode.uid(),
        inode.gid()
    ))?;
    for (key, value) in times {
        out.line(&format!("{key}: {}", value.map_or("-".to_owned(), time::utc)))?;
    }
    for (heading, line) in record.attributes.iter().flat_map(|attributes| attributes.lines()) {
        out.line(&format!("{heading:>8}: {line}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_as_ls_shows_them() {
        for (mode, shown) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "lrwxrwxrwx"),
            (0o104_755, "-rwsr-xr-x"),
            (0o104_644, "-rwSr--r--"),
            (0o102_755, "-rwxr-sr-x"),
            (0o041_777, "drwxrwxrwt"),
            (0o041_776, "drwxrwxrwT"),
            (0o020_600, "crw-------"),
            (0o060_600, "brw-------"),
            (0o010_000, "p---------"),
            (0o140_000, "s---------"),
            (0o000_000, "?---------"),
        ] {
            assert_eq!(mode_text(mode), shown);
        }
    }
}
