//! Access to the files of sysfs and procfs.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Error, PciAddress};

/// Longest attribute that is read; the kernel's own limit is one page.
const ATTRIBUTE_MAX: u64 = 64 << 10;
/// Longest table of procfs that is read.
const TABLE_MAX: u64 = 64 << 20;
/// How long a driver may take to let go of a device or to take it. An NVMe controller may need
/// CAP.TO, at most 127.5 s, but to become ready only; binding itself is a matter of milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

type WriteFn = dyn Fn(&Path, &[u8]) -> io::Result<()> + Send + Sync;

/// The files below `/sys`, `/proc`, `/dev` and `/run` by which the kernel is asked and told.
#[derive(Clone)]
pub struct Sysfs {
    root: PathBuf,
    /// The command that loads the module named by its last argument.
    pub(super) modprobe: Vec<String>,
    pub(super) patience: Duration,
    write: Arc<WriteFn>,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sysfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sysfs").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Sysfs {
    /// Those of this machine.
    pub fn new() -> Self {
        Self::at("/")
    }

    /// Those below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            modprobe: vec!["modprobe".to_owned()],
            patience: PATIENCE,
            write: Arc::new(write_attribute),
        }
    }

    /// Sends writes to `write` instead: a fake tree has no kernel that acts on them.
    #[cfg(test)]
    pub(super) fn with_writer(
        mut self,
        write: impl Fn(&Path, &[u8]) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.write = Arc::new(write);
        self
    }

    /// `path`, which must be relative, below the root.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// An absolute path as the kernel shows it, below the root.
    pub(super) fn rebase(&self, absolute: &Path) -> PathBuf {
        self.root.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// The directory of a PCI device.
    pub(super) fn device_dir(&self, address: PciAddress) -> PathBuf {
        self.path("sys/bus/pci/devices").join(address.to_string())
    }

    /// The directory of a PCI driver.
    pub(super) fn driver_dir(&self, driver: &str) -> PathBuf {
        self.path("sys/bus/pci/drivers").join(driver)
    }

    /// An attribute as text, without the newline at its end. `None` if there is no such file.
    pub(super) fn attribute(&self, path: &Path) -> Result<Option<String>, Error> {
        let bytes = read_at_most(path, ATTRIBUTE_MAX)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned()))
    }

    /// A number in decimal or, with `0x`, hexadecimal. `None` if there is no such file.
    pub(super) fn number(&self, path: &Path) -> Result<Option<u64>, Error> {
        let Some(text) = self.attribute(path)? else { return Ok(None) };
        let value = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        value.map(Some).map_err(|_| Error::malformed(path, &text, "a number"))
    }

    /// A table of procfs. `None` if it is not there or not for us to read.
    pub(super) fn table(&self, path: &Path) -> Option<Vec<u8>> {
        match read_at_most(path, TABLE_MAX) {
            Ok(bytes) => bytes,
            Err(error) => {
                log::debug!("{error}");
                None
            }
        }
    }

    /// Where a link leads, last component only: the form in which sysfs tells of drivers and
    /// groups. `None` if there is no such link.
    pub(super) fn link_name(&self, path: &Path) -> Result<Option<String>, Error> {
        match fs::read_link(path) {
            Ok(target) => Ok(target.file_name().map(|name| name.to_string_lossy().into_owned())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(Error::io("read the link", path, error)),
        }
    }

    /// Names in a directory, sorted; empty if there is no such directory. Names that are not
    /// UTF-8 are left out: the kernel makes none.
    pub(super) fn names(&self, path: &Path) -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", path, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| Error::io("list", path, error))?;
            names.extend(entry.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    /// Writes an attribute.
    pub(super) fn store(&self, path: &Path, value: &str) -> Result<(), Error> {
        log::debug!("{} <- {:?}", path.display(), value.trim_end());
        (self.write)(path, value.as_bytes()).map_err(|error| Error::io("write to", path, error))
    }
}

/// ENODEV and ENXIO come from attributes of a device that is going away.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}

fn read_at_most(path: &Path, most: u64) -> Result<Option<Vec<u8>>, Error> {
    let mut bytes = Vec::new();
    let result = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    match result {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(Error::io("read", path, error)),
    }
}

/// One write(2) of the whole value: an attribute takes a value, not a stream.
fn write_attribute(path: &Path, value: &[u8]) -> io::Result<()> {
    let written = OpenOptions::new().write(true).open(path)?.write(value)?;
    if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
