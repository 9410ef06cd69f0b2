//! The systems that are compared, and their mounts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nvio_testkit::image::{command, text, unmount};
use nvio_tests::nvio::binary;
use nvio_tests::walk::Result;

use crate::{NOTHING, THREADS, run};

/// A system that mounts an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    Nvio,
    NvioWritable,
    Fuse2fs,
    Loop,
    Nothing,
}

impl System {
    pub(crate) const ALL: [Self; 5] =
        [Self::Nvio, Self::NvioWritable, Self::Fuse2fs, Self::Loop, Self::Nothing];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nvio => "nvio mount",
            Self::NvioWritable => "nvio mount --writable",
            Self::Fuse2fs => "fuse2fs",
            Self::Loop => "a loop mount",
            Self::Nothing => "a server doing nothing",
        }
    }

    /// Returns true if files have the contents of the image.
    pub(crate) fn has_data(self) -> bool {
        self != Self::Nothing
    }

    /// Returns true if the system is installed, and says so otherwise.
    pub(crate) fn is_here(self) -> bool {
        let is_here = self != Self::Fuse2fs || command("fuse2fs").arg("--version").output().is_ok();
        if !is_here {
            println!("SKIPPED {}: apt-get install fuse2fs", self.name());
        }
        is_here
    }

    /// Mounts the image.
    pub(crate) fn mount(self, image: &Path, directory: &Path) -> Result<Mounted> {
        let mut server = match self {
            Self::Loop => {
                run(command("mount").args(["-o", "loop,ro", text(image), text(directory)]))?;
                return Ok(Mounted { directory: directory.to_owned(), server: None });
            }
            Self::Fuse2fs => {
                let mut fuse2fs = command("fuse2fs");
                fuse2fs.args([image, directory]).args(["-f", "-o", "ro"]);
                fuse2fs
            }
            Self::Nothing => {
                let mut server = Command::new(std::env::current_exe()?);
                server.arg(NOTHING).arg(directory);
                server
            }
            Self::Nvio | Self::NvioWritable => {
                let mut nvio = Command::new(binary());
                nvio.arg("mount").args([image, directory]).arg(format!("--threads={THREADS}"));
                if self == Self::NvioWritable {
                    nvio.arg("--writable");
                }
                nvio
            }
        };
        let server = server.stdout(Stdio::null()).spawn()?;
        let mut mounted = Mounted { directory: directory.to_owned(), server: Some(server) };
        mounted.wait()?;
        Ok(mounted)
    }
}

/// A mounted image, which is unmounted on drop.
pub(crate) struct Mounted {
    directory: PathBuf,
    server: Option<Child>,
}

impl Mounted {
    /// Waits until the server has mounted.
    fn wait(&mut self) -> Result<()> {
        while !self.is_mounted()? {
            if let Some(server) = &mut self.server
                && let Some(status) = server.try_wait()?
            {
                return Err(format!("a server ends before it mounts: {status}").into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn is_mounted(&self) -> Result<bool> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let directory = text(&self.directory);
        Ok(mounts.lines().any(|line| line.split(' ').nth(4) == Some(directory)))
    }

    /// Unmounts, and waits for the end of the server.
    pub(crate) fn unmount(mut self) -> Result<()> {
        unmount(&self.directory)?;
        match self.server.take() {
            Some(mut server) => match server.wait()? {
                status if status.success() => Ok(()),
                status => Err(format!("a server has failed: {status}").into()),
            },
            None => Ok(()),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Ok(true) = self.is_mounted() {
            let _ = command("umount").arg("-l").arg(&self.directory).status();
        }
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
