//! Case folding of names, as in the kernel's encoding "utf8-12.1.0". Names with the same folded
//! form are equal.
//!
//! Each character is replaced by its full case folding (statuses C and F) in canonical
//! decomposition, default-ignorable characters are dropped, and combining marks are put in
//! canonical order. Unicode guarantees that these properties of an assigned character never change,
//! so tables of any later version can be used. Characters that were unassigned in version 12.1 are
//! kept. Names that are not valid UTF-8 are not folded.

use std::sync::LazyLock;

use caseless::Caseless;
use regex_syntax::hir::{Class, HirKind};
use unicode_normalization::char::{canonical_combining_class, decompose_canonical};

/// A set of characters: sorted ranges that neither overlap nor touch.
struct Ranges(Box<[(char, char)]>);

impl Ranges {
    /// Returns the characters of a Unicode property. An unknown property yields an empty set; a
    /// test verifies that all properties used here are known.
    fn of(property: &str) -> Self {
        let parsed = regex_syntax::parse(property).map(regex_syntax::hir::Hir::into_kind);
        let Ok(HirKind::Class(Class::Unicode(class))) = parsed else { return Self([].into()) };
        Self(class.iter().map(|range| (range.start(), range.end())).collect())
    }

    fn contains(&self, c: char) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= c);
        let range = after.checked_sub(1).and_then(|at| self.0.get(at));
        range.is_some_and(|&(_, last)| c <= last)
    }
}

/// Characters assigned in version 12.1.
static ASSIGNED: LazyLock<Ranges> = LazyLock::new(|| Ranges::of(r"\p{Age=12.1}"));
/// Default-ignorable characters, assigned or not, except the one that became ignorable after
/// version 12.1.
static IGNORABLE: LazyLock<Ranges> =
    LazyLock::new(|| Ranges::of(r"[\p{Default_Ignorable_Code_Point}--\x{180f}]"));

/// Folds a name. Returns `None` if the name is not UTF-8. The folded name may be empty, or longer
/// than the maximum of a name.
pub(crate) fn fold(name: &[u8]) -> Option<Vec<u8>> {
    if name.is_ascii() {
        return Some(name.to_ascii_lowercase());
    }
    let mut folded = Folded::default();
    str::from_utf8(name).ok()?.chars().for_each(|c| folded.add(c));
    folded.end_marks();
    Some(folded.text.into_bytes())
}

/// Returns true if `name`, once folded, equals `folded`.
pub(crate) fn is_equal(folded: &[u8], name: &[u8]) -> bool {
    if name.is_ascii() {
        return folded.eq_ignore_ascii_case(name);
    }
    let Ok(name) = str::from_utf8(name) else { return false };
    let mut left = folded;
    let mut other = Folded::default();
    // Compare after each character, because most names already differ in the first.
    for c in name.chars() {
        other.add(c);
        let Some(rest) = left.strip_prefix(other.text.as_bytes()) else { return false };
        left = rest;
        other.text.clear();
    }
    other.end_marks();
    left == other.text.as_bytes()
}

/// Folds and decomposes a character until it no longer changes. The recursion is only a few calls
/// deep, because each step brings a character closer to its final form.
fn fold_char(c: char, push: &mut impl FnMut(char)) {
    let mut folded = std::iter::once(c).default_case_fold();
    match (folded.next(), folded.next()) {
        (Some(same), None) if same == c => {
            let mut is_same = false;
            decompose_canonical(c, |part| is_same |= part == c);
            if is_same {
                push(c);
            } else {
                let mut parts = Vec::new();
                decompose_canonical(c, |part| parts.push(part));
                parts.into_iter().for_each(|part| fold_char(part, push));
            }
        }
        (first, second) => {
            let parts: Vec<char> = first.into_iter().chain(second).chain(folded).collect();
            parts.into_iter().for_each(|part| fold_char(part, push));
        }
    }
}

/// A folded name under construction.
#[derive(Default)]
struct Folded {
    text: String,
    /// Combining marks not yet in canonical order, with their combining classes.
    marks: Vec<(u8, char)>,
}

impl Folded {
    /// Folds a character of the name and appends the result.
    fn add(&mut self, c: char) {
        if c.is_ascii() {
            self.end_marks();
            self.text.push(c.to_ascii_lowercase());
        } else if IGNORABLE.contains(c) {
            // A dropped character still separates the marks on both sides of it.
            self.end_marks();
        } else if ASSIGNED.contains(c) {
            fold_char(c, &mut |c| self.push(c));
        } else {
            self.end_marks();
            self.text.push(c);
        }
    }

    /// Appends a character of a folded form.
    fn push(&mut self, c: char) {
        match canonical_combining_class(c) {
            0 => {
                self.end_marks();
                self.text.push(c);
            }
            class => self.marks.push((class, c)),
        }
    }

