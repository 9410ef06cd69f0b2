//! Names and paths that are not trusted, on the way to a terminal or into JSON.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Escapes everything in `bytes` that could control a terminal or break a line: control characters
/// as Rust writes them (`\n`, `\u{1b}`), bytes that are not UTF-8 as `\xff`. Backslashes stay
/// single, because the names are read by people, not parsed.
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_plain(c) { text.push(c) } else { text.extend(c.escape_default()) }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Formats text as one line without control characters.
pub fn one_line(text: &str) -> String {
    escaped(text.as_bytes())
}

/// Returns false for control characters, and for characters that change the direction of text.
pub fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}')
        && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Converts a path of the command line to an absolute path in the filesystem.
pub fn rooted(path: &OsStr) -> Vec<u8> {
    let bytes = path.as_bytes();
    if bytes.starts_with(b"/") { bytes.to_vec() } else { [b"/", bytes].concat() }
}

/// Returns the last component of a path; `/` for the root directory.
pub fn base_name(path: &[u8]) -> &[u8] {
    let last = path.split(|&byte| byte == b'/').rfind(|part| !part.is_empty());
    last.unwrap_or(b"/")
}

/// Returns the path of an entry of a directory in the filesystem.
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if directory.ends_with(b"/") { b"" } else { b"/" };
    [directory, slash, name].concat()
}

/// Formats bytes as two hexadecimal digits each.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_drive_a_terminal() {
        assert_eq!(escaped(b"plain name"), "plain name");
        assert_eq!(escaped("ä漢".as_bytes()), "ä漢");
        assert_eq!(escaped(b"a\nb\x1b[31m\x7f"), "a\\nb\\u{1b}[31m\\u{7f}");
        assert_eq!(escaped(b"x\xff\xc3"), "x\\xff\\xc3");
        assert_eq!(escaped("gpj.\u{202e}exe".as_bytes()), "gpj.\\u{202e}exe");
        assert_eq!(escaped("\u{9b}2J".as_bytes()), "\\u{9b}2J");
    }
}
