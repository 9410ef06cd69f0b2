//! Names of a filesystem that nobody vouches for.

/// Whether a directory may have an entry of this name, besides `.` and `..`.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&b'/') && !name.contains(&0) && name != b"." && name != b".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_a_directory() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", b"\0"] {
            assert!(!is_name(name), "{name:?}");
        }
        for name in [&b"a"[..], b"...", b".a", b"\xff", b" ", b"-r", b"\n"] {
            assert!(is_name(name), "{name:?}");
        }
    }
}
