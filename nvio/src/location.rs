//! The name of a device, and the range of it that a filesystem occupies.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use nvio_driver::Address;

/// The name of a device: the address of a controller, or the path of an image.
///
/// Text that is neither a PCI address nor begins with `vfio-user:` is the path of an image. An
/// image with such a name is written as `./NAME`; a [`Path`] is always an image.
///
/// ```
/// use nvio::DeviceName;
///
/// assert!(matches!("0000:01:00.0".into(), DeviceName::Address(_)));
/// assert!(matches!("vfio-user:/run/nvme.sock".into(), DeviceName::Address(_)));
/// assert!(matches!("disk.img".into(), DeviceName::Image(_)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// A PCI function that is bound to vfio-pci, or the socket of a vfio-user server.
    Address(Address),
    /// An image of a disk: a regular file, or a block device of the kernel.
    Image(PathBuf),
}

impl From<OsString> for DeviceName {
    fn from(name: OsString) -> Self {
        let address = name.to_str().and_then(|text| text.parse().ok());
        address.map_or_else(|| Self::Image(name.into()), Self::Address)
    }
}

impl From<&OsStr> for DeviceName {
    fn from(name: &OsStr) -> Self {
        name.to_owned().into()
    }
}

impl From<String> for DeviceName {
    fn from(name: String) -> Self {
        OsString::from(name).into()
    }
}

impl From<&str> for DeviceName {
    fn from(name: &str) -> Self {
        OsString::from(name).into()
    }
}

impl From<&String> for DeviceName {
    fn from(name: &String) -> Self {
        name.as_str().into()
    }
}

impl From<PathBuf> for DeviceName {
    fn from(image: PathBuf) -> Self {
        Self::Image(image)
    }
}

impl From<&Path> for DeviceName {
    fn from(image: &Path) -> Self {
        Self::Image(image.to_owned())
    }
}

impl From<&PathBuf> for DeviceName {
    fn from(image: &PathBuf) -> Self {
        Self::Image(image.clone())
    }
}

impl From<Address> for DeviceName {
    fn from(address: Address) -> Self {
        Self::Address(address)
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Image(path) => path.display().fmt(f),
        }
    }
}

/// A device, its namespace, and the range of the namespace that holds a filesystem or a journal.
///
/// Everything that converts to a [`DeviceName`] converts to a location: the whole namespace.
///
/// # Examples
/// ```
/// use nvio::{DeviceName, Location};
///
/// // The second partition of namespace 1.
/// let partition = Location::new("0000:01:00.0").namespace(1).partition(2);
/// assert_eq!(partition.device().to_string(), "0000:01:00.0");
/// // 64 MiB from byte 1 MiB on, in an image without a partition table.
/// let range = Location::new("disk.img").bytes(1 << 20, 64 << 20);
/// assert_eq!(range.device(), &DeviceName::Image("disk.img".into()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub(crate) device: DeviceName,
    pub(crate) namespace: Option<u32>,
    pub(crate) range: Range,
    /// Bytes of the range before the filesystem.
    pub(crate) skip: u64,
}

/// The range of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    Whole,
    Partition(u32),
    Bytes { offset: u64, length: u64 },
}

impl Location {
    /// Creates a location of a whole namespace: the only one of the device, or namespace 1.
    ///
    /// See the [example](Self#examples).
    pub fn new(device: impl Into<DeviceName>) -> Self {
        Self { device: device.into(), namespace: None, range: Range::Whole, skip: 0 }
    }

    /// Selects a namespace by its identifier (NSID), 1 or more.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn namespace(mut self, nsid: u32) -> Self {
        self.namespace = Some(nsid);
        self
    }

    /// Selects a partition by its number in the GPT or MBR, 1 or more, as Linux numbers them.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn partition(mut self, number: u32) -> Self {
        self.range = Range::Partition(number);
        self
    }

    /// Selects `length` bytes from byte `offset` of the namespace. Both are multiples of the
    /// logical block of the device.
    ///
    /// See the [example](Self#examples).
    #[must_use]
    pub fn bytes(mut self, offset: u64, length: u64) -> Self {
        self.range = Range::Bytes { offset, length };
        self
    }

    /// Skips the first `bytes` bytes of the namespace, partition or range: the filesystem begins
    /// after them. On a controller they must be whole blocks; an image may have any offset, and is
    /// read without a controller if the offset is not a multiple of its block.
    ///
    /// # Examples
    /// ```
    /// // A logical partition of an Android super image, 1 MiB from its start.
    /// let location = nvio::Location::new("super.img").offset(1 << 20);
    /// # let _ = location;
    /// ```
    #[must_use]
    pub fn offset(mut self, bytes: u64) -> Self {
        self.skip = bytes;
        self
    }

    /// Returns the name of the device.
    ///
    /// See the [example](Self#examples).
    pub fn device(&self) -> &DeviceName {
        &self.device
    }
}

impl<T: Into<DeviceName>> From<T> for Location {
    fn from(device: T) -> Self {
        Self::new(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn three_kinds_of_device() {
        let name = DeviceName::from;
        assert!(matches!(name("0000:01:00.0"), DeviceName::Address(Address::Pci(_))));
        assert!(matches!(name("01:00.0"), DeviceName::Address(Address::Pci(_))));
        assert!(matches!(name("vfio-user:/s"), DeviceName::Address(Address::VfioUser(_))));
        for image in ["disk.img", "./01:00.0", "/dev/sda", "01:00.9", ""] {
            assert_eq!(DeviceName::from(image), DeviceName::Image(image.into()));
        }
        let raw = OsString::from_vec(b"a\xff".to_vec());
        assert_eq!(DeviceName::from(raw.clone()), DeviceName::Image(raw.into()));
        assert!(matches!(Path::new("0000:01:00.0").into(), DeviceName::Image(_)));
    }
}
