//! The FUSE filesystem of `nvio mount`: the kernel's calls become calls of [`nvio`].
//!
//! [`Server`] answers the calls; [`mount`] mounts it, and [`serve`] runs it. Each thread of the session
//! takes a file and a queue of its own from pools, so that calls run in parallel. Inodes that the kernel
//! knows are held, so that their numbers are not used again.

mod answers;
mod attributes;
mod backend;
mod config;
mod directories;
mod errno;
mod files;
mod known;
mod name;
mod scratch;
mod server;
mod space;
mod turns;

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

pub use fuser::Session;

pub use crate::backend::Backend;
pub use crate::config::{Options, negotiate};
pub use crate::server::Server;
use crate::turns::Turns;

/// Mounts a filesystem at `directory`. The calls are answered by [`serve`].
///
/// # Errors
/// If the directory cannot be mounted on, or there is no FUSE.
pub fn mount(backend: Backend, directory: &Path, options: &Options) -> io::Result<Session<Server>> {
    let config = options.config(backend.is_writable());
    let turns = Arc::new(Turns::new(options.threads));
    let server = Server::new(backend, options.direct, Arc::clone(&turns));
    let session = Session::new(server, directory, &config)?;
    if options.threads > 1 {
        turns.start(session.as_fd().try_clone_to_owned()?);
    }
    Ok(session)
}

/// Answers the calls of the kernel until the filesystem is unmounted.
///
/// # Errors
/// A failure of the connection to the kernel.
pub fn serve(session: Session<Server>) -> io::Result<()> {
    match session.run() {
        // The kernel was handing a call over when the connection ended.
        Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(()),
        served => served,
    }
}
