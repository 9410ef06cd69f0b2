//! Compares a folder with the files on the device.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nvio::{Queue, Volume};
use nvio_ext4::{FileType, Inode, WalkEvent};
use nvio_iomap::BOUNCE_BYTES_MAX;
use walkdir::WalkDir;

use crate::error::{Error, one_line};

/// Size classes: name, and largest size in bytes.
pub const CLASSES: [(&str, u64); 4] = [
    ("up to 4 KiB", 4 << 10),
    ("up to 64 KiB", 64 << 10),
    ("up to 1 MiB", 1 << 20),
    ("above 1 MiB", u64::MAX),
];
/// Maximum number of differences that are kept.
const SHOWN: usize = 20;

/// Files that were read, and the time for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Regular files.
    pub files: u64,
    /// Bytes of the files, holes included.
    pub bytes: u64,
    /// Read commands that were sent to the device.
    pub commands: u64,
    /// Time from opening files on the device to their last bytes, without the comparison.
    pub time: Duration,
}

/// A path that differs between both sides.
#[derive(Debug)]
pub struct Difference {
    /// The path, from the root of the filesystem.
    pub path: Vec<u8>,
    /// The difference.
    pub what: String,
}

/// The result of a comparison.
#[derive(Debug, Default)]
pub struct Findings {
    /// Files by size, in the classes of [`CLASSES`].
    pub classes: [Tally; CLASSES.len()],
    /// Number of directories.
    pub directories: u64,
    /// Number of symbolic links.
    pub symlinks: u64,
    /// Number of paths that differ.
    pub differences: u64,
    /// The first paths that differ.
    pub first: Vec<Difference>,
}

/// The reason why a path is not equal on both sides.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The path differs, or cannot be read on the device.
    #[error("{0}")]
    Difference(String),
    /// The path cannot be read on this machine.
    #[error(transparent)]
    Host(#[from] Error),
}

impl From<nvio_ext4::Error> for Failure {
    fn from(error: nvio_ext4::Error) -> Self {
        Self::Difference(match error {
            nvio_ext4::Error::NotFound { .. } => "is not on the device".to_owned(),
            error => one_line(&error),
        })
    }
}

/// A comparison in progress.
pub struct Check<'a> {
    volume: &'a Volume,
    queue: Queue,
    buffer: Vec<u8>,
    expected: Vec<u8>,
    findings: Findings,
}

impl<'a> Check<'a> {
    /// Creates a comparison with `volume`.
    ///
    /// # Errors
    /// If the controller has no more queues.
    pub fn new(volume: &'a Volume) -> Result<Self, Error> {
        Ok(Self {
            volume,
            queue: volume.queue()?,
            buffer: vec![0; BOUNCE_BYTES_MAX],
            expected: Vec::with_capacity(BOUNCE_BYTES_MAX),
            findings: Findings::default(),
        })
    }

    /// Returns the findings.
    pub fn finish(self) -> Findings {
        self.findings
    }

