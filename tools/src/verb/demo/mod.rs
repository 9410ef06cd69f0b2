//! `nvio demo`: makes an ext4 image of a folder, reads every file back through embedded controller,
//! driver, iomap and filesystem, and compares each byte.

mod check;
mod report;
mod sample_folder;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::ProgressBar;

use crate::args::Format;
use crate::error::Error;
use crate::open;
use crate::output::Output;
use crate::{mkfs, progress};
use check::Check;
use report::Report;

/// Runs the demonstration. The exit code is 1 if anything differs, or the controller had to be
/// reset.
///
/// # Errors
/// If the folder cannot be read, the image cannot be created, or the filesystem cannot be opened.
pub fn run(
    folder: Option<&Path>,
    lba_size: u32,
    keep: bool,
    format: Format,
) -> Result<ExitCode, Error> {
    let temporary = std::env::temp_dir();
    let work = tempfile::Builder::new().prefix("nvio-demo-").tempdir();
    let work = work.map_err(|error| Error::host("make a directory in", &temporary, error))?;
    let own = work.path().join("folder");
    let folder = match folder {
        Some(folder) => {
            fs::read_dir(folder).map_err(|error| Error::host("read", folder, error))?;
            folder
        }
        None => {
            with_step("making files", || {
                fs::create_dir(&own).map_err(|error| Error::host("make", &own, error))?;
                sample_folder::fill(&own)
            })?;
            &own
        }
    };
    let image = work.path().join("disk.img");
    with_step("making an ext4 image (mke2fs)", || mkfs::image_of(folder, &image))?;
    let (check, resets) = with_step("reading", || {
        let volume = open::image(&image, lba_size)?;
        let resets = volume.device().map(|device| device.controller().resets());
        let mut check = Check::new(&volume)?;
        check.folder(folder)?;
        check.listing(folder)?;
        Ok((check.finish(), resets))
    })?;
    let kept = if keep { Some(keep_image(work, &image, &own)?) } else { None };
    // The controller is closed, so this is the final number.
    let resets = resets.map_or(0, |resets| resets.unrequested());
    let report = Report { check, resets, lba_size, image: kept };
    let mut out = Output::new();
    if format.json {
        out.json(&report)?
    } else {
        out.text(&report.text())?
    }
    out.flush()?;
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn with_step<T>(what: &'static str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let step: ProgressBar = progress::step(what);
    let result = work();
    step.finish_and_clear();
    result
}

/// Keeps the temporary directory with the image alone.
fn keep_image(work: tempfile::TempDir, image: &Path, own: &Path) -> Result<PathBuf, Error> {
    if own.exists() {
        fs::remove_dir_all(own).map_err(|error| Error::host("remove", own, error))?;
    }
    let _ = work.keep();
    Ok(image.to_owned())
}
