//! Mounts do not outlive the process that answers for them.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

/// A process that unmounts a directory when this process has ended without doing so, for example by SIGKILL.
pub struct Guard(Option<Child>);

impl Guard {
    /// Starts the process. Without it, a directory may be left that says that its end is not connected.
    pub fn new(directory: &Path) -> Self {
        // The end of its input is the end of this process. It is in a group of its own, which signals of
        // a terminal do not reach.
        let script = "read -r _; umount -l \"$0\" || fusermount3 -u -z \"$0\"";
        let guard = Command::new("/bin/sh")
            .arg("-c")
            .arg(script)
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match guard {
            Ok(guard) => Self(Some(guard)),
            Err(error) => {
                log::warn!("no process watches over the mount: {error}");
                Self(None)
            }
        }
    }

    /// Ends the process, because the directory is unmounted.
    pub fn forget(self) {
        let Some(mut guard) = self.0 else { return };
        if let Err(error) = guard.kill().and_then(|()| guard.wait()) {
            log::warn!("the process that watches over the mount: {error}");
        }
    }
}

/// Number of attempts to unmount a directory in use, and the time between two: the kernel tells of the end of
/// a file without waiting for the answer, and the file counts until then.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Unmounts a directory; with `lazily` also one that is in use, which then vanishes. Users who are not root
/// need fusermount3, which may do it for them.
///
/// # Errors
/// If it is in use, or may not be unmounted.
pub fn unmount(directory: &Path, lazily: bool) -> io::Result<()> {
    let flags = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    for _ in 1..ATTEMPTS {
        match rustix::mount::unmount(directory, flags) {
            Err(Errno::PERM) => return by_helper(directory, lazily),
            Err(Errno::BUSY) => thread::sleep(PAUSE),
            done => return Ok(done?),
        }
    }
    Ok(rustix::mount::unmount(directory, flags)?)
}

fn by_helper(directory: &Path, lazily: bool) -> io::Result<()> {
    let mut helper = Command::new("fusermount3");
    helper.arg("-u").args(lazily.then_some("-z")).arg("--").arg(directory);
    let output = helper.output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(text.trim().to_owned()))
}

/// Returns true if a filesystem of nvio is mounted on the directory.
///
/// # Errors
/// If the list of mounts cannot be read.
pub fn is_mounted(directory: &Path) -> io::Result<bool> {
    let mounts = fs::read("/proc/self/mounts")?;
    let escaped = escape(directory.as_os_str().as_bytes());
    // The last mount on a directory is the one that is seen.
    let last = mounts.split(|&byte| byte == b'\n').rev().find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let [source, place, kind, ..] = fields[..] else { return None };
        (place == escaped).then(|| source.starts_with(b"nvio:") && kind.starts_with(b"fuse"))
    });
    Ok(last.unwrap_or(false))
}

/// Returns a path as the kernel writes it into the list of mounts.
fn escape(path: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::new();
    for &byte in path {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => escaped.extend(format!("\\{byte:03o}").bytes()),
            byte => escaped.push(byte),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_recognised() {
        assert!(!is_mounted(Path::new("/")).unwrap());
        assert!(!is_mounted(Path::new("/no such directory")).unwrap());
        assert_eq!(escape(b"/a b\\"), b"/a\\040b\\134");
    }
}
