//! DEVICE: what it says, and the controller behind it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nvio_driver::pci::Sysfs;
use nvio_driver::{Address, Controller, Namespace, Options, WritableNamespace};
use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use rustix::fs::OFlags;

use crate::cli::ControllerArgs;
use crate::error::Error;

/// The DEVICE of a command line. What is no PCI address and does not begin with `vfio-user:` is
/// the path of an image; an image with such a name is given as `./NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// A controller that runs elsewhere.
    Address(Address),
    /// An image, to be served by a controller in this process.
    Image(PathBuf),
}

impl From<OsString> for DeviceName {
    fn from(name: OsString) -> Self {
        let address = name.to_str().and_then(|text| text.parse().ok());
        address.map_or_else(|| Self::Image(name.into()), Self::Address)
    }
}

impl FromStr for DeviceName {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(OsString::from(text).into())
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Image(path) => path.display().fmt(f),
        }
    }
}

/// An open controller.
pub struct Device {
    /// The controller. Dropped, and so shut down, before the one that serves it.
    pub controller: Controller,
    _emulator: Option<Emulator>,
    /// Keeps others from mounting a block device that is written to as an image.
    _exclusive: Option<File>,
}

impl Device {
    /// Opens the controller that a command line names.
    ///
    /// # Errors
    /// If it cannot be reached or served.
    pub fn open(args: &ControllerArgs) -> Result<Self, Error> {
        Self::open_with(args, false)
    }

    /// The same, in order to write to it.
    ///
    /// # Errors
    /// If it cannot be reached or served, or somebody else uses it.
    pub fn open_writable(args: &ControllerArgs) -> Result<Self, Error> {
        Self::open_with(args, true)
    }

    fn open_with(args: &ControllerArgs, writable: bool) -> Result<Self, Error> {
        match &args.device {
            DeviceName::Address(address) => {
                let controller = open(address, writable)?;
                Ok(Self { controller, _emulator: None, _exclusive: None })
            }
            DeviceName::Image(image) => Self::serve_with(image, args.lba_size, writable),
        }
    }

    /// Serves an image, read-only, from this process.
    ///
    /// # Errors
    /// If it is no image.
    pub fn serve(image: &Path, lba_size: u32) -> Result<Self, Error> {
        Self::serve_with(image, lba_size, false)
    }

    fn serve_with(image: &Path, lba_size: u32, writable: bool) -> Result<Self, Error> {
        check_image(image)?;
        let exclusive = if writable { exclusive(image)? } else { None };
        let namespace = NamespaceConfig::new(Backing::image(image, !writable)).block_size(lba_size);
        let emulator = Emulator::builder().namespace(namespace).start();
        let emulator = emulator.map_err(|source| Error::serve(image, source))?;
        let address = Address::VfioUser(emulator.socket().to_owned());
        let controller = Controller::open_with(&address, options(writable))?;
        Ok(Self { controller, _emulator: Some(emulator), _exclusive: exclusive })
    }

    /// The namespace asked for; else the only one; else namespace 1.
    ///
    /// # Errors
    /// If there is no such namespace.
    pub fn namespace(&self, wanted: Option<u32>) -> Result<Namespace, Error> {
        Ok(self.controller.namespace(self.choose(wanted)?)?)
    }

    /// The same, of a device that was opened in order to write to it.
    ///
    /// # Errors
    /// If there is no such namespace, or it is write protected.
    pub fn writable_namespace(&self, wanted: Option<u32>) -> Result<WritableNamespace, Error> {
        Ok(self.controller.writable()?.writable_namespace(self.choose(wanted)?)?)
    }

    fn choose(&self, wanted: Option<u32>) -> Result<u32, Error> {
        let there = self.controller.namespace_ids()?;
        let nsid = match (wanted, &there[..]) {
            (Some(nsid), _) => nsid,
            (None, [only]) => *only,
            (None, _) => 1,
        };
        among(&there, nsid)
    }

    /// `nsid`, if it is the ID of an active namespace.
    ///
    /// # Errors
    /// If it is not.
    pub fn active(&self, nsid: u32) -> Result<u32, Error> {
        among(&self.controller.namespace_ids()?, nsid)
    }
}

