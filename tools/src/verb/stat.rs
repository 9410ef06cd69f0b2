//! `nvio stat`: the fields of an inode.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use nvio_ext4::{FileType, Inode};
use serde_json::json;

use crate::args::{Format, VolumeArgs};
use crate::attributes::Attributes;
use crate::error::Error;
use crate::listing::Listing;
use crate::open;
use crate::operand::{InodeArgs, Operands};
use crate::output::Output;
use crate::record::Record;
use crate::time::{self, Time};

/// Show the fields of inodes.
///
/// Symbolic links are not followed.
#[derive(Debug, Args)]
pub struct Stat {
    #[command(flatten)]
    pub volume: VolumeArgs,
    /// Paths in the filesystem: names, shell patterns, or <N> for inode N.
    #[arg(required_unless_present = "inode")]
    paths: Vec<OsString>,
    #[command(flatten)]
    inodes: InodeArgs,
    #[command(flatten)]
    format: Format,
}

impl Stat {
    /// Prints inodes. JSON is an object for one path, and an array for several.
    ///
    /// # Errors
    /// If the filesystem cannot be opened or standard output fails. Other failures are printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let volume = open::volume(&self.volume)?;
        let operands = Operands::new(&volume, &self.paths, &self.inodes);
        let mut listing = Listing::of_operands(&volume, self.format, &operands);
        listing.operands(operands, |listing, operand| {
            let (path, inode) = (&*operand.path, &operand.symlink_metadata(&volume)?);
            let target = open::target(&volume, path, inode)?;
            let attributes = Attributes::read(&volume, path, inode, &mut listing.failures);
            if !listing.is_json() {
                return text(&mut listing.out, path, inode, target.as_deref(), &attributes);
            }
            let mut record = full(path, inode, target.as_deref());
            attributes.add_to(&mut record);
            listing.push(&record)
        })?;
        listing.end()
    }
}

/// Describes an inode for JSON: the path, the type and the number.
pub fn brief(path: &[u8], inode: &Inode) -> Record {
    let mut record = Record::default();
    record.json_bytes("path", path);
    record.json("kind", kind(inode.kind()));
    record.json("inode", inode.number().get());
    record
}

/// Describes an inode for JSON: the fields that `ls -l` shows.
pub fn long(path: &[u8], inode: &Inode, target: Option<&[u8]>) -> Record {
    let mut record = brief(path, inode);
    record.json("mode", format!("{:07o}", inode.mode()));
    record.json("uid", inode.uid());
    record.json("gid", inode.gid());
    record.json("size", size(inode, target));
    record.json("links", inode.links());
    record.json("mtime", Time::from(inode.mtime()));
    record.json("atime", Time::from(inode.atime()));
    record.json("ctime", Time::from(inode.ctime()));
    if let Some(target) = target {
        record.json_bytes("target", target);
    }
    if let Some((major, minor)) = inode.rdev() {
        record.json("rdev", json!({ "major": major, "minor": minor }));
    }
    record
}

/// Describes an inode for JSON: all fields.
pub fn full(path: &[u8], inode: &Inode, target: Option<&[u8]>) -> Record {
    let mut record = long(path, inode, target);
    record.json("crtime", inode.crtime().map(Time::from));
    record.json("blocks_512", inode.blocks_512());
    record.json("flags", format!("{:#010x}", inode.flags().bits()));
    record.json("generation", inode.generation());
    record.json("project", inode.project());
    record
}

/// Returns the size in bytes as stat(2) reports it. The size of a symbolic link is the length of
/// its target, which is stored with another length if it is encrypted.
pub fn size(inode: &Inode, target: Option<&[u8]>) -> u64 {
    target.and_then(|target| target.len().try_into().ok()).unwrap_or_else(|| inode.size())
}

/// The file types: the letter of find, which is that of ls except for files, and the word.
pub const KINDS: [(FileType, char, &str); 7] = [
    (FileType::Regular, 'f', "file"),
    (FileType::Directory, 'd', "directory"),
    (FileType::Symlink, 'l', "symlink"),
    (FileType::CharDevice, 'c', "character-device"),
    (FileType::BlockDevice, 'b', "block-device"),
    (FileType::Fifo, 'p', "fifo"),
    (FileType::Socket, 's', "socket"),
];

fn kind(kind: FileType) -> &'static str {
    KINDS.iter().find(|(known, ..)| *known == kind).map_or("unknown", |(_, _, word)| word)
}

/// Returns a mode as `ls -l` shows it.
pub fn mode_text(mode: u16) -> String {
    let kind = FileType::from_mode(mode);
    let letter =
        KINDS.iter().find(|(known, ..)| Some(*known) == kind).map(|(_, letter, _)| *letter);
    let mut text = String::from(match letter {
        Some('f') => '-',
        letter => letter.unwrap_or('?'),
    });
    // Set-user-ID, set-group-ID and sticky replace an x.
    let classes = [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')];
    for (shift, special, letter) in classes {
        let bits = mode >> shift;
        let set = |bit: u16, letter: char| if bits & bit != 0 { letter } else { '-' };
        let execute = match (mode & special != 0, bits & 1 != 0) {
            (false, _) => set(1, 'x'),
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        };
        text.extend([set(4, 'r'), set(2, 'w'), execute]);
    }
    text
}

fn text(
    out: &mut Output,
    path: &[u8],
    inode: &Inode,
    target: Option<&[u8]>,
    attributes: &Attributes,
) -> Result<(), Error> {
    out.text("    Path: ")?;
    out.name_line(path, target)?;
    let mode = inode.mode();
    let device = inode.rdev().map(|(major, minor)| format!("  Device: {major}:{minor}"));
    let times = [
        ("  Access", Some(inode.atime())),
        ("  Modify", Some(inode.mtime())),
        ("  Change", Some(inode.ctime())),
        ("   Birth", inode.crtime()),
    ];
    out.line(&format!(
        "    Size: {}  Blocks: {} of 512  Kind: {}{}",
        size(inode, target),
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
    for (heading, line) in attributes.lines() {
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
