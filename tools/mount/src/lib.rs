//! The FUSE filesystem of `nvio mount`: the kernel's calls become calls of [`nvio`].
//!
//! [`Server`] answers the calls; [`mount`] mounts it. Each thread of the session
//! takes a file and a queue of its own from pools, so that calls run in parallel. Inodes that the kernel
//! knows are held, so that their numbers are not used again.

mod attributes;
mod backend;
mod directories;
mod errno;
mod files;
mod known;
mod name;
mod server;
mod space;

use std::io;
use std::path::Path;

use fuser::{Config, MountOption, SessionACL};

pub use fuser::Session;

pub use crate::backend::Backend;
pub use crate::server::Server;

/// Options of a mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of the device in the list of mounts.
    pub device: String,
    /// Number of threads that answer calls, from 1.
    pub threads: usize,
    /// Reads and writes go past the caches of the kernel and of nvio.
    pub direct: bool,
    /// Users other than the one who mounts may use the filesystem. Permissions are checked.
    pub allow_other: bool,
    /// Device files work.
    pub devices: bool,
    /// Programs run with the rights of their owner or group if they are set so.
    pub set_user: bool,
}

/// Mounts a filesystem at `directory`. The calls are answered by [`Session::run`], which returns when it was
/// unmounted.
///
/// # Errors
/// If the directory cannot be mounted on, or there is no FUSE.
pub fn mount(backend: Backend, directory: &Path, options: &Options) -> io::Result<Session<Server>> {
    let mut config = Config::default();
    let name = format!("nvio:{}", options.device);
    config.mount_options = vec![
        MountOption::FSName(name.replace(',', "_")),
        MountOption::Subtype("nvio".into()),
        MountOption::DefaultPermissions,
        MountOption::NoAtime,
        if backend.is_writable() { MountOption::RW } else { MountOption::RO },
        if options.devices { MountOption::Dev } else { MountOption::NoDev },
        if options.set_user { MountOption::Suid } else { MountOption::NoSuid },
    ];
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = options.threads > 1;
    Session::new(Server::new(backend, options.direct), directory, &config)
}
