//! The memory of the host, and the data of commands in it.

pub(crate) mod access;
pub(crate) mod memfd;
pub(crate) mod memory;
pub(crate) mod prp;
pub(crate) mod request;
pub(crate) mod segments;
pub(crate) mod sgl;
pub(crate) mod stream;
