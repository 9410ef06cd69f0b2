//! Other users of an image, because of whom it must not be written to.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags};

/// Number of searches for a user, with a pause after each. A process that is being started has the
/// open files of its parent until it executes its program, and is not a user.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// A user of an image; see [`Error::ImageInUse`](crate::Error::ImageInUse).
///
/// See the [example](crate::WritableVolume#examples).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageUser {
    /// The kernel: a mount, swap, RAID, or a device mapper target.
    Kernel,
    /// A loop device, which may be mounted.
    Loop {
        /// The device.
        device: PathBuf,
    },
    /// A process that has the image open for writing.
    Process {
        /// Its number.
        id: u32,
        /// Its name.
        name: String,
    },
    /// A process that has locked the image, as QEMU does.
    Lock,
}

impl fmt::Display for ImageUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => f.write_str("it is mounted, or the kernel uses it in another way"),
            Self::Loop { device } => {
                write!(f, "it is attached to {}, which may be mounted", device.display())
            }
            Self::Process { id, name } => {
                write!(f, "process {id} ({name}) has it open for writing")
            }
            Self::Lock => f.write_str("another process has locked it"),
        }
    }
}

/// Returns another user of the image or block device at `path`, or `None` if it may be written to.
///
/// # Errors
/// If the image cannot be opened for writing.
pub(crate) fn user(path: &Path) -> io::Result<Option<ImageUser>> {
    let metadata = fs::metadata(path)?;
    let flags = if metadata.file_type().is_block_device() { OFlags::EXCL } else { OFlags::empty() };
    let mut options = File::options();
    options.read(true).write(true).custom_flags(flags.bits().cast_signed());
    let file = match options.open(path) {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => {
            return Ok(Some(ImageUser::Kernel));
        }
        file => file?,
    };
    let id = Identity::from(&metadata);
    if let Some(device) = loop_device(id) {
        return Ok(Some(ImageUser::Loop { device }));
    }
    // The lock ends when the file is closed.
    if rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(Some(ImageUser::Lock));
    }
    drop(file);
    let mut writer = writer(id);
    for _ in 1..TRIES {
        let Some(user) = &writer else { break };
        log::debug!("{}: {user}", path.display());
        thread::sleep(PAUSE);
        writer = self::writer(id);
    }
    Ok(writer)
}

/// The identity of a regular file or of a block device, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Identity {
    File { device: u64, inode: u64 },
    Device(u64),
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        match metadata.file_type().is_block_device() {
            true => Self::Device(metadata.rdev()),
            false => Self::File { device: metadata.dev(), inode: metadata.ino() },
        }
    }
}

fn is_at(id: Identity, path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| Identity::from(&metadata) == id)
}

/// Returns the loop device that an image is attached to, read-only ones included.
fn loop_device(id: Identity) -> Option<PathBuf> {
    names("/sys/block").find_map(|name| {
        let backing = Path::new("/sys/block").join(&name).join("loop/backing_file");
        let file = fs::read_to_string(backing).ok()?;
        is_at(id, Path::new(file.trim_end_matches('\n'))).then(|| Path::new("/dev").join(name))
    })
}

/// Returns another process that has an image open for writing. Root sees all processes, another
/// user sees only those of that user.
fn writer(id: Identity) -> Option<ImageUser> {
    let others = names("/proc").filter_map(|name| name.parse().ok());
    let mut others = others.filter(|&process| process != std::process::id());
    others.find_map(|process: u32| {
        let folder = PathBuf::from(format!("/proc/{process}"));
        names(folder.join("fd")).find(|file| {
            let link = folder.join("fd").join(file);
            // Files without a path are pipes and sockets.
            fs::read_link(&link).is_ok_and(|path| path.is_absolute())
                && is_at(id, &link)
                && is_writable(&folder.join("fdinfo").join(file))
        })?;
        let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        Some(ImageUser::Process { id: process, name: name.trim_end().to_owned() })
    })
}

/// Returns true if the flags of an open file permit writing.
fn is_writable(info: &Path) -> bool {
    let Ok(text) = fs::read_to_string(info) else { return false };
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    let modes = OFlags::WRONLY.union(OFlags::RDWR).bits();
    flags.is_some_and(|flags| flags & modes != 0)
}

/// Returns the names in a folder; none if it cannot be read.
fn names(folder: impl AsRef<Path>) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A process that has the file open by the redirection `open`, and says so.
    fn process(image: &Path, open: &str) -> Child {
        let script = format!("exec {open}\"$0\"; echo; read x");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(image);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        child
    }

    #[test]
    fn a_process_that_writes_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.img");
        fs::write(&image, "data").unwrap();
        assert_eq!(user(&image).unwrap(), None);
        let hard_link = folder.path().join("other-name");
        fs::hard_link(&image, &hard_link).unwrap();
        for (open, is_writer) in [("3<", false), ("3>>", true), ("3<>", true)] {
            let mut child = process(&image, open);
            let id = Identity::from(&fs::metadata(&hard_link).unwrap());
            let found = writer(id);
            assert_eq!(found.is_some(), is_writer, "{open} {found:?}");
            if let Some(ImageUser::Process { id, name }) = found {
                assert_eq!((id, name.as_str()), (child.id(), "sh"));
            }
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        assert_eq!(user(&hard_link).unwrap(), None);
        assert!(user(&folder.path().join("no")).is_err());
    }
}
