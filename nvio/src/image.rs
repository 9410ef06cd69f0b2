//! Paths that are opened as images.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::error::Error;

/// Checks that `path` is a regular file or a block device.
///
/// ```
/// assert!(nvio::check_image("/dev/null".as_ref()).is_err());
/// ```
///
/// # Errors
/// [`Error::NotAnImage`]; [`Error::Image`] if the path cannot be looked at.
pub fn check(path: &Path) -> Result<(), Error> {
    let failed = |error| Error::Image { action: "open", path: path.to_owned(), error };
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    let refuse = |kind| Err(Error::NotAnImage { path: path.to_owned(), kind });
    match () {
        () if kind.is_file() || kind.is_block_device() => Ok(()),
        () if kind.is_dir() => refuse("directory"),
        () if kind.is_socket() => refuse("socket"),
        () if kind.is_char_device() => refuse("character device"),
        () => refuse("pipe"),
    }
}

/// Opens a block device exclusively (O_EXCL), which fails if it is mounted and keeps it from being
/// mounted. Returns `None` for a regular file.
pub(crate) fn claim(path: &Path) -> Result<Option<File>, Error> {
    if !fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device()) {
        return Ok(None);
    }
    let flags = OFlags::EXCL.bits().cast_signed();
    let file = File::options().read(true).write(true).custom_flags(flags).open(path);
    let failed = |error| Error::Image { action: "open exclusively", path: path.to_owned(), error };
    file.map(Some).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_cannot_be_an_image() {
        let folder = tempfile::tempdir().unwrap();
        let told = |path: &Path| check(path).unwrap_err().to_string();
        assert!(told(folder.path()).contains("is a directory, not an image"));
        assert!(told(Path::new("/dev/null")).contains("character device"));
        assert!(told(&folder.path().join("no")).contains("No such file"));
        let _listener = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        assert!(told(&folder.path().join("s")).contains("is a socket"));
    }
}
