//! Standard output: text, names, sizes, JSON.

use std::cell::Cell;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::process::ExitCode;

use clap::ColorChoice;
use indicatif::HumanBytes;
use nvio::Inode;
use serde::Serialize;

use crate::args::Format;
use crate::colors::Colors;
use crate::error::Error;
use crate::name;

thread_local! {
    /// JSON documents are written without newlines.
    static COMPACT: Cell<bool> = const { Cell::new(false) };
    /// A JSON document was begun.
    static HAS_OUTPUT: Cell<bool> = const { Cell::new(false) };
}

/// Calls `run`, during which JSON documents are written without newlines, and returns its result, and
/// true if a document was written.
pub fn compact<T>(run: impl FnOnce() -> T) -> (T, bool) {
    COMPACT.set(true);
    HAS_OUTPUT.set(false);
    let result = run();
    COMPACT.set(false);
    (result, HAS_OUTPUT.get())
}

/// Buffered standard output. A closed pipe is an error that ends the command quietly.
pub struct Output {
    out: BufWriter<StdoutLock<'static>>,
    terminal: bool,
    colors: Colors,
}

impl Output {
    /// Locks standard output.
    pub fn new() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let out = BufWriter::with_capacity(64 << 10, stdout.lock());
        Self { out, terminal, colors: Colors::default() }
    }

    /// Chooses whether names are coloured.
    pub fn color(&mut self, choice: ColorChoice) {
        self.colors = Colors::new(choice, self.terminal);
    }

    /// Returns true if names are coloured.
    pub fn has_colors(&self) -> bool {
        self.colors.are_used()
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(Error::Output)
    }

    /// Writes text.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn text(&mut self, text: &str) -> Result<(), Error> {
        self.bytes(text.as_bytes())
    }

    /// Writes text and ends the line.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn line(&mut self, text: &str) -> Result<(), Error> {
        self.text(text)?;
        self.text("\n")
    }

    /// Writes a name of the filesystem: escaped on a terminal, else byte for byte.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn name(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.terminal { self.text(&name::escaped(bytes)) } else { self.bytes(bytes) }
    }

    /// Writes a line with a name and, if it is a symbolic link, its target.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn name_line(&mut self, bytes: &[u8], target: Option<&[u8]>) -> Result<(), Error> {
        self.name(bytes)?;
        if let Some(target) = target {
            self.text(" -> ")?;
            self.name(target)?;
        }
        self.text("\n")
    }

    /// Writes the name of an entry in its colour. `target` is the inode that a symbolic link leads
    /// to, or `Some(None)` if it leads to none.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn colored_name(
        &mut self,
        bytes: &[u8],
        inode: &Inode,
        target: Option<Option<&Inode>>,
    ) -> Result<(), Error> {
        let color = self.colors.of_name(bytes, inode, target);
        self.between(&color, bytes)
    }

    /// Writes the target of a symbolic link in the colour of the inode that it leads to.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn colored_target(&mut self, bytes: &[u8], inode: Option<&Inode>) -> Result<(), Error> {
        let color = self.colors.of_target(bytes, inode);
        self.between(&color, bytes)
    }

    /// Writes a name between the sequences that begin and end its colour.
    fn between(&mut self, (begin, end): &(String, String), bytes: &[u8]) -> Result<(), Error> {
        self.text(begin)?;
        self.name(bytes)?;
        self.text(end)
    }

    /// Writes a JSON document, indented.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        if COMPACT.get() {
            HAS_OUTPUT.set(true);
            return self.compact_json(value);
        }
        serde_json::to_writer_pretty(&mut self.out, value).map_err(json_error)?;
        self.text("\n")
    }

    /// Writes a JSON document on one line.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn json_line(&mut self, value: &impl Serialize) -> Result<(), Error> {
        self.compact_json(value)?;
        self.text("\n")
    }

    /// Writes a JSON document without white space or a newline.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn compact_json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        serde_json::to_writer(&mut self.out, value).map_err(json_error)
    }

    /// Writes the buffer. Dropping writes it, too, but ignores errors.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn flush(&mut self) -> Result<(), Error> {
        self.out.flush().map_err(Error::Output)
    }
}

/// A JSON array that is written element by element, because it may be larger than memory.
#[derive(Default)]
pub struct JsonArray {
    begun: bool,
}

impl JsonArray {
    /// Writes an element on a line of its own.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn push(&mut self, out: &mut Output, value: &impl Serialize) -> Result<(), Error> {
        out.text(if self.begun { "," } else { "[" })?;
        if !COMPACT.get() {
            out.text("\n")?;
        }
        HAS_OUTPUT.set(true);
        self.begun = true;
        out.compact_json(value)
    }

    /// Ends the array.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn end(self, out: &mut Output) -> Result<(), Error> {
        HAS_OUTPUT.set(true);
        match (COMPACT.get(), self.begun) {
            (true, true) => out.text("]"),
            (true, false) => out.text("[]"),
            (false, true) => out.text("\n]\n"),
            (false, false) => out.text("[]\n"),
        }
    }
}

fn json_error(error: serde_json::Error) -> Error {
    Error::Output(error.into())
}

/// Prints a report: as JSON, or as the text that `text` formats.
///
/// # Errors
/// [`Error::Output`].
pub fn print(
    format: Format,
    report: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<ExitCode, Error> {
    let mut out = Output::new();
    if format.json {
        out.json(report)?;
    } else {
        out.text(&text())?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Formats a size exactly, and in the largest unit that is a power of 1024.
pub fn exact_size(bytes: u128) -> String {
    match u64::try_from(bytes) {
        Ok(small) => format!("{bytes} bytes ({})", HumanBytes(small)),
        Err(_) => format!("{bytes} bytes"),
    }
}

/// Formats a size as du -h and df -h do: in powers of 1024, rounded up, with one decimal below 10.
pub fn human_blocks(bytes: u64) -> String {
    let mut unit = 1;
    for letter in ["K", "M", "G", "T", "P", "E"].into_iter().filter(|_| bytes >= 1024) {
        unit *= 1024;
        let [tenths, whole] = [10, 1].map(|part| (u128::from(bytes) * part).div_ceil(unit));
        if tenths < 100 {
            return format!("{}.{}{letter}", tenths / 10, tenths % 10);
        }
        if whole < 1024 {
            return format!("{whole}{letter}");
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_powers_of_1024() {
        for (bytes, shown) in [
            (0, "0 bytes (0 B)"),
            (1023, "1023 bytes (1023 B)"),
            (1024, "1024 bytes (1.00 KiB)"),
            (512 << 20, "536870912 bytes (512.00 MiB)"),
            (1_920_383_410_176, "1920383410176 bytes (1.75 TiB)"),
            (u64::MAX.into(), "18446744073709551615 bytes (16.00 EiB)"),
            (1 << 64, "18446744073709551616 bytes"),
        ] {
            assert_eq!(exact_size(bytes), shown);
        }
        for (bytes, shown) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (1025, "1.1K"),
            (10_138, "10K"),
            (10_240, "10K"),
            (10_241, "11K"),
            (1_047_552, "1023K"),
            (1_047_553, "1.0M"),
            (3 << 30, "3.0G"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(human_blocks(bytes), shown);
        }
    }
}
