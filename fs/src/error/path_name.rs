//! Paths in errors.

use std::fmt;

/// A path in an error message: any bytes, printed on one line with unprintable characters escaped.
///
/// # Examples
/// ```
/// use nvio_ext4::PathName;
///
/// let name = PathName::from(&b"/tmp/a\nb"[..]);
/// assert_eq!(name.as_bytes(), b"/tmp/a\nb");
/// println!("{name}");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathName(Box<[u8]>);

impl PathName {
    /// Returns the bytes of the path.
    ///
    /// See the [example](Self#examples).
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for PathName {
    fn from(path: &[u8]) -> Self {
        Self(path.into())
    }
}

impl fmt::Display for PathName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_print_on_one_line() {
        let path = PathName::from(&b"/a\nb\xffc\x1b/\xc3\xa4"[..]);
        assert_eq!(path.to_string(), "/a\\nb\\xffc\\u{1b}/\u{e4}");
    }
}
