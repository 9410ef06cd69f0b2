//! Uses of a controller's block devices: mounts, swap, LVM, MD, dm-crypt, and programs that have
//! opened one exclusively.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A use of a block device, because of which its controller cannot be unbound from the kernel's
/// driver. [`Sysfs::uses`](super::Sysfs::uses) finds them.
///
/// See the [example](crate::pci::Sysfs#examples).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The block device, such as `nvme0n1p2`.
    pub device: String,
    /// The kind of use.
    pub kind: UseKind,
}

/// The kind of a [`Use`].
///
/// See the [example](crate::pci::Sysfs#examples).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UseKind {
    /// A filesystem on the device is mounted.
    Mounted {
        /// The mount point.
        at: PathBuf,
        /// ID of a process in the mount's namespace; `None` for the namespace of this process.
        process: Option<u32>,
    },
    /// The device is a swap area.
    Swap,
    /// Another block device is built on the device (LVM, MD, dm-crypt).
    Held {
        /// The other device, such as `dm-0`.
        by: String,
        /// Kind and name of a device-mapper device, such as `LVM vg-root`.
        what: Option<String>,
    },
    /// A program has opened the device exclusively, or the device belongs to a filesystem on
    /// several devices.
    Claimed,
}

impl Use {
    /// Returns the step that ends the use.
    pub(super) fn remedy(&self) -> &'static str {
        match self.kind {
            UseKind::Mounted { .. } => "unmount it",
            UseKind::Swap => "switch the swap off (swapoff)",
            UseKind::Held { .. } => {
                "close what is built on it (vgchange -an, cryptsetup close, mdadm --stop)"
            }
            UseKind::Claimed => "end that program (`fuser -v` and `lsof` name it)",
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is ", self.device)?;
        match &self.kind {
            UseKind::Mounted { at, process } => {
                write!(f, "mounted at {}", shown(at))?;
                process.map_or(Ok(()), |id| write!(f, " (in the mount namespace of process {id})"))
            }
            UseKind::Swap => f.write_str("swap"),
            UseKind::Held { by, what: None } => write!(f, "held by {by}"),
            UseKind::Held { by, what: Some(what) } => write!(f, "held by {by} ({what})"),
            UseKind::Claimed => f.write_str("opened exclusively by another program"),
        }
    }
}

/// Returns a path for a message of one line.
fn shown(path: &Path) -> String {
    let text = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_shown_on_one_line() {
        assert_eq!(shown(Path::new("/mnt/a b\t")), "/mnt/a b\\t");
    }
}
