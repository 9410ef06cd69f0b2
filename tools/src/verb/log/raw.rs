//! Log pages in hexadecimal.

use std::process::ExitCode;

use clap::Args;
use nvio_driver::spec::NSID_ALL;
use nvio_driver::{Controller, LogPage};

use crate::args::Format;
use crate::error::Error;
use crate::name::hex;
use crate::output::print;
use crate::record::Record;
use crate::units::size;

/// Bytes shown by default: the size of the most common pages.
const DEFAULT_LENGTH: usize = 512;
const BYTES_PER_LINE: usize = 16;

/// Maximum number of bytes of a log page that are shown.
const BYTES_MAX: usize = 16 << 20;

/// A part of a log page that is not decoded.
#[derive(Clone, Copy, Debug, Args)]
pub struct RawRange {
    /// Show this many bytes of the page in hexadecimal. The default for pages that are not decoded
    /// is 512.
    #[arg(long, value_name = "SIZE", value_parser = length)]
    length: Option<usize>,
    /// Begin at this byte, a multiple of 4; implies hexadecimal.
    #[arg(long, value_name = "SIZE", value_parser = size::<u64>)]
    offset: Option<u64>,
}

impl RawRange {
    /// Returns true if the page shall not be decoded.
    pub fn is_given(self) -> bool {
        self.length.is_some() || self.offset.is_some()
    }
}

fn length(text: &str) -> Result<usize, String> {
    let bytes = Some(size(text)?).filter(|bytes| (1..=BYTES_MAX).contains(bytes));
    bytes.ok_or_else(|| format!("{text} is not in 1..={BYTES_MAX}"))
}

/// Prints bytes of log page `id`.
///
/// # Errors
/// If the controller does not have the page or the range.
pub fn show(
    controller: &Controller,
    id: u8,
    nsid: Option<u32>,
    range: RawRange,
    format: Format,
) -> Result<ExitCode, Error> {
    let offset = range.offset.unwrap_or(0);
    let mut bytes = vec![0; range.length.unwrap_or(DEFAULT_LENGTH)];
    let page = LogPage { nsid: nsid.unwrap_or(NSID_ALL), ..LogPage::new(id) };
    controller.read_log_page(page, offset, &mut bytes)?;
    let mut report = Record::default();
    report.json("id", id);
    report.json("offset", offset);
    report.json("hex", hex(&bytes));
    print(format, &report, || {
        let positions = (offset..).step_by(BYTES_PER_LINE);
        let lines = positions.zip(bytes.chunks(BYTES_PER_LINE));
        lines.map(|(at, part)| line(at, part) + "\n").collect()
    })
}

/// Formats lines of offset, bytes, and ASCII.
fn line(at: u64, bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
    let ascii = |&byte: &u8| if (0x20..0x7f).contains(&byte) { char::from(byte) } else { '.' };
    let text: String = bytes.iter().map(ascii).collect();
    format!("{at:08x}  {hex:<48} |{text}|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_offset_bytes_and_text() {
        let full = line(0x10, b"0123456789abcde\x1b");
        let hex = "30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 1b ";
        assert_eq!(full, format!("00000010  {hex} |0123456789abcde.|"));
        let short = line(1 << 40, b"\xff");
        assert_eq!(short, format!("10000000000  ff {} |.|", " ".repeat(45)));
    }
}
