//! Opening the transport of an address.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::Transport;
use super::vfio::Vfio;
use super::vfio_user::{RunDevice, VfioUser};
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

/// Opens the transport to the controller that a vfio-user server serves on `stream`, and that `run`
/// lets work in the thread of its caller.
pub(crate) fn open_stream(
    stream: UnixStream,
    reply_timeout: Duration,
    run: Option<RunDevice>,
) -> Result<Box<dyn Transport>> {
    Ok(Box::new(VfioUser::on_stream(stream, reply_timeout, run)?))
}
