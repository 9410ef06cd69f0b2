//! Settings of a mount, and of the protocol.

use fuser::{Config, InitFlags, KernelConfig, MountOption, SessionACL};

/// Largest number of calls in the background, such as reads ahead.
const BACKGROUND: u16 = 64;

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
    /// Reads record times of access, as with relatime. The filesystem is opened with the option, too.
    pub access_times: bool,
}

impl Options {
    /// Returns the settings of the session.
    pub fn config(&self, writable: bool) -> Config {
        let mut config = Config::default();
        let name = format!("nvio:{}", self.device);
        config.mount_options = vec![
            MountOption::FSName(name.replace(',', "_")),
            MountOption::Subtype("nvio".into()),
            MountOption::DefaultPermissions,
            if self.access_times { MountOption::Atime } else { MountOption::NoAtime },
            if writable { MountOption::RW } else { MountOption::RO },
            if self.devices { MountOption::Dev } else { MountOption::NoDev },
            if self.set_user { MountOption::Suid } else { MountOption::NoSuid },
        ];
        config.acl = if self.allow_other { SessionACL::All } else { SessionACL::Owner };
        config.n_threads = Some(self.threads.max(1));
        config.clone_fd = self.threads > 1;
        config
    }
}

/// Asks the kernel for the capabilities that the server has.
pub fn negotiate(config: &mut KernelConfig) {
    let wanted = InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_READDIRPLUS_AUTO
        | InitFlags::FUSE_CACHE_SYMLINKS
        | InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
        | InitFlags::FUSE_POSIX_ACL
        | InitFlags::FUSE_DONT_MASK;
    for flag in wanted.iter() {
        // An older kernel does without.
        let _ = config.add_capabilities(flag);
    }
    let _ = config.set_max_background(BACKGROUND);
}
