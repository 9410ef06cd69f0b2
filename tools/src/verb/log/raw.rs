//! Log pages in hexadecimal.

use nvio_driver::spec::NSID_ALL;
use nvio_driver::{Controller, LogPage};
use serde::Serialize;

use crate::args::{Format, RawRange};
use crate::error::Error;
use crate::output::Output;

/// Bytes shown by default: the size of the most common pages.
const DEFAULT_LENGTH: u32 = 512;
const BYTES_PER_LINE: usize = 16;

#[derive(Serialize)]
struct Report {
    id: u8,
    offset: u64,
    hex: String,
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
) -> Result<(), Error> {
    let offset = range.offset.unwrap_or(0);
    let length = range.length.unwrap_or(DEFAULT_LENGTH);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let page = LogPage { nsid: nsid.unwrap_or(NSID_ALL), ..LogPage::new(id) };
    controller.read_log_page(page, offset, &mut bytes)?;
    let mut out = Output::new();
    if format.json {
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        out.json(&Report { id, offset, hex })?;
    } else {
        for (index, part) in bytes.chunks(BYTES_PER_LINE).enumerate() {
            let at = offset.saturating_add((index * BYTES_PER_LINE) as u64);
            out.line(&line(at, part))?;
        }
    }
    out.flush()
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
