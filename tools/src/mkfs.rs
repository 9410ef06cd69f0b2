//! Creates an ext4 image of a folder with mke2fs of e2fsprogs.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use walkdir::WalkDir;

use crate::error::Error;
use crate::interrupt;

const MKE2FS: &str = "mke2fs";
const INSTALL: [&str; 4] = ["apt-get", "install", "-y", "e2fsprogs"];
const BLOCK: u64 = 4096;

/// Creates the file `image` with an ext4 filesystem that holds the contents of `folder`.
///
/// # Errors
/// If mke2fs is missing and cannot be installed, or fails.
pub fn image_of(folder: &Path, image: &Path) -> Result<(), Error> {
    let mke2fs = find_or_install()?;
    let need = measure(folder)?;
    let file = {
        let _no_signal_removes_the_folder = interrupt::hold();
        File::create_new(image)
    };
    file.and_then(|file| file.set_len(need.bytes))
        .map_err(|error| Error::host("make", image, error))?;
    let mut command = Command::new(mke2fs);
    command.args(["-q", "-F", "-t", "ext4", "-b", &BLOCK.to_string()]);
    command.args(["-m", "0", "-N", &need.inodes.to_string(), "-d"]).arg(folder).arg(image);
    let output = run(&mut command)?;
    if output.status.success() { Ok(()) } else { Err(failed(MKE2FS, &output)) }
}

/// The size of a filesystem.
struct Need {
    bytes: u64,
    inodes: u64,
}

/// Estimates the space for `folder`. The estimate is generous, because the image is sparse.
fn measure(folder: &Path) -> Result<Need, Error> {
    let mut need = Need { bytes: 64 << 20, inodes: 1024 };
    let mut seen = HashSet::new();
    for entry in WalkDir::new(folder).min_depth(1) {
        let entry = entry.map_err(|error| Error::host("read", folder, error))?;
        let meta = entry.metadata().map_err(|error| Error::host("read", entry.path(), error))?;
        if meta.nlink() > 1 && !meta.is_dir() && !seen.insert((meta.dev(), meta.ino())) {
            continue;
        }
        let blocks = meta.blocks().saturating_mul(512).div_ceil(BLOCK).saturating_add(2);
        // Blocks of extent trees and directories take far less than a sixteenth.
        let bytes = blocks.saturating_mul(BLOCK);
        need.bytes = need.bytes.saturating_add(bytes).saturating_add(bytes / 16);
        need.inodes = need.inodes.saturating_add(1);
    }
    need.bytes =
        need.bytes.saturating_add(need.inodes.saturating_mul(256)).next_multiple_of(1 << 20);
    Ok(need)
}

fn find_or_install() -> Result<PathBuf, Error> {
    if let Some(path) = find(MKE2FS) {
        return Ok(path);
    }
    if !rustix::process::geteuid().is_root() || find(INSTALL[0]).is_none() {
        return Err(Error::NoMke2fs);
    }
    interrupt::say(&format!("mke2fs is missing, running `{}`", INSTALL.join(" ")));
    let output = run(Command::new(INSTALL[0]).args(&INSTALL[1..]))?;
    if !output.status.success() {
        return Err(failed(INSTALL[0], &output));
    }
    find(MKE2FS).ok_or(Error::NoMke2fs)
}

/// Finds a program in PATH and in the standard folders, because the PATH of a user often lacks
/// /sbin.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let standard = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let mut places = std::env::split_paths(&path).chain(standard);
    places.find_map(|place| Some(place.join(program)).filter(|path| path.is_file()))
}

fn run(command: &mut Command) -> Result<Output, Error> {
    let program = PathBuf::from(command.get_program());
    command.stdin(Stdio::null()).output().map_err(|error| Error::host("run", &program, error))
}

fn failed(program: &'static str, output: &Output) -> Error {
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    Error::Program { program, status: output.status, said: line.trim().to_owned() }
}
