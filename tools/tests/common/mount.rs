//! A loop mount of an image, whose kernel is the oracle.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::Disk;

/// A read-only mount of an image, for root.
pub struct Mount {
    pub at: PathBuf,
}

impl Mount {
    /// Mounts the image of `disk`. Returns `None` without root.
    pub fn new(disk: &Disk) -> Option<Self> {
        Self::with(disk, "loop,ro")
    }

    /// Mounts with these options.
    pub fn with(disk: &Disk, options: &str) -> Option<Self> {
        let at = disk.path("mnt");
        let _ = fs::create_dir(&at);
        let image = disk.image();
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", options]).arg(image).arg(&at).stderr(Stdio::null());
        if !mount.status().is_ok_and(|status| status.success()) {
            println!("SKIPPED: loop mounts need root");
            return None;
        }
        Some(Self { at })
    }

    /// Runs a command at the mount, and returns its standard output.
    pub fn shows(&self, program: &str, args: &[&str]) -> Vec<u8> {
        let mut command = Command::new(program);
        let output = command.args(args).current_dir(&self.at).env("LC_ALL", "C.UTF-8").output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {args:?}: {said}");
        output.stdout
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = nvio_testkit::image::unmount(&self.at) {
            eprintln!("{error}");
        }
    }
}
