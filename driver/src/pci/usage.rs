//! Who uses the block devices of a controller: mounts, swap, LVM, MD, dm-crypt, anyone who has
//! claimed one for himself.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::mounts::{Mount, shown};
use super::{BlockDevice, DeviceNumber, Error, NvmeDevice, Sysfs};

/// Why a device may not be taken from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The block device, such as `nvme0n1p2`.
    pub device: String,
    /// What it is used for.
    pub kind: UseKind,
}

/// How a block device is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UseKind {
    /// A filesystem on it is mounted.
    Mounted {
        /// Where.
        at: PathBuf,
        /// A process of the mount namespace in which it is, if that is not ours.
        process: Option<u32>,
    },
    /// It is a swap area.
    Swap,
    /// Another block device is built on it (LVM, MD, dm-crypt).
    Held {
        /// The other device, such as `dm-0`.
        by: String,
        /// What the device mapper says it is, such as `LVM vg-root`.
        what: Option<String>,
    },
    /// Someone has opened it exclusively, or it carries a filesystem of several devices.
    Claimed,
}

impl Use {
    /// What ends the use.
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

/// Exclusive claims on the block devices of a controller: while these are held, nobody can mount
/// one or build on it.
#[derive(Debug, Default)]
pub(super) struct Claims {
    _files: Vec<File>,
}

/// One block device or partition.
struct Target<'a> {
    name: &'a str,
    number: DeviceNumber,
    holders: PathBuf,
}

impl Sysfs {
    /// What uses the block devices of `device`, partitions included. Empty if nothing does, or if
    /// another driver than the kernel's has the device.
    ///
    /// # Errors
    /// If a file that tells cannot be read.
    pub fn uses(&self, device: &NvmeDevice) -> Result<Vec<Use>, Error> {
        let mounts = self.mounts();
        let swaps = self.swaps();
        let mut uses = Vec::new();
        for namespace in device.namespaces() {
            let before = uses.len();
            for target in self.targets(namespace) {
                self.uses_of(&target, &mounts, &swaps, &mut uses)?;
            }
            // Asked last, since the answer does not say who it is.
            if uses.len() == before && matches!(self.claim(namespace)?, Claim::Refused) {
                uses.push(Use { device: namespace.name.clone(), kind: UseKind::Claimed });
            }
        }
        Ok(uses)
    }

    /// Claims all block devices of `device`.
    pub(super) fn claims(&self, device: &NvmeDevice) -> Result<Claims, Error> {
        let mut files = Vec::new();
        for namespace in device.namespaces() {
            match self.claim(namespace)? {
                Claim::Granted(file) => files.push(file),
                Claim::NoNode => {}
                Claim::Refused => {
                    let kind = UseKind::Claimed;
                    let uses = vec![Use { device: namespace.name.clone(), kind }];
                    return Err(Error::InUse { address: device.address, uses });
                }
            }
        }
        Ok(Claims { _files: files })
    }

    fn targets<'a>(&self, namespace: &'a BlockDevice) -> Vec<Target<'a>> {
        let dir = self.path("sys/block").join(&namespace.name);
        let whole = Target {
            name: &namespace.name,
            number: namespace.number,
            holders: dir.join("holders"),
        };
        let parts = namespace.partitions.iter().map(|partition| Target {
            name: &partition.name,
            number: partition.number,
            holders: dir.join(&partition.name).join("holders"),
        });
        std::iter::once(whole).chain(parts).collect()
    }

    fn uses_of(
        &self,
        target: &Target<'_>,
        mounts: &[Mount],
        swaps: &[PathBuf],
        uses: &mut Vec<Use>,
    ) -> Result<(), Error> {
        let mut add = |kind| {
            let found = Use { device: target.name.to_owned(), kind };
            if !uses.contains(&found) {
                uses.push(found);
            }
        };
        for mount in mounts {
            // The number of a filesystem of several devices is none of theirs; its source is.
            if mount.number == target.number || self.is_node_of(&mount.source, target) {
                add(UseKind::Mounted { at: mount.at.clone(), process: mount.process });
            }
        }
        if swaps.iter().any(|path| self.is_node_of(path, target)) {
            add(UseKind::Swap);
        }
        for by in self.names(&target.holders)? {
            let what = self.mapper_name(&by)?;
            add(UseKind::Held { by, what });
        }
        Ok(())
    }

    /// Whether a path in `/dev` is the device node of `target`, under that or another name.
    fn is_node_of(&self, path: &Path, target: &Target<'_>) -> bool {
        if !path.starts_with("/dev") {
            return false;
        }
        let node = self.rebase(path);
        let same_number = std::fs::metadata(&node).is_ok_and(|meta| {
            meta.file_type().is_block_device() && number_of(meta.rdev()) == target.number
        });
        same_number
            || path.file_name().is_some_and(|name| name == target.name)
            || node.canonicalize().is_ok_and(|real| real.file_name() == Some(target.name.as_ref()))
    }

    /// The device mapper's name of a device, with the kind that its UUID begins with.
    fn mapper_name(&self, device: &str) -> Result<Option<String>, Error> {
        let dir = self.path("sys/block").join(device).join("dm");
        let Some(name) = self.attribute(&dir.join("name"))? else { return Ok(None) };
        let uuid = self.attribute(&dir.join("uuid"))?.unwrap_or_default();
        Ok(Some(match uuid.split_once('-') {
            Some((kind, _)) => format!("{kind} {name}"),
            None => name,
        }))
    }

    /// Opens a block device with O_EXCL, which is how the kernel itself claims one. The whole
    /// device stands for its partitions: a claim on one excludes a claim on the other.
    fn claim(&self, namespace: &BlockDevice) -> Result<Claim, Error> {
        let path = self.path("dev").join(&namespace.name);
        let is_node = std::fs::metadata(&path).is_ok_and(|meta| {
            meta.file_type().is_block_device() && number_of(meta.rdev()) == namespace.number
        });
        if !is_node {
            log::debug!("{} is no node of {}: not claimed", path.display(), namespace.number);
            return Ok(Claim::NoNode);
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(libc::O_EXCL | libc::O_NONBLOCK).open(&path);
        match file {
            Ok(file) => Ok(Claim::Granted(file)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(Claim::Refused),
            // Without the right to look, the tables above must do; binding will need root anyway.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(Claim::NoNode),
            Err(error) => Err(Error::io("open", path, error)),
        }
    }
}

enum Claim {
    Granted(File),
    Refused,
    NoNode,
}

fn number_of(rdev: u64) -> DeviceNumber {
    DeviceNumber { major: libc::major(rdev), minor: libc::minor(rdev) }
}
