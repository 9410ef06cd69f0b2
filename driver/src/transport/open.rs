//! Opening the transport of an address.

use std::time::Duration;

use super::Transport;
use super::vfio::Vfio;
use super::vfio_user::VfioUser;
use crate::address::Address;
use crate::error::Result;

/// Opens the transport to the controller at `address`. The replies of a vfio-user server are waited
/// for at most `reply_timeout`.
pub(crate) fn open(address: &Address, reply_timeout: Duration) -> Result<Box<dyn Transport>> {
    Ok(match address {
        Address::Pci(pci) => Box::new(Vfio::open(*pci)?),
        Address::VfioUser(socket) => Box::new(VfioUser::connect(socket, reply_timeout)?),
    })
}
