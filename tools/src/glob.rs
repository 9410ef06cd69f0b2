//! Shell patterns: `*`, `?`, `[a-z]`, `[!a-z]`, and a backslash before a literal character.
//! A character is a UTF-8 character, or a byte that is not part of one.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use regex::{Regex, RegexBuilder};

/// A shell pattern, as a regular expression.
#[derive(Clone, Debug)]
pub struct Glob(Regex);

impl Glob {
    /// Translates a pattern.
    ///
    /// # Errors
    /// If the pattern is too long.
    pub fn new(pattern: OsString) -> Result<Self, regex::Error> {
        Self::with_case(pattern, false)
    }

    /// Translates a pattern that matches upper and lower case alike.
    ///
    /// # Errors
    /// If the pattern is too long.
    pub fn ignoring_case(pattern: OsString) -> Result<Self, regex::Error> {
        Self::with_case(pattern, true)
    }

    fn with_case(pattern: OsString, ignore_case: bool) -> Result<Self, regex::Error> {
        let pattern = text(pattern.as_bytes());
        let mut rest = pattern.chars();
        let mut regex = String::from(r"(?s)\A");
        while let Some(c) = rest.next() {
            match c {
                '*' => regex += ".*",
                '?' => regex.push('.'),
                '[' if let Some((set, after)) = set(rest.as_str()) => {
                    regex += &set;
                    rest = after.chars();
                }
                '\\' => regex += &literal(rest.next().unwrap_or(c)),
                _ => regex += &literal(c),
            }
        }
        RegexBuilder::new(&(regex + r"\z")).case_insensitive(ignore_case).build().map(Self)
    }

    /// Returns true if the pattern matches all of `name`.
    pub fn matches(&self, name: &[u8]) -> bool {
        self.0.is_match(&text(name))
    }
}

/// Translates the set that `pattern` begins with, up to the closing bracket, and returns the rest of
/// the pattern. Returns `None` if the bracket is missing: the opening bracket is then a character.
fn set(pattern: &str) -> Option<(String, &str)> {
    let members = pattern.strip_prefix(['!', '^']).unwrap_or(pattern);
    // A class without characters: the set may have no other member.
    let mut class = String::from(r"[^\x{0}-\x{10ffff}]");
    let mut rest = members.chars();
    loop {
        let is_first = rest.as_str().len() == members.len();
        let low = match rest.next()? {
            ']' if !is_first => break,
            '\\' => rest.next()?,
            c => c,
        };
        let mut high = low;
        if let Some(after) = rest.as_str().strip_prefix('-').filter(|after| !after.starts_with(']'))
        {
            rest = after.chars();
            high = match rest.next()? {
                '\\' => rest.next()?,
                c => c,
            };
        }
        if low <= high {
            class += &format!("{}-{}", literal(low), literal(high));
        }
    }
    let not = if members.len() < pattern.len() { "^" } else { "" };
    Some((format!("[{not}{class}]"), rest.as_str()))
}

fn literal(c: char) -> String {
    regex::escape(c.encode_utf8(&mut [0; 4]))
}

/// Converts bytes that are not UTF-8 to characters for private use.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.into();
    }
    let private = |&byte: &u8| char::from_u32(0x10_ff00 + u32::from(byte)).unwrap_or('\u{fffd}');
    let characters = bytes
        .utf8_chunks()
        .flat_map(|chunk| chunk.valid().chars().chain(chunk.invalid().iter().map(private)));
    characters.collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        Glob::new(OsString::from_vec(pattern.to_vec())).unwrap().matches(text)
    }

    #[test]
    fn patterns() {
        for (pattern, yes, no) in [
            ("abc", &["abc"][..], &["ab", "abcd", "Abc", ""][..]),
            ("", &[""], &["a"]),
            ("*", &["", "a", ".a", "a/b", "\u{e4}"], &[]),
            ("a*b", &["ab", "axb", "abab"], &["a", "aba", "b"]),
            ("*.c", &["x.c", ".c", ".c.c"], &["x.cc", "c"]),
            ("?", &["a", "\u{e4}", "\u{1f600}"], &["", "ab"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "x", "a"]),
            ("[!a-c]x", &["dx", "-x"], &["ax", "x"]),
            ("[^a]", &["b"], &["a"]),
            ("[]a]", &["]", "a"], &["b"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("[\\]a]", &["]", "a"], &["\\"]),
            ("[\u{e0}-\u{ef}]", &["\u{e4}"], &["a"]),
            ("[a", &["[a"], &["a"]),
            ("[z-a]x", &[], &["z", "zx", "ax"]),
            ("[!z-a]", &["z", "\u{e4}"], &["", "ab"]),
            ("??", &["ab", "\u{e4}a"], &["\u{e4}", "a"]),
            ("a.(b|c)+", &["a.(b|c)+"], &["axb"]),
            ("\\*", &["*"], &["a", "\\*"]),
            ("a\\", &["a\\"], &["a"]),
            ("**a**b**", &["ab", "xaxbx"], &["ba"]),
        ] {
            for text in yes {
                assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
            }
            for text in no {
                assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
            }
        }
        assert!(matches(b"?\xff", b"\xfe\xff") && !matches(b"\xfe", b"\xff"));
    }

    #[test]
    fn no_pattern_takes_forever() {
        let text = vec![b'a'; 255];
        let pattern = b"*a".repeat(120);
        assert!(matches(&pattern, &text));
        assert!(!matches(&[&pattern[..], b"b"].concat(), &text));
    }
}
