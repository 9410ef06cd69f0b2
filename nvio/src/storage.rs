//! The disk that a filesystem is read from: a controller's, or an image without a controller.

use nvio_ext4::{BlockSource, OpenInode};
use nvio_iomap::{Disk, DiskQueue, ImageQueue, Tag};

use crate::device::Device;
use crate::error::{Error, Found};
use crate::image::ImagePart;
use crate::location::{Location, Range};
use crate::partition::{self, PartitionTable};
use crate::range::byte_range;
use crate::recognise::{self, Format};
use crate::volume_queue::VolumeQueue;

/// An open device, and the part of it that a [`Location`] selects.
#[allow(clippy::large_enum_variant, reason = "a volume has one")]
pub(crate) enum Storage {
    Controller {
        device: Device,
        whole: Disk,
        part: Disk,
    },
    /// A controller with one pair of I/O queues, which metadata and files share.
    OnePair {
        whole: ImagePart,
        part: ImagePart,
        block_bytes: u32,
        device: Device,
    },
    Image {
        block_bytes: u32,
        whole: ImagePart,
        part: ImagePart,
    },
}

impl Storage {
    /// Selects a part of a controller's namespace.
    pub(crate) fn of_device(device: Device, location: &Location) -> Result<Self, Error> {
        let (whole, part) = device.disks(location)?;
        if device.controller().granted_queues() < 2 {
            log::info!("the controller has one pair of I/O queues: files are read like metadata");
            let block_bytes = whole.namespace().block_size();
            let range = device.byte_range(location)?;
            let whole = ImagePart::of_device(device.source(&whole)?);
            let part = whole.slice(range.start, range.end - range.start)?;
            return Ok(Self::OnePair { whole, part, block_bytes, device });
        }
        Ok(Self::Controller { device, whole, part })
    }

    /// Selects a part of an image, whose only namespace is 1.
    pub(crate) fn of_image(
        whole: ImagePart,
        location: &Location,
        block_bytes: u32,
    ) -> Result<Self, Error> {
        if let Some(nsid) = location.namespace.filter(|&nsid| nsid != 1) {
            return Err(Error::NoSuchNamespace { nsid, active: vec![1] });
        }
        let part = match byte_range(location, block_bytes, || Ok(whole.clone()))? {
            None => whole.clone(),
            Some((offset, length)) => whole.slice(offset, length)?,
        };
        Ok(Self::Image { block_bytes, whole, part })
    }

    /// Returns a source of the metadata of the part.
    pub(crate) fn source(&self) -> Result<Box<dyn BlockSource>, Error> {
        Ok(match self {
            Self::Controller { device, part, .. } => Box::new(device.source(part)?),
            Self::OnePair { part, .. } | Self::Image { part, .. } => Box::new(part.clone()),
        })
    }

    /// Creates a queue with room for `depth` commands.
    pub(crate) fn queue(&self, depth: u16) -> Result<VolumeQueue<Tag<OpenInode>>, Error> {
        Ok(match self {
            Self::Controller { device, part, .. } => {
                VolumeQueue::Disk(DiskQueue::new(device.controller(), part, depth)?)
            }
            Self::OnePair { part, .. } | Self::Image { part, .. } => {
                VolumeQueue::Image(ImageQueue::new(part.clone(), depth.into())?)
            }
        })
    }

    pub(crate) fn device(&self) -> Option<&Device> {
        match self {
            Self::Controller { device, .. } | Self::OnePair { device, .. } => Some(device),
            Self::Image { .. } => None,
        }
    }

    /// Returns the partition table of the device, with the contents of the partitions.
    pub(crate) fn partitions(&self) -> Result<PartitionTable, Error> {
        Ok(partition::list(&*self.whole_source()?, self.block_bytes())?)
    }

    /// Returns the error of a filesystem that could not be opened. The error names another format or
    /// a partition table that is there instead.
    pub(crate) fn no_filesystem(&self, location: &Location, error: nvio_ext4::Error) -> Error {
        let device = location.device.to_string();
        let cause = match &error {
            nvio_ext4::Error::BadSuperblock { error, .. } => error,
            error => error,
        };
        let is_other = matches!(cause, nvio_ext4::Error::NotExt4 { .. });
        let format = self.format();
        if !is_other && format.is_none_or(Format::is_ext) {
            return Error::Filesystem { device, error };
        }
        let (partition, partitions) = self.other_partitions(location);
        let found = Found { format, partition, partitions };
        match found.is_nothing() {
            true => Error::Filesystem { device, error },
            false => Error::NotExt4 { device, found: Box::new(found) },
        }
    }

    /// Returns the recognised format of the part. Errors count as none, because the answer is only a hint.
    pub(crate) fn format(&self) -> Option<&'static Format> {
        let part = self.source().ok()?;
        recognise::at(&*part, 0, part.size())
    }

    /// Returns the partitions of the device, for a user who did not select one of them or the wrong one.
    fn other_partitions(&self, location: &Location) -> (Option<u32>, Option<PartitionTable>) {
        let partition = match location.range {
            Range::Bytes { .. } => return (None, None),
            Range::Whole if location.skip > 0 => return (None, None),
            Range::Whole => None,
            Range::Partition(number) => Some(number),
        };
        (partition, self.partitions().ok())
    }

    fn whole_source(&self) -> Result<Box<dyn BlockSource>, Error> {
        Ok(match self {
            Self::Controller { device, whole, .. } => Box::new(device.source(whole)?),
            Self::OnePair { whole, .. } | Self::Image { whole, .. } => Box::new(whole.clone()),
        })
    }

    fn block_bytes(&self) -> u32 {
        match self {
            Self::Controller { whole, .. } => whole.namespace().block_size(),
            Self::OnePair { block_bytes, .. } | Self::Image { block_bytes, .. } => *block_bytes,
        }
    }
}
