//! `nvio completions`: the completion script of a shell.

use std::io;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::error::Error;
use crate::output::Output;

/// Print the completions of a shell.
///
/// For bash: nvio completions bash > /etc/bash_completion.d/nvio
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    /// Prints the script for `definition`, the command line.
    ///
    /// # Errors
    /// If standard output fails.
    pub fn run(&self, mut definition: Command) -> Result<ExitCode, Error> {
        let mut script = io::Cursor::new(Vec::new());
        clap_complete::generate(self.shell, &mut definition, "nvio", &mut script);
        let mut out = Output::new();
        out.bytes(script.get_ref())?;
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}
