//! The two interfaces of VFIO: a device file with an iommufd (Linux 6.6 and later), or a group and
//! a container.
//!
//! The device file is preferred, because it needs permissions for the function's own files only,
//! and the kernel is to drop groups. Mappings are the same. The choice of the device file has
//! tests; the rest of that path has not run on a device yet.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use iommufd_ioctls::{IommuFd, IommufdError};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError, VfioIommufd, VfioOps};

use super::iova::{self, IovaRange};
use crate::error::{Error, Result};

/// An open function.
pub(super) struct Opened {
    pub(super) device: VfioDevice,
    /// Maps memory for the function.
    pub(super) iommu: Arc<dyn VfioOps>,
    /// I/O virtual addresses that can be mapped.
    pub(super) ranges: Vec<IovaRange>,
}

/// Opens the function with the sysfs directory `sysfs`.
pub(super) fn open(sysfs: &Path) -> Result<Opened> {
    match Files::of_device(sysfs, Path::new("/dev"))? {
        Some(files) => open_device_file(files),
        None => open_group(sysfs),
    }
}

fn open_device_file(files: Files) -> Result<Opened> {
    let iommufd = Arc::new(IommuFd::new_from_fd(files.iommu));
    let iommu = VfioIommufd::new(iommufd, None, None).map(Arc::new);
    let iommu = iommu.map_err(failed("set up an I/O address space"))?;
    let device = VfioDevice::new_from_fd(files.device, Arc::clone(&iommu), true);
    let device = device.map_err(failed("open device"))?;
    // Read after the device was attached, which narrows them.
    let ranges = iova::ioas_ranges(&iommu)?;
    log::debug!("opened by its device file, with an iommufd");
    Ok(Opened { device, iommu, ranges })
}

fn open_group(sysfs: &Path) -> Result<Opened> {
    let container = VfioContainer::new(None).map(Arc::new).map_err(failed("open container"))?;
    let device = VfioDevice::new(sysfs, Arc::clone(&container) as _, false);
    let device = device.map_err(failed("open device"))?;
    let ranges = iova::ranges(&container)?;
    log::debug!("opened by its group");
    Ok(Opened { device, iommu: container, ranges })
}

/// Returns the driver's error for a failed step, which names the file if one could not be opened.
fn failed(step: &'static str) -> impl FnOnce(VfioError) -> Error {
    move |source| match source {
        VfioError::OpenContainer(source) => {
            Error::VfioFile { path: "/dev/vfio/vfio".into(), source }
        }
        VfioError::OpenGroup(source, group) => {
            Error::VfioFile { path: Path::new("/dev/vfio").join(group), source }
        }
        source => Error::Vfio { step, source },
    }
}

/// The device file of a function, and the iommufd.
#[derive(Debug)]
struct Files {
    device: File,
    iommu: File,
}