/// Two queues and their bounce memory need about 4 MiB. 8 MiB is what most systems let a user
/// lock, so that root is not needed, and is quick to pin.
fn options(writable: bool) -> Options {
    Options { arena_bytes: 8 << 20, writable, ..Options::default() }
}

/// Takes a block device, so that the system neither has it mounted nor mounts it; nothing for a
/// file.
fn exclusive(image: &Path) -> Result<Option<File>, Error> {
    if !fs::metadata(image).is_ok_and(|meta| meta.file_type().is_block_device()) {
        return Ok(None);
    }
    let flags = OFlags::EXCL.bits().cast_signed();
    let file = File::options().read(true).write(true).custom_flags(flags).open(image);
    file.map(Some).map_err(|error| Error::host("take for writing (is it mounted?)", image, error))
}

fn among(there: &[u32], nsid: u32) -> Result<u32, Error> {
    match there {
        [] => Err(Error::NoNamespaces),
        _ if there.contains(&nsid) => Ok(nsid),
        _ => {
            let there: Vec<String> = there.iter().map(u32::to_string).collect();
            Err(Error::NoNamespace { nsid, there: there.join(", ") })
        }
    }
}

fn open(address: &Address, writable: bool) -> Result<Controller, Error> {
    let hint = match address {
        Address::Pci(pci) => {
            // Tells what is missing better than a file that could not be opened.
            Sysfs::new().nvme_device(*pci)?;
            ""
        }
        Address::VfioUser(_) => " (start a vfio-user NVMe server on that socket first)",
    };
    Controller::open_with(address, options(writable)).map_err(|source| {
        let hint = match &source {
            nvio_driver::Error::VfioUser { .. } if was_hung_up_on(&source) => {
                " (its server serves one client at a time, and may have one)"
            }
            nvio_driver::Error::VfioUser { .. } | nvio_driver::Error::VfioUserSilent { .. } => hint,
            _ => "",
        };
        Error::Open { device: address.to_string(), hint, source }
    })
}

/// Whether a server accepted the connection and then closed it.
fn was_hung_up_on(error: &nvio_driver::Error) -> bool {
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
            );
        }
        next = cause.source();
    }
    false
}

/// Refuses what cannot be an image.
///
/// # Errors
/// [`Error::NoImage`], by its kind; [`Error::Host`].
pub fn check_image(image: &Path) -> Result<(), Error> {
    let meta = fs::metadata(image).map_err(|error| Error::host("open", image, error))?;
    let kind = meta.file_type();
    let refuse = |kind| Err(Error::NoImage { image: image.to_owned(), kind });
    match () {
        () if kind.is_file() || kind.is_block_device() => Ok(()),
        () if kind.is_dir() => refuse("directory"),
        () if kind.is_socket() => refuse("socket (write it as vfio-user:SOCKET)"),
        () if kind.is_char_device() => refuse("character device"),
        () => refuse("pipe"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn three_kinds_of_device() {
        let name = |text: &str| text.parse::<DeviceName>().unwrap();
        assert!(matches!(name("0000:01:00.0"), DeviceName::Address(Address::Pci(_))));
        assert!(matches!(name("01:00.0"), DeviceName::Address(Address::Pci(_))));
        assert!(matches!(name("vfio-user:/s"), DeviceName::Address(Address::VfioUser(_))));
        for image in ["disk.img", "./01:00.0", "/dev/sda", "01:00.9", ""] {
            assert_eq!(name(image), DeviceName::Image(image.into()));
        }
        let raw = OsString::from_vec(b"a\xff".to_vec());
        assert_eq!(DeviceName::from(raw.clone()), DeviceName::Image(raw.into()));
    }

    #[test]
    fn what_cannot_be_an_image() {
        let folder = tempfile::tempdir().unwrap();
        let told = |path: &Path| crate::error::one_line(&check_image(path).unwrap_err());
        assert!(told(folder.path()).contains("is a directory; DEVICE is"));
        assert!(told(Path::new("/dev/null")).contains("character device"));
        assert!(told(&folder.path().join("no")).contains("No such file"));
        let _listener = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        assert!(told(&folder.path().join("s")).contains("vfio-user:SOCKET"));
    }
}
