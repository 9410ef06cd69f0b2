//! The input of an archive: a file of this machine, or standard input.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use crate::error::Error;
use crate::name;
use crate::progress;

/// The input.
pub struct Input {
    file: File,
    /// `None` is standard input.
    path: Option<PathBuf>,
}

impl Input {
    /// Opens the file, or standard input for `-` and without one.
    ///
    /// # Errors
    /// If the file cannot be opened, or standard input is a terminal.
    pub fn open(path: Option<&Path>) -> Result<Self, Error> {
        if let Some(path) = path.filter(|path| *path != Path::new("-")) {
            let file = File::open(path).map_err(|error| Error::host("open", path, error))?;
            return Ok(Self { file, path: Some(path.to_owned()) });
        }
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(Error::ArchiveFromTerminal);
        }
        let file = stdin.as_fd().try_clone_to_owned().map(File::from);
        let failed = |error| Error::host("open", Path::new("standard input"), error);
        Ok(Self { file: file.map_err(failed)?, path: None })
    }

    /// Returns the name for messages.
    pub fn name(&self) -> PathBuf {
        self.path.clone().unwrap_or_else(|| "standard input".into())
    }

    /// Returns the name, safe for a terminal.
    pub fn shown(&self) -> String {
        name::one_line(&self.name().display().to_string())
    }

    /// Creates a bar of the bytes of a regular file, or a spinner.
    pub fn progress(&self) -> ProgressBar {
        match crate::verb::write::remaining(&self.file) {
            Ok(Some(bytes)) => progress::bar(bytes),
            _ => progress::spinner(),
        }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}
