//! Values of extended attributes as setfattr(1) reads them, and access control lists as text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::acl_text;

/// Decodes the value of the attribute `name`.
///
/// # Errors
/// The syntax that the value violates.
pub fn decode(name: &[u8], text: &[u8]) -> Result<Vec<u8>, String> {
    match text {
        [b'0', b'x' | b'X', digits @ ..] => {
            hexadecimal(digits).ok_or_else(|| "0x is for pairs of hexadecimal digits".to_owned())
        }
        [b'0', b's' | b'S', rest @ ..] => {
            STANDARD.decode(rest).map_err(|error| format!("0s is for base64: {error}"))
        }
        [] => Ok(Vec::new()),
        _ if name.starts_with(b"system.posix_acl_") => acl_text::encode(text).ok_or_else(|| {
            "a list has entries such as u::rw,u:1000:r,g::r,m::r,o::-, with numbers of users"
                .to_owned()
        }),
        [b'"', inner @ .., b'"'] => Ok(unescaped(inner)),
        _ => Ok(unescaped(text)),
    }
}

fn hexadecimal(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |&[high, low]: &[u8; 2]| u8::try_from(digit(high)? << 4 | digit(low)?).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

/// Replaces `\` and one to three octal digits by the byte of this number, and `\\` and `\"` by the second
/// character. Another `\` stays.
fn unescaped(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    while let [first, rest @ ..] = text {
        text = rest;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.iter().take(3).take_while(|digit| (b'0'..=b'7').contains(*digit)).count();
        let (digits, after) = rest.split_at_checked(digits).unwrap_or_default();
        let number = digits.iter().fold(0u32, |sum, &digit| sum << 3 | u32::from(digit & 7));
        match (digits, after) {
            ([], [other @ (b'\\' | b'"'), after @ ..]) => {
                bytes.push(*other);
                text = after;
            }
            ([], _) => bytes.push(b'\\'),
            _ => {
                bytes.push(number.to_le_bytes()[0]);
                text = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    use super::*;

    /// Lets setfattr(1) set the value; `None` without the program or on a filesystem without attributes.
    fn by_setfattr(text: &[u8]) -> Option<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut command = Command::new("setfattr");
        command.args(["-n", "user.value", "-v"]).arg(OsStr::from_bytes(text)).arg(&file);
        if !command.output().ok()?.status.success() {
            return None;
        }
        let mut value = vec![0; 1000];
        let length = rustix::fs::getxattr(&file, "user.value", &mut value).unwrap();
        value.truncate(length);
        Some(value)
    }

    #[test]
    fn as_by_setfattr() {
        let texts: [&[u8]; 22] = [
            b"text",
            b"\"quoted\"",
            b"\"",
            b"\"open",
            b"a\\\\b",
            b"\"a\\\"b\"",
            b"\\101\\012\\377",
            b"\"\\000x\"",
            b"\\18",
            b"\\1\\777",
            b"\\x",
            b"a\\\"b",
            b"end\\",
            b"0x00ff10",
            b"0XAb",
            b"0x",
            b"0sAAEC",
            b"0SaGVsbG8=",
            b"0",
            b"-1",
            b"\xff\xfe",
            b" spaces ",
        ];
        let mut compared = 0;
        for text in texts {
            let Some(theirs) = by_setfattr(text) else { continue };
            assert_eq!(decode(b"user.value", text), Ok(theirs), "{}", text.escape_ascii());
            compared += 1;
        }
        println!("{compared} values compared");
        for text in [&b"0x1"[..], b"0x1g", b"0s!"] {
            decode(b"user.value", text).unwrap_err();
        }
    }

    #[test]
    fn lists() {
        let name = b"system.posix_acl_access";
        let encoded = decode(name, b"o::-,user:7:rw-,u::rwx,g::r,mask::x").unwrap();
        let mut expected = vec![2, 0, 0, 0];
        for (tag, bits, id) in [(1, 7, !0u32), (2, 6, 7), (4, 4, !0), (16, 1, !0), (32, 0, !0)] {
            expected.extend([tag, 0, bits, 0]);
            expected.extend(id.to_le_bytes());
        }
        assert_eq!(encoded, expected);
        assert_eq!(decode(name, b"0x0200").unwrap(), [2, 0]);
        for text in
            [&b"u::rwz"[..], b"u:name:r", b"m:5:r", b"u:r", b"u::r:x", b"x::r", b"u::r,,o::r"]
        {
            decode(name, text).unwrap_err();
        }
    }
}
