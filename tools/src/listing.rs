//! Runs a verb on several paths of a filesystem. Each failure is printed when it happens, and the
//! other paths are still shown.

use std::process::ExitCode;

use nvio::{Inode, Volume};
use serde::Serialize;

use crate::args::Format;
use crate::error::{Error, Failures};
use crate::name::escaped;
use crate::operand::{Operand, Operands};
use crate::output::{JsonArray, Output};

/// The form of the output.
enum Form {
    Text,
    /// A JSON object for the only path.
    Object,
    Array(JsonArray),
}

/// The output of a verb.
pub struct Listing<'a> {
    /// The filesystem.
    pub volume: &'a Volume,
    /// Standard output.
    pub out: Output,
    /// Failures so far.
    pub failures: Failures,
    form: Form,
}

impl<'a> Listing<'a> {
    /// Begins an output that is an array in JSON.
    pub fn new(volume: &'a Volume, format: Format) -> Self {
        let form = if format.json { Form::Array(JsonArray::default()) } else { Form::Text };
        Self { volume, out: Output::new(), failures: Failures::default(), form }
    }

    /// Begins an output that has one value for each file: in JSON an object if only one file is
    /// named, else an array.
    pub fn of_operands(volume: &'a Volume, format: Format, operands: &Operands) -> Self {
        let mut listing = Self::new(volume, format);
        if format.json && operands.is_single {
            listing.form = Form::Object;
        }
        listing
    }

    /// Returns true if the output is JSON.
    pub fn is_json(&self) -> bool {
        !matches!(self.form, Form::Text)
    }

    /// Calls `each` for every file, and prints its failures.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn operands(
        &mut self,
        operands: Operands,
        mut each: impl FnMut(&mut Self, &Operand) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for operand in operands.all {
            let done = operand.and_then(|operand| {
                log::debug!("reading {}", escaped(&operand.path));
                each(self, &operand)
            });
            self.failures.absorb(done)?;
        }
        Ok(())
    }

    /// Writes a line with the name of an entry, coloured by its type, and the target if it is a
    /// symbolic link.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn entry_line(
        &mut self,
        path: &[u8],
        shown: &[u8],
        inode: &Inode,
        target: Option<&[u8]>,
    ) -> Result<(), Error> {
        if !self.out.has_colors() {
            return self.out.name_line(shown, target);
        }
        let resolved = inode.is_symlink().then(|| self.volume.metadata(path).ok());
        self.out.colored_name(shown, inode, resolved.as_ref().map(Option::as_ref))?;
        if let Some(target) = target {
            self.out.text(" -> ")?;
            self.out.colored_target(target, resolved.flatten().as_ref())?;
        }
        self.out.text("\n")
    }

    /// Writes a value in JSON.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn push(&mut self, value: &impl Serialize) -> Result<(), Error> {
        match &mut self.form {
            Form::Array(array) => array.push(&mut self.out, value),
            _ => self.out.json(value),
        }
    }

    /// Ends the output, prints the damage that was found, and returns the exit code: 1 if there were
    /// failures or damage, else 0.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn end(mut self) -> Result<ExitCode, Error> {
        self.failures.damage(self.volume);
        if let Form::Array(array) = self.form {
            array.end(&mut self.out)?;
        }
        self.out.flush()?;
        Ok(self.failures.code())
    }
}
