//! The queue for files: routes, the simple and the generic path, and the state of requests.

pub(crate) mod commands;
pub(crate) mod counters;
pub(crate) mod disk_reader;
pub(crate) mod disk_writer;
pub(crate) mod file_queue;
pub(crate) mod generic;
pub(crate) mod read;
pub(crate) mod request;
pub(crate) mod requests;
mod route;
pub(crate) mod simple;
pub(crate) mod state;
pub(crate) mod tag;
mod write;
mod zeroing;
