//! The numbers of errors that programs see.

use std::io::ErrorKind;

use fuser::Errno;
use nvio_ext4::{BadAttribute, Error};

/// Returns the number for an error of the filesystem, as the kernel's ext4 gives it.
pub(crate) fn errno(error: &Error) -> Errno {
    let number = match error {
        Error::NameTooLong { .. } => libc::ENAMETOOLONG,
        Error::InvalidName { .. } | Error::IntoItself { .. } | Error::BadRange { .. } => {
            libc::EINVAL
        }
        Error::InodeNotInUse { .. } | Error::NoSuchInode { .. } => libc::ENOENT,
        Error::Protected { .. } => libc::EPERM,
        Error::SymlinkLoop { .. } => libc::ELOOP,
        Error::UnsupportedInode { .. } => libc::EOPNOTSUPP,
        Error::ChangeTooLarge { .. } => libc::EFBIG,
        // Another host has taken the filesystem, which can only be read then.
        Error::InUse(_) => libc::EROFS,
        // EFSCORRUPTED has the number of EUCLEAN.
        Error::Corrupt(_) => libc::EUCLEAN,
        Error::BadAttribute { why, .. } => attribute(why),
        error => of_kind(error.kind()),
    };
    known(number, error)
}

/// Returns the number for an error of an open file or of the device.
pub(crate) fn errno_of(error: &nvio::Error) -> Errno {
    match error {
        nvio::Error::File(error) | nvio::Error::Path { error, .. } => errno(error),
        error => known(of_kind(error.kind()), error),
    }
}

fn attribute(why: &BadAttribute) -> i32 {
    match why {
        BadAttribute::NameTooLong { .. } => libc::ERANGE,
        BadAttribute::ValueTooLong { .. } => libc::E2BIG,
        BadAttribute::Exists => libc::EEXIST,
        BadAttribute::Missing => libc::ENODATA,
        BadAttribute::NoRoom => libc::ENOSPC,
        BadAttribute::UserOfOther => libc::EPERM,
        BadAttribute::DefaultOfOther => libc::EACCES,
        BadAttribute::List => libc::EINVAL,
        _ => libc::EOPNOTSUPP,
    }
}

fn of_kind(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::NotFound => libc::ENOENT,
        ErrorKind::AlreadyExists => libc::EEXIST,
        ErrorKind::NotADirectory => libc::ENOTDIR,
        ErrorKind::IsADirectory => libc::EISDIR,
        ErrorKind::DirectoryNotEmpty => libc::ENOTEMPTY,
        ErrorKind::TooManyLinks => libc::EMLINK,
        ErrorKind::StorageFull => libc::ENOSPC,
        ErrorKind::FileTooLarge => libc::EFBIG,
        ErrorKind::CrossesDevices => libc::EXDEV,
        ErrorKind::PermissionDenied => libc::EACCES,
        ErrorKind::ReadOnlyFilesystem => libc::EROFS,
        ErrorKind::InvalidInput | ErrorKind::InvalidFilename => libc::EINVAL,
        ErrorKind::Unsupported => libc::EOPNOTSUPP,
        _ => libc::EIO,
    }
}

/// Logs errors that a program would not expect.
fn known(number: i32, error: &impl std::fmt::Display) -> Errno {
    if matches!(number, libc::EIO | libc::EUCLEAN) {
        log::warn!("{error}");
    }
    Errno::from_i32(number)
}
