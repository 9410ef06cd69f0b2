//! Access to the files of sysfs and procfs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::address::PciAddress;
use super::error::Error;

/// Longest attribute that is read, bytes. The kernel's own limit is one page.
const ATTRIBUTE_BYTES_MAX: u64 = 64 << 10;
/// Longest table of procfs that is read, bytes.
const TABLE_BYTES_MAX: u64 = 64 << 20;
/// Longest wait for a driver to bind or release a device. Binding takes milliseconds: the kernel's
/// `nvme` driver waits for CAP.TO, at most 127.5 s, later.
const BIND_TIMEOUT: Duration = Duration::from_secs(10);

/// The name of the kernel driver that makes a device available to user space.
pub const VFIO_PCI: &str = "vfio-pci";

type WriteFn = dyn Fn(&Path, &[u8]) -> io::Result<()> + Send + Sync;

/// The files below `/sys`, `/proc`, `/dev` and `/run` that describe and control PCI devices.
///
/// The [module](super) has an example.
///
/// # Examples
/// ```no_run
/// use nvio_driver::pci::Sysfs;
///
/// let sysfs = Sysfs::new();
/// for device in sysfs.nvme_devices()? {
///     println!("{} is bound to {:?}", device.address, device.driver);
///     for disk in device.namespaces() {
///         println!("  {}: {} bytes", disk.name, disk.bytes);
///     }
///     for used in sysfs.uses(&device)? {
///         println!("  {used}");
///     }
/// }
///
/// // As root: take a controller from the kernel, and give it back.
/// let address = "0000:01:00.0".parse()?;
/// let device = sysfs.nvme_device(address)?;
/// println!("driver {:?}, IOMMU group {:?}", sysfs.driver(address)?, sysfs.iommu_group(address)?);
/// let bound = sysfs.bind(address)?;
/// println!("use /dev/vfio/{}", bound.group);
/// if let Some(processes) = sysfs.driven_by(address)? {
///     println!("driven by the processes {processes:?}");
/// }
/// let unbound = sysfs.unbind(address)?;
/// println!("bound to {:?} again", unbound.driver);
///
/// // The files of another root, for tests.
/// let other = Sysfs::at("/tmp/root");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, derive_more::Debug)]
#[debug("Sysfs({root:?})")]
pub struct Sysfs {
    root: PathBuf,
    /// The command that loads the module named by its last argument.
    pub(super) modprobe: Vec<String>,
    /// Longest wait for the kernel to act on a write, and for modprobe.
    pub(super) timeout: Duration,
    write: Arc<WriteFn>,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::new()
    }
}

impl Sysfs {
    /// Returns the files of this machine.
    ///
    /// See the [example](Self#examples).
    pub fn new() -> Self {
        Self::at("/")
    }

    /// Returns the files below `root`.
    ///
    /// See the [example](Self#examples).
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            modprobe: vec!["modprobe".to_owned()],
            timeout: BIND_TIMEOUT,
            write: Arc::new(write_attribute),
        }
    }

    /// Passes writes to `write`, because a fake tree has no kernel that acts on them.
    #[cfg(test)]
    pub(super) fn with_writer(
        mut self,
        write: impl Fn(&Path, &[u8]) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.write = Arc::new(write);
        self
    }

    /// Returns a relative path below the root.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// Returns an absolute path, as the kernel shows it, below the root.
    pub(super) fn rebase(&self, absolute: &Path) -> PathBuf {
        self.root.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// Returns the directory of a PCI device.
    pub(super) fn device_dir(&self, address: PciAddress) -> PathBuf {
        self.path("sys/bus/pci/devices").join(address.to_string())
    }

    /// Returns the directory of a PCI driver.
    pub(super) fn driver_dir(&self, driver: &str) -> PathBuf {
        self.path("sys/bus/pci/drivers").join(driver)
    }

    /// Reads an attribute as text, without its final newline. `None` if there is no such file.
    pub(super) fn attribute(&self, path: &Path) -> Result<Option<String>, Error> {
        let bytes = read_at_most(path, ATTRIBUTE_BYTES_MAX)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned()))
    }

    /// Reads a number in decimal or, with `0x`, hexadecimal. `None` if there is no such file.
    pub(super) fn number(&self, path: &Path) -> Result<Option<u64>, Error> {
        let Some(text) = self.attribute(path)? else { return Ok(None) };
        let value = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        value.map(Some).map_err(|_| Error::malformed(path, &text, "a number"))
    }

    /// Reads a table of procfs. `None` if it does not exist or this process may not read it.
    pub(super) fn table(&self, path: &Path) -> Option<Vec<u8>> {
        let read = read_at_most(path, TABLE_BYTES_MAX);
        read.inspect_err(|error| log::debug!("{error}")).ok().flatten()
    }

    /// Reads the last component of a link's target, which names a driver or a group in sysfs.
    /// `None` if there is no such link.
    pub(super) fn link_name(&self, path: &Path) -> Result<Option<String>, Error> {
        let target = unless_absent(fs::read_link(path), "read the link", path)?;
        let name = |target: PathBuf| Some(target.file_name()?.to_string_lossy().into_owned());
        Ok(target.and_then(name))
    }

    /// Lists the names in a directory, sorted; empty if there is no such directory. Names that are
    /// not UTF-8 are left out: the kernel creates none.
    pub(super) fn names(&self, path: &Path) -> Result<Vec<String>, Error> {
        let entries = unless_absent(fs::read_dir(path), "list", path)?.into_iter().flatten();
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

/// Returns `None` if a file does not exist. Attributes of a device that is being removed return
/// ENODEV and ENXIO.
fn unless_absent<T>(
    result: io::Result<T>,
    action: &'static str,
    path: &Path,
) -> Result<Option<T>, Error> {
    let absent = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            || matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
    };
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(Error::io(action, path, error)),
    }
}

fn read_at_most(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, Error> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut bytes));
    Ok(unless_absent(read, "read", path)?.map(|_| bytes))
}

/// Calls `look` until it returns a value, for at most `bound`, and returns the value.
pub(super) fn poll_for<T, E>(
    bound: Duration,
    mut look: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    const TICK: Duration = Duration::from_millis(5);
    let deadline = Instant::now() + bound;
    loop {
        let found = look()?;
        if found.is_some() || Instant::now() >= deadline {
            return Ok(found);
        }
        std::thread::sleep(TICK);
    }
}

/// Writes the whole value in one write(2), because each write to an attribute is a value.
fn write_attribute(path: &Path, value: &[u8]) -> io::Result<()> {
    let written = OpenOptions::new().write(true).open(path)?.write(value)?;
    if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
