//! Finding the uses of a controller's block devices.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::address::PciAddress;
use super::device::{BlockDevice, DeviceNumber, NvmeDevice};
use super::error::Error;
use super::mounts::Mount;
use super::sysfs::Sysfs;
use super::usage::{Use, UseKind};

/// One block device or partition.
struct Target<'a> {
    name: &'a str,
    number: DeviceNumber,
    holders: PathBuf,
}

impl Sysfs {
    /// Returns the uses of the block devices of `device`, partitions included. Empty if the device
    /// has no block devices.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// If a file of sysfs or procfs cannot be read.
    pub fn uses(&self, device: &NvmeDevice) -> Result<Vec<Use>, Error> {
        let mounts = self.mounts();
        let swaps = self.swaps();
        let mut uses = Vec::new();
        for namespace in device.namespaces() {
            let before = uses.len();
            for target in self.targets(namespace) {
                self.uses_of(&target, &mounts, &swaps, &mut uses)?;
            }
            // Last, because a rejected claim does not name its owner.
            if uses.len() == before {
                match self.claim(device.address, namespace) {
                    Err(Error::InUse { uses: claimed, .. }) => uses.extend(claimed),
                    other => drop(other?),
                }
            }
        }
        Ok(uses)
    }

    /// Claims all block devices of `device`, or fails with the first that is in use. The open files
    /// prevent mounts and holders.
    pub(super) fn claims(&self, device: &NvmeDevice) -> Result<Vec<File>, Error> {
        let claim = |namespace| self.claim(device.address, namespace).transpose();
        device.namespaces().iter().filter_map(claim).collect()
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
            // A filesystem on several devices has a number of its own, but the source is a device.
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

    /// Returns true if a path in `/dev` is a device node of `target`, whatever its name.
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

    /// Returns the device mapper's name of a device, after the kind at the start of its UUID.
    fn mapper_name(&self, device: &str) -> Result<Option<String>, Error> {
        let dir = self.path("sys/block").join(device).join("dm");
        let Some(name) = self.attribute(&dir.join("name"))? else { return Ok(None) };
        let uuid = self.attribute(&dir.join("uuid"))?.unwrap_or_default();
        Ok(Some(match uuid.split_once('-') {
            Some((kind, _)) => format!("{kind} {name}"),
            None => name,
        }))
    }

    /// Opens a block device with O_EXCL, as the kernel itself claims one. A claim on the whole device
    /// and a claim on a partition exclude each other. `None` if this process cannot claim it.
    ///
    /// # Errors
    /// [`Error::InUse`] if the device is claimed.
    fn claim(&self, address: PciAddress, namespace: &BlockDevice) -> Result<Option<File>, Error> {
        let path = self.path("dev").join(&namespace.name);
        let is_node = std::fs::metadata(&path).is_ok_and(|meta| {
            meta.file_type().is_block_device() && number_of(meta.rdev()) == namespace.number
        });
        if !is_node {
            log::debug!("{} is not a node of {}: not claimed", path.display(), namespace.number);
            return Ok(None);
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(libc::O_EXCL | libc::O_NONBLOCK).open(&path);
        match file {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                let claimed = Use { device: namespace.name.clone(), kind: UseKind::Claimed };
                Err(Error::InUse { address, uses: vec![claimed] })
            }
            // Without the permission, the kernel's tables decide; binding needs root anyway.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
            Err(error) => Err(Error::io("open", path, error)),
        }
    }
}

fn number_of(rdev: u64) -> DeviceNumber {
    DeviceNumber { major: libc::major(rdev), minor: libc::minor(rdev) }
}
