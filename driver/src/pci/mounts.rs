//! The kernel's tables of mounts and swap areas.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::device::DeviceNumber;
use super::sysfs::Sysfs;

/// One line of `/proc/<pid>/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The filesystem's device number; a virtual one for filesystems on several devices (btrfs).
    pub(super) number: DeviceNumber,
    /// The mount point.
    pub(super) at: PathBuf,
    /// The source, such as `/dev/nvme0n1p1`.
    pub(super) source: PathBuf,
    /// ID of a process in the mount's namespace; `None` for the namespace of this process.
    pub(super) process: Option<u32>,
}

impl Sysfs {
    /// Returns the mounts of every visible mount namespace, this process's first.
    pub(super) fn mounts(&self) -> Vec<Mount> {
        let proc = self.path("proc");
        let mut processes: Vec<u32> = match self.names(&proc) {
            Ok(names) => names.iter().filter_map(|name| name.parse().ok()).collect(),
            Err(_) => Vec::new(),
        };
        processes.sort_unstable();
        let namespace = |dir: &Path| std::fs::read_link(dir.join("ns/mnt")).ok();
        let mut seen = vec![namespace(&proc.join("self"))];
        let mut mounts = self.mounts_of(&proc.join("self"), None);
        for process in processes {
            let dir = proc.join(process.to_string());
            let id = namespace(&dir);
            // Process 1 is read even if its namespace cannot be read.
            if process != 1 && (id.is_none() || seen.contains(&id)) {
                continue;
            }
            let ours = id.is_some() && seen.first() == Some(&id);
            if !ours {
                mounts.extend(self.mounts_of(&dir, Some(process)));
            }
            seen.push(id);
        }
        mounts
    }

    fn mounts_of(&self, dir: &Path, process: Option<u32>) -> Vec<Mount> {
        let table = self.table(&dir.join("mountinfo")).unwrap_or_default();
        table.split(|&b| b == b'\n').filter_map(|line| parse(line, process)).collect()
    }

    /// Returns the devices and files in `/proc/swaps`.
    pub(super) fn swaps(&self) -> Vec<PathBuf> {
        let table = self.table(&self.path("proc/swaps")).unwrap_or_default();
        let name = |line: &[u8]| {
            let first = line.split(|&b| b == b' ' || b == b'\t').next()?;
            first.starts_with(b"/").then(|| unescape(first))
        };
        table.split(|&b| b == b'\n').filter_map(name).collect()
    }
}

/// Parses a line such as
/// `36 35 98:0 /root /at options [optional ...] - type source super-options`.
fn parse(line: &[u8], process: Option<u32>) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let number = DeviceNumber::parse(std::str::from_utf8(fields.nth(2)?).ok()?)?;
    let at = unescape(fields.nth(1)?);
    fields.find(|field| field == b"-")?;
    let source = unescape(fields.nth(1)?);
    Some(Mount { number, at, source, process })
}

/// Decodes the kernel's octal escapes, such as `\040` for a space.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| first == b'\\').and_then(octal);
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes).into()
}

fn octal(digits: &[u8]) -> Option<u8> {
    let plain = digits.iter().all(|b| (b'0'..=b'7').contains(b));
    if !plain {
        return None;
    }
    let value = digits.iter().fold(0u32, |value, b| value * 8 + u32::from(b - b'0'));
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo() {
        let line = b"36 35 259:1 / /mnt/a\\040b\\011 rw master:1 x:2 - ext4 /dev/nvme0n1p1 rw";
        let mount = parse(line, None).unwrap();
        assert_eq!(mount.number, DeviceNumber { major: 259, minor: 1 });
        assert_eq!(mount.at, Path::new("/mnt/a b\t"));
        assert_eq!(mount.source, Path::new("/dev/nvme0n1p1"));
    }

    #[test]
    fn lines_cut_anywhere_are_passed_over() {
        let line = b"36 35 259:1 / /mnt rw - ext4 /dev/x rw";
        for end in 0..line.len() - 4 {
            let _ = parse(&line[..end], None);
        }
        assert_eq!(parse(b"36 35 259:1 / /mnt rw ext4 /dev/x", None), None);
        assert_eq!(unescape(b"a\\04"), Path::new("a\\04"));
        assert_eq!(unescape(b"a\\999\\777"), Path::new("a\\999\\777"));
    }
}
