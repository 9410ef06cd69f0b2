//! How the kernel hands a function over: by itself, with an iommufd (Linux 6.6 and later), or with
//! its group and a container.
//!
//! A function by itself is preferred: it needs permission for files of its own only, and groups
//! are what the kernel will do without. What is mapped, and how, is the same. This way has been
//! tested for how it is chosen, and not on a device: no kernel at hand has it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use iommufd_ioctls::{IommuFd, IommufdError};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError, VfioIommufd, VfioOps};

use super::iova::{self, IovaRange};
use crate::{Error, Result};

/// A function that is open, what maps memory for it, and where memory can be.
pub(super) struct Opened {
    pub(super) device: VfioDevice,
    pub(super) iommu: Arc<dyn VfioOps>,
    pub(super) ranges: Vec<IovaRange>,
}

/// Opens the function with the folder `sysfs`.
pub(super) fn open(sysfs: &Path) -> Result<Opened> {
    match Files::of_device(sysfs, Path::new("/dev"))? {
        Some(files) => open_by_itself(files),
        None => open_by_group(sysfs),
    }
}

fn open_by_itself(files: Files) -> Result<Opened> {
    let iommufd = Arc::new(IommuFd::new_from_fd(files.iommu));
    let iommu = VfioIommufd::new(iommufd, None, None).map(Arc::new);
    let iommu = iommu.map_err(failed("set up an I/O address space"))?;
    let device = VfioDevice::new_from_fd(files.device, Arc::clone(&iommu), true);
    let device = device.map_err(failed("open device"))?;
    // The device has narrowed them.
    let ranges = iova::ioas_ranges(&iommu)?;
    log::debug!("opened by itself, with an iommufd");
    Ok(Opened { device, iommu, ranges })
}

fn open_by_group(sysfs: &Path) -> Result<Opened> {
    let container = VfioContainer::new(None).map(Arc::new).map_err(failed("open container"))?;
    let device = VfioDevice::new(sysfs, Arc::clone(&container) as _, false);
    let device = device.map_err(failed("open device"))?;
    let ranges = iova::ranges(&container)?;
    log::debug!("opened with its group");
    Ok(Opened { device, iommu: container, ranges })
}

/// Names the file, where it is one of those that everyone knows and it could not be opened.
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

/// The files by which a function is opened by itself.
#[derive(Debug)]
struct Files {
    device: File,
    iommu: File,
}

impl Files {
    /// The files of the function with the folder `sysfs`, in the folder `dev`. `None` if it is to
    /// be opened with its group: when the kernel has no such files, or they are not for us and
    /// the kernel has containers.
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

/// The name of a function's own VFIO device: the one entry of its folder `vfio-dev`, if the kernel
/// has such.
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

    /// The folders of a function and of devices, as a kernel that has everything shows them.
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

        /// Something that is there and that nobody may open for writing, root included.
        fn forbid(&self, path: &str) {
            remove_file(self.path(path)).unwrap();
            create_dir_all(self.path(path)).unwrap();
        }
    }

    #[test]
    fn the_device_itself_is_preferred() {
        let files = Kernel::new().files().unwrap().unwrap();
        assert_eq!(io::read_to_string(files.device).unwrap(), "the device");
    }

    #[test]
    fn what_an_older_kernel_does_not_have_leads_to_the_group() {
        let without_folder = Kernel::new();
        remove_dir_all(without_folder.path("sys/vfio-dev")).unwrap();
        let without_device = Kernel::new();
        remove_file(without_device.path("dev/vfio/devices/vfio7")).unwrap();
        let without_iommufd = Kernel::new();
        remove_file(without_iommufd.path("dev/iommu")).unwrap();
        for kernel in [without_folder, without_device, without_iommufd] {
            assert!(kernel.files().unwrap().is_none());
            // With the container or without: it is the one to complain.
            remove_file(kernel.path("dev/vfio/vfio")).unwrap();
            assert!(kernel.files().unwrap().is_none());
        }
    }

    #[test]
    fn files_that_are_not_for_us_lead_to_the_group_if_there_is_such() {
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
    fn folders_that_name_no_one_device_are_not_believed() {
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
