//! Names of directory entries in a filesystem that is not trusted.

/// Returns true if a directory can have an entry of this name, other than `.` and `..`.
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
