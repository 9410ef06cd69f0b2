//! The socket that clients connect to.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::Error;

/// A listening socket that is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    /// Identity of the file that was created, so that no other file is removed.
    identity: Identity,
}

impl Socket {
    /// Listens at `path`. A socket without a listener is replaced. Only the user may connect.
    ///
    /// # Errors
    /// [`Error::SocketInUse`], [`Error::NotASocket`], [`Error::Socket`].
    pub(crate) fn bind(path: &Path) -> Result<(Self, UnixListener), Error> {
        let failed = |source| Error::Socket { path: path.to_owned(), source };
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        let identity = identity(path).map_err(failed)?;
        Ok((Self { path: path.to_owned(), identity }, listener))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Device, inode and time of change of a file, because inode numbers are reused.
type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> io::Result<Identity> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
}

/// Removes a socket that a dead process left.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Socket { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed(source)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Error::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(source) => Err(failed(source)),
        Ok(_) => Err(Error::SocketInUse { path: path.to_owned() }),
    }
}

/// Creates a private directory for the default socket, mode 0700, which is removed when it is
/// dropped.
pub(crate) fn private_directory() -> Result<TempDir, Error> {
    let only_me = Permissions::from_mode(0o700);
    let made = tempfile::Builder::new().prefix("nvio-").permissions(only_me).tempdir();
    made.map_err(|source| Error::Socket { path: std::env::temp_dir(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = private_directory().unwrap();
        let mode = std::fs::metadata(directory.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let path = directory.path().join("socket");
        let (socket, listener) = Socket::bind(&path).unwrap();
        assert!(matches!(Socket::bind(&path), Err(Error::SocketInUse { .. })));
        drop(listener);
        let (newer, _listener) = Socket::bind(&path).unwrap();
        // Dropping the older one does not remove the newer one's file.
        drop(socket);
        assert!(path.exists());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(newer);
        assert!(!path.exists());
    }

    #[test]
    fn file_that_is_not_a_socket_is_not_removed() {
        let directory = private_directory().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "keep").unwrap();
        assert!(matches!(Socket::bind(&path), Err(Error::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "keep");
        let nowhere = directory.path().join("missing/socket");
        assert!(matches!(Socket::bind(&nowhere), Err(Error::Socket { .. })));
    }
}
