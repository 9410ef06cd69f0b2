//! A block device, a file or a generic NVMe device of the kernel.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nvio_perf::target::Error;
use rustix::fs::{major, minor};

/// The ioctl NVME_IOCTL_ID, which returns the namespace identifier.
const NVME_IOCTL_ID: libc::Ioctl = 0x4e40;

/// An open block device, file or generic NVMe device.
#[derive(Debug)]
pub struct Place {
    pub(crate) file: File,
    /// Namespace of a generic NVMe device, whose requests are NVMe commands.
    pub(crate) passthrough: Option<Namespace>,
    /// The kernel's driver has queues whose completions are polled.
    pub(crate) polls: bool,
    bytes: u64,
}

/// The namespace of a generic NVMe device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Namespace {
    pub(crate) nsid: u32,
    /// Logical block as a power of two.
    pub(crate) block_shift: u32,
}

impl Place {
    /// Opens a block device, a file or `/dev/ngXnY`.
    ///
    /// # Errors
    /// If the path cannot be opened, or is none of them.
    pub fn open(path: &Path, writable: bool) -> Result<Self, Error> {
        let failed = |error: io::Error| Error(format!("{}: {error}", path.display()));
        let kind = fs::metadata(path).map_err(failed)?.file_type();
        let mut options = OpenOptions::new();
        options.read(true).write(writable);
        if kind.is_char_device() {
            return Self::generic(path, &options).map_err(failed);
        }
        let mut file = options.custom_flags(libc::O_DIRECT).open(path).map_err(failed)?;
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        let device = if kind.is_block_device() { meta.rdev() } else { meta.dev() };
        Ok(Self { file, passthrough: None, polls: has_poll_queues(device), bytes })
    }

    fn generic(path: &Path, options: &OpenOptions) -> io::Result<Self> {
        let other = || io::Error::other("not a generic NVMe device (/dev/ngXnY)");
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(other)?;
        let disk = format!("nvme{}", name.strip_prefix("ng").ok_or_else(other)?);
        let folder = PathBuf::from("/sys/block").join(disk);
        let number = |file: &str| {
            let text = fs::read_to_string(folder.join(file))?;
            text.trim().parse::<u64>().map_err(io::Error::other)
        };
        let block = number("queue/logical_block_size")?;
        let (bytes, polls) = (number("size")? * 512, number("queue/io_poll")? == 1);
        let file = options.open(path)?;
        // SAFETY: the request has no argument and returns a number.
        let nsid = unsafe { libc::ioctl(file.as_raw_fd(), NVME_IOCTL_ID) };
        let nsid = u32::try_from(nsid).map_err(|_| io::Error::last_os_error())?;
        let namespace = Namespace { nsid, block_shift: block.trailing_zeros() };
        Ok(Self { file, passthrough: Some(namespace), polls, bytes })
    }

    /// Returns the size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Describes the kernel's interface.
    pub fn interface(&self) -> &'static str {
        match (self.passthrough.is_some(), self.polls) {
            (false, false) => "io_uring, by interrupts",
            (false, true) => "io_uring, polled",
            (true, false) => "io_uring passthrough, by interrupts",
            (true, true) => "io_uring passthrough, polled",
        }
    }

    /// Returns a second handle, for a queue.
    ///
    /// # Errors
    /// If the process has no file descriptors left.
    pub fn try_clone(&self) -> Result<Self, Error> {
        let file = self.file.try_clone().map_err(|error| Error::of(&error))?;
        let Self { passthrough, polls, bytes, .. } = *self;
        Ok(Self { file, passthrough, polls, bytes })
    }
}

/// Returns true if the driver of a disk or partition has poll queues.
fn has_poll_queues(device: u64) -> bool {
    let folder = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    ["queue/io_poll", "../queue/io_poll"].iter().any(|file| {
        fs::read_to_string(Path::new(&folder).join(file)).is_ok_and(|text| text.trim() == "1")
    })
}
