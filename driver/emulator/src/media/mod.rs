//! The namespaces, and the blocks behind them.

pub(crate) mod atomic_groups;
pub(crate) mod backing;
pub(crate) mod metadata_table;
pub(crate) mod namespace;
pub(crate) mod namespaces;
pub(crate) mod store;

use std::io;

use nvio_spec::{Status, status};
use rustix::io::Errno;

/// Returns the conversion of a backing's errors to a status: `media`, except for client memory that
/// the kernel could not access, which is an error of the transfer.
pub(crate) fn failed(media: Status) -> impl FnOnce(io::Error) -> Status {
    move |error| {
        log::warn!("backing: {error}");
        let is_transfer = error.raw_os_error() == Some(Errno::FAULT.raw_os_error());
        if is_transfer { status::DATA_TRANSFER_ERROR } else { media }
    }
}
