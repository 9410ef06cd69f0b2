//! The address of a controller.

use std::path::PathBuf;
use std::str::FromStr;

use crate::pci::address::PciAddress;

/// The address of a controller: a PCI function bound to vfio-pci, or the socket of a vfio-user
/// server.
///
/// # Examples
/// ```
/// use nvio_driver::Address;
///
/// assert!(matches!("0000:01:00.0".parse(), Ok(Address::Pci(_))));
/// assert!(matches!("vfio-user:/run/nvme.sock".parse(), Ok(Address::VfioUser(_))));
/// assert!("disk.img".parse::<Address>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, derive_more::Display)]
pub enum Address {
    /// A PCI function.
    Pci(PciAddress),
    /// The socket of a vfio-user server.
    #[display("vfio-user:{}", _0.display())]
    VfioUser(PathBuf),
}

/// The error of text that is neither a PCI address nor `vfio-user:` and a path.
///
/// See the [example](crate::Address#examples).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a PCI address (0000:01:00.0) nor vfio-user:SOCKET")]
pub struct ParseAddressError(String);

impl Address {
    /// Returns the address of the vfio-user server that listens at `socket`.
    ///
    /// ```
    /// use nvio_driver::Address;
    ///
    /// assert_eq!(Address::vfio_user("/run/nvme.sock").to_string(), "vfio-user:/run/nvme.sock");
    /// ```
    pub fn vfio_user(socket: impl Into<PathBuf>) -> Self {
        Self::VfioUser(socket.into())
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseAddressError(text.to_owned());
        match text.strip_prefix("vfio-user:") {
            Some("") => Err(error()),
            Some(socket) => Ok(Self::VfioUser(socket.into())),
            None => text.parse().map(Self::Pci).map_err(|_| error()),
        }
    }
}
