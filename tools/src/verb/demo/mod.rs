//! `nvio demo`: makes an ext4 image of a folder, reads every file back through embedded controller,
//! driver, iomap and filesystem, and compares each byte.

mod check;
mod report;
mod sample_folder;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::args::{Format, lba_size};
use crate::error::Error;
use crate::interrupt::Temporary;
use crate::open;
use crate::output::print;
use crate::{mkfs, progress};
use check::Check;

/// Make an ext4 image of a folder, read all files back, and compare.
///
/// The files are read through the whole stack: controller, driver, iomap and filesystem.
#[derive(Debug, Args)]
pub struct Demo {
    /// The folder. Without it, one with files of many types is created.
    folder: Option<PathBuf>,
    /// Logical block of the embedded controller in bytes.
    #[arg(long, value_parser = lba_size, default_value = "512", value_name = "512|4096")]
    lba_size: u32,
    /// Keep the image and print its path.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    format: Format,
}

impl Demo {
    /// Runs the demonstration. The exit code is 1 if anything differs, or the controller had to be
    /// reset.
    ///
    /// # Errors
    /// If the folder cannot be read, the image cannot be created, or the filesystem cannot be opened.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let temporary = std::env::temp_dir();
        let create = || tempfile::Builder::new().prefix("nvio-demo-").tempdir();
        let (_temporary, work) = Temporary::create(create, |work| work.path().to_owned())
            .map_err(|error| Error::host("make a directory in", &temporary, error))?;
        let own = work.path().join("folder");
        let folder = match &self.folder {
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
        let (findings, resets) = with_step("reading", || {
            let volume = open::image(&image, self.lba_size)?;
            let resets = volume.device().map(|device| device.controller().resets());
            let mut check = Check::new(&volume)?;
            check.folder(folder)?;
            check.listing(folder)?;
            Ok((check.finish(), resets))
        })?;
        let image = if self.keep { Some(keep_image(work, &image, &own)?) } else { None };
        // The controller is closed, so this is the final number.
        let resets = resets.map_or(0, |resets| resets.unrequested());
        let passed = findings.differences == 0 && resets == 0;
        let (report, text) = report::report(findings, resets, self.lba_size, image);
        print(self.format, &report, || text)?;
        Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn with_step<T>(what: &'static str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let step = progress::step(what);
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