impl Files {
    /// Opens the files of the function with the sysfs directory `sysfs`, in the directory `dev`.
    /// `None` if the group must be used: if the kernel has no such files, or this process may not
    /// open them and the kernel has containers.
    fn of_device(sysfs: &Path, dev: &Path) -> Result<Option<Self>> {
        let Some(name) = character_device(sysfs) else { return Ok(None) };
        let path = dev.join("vfio/devices").join(name);
        let opened = open_file(&path).map_err(VfioError::OpenDeviceCdev).and_then(|device| {
            let iommu = open_file(&dev.join("iommu"));
            let iommu = iommu.map_err(IommufdError::OpenIommufd);
            Ok(Self { device, iommu: iommu.map_err(VfioError::NewVfioIommufd)? })
        });
        match opened {
            Ok(files) => Ok(Some(files)),
            Err(source) if is_missing(&source) || dev.join("vfio/vfio").exists() => {
                log::debug!("{} is not used: {source}", path.display());
                Ok(None)
            }
            Err(source) => Err(failed("open device")(source)),
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn is_missing(error: &VfioError) -> bool {
    match error {
        VfioError::OpenDeviceCdev(source)
        | VfioError::NewVfioIommufd(IommufdError::OpenIommufd(source)) => {
            source.kind() == ErrorKind::NotFound
        }
        _ => false,
    }
}

/// Returns the name of a function's device file, the only entry of its directory `vfio-dev`. `None`
/// if the kernel has none.
fn character_device(sysfs: &Path) -> Option<String> {
    let mut names = std::fs::read_dir(sysfs.join("vfio-dev")).ok()?;
    let name = names.next()?.ok()?.file_name().into_string().ok()?;
    let number = name.strip_prefix("vfio")?;
    let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (plain && names.next().is_none()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, remove_dir_all, remove_file, write};
    use tempfile::TempDir;

    /// The directories of a function and of device files on a kernel with both interfaces.
    struct Kernel(TempDir);

    impl Kernel {
        fn new() -> Self {
            let kernel = Self(tempfile::tempdir().unwrap());
            create_dir_all(kernel.path("sys/vfio-dev/vfio7")).unwrap();
            create_dir_all(kernel.path("dev/vfio/devices")).unwrap();
            for file in ["dev/vfio/vfio", "dev/iommu"] {
                write(kernel.path(file), "").unwrap();
            }
            write(kernel.path("dev/vfio/devices/vfio7"), "the device").unwrap();
            kernel
        }

        fn path(&self, path: &str) -> std::path::PathBuf {
            self.0.path().join(path)
        }

        fn files(&self) -> Result<Option<Files>> {
            Files::of_device(&self.path("sys"), &self.path("dev"))
        }

        /// Replaces a file by a directory, which not even root can open for writing.
        fn forbid(&self, path: &str) {
            remove_file(self.path(path)).unwrap();
            create_dir_all(self.path(path)).unwrap();
        }
    }

    #[test]
    fn the_device_file_is_preferred() {
        let files = Kernel::new().files().unwrap().unwrap();
        assert_eq!(io::read_to_string(files.device).unwrap(), "the device");
    }

    #[test]
    fn an_older_kernel_leads_to_the_group() {
        let without_folder = Kernel::new();
        remove_dir_all(without_folder.path("sys/vfio-dev")).unwrap();
        let without_device = Kernel::new();
        remove_file(without_device.path("dev/vfio/devices/vfio7")).unwrap();
        let without_iommufd = Kernel::new();
        remove_file(without_iommufd.path("dev/iommu")).unwrap();
        for kernel in [without_folder, without_device, without_iommufd] {
            assert!(kernel.files().unwrap().is_none());
            // With the container or without it: opening the group reports that error.
            remove_file(kernel.path("dev/vfio/vfio")).unwrap();
            assert!(kernel.files().unwrap().is_none());
        }
    }

    #[test]
    fn files_without_permission_lead_to_the_group_if_there_is_one() {
        for file in ["dev/vfio/devices/vfio7", "dev/iommu"] {
            let kernel = Kernel::new();
            kernel.forbid(file);
            assert!(kernel.files().unwrap().is_none(), "{file}");
            remove_file(kernel.path("dev/vfio/vfio")).unwrap();
            let error = kernel.files().unwrap_err();
            assert!(matches!(error, Error::Vfio { step: "open device", .. }), "{error:?}");
        }
    }

    #[test]
    fn directories_that_do_not_name_one_device_are_ignored() {
        let two = Kernel::new();
        create_dir_all(two.path("sys/vfio-dev/vfio8")).unwrap();
        assert!(two.files().unwrap().is_none());
        for name in ["vfio", "vfio7x", "noiommu-vfio0", "7"] {
            let kernel = Kernel::new();
            remove_dir_all(kernel.path("sys/vfio-dev/vfio7")).unwrap();
            create_dir_all(kernel.path("sys/vfio-dev").join(name)).unwrap();
            write(kernel.path("dev/vfio/devices").join(name), "").unwrap();
            assert!(kernel.files().unwrap().is_none(), "{name}");
        }
        let empty = Kernel::new();
        remove_dir_all(empty.path("sys/vfio-dev/vfio7")).unwrap();
        assert!(empty.files().unwrap().is_none());
    }
}
