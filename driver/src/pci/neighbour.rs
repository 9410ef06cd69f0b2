//! Other devices in an IOMMU group.

/// Another device in a controller's IOMMU group, whose driver keeps the group from user space. See
/// [`Error::GroupShared`](super::Error::GroupShared).
///
/// See the [example](crate::pci::Sysfs#examples).
#[derive(Clone, Debug, PartialEq, Eq, derive_more::Display)]
#[display("{device} (bound to {driver})")]
pub struct Neighbour {
    /// The device's address, as sysfs names it.
    pub device: String,
    /// The device's driver.
    pub driver: String,
}
