//! The last name of a path, and the directory that has it.

use nvio_ext4::{Error as FsError, InodeNumber, JournaledFilesystem, Subject};

use crate::error::Error;

/// The last name of a path.
pub(crate) struct Place<'p> {
    /// The directory.
    pub parent: InodeNumber,
    /// The name in it.
    pub name: &'p [u8],
}

/// Splits a path into that of the directory and the last name. The third value is true if a slash comes
/// after the name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8], bool) {
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    let (trimmed, slashes) = path.split_at(end);
    let start = trimmed.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let (parent, name) = trimmed.split_at(start);
    (parent, name, !slashes.is_empty())
}

/// Looks up the directory of a path whose last name is that of a directory.
pub(crate) fn place_of_directory<'p>(
    fs: &JournaledFilesystem,
    path: &'p [u8],
) -> Result<Place<'p>, FsError> {
    let (parent, name, _) = split(path);
    if matches!(name, b"" | b"." | b"..") {
        return Err(FsError::InvalidName { name: path.into() });
    }
    Ok(Place { parent: fs.lookup(parent)?.number(), name })
}

/// Looks up the directory of a path whose last name is that of another file, which no slash follows.
pub(crate) fn place<'p>(fs: &JournaledFilesystem, path: &'p [u8]) -> Result<Place<'p>, FsError> {
    match split(path) {
        (.., true) => Err(FsError::NotADirectory { subject: Subject::Path(path.into()) }),
        _ => place_of_directory(fs, path),
    }
}

/// Returns the error of a path, whose last name the filesystem's error may have.
pub(crate) fn at(path: &[u8]) -> impl Fn(FsError) -> Error + '_ {
    move |error| {
        let error = match error {
            FsError::AlreadyExists { .. } => FsError::AlreadyExists { name: path.into() },
            FsError::NotFound { .. } => FsError::NotFound { path: path.into() },
            error => error,
        };
        Error::path(path)(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split() {
        for (path, parts) in [
            (&b"/a/b"[..], (&b"/a/"[..], &b"b"[..], false)),
            (b"a", (b"", b"a", false)),
            (b"//a//b//", (b"//a//", b"b", true)),
            (b"/", (b"", b"", true)),
            (b"", (b"", b"", false)),
        ] {
            assert_eq!(split(path), parts, "{}", path.escape_ascii());
        }
    }
}
