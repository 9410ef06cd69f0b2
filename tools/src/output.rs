//! Standard output: text, names, sizes, JSON.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde::Serialize;

use crate::error::Error;
use crate::name;

/// Buffered standard output. A closed pipe is an error that ends the command quietly.
pub struct Output {
    out: BufWriter<StdoutLock<'static>>,
    terminal: bool,
}

impl Output {
    /// Locks standard output.
    pub fn new() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self { out: BufWriter::with_capacity(64 << 10, stdout.lock()), terminal }
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

    /// Writes a JSON document, indented.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        serde_json::to_writer_pretty(&mut self.out, value).map_err(json_error)?;
        self.text("\n")
    }

    /// Writes a JSON document on one line.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn json_line(&mut self, value: &impl Serialize) -> Result<(), Error> {
        serde_json::to_writer(&mut self.out, value).map_err(json_error)?;
        self.text("\n")
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
    element: Vec<u8>,
}

impl JsonArray {
    /// Writes an element on a line of its own.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn push(&mut self, out: &mut Output, value: &impl Serialize) -> Result<(), Error> {
        out.text(if self.begun { ",\n" } else { "[\n" })?;
        self.begun = true;
        // Collected first, because the serializer writes a few bytes at a time.
        self.element.clear();
        serde_json::to_writer(&mut self.element, value).map_err(json_error)?;
        out.bytes(&self.element)
    }

    /// Ends the array.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn end(self, out: &mut Output) -> Result<(), Error> {
        out.text(if self.begun { "\n]\n" } else { "[]\n" })
    }
}

fn json_error(error: serde_json::Error) -> Error {
    Error::Output(error.into())
}

/// Formats a size in powers of 1000, as drives are sold, with three digits.
pub fn human_size(bytes: u64) -> String {
    scaled(bytes, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Formats a size as du -h and df -h do: in powers of 1024, rounded up, with one decimal below 10.
pub fn human_blocks(bytes: u64) -> String {
    if bytes < 1024 {
        return bytes.to_string();
    }
    let (bytes, mut unit) = (u128::from(bytes), 1024);
    for letter in ["K", "M", "G", "T", "P"] {
        let tenths = (bytes * 10).div_ceil(unit);
        if tenths < 100 {
            return format!("{}.{}{letter}", tenths / 10, tenths % 10);
        }
        let whole = bytes.div_ceil(unit);
        if whole < 1024 {
            return format!("{whole}{letter}");
        }
        unit *= 1024;
    }
    let tenths = (bytes * 10).div_ceil(unit);
    if tenths < 100 {
        return format!("{}.{}E", tenths / 10, tenths % 10);
    }
    format!("{}E", bytes.div_ceil(unit))
}

/// Formats a number such as 1.25 M.
pub fn human_count(count: u64) -> String {
    scaled(count, &["", "k", "M", "G", "T", "P", "E"]).trim_end().to_owned()
}

fn scaled(value: u64, units: &[&str]) -> String {
    if value < 1000 {
        return format!("{value} {}", units[0]);
    }
    let value = u128::from(value);
    let mut scale = 1000;
    for unit in &units[1..] {
        // The most decimals that leave three digits after rounding.
        for (decimals, factor) in [(2, 100), (1, 10), (0, 1)] {
            let rounded = (value * factor + scale / 2) / scale;
            if rounded < 1000 {
                let (whole, rest) = (rounded / factor, rounded % factor);
                return match decimals {
                    0 => format!("{whole} {unit}"),
                    _ => format!("{whole}.{rest:0decimals$} {unit}"),
                };
            }
        }
        scale *= 1000;
    }
    // Not reached: the last unit covers 64 bits.
    format!("{value} {}", units[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (1005, "1.01 kB"),
            (9_994, "9.99 kB"),
            (9_995, "10.0 kB"),
            (99_949, "99.9 kB"),
            (99_950, "100 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (512 << 20, "537 MB"),
            (1_920_383_410_176, "1.92 TB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(human_size(bytes), shown);
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
        assert_eq!(human_count(1_234_567), "1.23 M");
        assert_eq!(human_count(12), "12");
    }
}
