//! Shell patterns: `*`, `?`, `[a-z]`, `[!a-z]`, and a backslash before a literal character.
//! A character is a UTF-8 character, or a byte that is not part of one.

/// Returns true if the pattern matches all of `text`. The time is at most the product of both
/// lengths.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (pattern, text);
    // The pattern after the last star, and the text at which it is tried next.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = p {
            p = rest;
            retry = Some((rest, t));
            continue;
        }
        if let Some((rest_p, rest_t)) = one(p, t) {
            (p, t) = (rest_p, rest_t);
            continue;
        }
        if p.is_empty() && t.is_empty() {
            return true;
        }
        // The star matches one more character.
        let Some((after, from)) = retry else { return false };
        let Some((_, rest)) = character(from) else { return false };
        retry = Some((after, rest));
        (p, t) = (after, rest);
    }
}

/// Matches the first element of the pattern, which is not a star, against the first character of
/// the text, and returns the rest of both.
fn one<'p, 't>(pattern: &'p [u8], text: &'t [u8]) -> Option<(&'p [u8], &'t [u8])> {
    let (found, rest) = character(text)?;
    match pattern {
        [b'?', after @ ..] => Some((after, rest)),
        [b'[', after @ ..] if let Some((is_in, after)) = set(after, found) => {
            is_in.then_some((after, rest))
        }
        [b'\\', after @ ..] if !after.is_empty() => {
            let (wanted, after) = character(after)?;
            (wanted == found).then_some((after, rest))
        }
        _ => {
            let (wanted, after) = character(pattern)?;
            (wanted == found).then_some((after, rest))
        }
    }
}

/// Returns whether `found` is in the set that `pattern` begins with, up to the closing bracket, and
/// the rest of the pattern. Returns `None` if the bracket is missing: the opening bracket is then a
/// character.
fn set(pattern: &[u8], found: u32) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match pattern {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    };
    let (mut is_in, mut first) = (false, true);
    loop {
        if let [b']', after @ ..] = rest
            && !first
        {
            return Some((is_in != negated, after));
        }
        first = false;
        let (low, after) = member(rest)?;
        rest = after;
        let mut high = low;
        if let [b'-', after @ ..] = rest
            && after.first().is_some_and(|&byte| byte != b']')
        {
            (high, rest) = member(after)?;
        }
        is_in |= (low..=high).contains(&found);
    }
}

fn member(text: &[u8]) -> Option<(u32, &[u8])> {
    match text {
        [b'\\', rest @ ..] if !rest.is_empty() => character(rest),
        _ => character(text),
    }
}

/// Splits the first character from the rest. A byte that is not part of a UTF-8 character is mapped
/// to a number that no character has.
fn character(text: &[u8]) -> Option<(u32, &[u8])> {
    let (&first, rest) = text.split_first()?;
    let length = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let whole = text.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
    match whole.and_then(|text| text.chars().next()) {
        Some(c) => Some((c.into(), &text[length..])),
        None => Some((0x11_0000 + u32::from(first), rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
