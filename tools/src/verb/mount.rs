//! `nvio mount` and `nvio umount`: a filesystem as a directory, by FUSE.

mod guard;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use clap::Args;
use nvio_mount::{Backend, Options};

use self::guard::{Guard, unmount};
use crate::args::{Format, VolumeArgs};
use crate::error::Error;
use crate::interrupt;
use crate::name;
use crate::open;
use crate::output::Output;
use crate::record::Record;

/// Mount a filesystem on a directory, by FUSE.
///
/// Any program can use the files then. The verb answers until the filesystem is unmounted, by
/// nvio umount DIRECTORY, by SIGINT or by SIGTERM. A line on standard output announces that it is mounted.
///
/// Without --writable nothing is written to the device. With it, changes go through the journal, so that
/// a crash loses nothing that was synced.
#[derive(Debug, Args)]
pub struct Mount {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Directory to mount on.
    directory: PathBuf,
    #[command(flatten)]
    format: Format,
    /// Let files and directories be changed.
    #[arg(short, long)]
    writable: bool,
    /// Read and write past the caches of the kernel and of nvio.
    #[arg(long)]
    direct: bool,
    /// Number of threads, each with a queue of its own.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// Let other users use the filesystem. Permissions are checked.
    #[arg(long)]
    allow_other: bool,
    /// Let device files work.
    #[arg(long)]
    dev: bool,
    /// Let programs run with the rights of their owner or group.
    #[arg(long)]
    suid: bool,
    /// Record no times of access.
    #[arg(long)]
    noatime: bool,
}

impl Mount {
    /// Mounts the filesystem, and answers calls until it is unmounted.
    ///
    /// # Errors
    /// If the filesystem cannot be opened, mounted or closed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let volume = match self.writable {
            true => Some(open::mounted_journaled_volume(&self.volume, !self.noatime)?),
            false => None,
        };
        let backend = match &volume {
            Some(volume) => Backend::Write(volume.clone()),
            None => Backend::Read(open::mounted_volume(&self.volume)?),
        };
        let failed = |error| Error::Mount { directory: self.directory.clone(), error };
        let directory = self.directory.canonicalize().map_err(failed)?;
        let session = nvio_mount::mount(backend, &directory, &self.options()).map_err(failed)?;
        let guard = Guard::new(&directory);
        let signal = Arc::new(AtomicI32::new(0));
        unmount_at_signal(directory.clone(), Arc::clone(&signal));
        match self.say(&directory) {
            // The reader of the line is gone, but the directory is used all the same.
            Err(error) if error.is_closed_pipe() => {}
            said => said?,
        }
        let served = nvio_mount::serve(session);
        guard.forget();
        if let Some(volume) = volume {
            volume.close()?;
        }
        served.map_err(failed)?;
        Ok(match signal.load(Ordering::Acquire) {
            0 => ExitCode::SUCCESS,
            signal => interrupt::exit_code(signal),
        })
    }

    fn options(&self) -> Options {
        Options {
            device: self.volume.controller.device.to_string(),
            threads: self.threads.into(),
            direct: self.direct,
            allow_other: self.allow_other,
            devices: self.dev,
            set_user: self.suid,
            access_times: self.writable && !self.noatime,
        }
    }

    fn say(&self, directory: &Path) -> Result<(), Error> {
        let device = self.volume.controller.device.to_string();
        let directory = name::escaped(directory.as_os_str().as_encoded_bytes());
        let mut out = Output::new();
        if self.format.json {
            let mut mounted = Record::default();
            mounted.json("device", device);
            mounted.json("directory", directory);
            mounted.json("writable", self.writable);
            out.json_line(&mounted)?;
        } else {
            let how = if self.writable { "writable" } else { "read-only" };
            out.line(&format!("{device} is mounted on {directory}, {how}"))?;
        }
        out.flush()
    }
}

/// Lets the next signal unmount the directory, with which the verb ends. A directory that is in use
/// vanishes, and the verb ends when its last file is closed, or at once at a second signal.
fn unmount_at_signal(directory: PathBuf, ended_by: Arc<AtomicI32>) {
    interrupt::stop_at_next(move |signal| {
        ended_by.store(signal, Ordering::Release);
        if let Err(error) = unmount(&directory, false) {
            let shown = name::escaped(directory.as_os_str().as_encoded_bytes());
            interrupt::say(&format!("{shown}: {error}; it ends when its last file is closed"));
            if let Err(error) = unmount(&directory, true) {
                interrupt::say(&format!("{shown}: {error}"));
            }
        }
    });
}

/// Unmount a filesystem that nvio mount has mounted.
///
/// All changes are durable when this verb ends with success. The one that has mounted it then closes the
/// filesystem, and ends.
#[derive(Debug, Args)]
pub struct Umount {
    /// Directory that it is mounted on.
    directory: PathBuf,
}

impl Umount {
    /// Unmounts a directory.
    ///
    /// # Errors
    /// If it is no mount of nvio, or is in use.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let failed = |error| Error::Mount { directory: self.directory.clone(), error };
        let directory = std::path::absolute(&self.directory).map_err(failed)?;
        if !guard::is_mounted(&directory).map_err(failed)? {
            return Err(Error::NotMounted { directory: self.directory.clone() });
        }
        // A sync of the root is one of the whole filesystem.
        std::fs::File::open(&directory).and_then(|root| root.sync_all()).map_err(failed)?;
        unmount(&directory, false).map_err(failed)?;
        Ok(ExitCode::SUCCESS)
    }
}
