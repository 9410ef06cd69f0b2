//! Names, which are any bytes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Longest name in bytes.
pub(crate) const NAME_MAX: usize = 255;

/// Returns the bytes of a name.
pub(crate) fn bytes(name: &OsStr) -> &[u8] {
    name.as_bytes()
}

/// Returns a name of these bytes.
pub(crate) fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
