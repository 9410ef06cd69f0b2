//! The contract between a filesystem and this crate: mappings, open files, arguments of a request.

pub(crate) mod bytes;
pub(crate) mod io_args;
pub(crate) mod iter;
pub(crate) mod mapper;
pub(crate) mod open_file;
