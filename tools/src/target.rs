//! The output of verbs that write many bytes: standard output, or a new file.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::output::Output;

/// The output.
pub enum Target {
    /// Standard output.
    Stdout(Output),
    /// A file of this machine.
    File(File, PathBuf),
}

impl Target {
    /// Creates the file, or uses standard output.
    ///
    /// # Errors
    /// If the file exists or cannot be created.
    pub fn new(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self::Stdout(Output::new())) };
        let file = File::create_new(path).map_err(|error| Error::host("create", path, error))?;
        Ok(Self::File(file, path.to_owned()))
    }

    /// Returns true if the output is a terminal.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Stdout(_)) && io::stdout().is_terminal()
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// [`Error::Output`] or [`Error::Host`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Stdout(out) => out.bytes(bytes),
            Self::File(file, path) => {
                file.write_all(bytes).map_err(|error| Error::host("write to", path, error))
            }
        }
    }

    /// Writes the buffer.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn end(&mut self) -> Result<(), Error> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(..) => Ok(()),
        }
    }
}
