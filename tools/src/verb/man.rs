//! `nvio man`: the manual pages of the command.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};

use crate::error::Error;

/// Write the manual pages of the command and its verbs into a folder.
#[derive(Debug, Args)]
#[command(hide = true)]
pub struct Man {
    /// The folder, which is created if it is missing.
    folder: PathBuf,
}

impl Man {
    /// Writes nvio.1, and nvio-VERB.1 for each verb of `definition`, the command line.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn run(&self, definition: Command) -> Result<ExitCode, Error> {
        let written = fs::create_dir_all(&self.folder)
            .and_then(|()| clap_mangen::generate_to(definition, &self.folder));
        written.map_err(|error| Error::host("write manual pages into", &self.folder, error))?;
        Ok(ExitCode::SUCCESS)
    }
}