    /// Compares each entry of `folder` with the file of the same path on the device.
    ///
    /// # Errors
    /// If `folder` cannot be read. A failure on the device counts as a difference.
    pub fn folder(&mut self, folder: &Path) -> Result<(), Error> {
        for entry in WalkDir::new(folder).min_depth(1).sort_by_file_name() {
            let entry = entry.map_err(|error| Error::host("read", folder, error))?;
            let host = entry.path();
            let meta = entry.metadata().map_err(|error| Error::host("read", host, error))?;
            let path = on_device(folder, host);
            match self.path(&path, host, &meta) {
                Ok(()) => {}
                Err(Failure::Difference(what)) => self.differs(path, what),
                Err(Failure::Host(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Walks the device, and records each entry that is not in `folder`.
    ///
    /// # Errors
    /// If a directory of the device cannot be read.
    pub fn listing(&mut self, folder: &Path) -> Result<(), Error> {
        let root = self.volume.metadata(b"/")?;
        let mut walk = self.volume.filesystem().walk(b"/", &root);
        while let Some(visit) = walk.step() {
            let path = match visit {
                Ok(visit) if visit.event == WalkEvent::Entry => visit.path,
                Ok(_) => continue,
                Err(error) => return Err(Error::path(walk.path())(error)),
            };
            let relative = path.strip_prefix(b"/").unwrap_or(path);
            let host = folder.join(std::ffi::OsStr::from_bytes(relative));
            // mke2fs creates lost+found.
            if path != b"/lost+found" && host.symlink_metadata().is_err() {
                self.differs(path.to_vec(), "is only on the device".to_owned());
            }
        }
        Ok(())
    }

    fn differs(&mut self, path: Vec<u8>, what: String) {
        self.findings.differences += 1;
        if self.findings.first.len() < SHOWN {
            self.findings.first.push(Difference { path, what });
        }
    }

    fn path(&mut self, path: &[u8], host: &Path, meta: &Metadata) -> Result<(), Failure> {
        let start = Instant::now();
        let inode = self.volume.filesystem().lookup_no_follow(path)?;
        same_inode(&inode, meta).map_err(Failure::Difference)?;
        match inode.kind() {
            FileType::Directory => self.findings.directories += 1,
            FileType::Symlink => {
                self.findings.symlinks += 1;
                let wanted = fs::read_link(host).map_err(|e| Error::host("read", host, e))?;
                let target = self.volume.filesystem().read_link(&inode)?;
                if target != wanted.as_os_str().as_bytes() {
                    return Err(Failure::Difference("has another target".to_owned()));
                }
            }
            FileType::Regular => self.file(&inode, host, start)?,
            _ => {}
        }
        Ok(())
    }

    /// Commands that were submitted to the device.
    fn submitted(&self) -> u64 {
        self.queue.device().as_disk().map_or(0, |queue| queue.pair().counters().submitted)
    }

    fn file(&mut self, inode: &Inode, host: &Path, start: Instant) -> Result<(), Failure> {
        let failed = |error: io::Error| Error::host("read", host, error);
        let source = File::open(host).map_err(failed)?;
        let mut file = self.volume.filesystem().file(inode)?;
        let size = file.size();
        let before = self.submitted();
        let mut time = start.elapsed();
        let mut at = 0;
        let mut same = Ok(());
        while at < size && same.is_ok() {
            let part = usize::try_from(size - at).unwrap_or(usize::MAX).min(self.buffer.len());
            let begin = Instant::now();
            let read = file.read_at(&mut self.queue, at, &mut self.buffer[..part]);
            time += begin.elapsed();
            let got = &self.buffer[..read?];
            self.expected.clear();
            (&source).take(part as u64).read_to_end(&mut self.expected).map_err(failed)?;
            if let Some(index) = first_difference(got, &self.expected, part) {
                let what = format!("byte {} differs", at + index as u64);
                same = Err(Failure::Difference(what));
            }
            at += part as u64;
        }
        let class = CLASSES.iter().position(|(_, most)| size <= *most).unwrap_or(0);
        let commands = self.submitted() - before;
        let tally = &mut self.findings.classes[class];
        tally.files += 1;
        tally.bytes += size;
        tally.commands += commands;
        tally.time += time;
        same
    }
}

/// Returns the first position at which two pieces of `length` bytes differ.
fn first_difference(got: &[u8], wanted: &[u8], length: usize) -> Option<usize> {
    if got == wanted && got.len() == length {
        return None;
    }
    let differing = got.iter().zip(wanted).position(|(a, b)| a != b);
    Some(differing.unwrap_or(got.len().min(wanted.len())))
}

fn same_inode(inode: &Inode, meta: &Metadata) -> Result<(), String> {
    let kind = u16::try_from(meta.mode()).ok().and_then(FileType::from_mode);
    if kind != Some(inode.kind()) {
        return Err(format!("is a {} on the device", inode.kind()));
    }
    // Directories and links may have another size on another filesystem.
    if meta.is_file() && inode.size() != meta.len() {
        return Err(format!("has {} bytes on the device, {} here", inode.size(), meta.len()));
    }
    if !meta.is_symlink() && u32::from(inode.permissions()) != meta.mode() & 0o7777 {
        return Err(format!("has mode {:04o} on the device", inode.permissions()));
    }
    Ok(())
}

/// Returns the path on the device of an entry below `folder`.
fn on_device(folder: &Path, host: &Path) -> Vec<u8> {
    let relative = host.strip_prefix(folder).unwrap_or(host);
    [b"/", relative.as_os_str().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_found_where_they_are() {
        assert_eq!(first_difference(b"abc", b"abc", 3), None);
        assert_eq!(first_difference(b"abc", b"abd", 3), Some(2));
        assert_eq!(first_difference(b"ab", b"abc", 3), Some(2));
        assert_eq!(first_difference(b"abc", b"a", 3), Some(1));
        // Two pieces that are both too short differ, too.
        assert_eq!(first_difference(b"ab", b"ab", 3), Some(2));
    }
}
