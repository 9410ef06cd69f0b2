//! The namespaces, and the blocks behind them.

pub(crate) mod atomic_groups;
pub(crate) mod backing;
pub(crate) mod metadata_store;
pub(crate) mod namespace;
pub(crate) mod namespaces;
pub(crate) mod store;
pub(crate) mod write_cache;

use std::io;

use nvio_spec::{Status, status};
use rustix::io::Errno;

/// Returns the status for an error of the backing. Client memory that the kernel could not access
/// is an error of the transfer, not of the media.
#[cold]
pub(crate) fn failed(error: &io::Error, media: Status) -> Status {
    log::warn!("backing: {error}");
    if error.raw_os_error() == Some(Errno::FAULT.raw_os_error()) {
        status::DATA_TRANSFER_ERROR
    } else {
        media
    }
}