    fn end_marks(&mut self) {
        // The sort is stable, as marks of the same class must keep their order.
        self.marks.sort_by_key(|&(class, _)| class);
        self.text.extend(self.marks.drain(..).map(|(_, c)| c));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::htree::hash::tests::dx_hash;
    use crate::format::dir_hash::{Chars, Function, HashParameters};

    fn folded(name: &str) -> String {
        String::from_utf8(fold(name.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn examples() {
        assert_eq!(folded("README.Txt"), "readme.txt");
        assert_eq!(folded("Stra\u{df}e"), "strasse");
        assert_eq!(folded("\u{1e9e}"), "ss");
        assert_eq!(folded("\u{3a3}\u{3c3}\u{3c2}"), "\u{3c3}\u{3c3}\u{3c3}");
        assert_eq!(folded("\u{130}"), "i\u{307}");
        assert_eq!(folded("\u{c5}"), "a\u{30a}");
        assert_eq!(folded("\u{212b}"), "a\u{30a}");
        assert_eq!(folded("\u{fb03}"), "ffi");
        assert_eq!(folded("\u{d55c}"), "\u{1112}\u{1161}\u{11ab}");
        // Marks are sorted by class, the lower one first.
        assert_eq!(folded("a\u{301}\u{323}"), "a\u{323}\u{301}");
        // An ignorable character is dropped, but marks do not move across it.
        assert_eq!(folded("a\u{301}\u{34f}\u{323}"), "a\u{301}\u{323}");
        assert_eq!(folded("\u{200d}"), "");
        // Compatibility characters are folded, but not decomposed.
        assert_eq!(folded("\u{2460}\u{ff21}"), "\u{2460}\u{ff41}");
    }

    #[test]
    fn characters_that_are_not_folded() {
        assert_eq!(fold(b"A\xff"), None);
        assert_eq!(fold(b"A\xed\xa0\x80"), None, "a surrogate");
        assert_eq!(fold(b"A\xc0\xaf"), None, "longer than it needs to be");
        // U+A7C7 is an upper-case letter that was assigned in 13.0. U+0378 was never assigned.
        assert_eq!(folded("A\u{a7c7}\u{378}"), "a\u{a7c7}\u{378}");
        assert!(is_equal("a\u{301}b".as_bytes(), "\u{c1}B".as_bytes()));
        assert!(is_equal("a\u{301}".as_bytes(), "\u{c1}\u{200d}".as_bytes()));
        assert!(!is_equal("a\u{301}".as_bytes(), "\u{c1}B".as_bytes()));
        assert!(!is_equal("a\u{301}b".as_bytes(), "\u{c1}".as_bytes()));
        assert!(is_equal(b"", "\u{200d}".as_bytes()) && !is_equal(b"", b"\xff"));
        assert_eq!(folded("\u{180f}"), "\u{180f}", "ignorable only since 14.0");
    }

    #[test]
    fn tables_are_there() {
        assert!(ASSIGNED.0.len() > 600 && ASSIGNED.contains('\u{10ffff}'));
        assert!(IGNORABLE.0.len() >= 15 && !IGNORABLE.contains('a'));
        assert!(IGNORABLE.contains('\u{ad}') && IGNORABLE.contains('\u{fe0f}'));
    }

    /// Compares with the hashes that debugfs computes with the kernel's tables. It hashes the
    /// folded form of valid UTF-8, and other names unchanged.
    fn compare_with_debugfs(names: &[String]) {
        let folder = tempfile::tempdir().unwrap();
        let mut script = String::new();
        for name in names {
            script.push_str(&format!("dx_hash -h half_md4 -c -e utf8 {name}\n"));
        }
        let theirs = dx_hash(folder.path(), script.as_bytes());
        assert_eq!(theirs.len(), names.len());
        let parameters = HashParameters { seed: [0; 4], chars: None, default_function: 1 };
        let wrong: Vec<String> = names
            .iter()
            .zip(theirs)
            .filter(|(name, theirs)| {
                let folded = fold(name.as_bytes()).unwrap_or_else(|| name.as_bytes().to_vec());
                let ours = parameters.hash(Function::HalfMd4, Chars::Signed, &folded).unwrap();
                (ours.major, ours.minor) != *theirs
            })
            .map(|(name, _)| name.escape_unicode().to_string())
            .collect();
        assert!(
            wrong.is_empty(),
            "{} of {}: {:?}",
            wrong.len(),
            names.len(),
            &wrong[..wrong.len().min(40)]
        );
    }

    /// Returns names that contain one of the characters each, after an upper-case letter, which
    /// shows whether the name was folded.
    fn names_with(characters: impl Iterator<Item = u32>) -> Vec<String> {
        characters
            .filter_map(char::from_u32)
            .filter(|c| !c.is_whitespace() && !c.is_ascii() && !c.is_control())
            .map(|c| format!("A{c}Z"))
            .collect()
    }

    #[test]
    fn debugfs_agrees() {
        // All blocks that contain letters with case, and a sample of the other characters (all of
        // them if NVIO_LONG is set).
        let letters = (0x80..0x600).chain(0x1c80..0x2190).chain(0xa640..0xa800);
        let step = if std::env::var_os("NVIO_LONG").is_some() { 1 } else { 211 };
        let mut names = names_with(letters.chain((0x600..0x11_0000).step_by(step)));
        // Each character also between marks of different classes, to test whether it separates
        // them.
        let mark = |name: &String| {
            let (start, end) = name.split_at(name.len() - 1);
            format!("A\u{301}{}\u{335}{end}", &start[1..])
        };
        names.extend(names.iter().map(mark).collect::<Vec<_>>());
        // Random sequences of marks, with ignorable characters between them.
        let pieces = [
            "\u{301}", "\u{323}", "\u{345}", "\u{34f}", "\u{200d}", "\u{1e9e}", "\u{ac01}",
            "\u{11a8}", "\u{5b0}", "A", "\u{f73}", "\u{1f82}",
        ];
        let mut random = 1usize;
        for _ in 0..3000 {
            let mut name = String::new();
            for _ in 0..1 + random % 9 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                name.push_str(pieces[(random >> 33) % pieces.len()]);
            }
            names.push(name);
        }
        compare_with_debugfs(&names);
    }
}
