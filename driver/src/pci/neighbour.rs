//! Other devices in an IOMMU group.

use std::fmt;

/// Another device in a controller's IOMMU group, whose driver keeps the group from user space. See
/// [`Error::GroupShared`](super::Error::GroupShared).
///
/// See the [example](crate::pci::Sysfs#examples).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The device's address, as sysfs names it.
    pub device: String,
    /// The device's driver.
    pub driver: String,
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (bound to {})", self.device, self.driver)
    }
}
