//! Comment lines that begin with a word that is no subject: `What`, `That`, `Who` and others.

use std::fs;
use std::path::PathBuf;

use crate::files::{below, crates};

/// First words that hide the subject of a sentence. CONTRIBUTING.md has the rule.
const FORBIDDEN: [&str; 8] =
    ["What", "The same", "That", "Who", "Whose", "Of", "Nobody", "Nothing"];

/// Number of comments that [`sample`] prints.
const SAMPLE: usize = 30;

/// Prints the forbidden lines of each crate and returns true if there are none.
pub fn check(chosen: &[&str]) -> bool {
    let mut total = 0;
    for folder in crates(chosen) {
        let mut count = 0;
        for file in below(&folder.join("src")) {
            let text = fs::read_to_string(&file).expect("a source file");
            for (index, line) in text.lines().enumerate() {
                if comment(line).is_some_and(is_forbidden) {
                    println!("{}:{}: {}", file.display(), index + 1, line.trim());
                    count += 1;
                }
            }
        }
        println!("{}: {count} comment lines with a forbidden first word", folder.display());
        total += count;
    }
    total == 0
}

/// Returns the text of a line that is a comment.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    let text = text.strip_prefix(['/', '!']).unwrap_or(text);
    Some(text.trim())
}

fn is_forbidden(text: &str) -> bool {
    FORBIDDEN.iter().any(|word| {
        text.strip_prefix(word).is_some_and(|rest| {
            !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_')
        })
    })
}

/// Prints 30 comments that `seed` draws from all crates.
pub fn sample(seed: u64) -> bool {
    let mut all: Vec<(PathBuf, usize, String)> = Vec::new();
    for folder in crates(&[]) {
        for file in below(&folder.join("src")) {
            let text = fs::read_to_string(&file).expect("a source file");
            let mut inside = false;
            for (index, line) in text.lines().enumerate() {
                let Some(_) = comment(line) else {
                    inside = false;
                    continue;
                };
                match all.last_mut() {
                    Some((_, _, text)) if inside => {
                        text.push('\n');
                        text.push_str(line.trim());
                    }
                    _ => all.push((file.clone(), index + 1, line.trim().to_owned())),
                }
                inside = true;
            }
        }
    }
    let mut state = seed;
    for _ in 0..SAMPLE.min(all.len()) {
        let (file, line, text) = all.swap_remove(below_limit(&mut state, all.len()));
        println!("{}:{line}\n{text}\n", file.display());
    }
    true
}

/// Draws a number below `limit` with SplitMix64.
fn below_limit(state: &mut u64, limit: usize) -> usize {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) % limit as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_first_words_are_forbidden() {
        for bad in ["    /// What it is.", "//! The same.", "// Of", "/// Nothing: else"] {
            assert!(comment(bad).is_some_and(is_forbidden), "{bad}");
        }
        for good in ["let x = 1; // What", "/// Whatever", "/// Offset", "/// The sameness", "//"] {
            assert!(!comment(good).is_some_and(is_forbidden), "{good}");
        }
    }
}
