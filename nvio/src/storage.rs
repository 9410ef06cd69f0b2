//! The disk that a filesystem is read from: a controller's, or an image without a controller.

use nvio_ext4::{BlockSource, OpenInode};
use nvio_iomap::{Disk, DiskQueue, ImageQueue, Tag};

use crate::device::Device;
use crate::error::Error;
use crate::image::ImagePart;
use crate::location::{Location, Range};
use crate::partition;
use crate::volume_queue::VolumeQueue;

/// An open device, and the part of it that a [`Location`] selects.
#[allow(clippy::large_enum_variant, reason = "a volume has one")]
pub(crate) enum Storage {
    Controller { device: Device, whole: Disk, part: Disk },
    Image { block_bytes: u32, whole: ImagePart, part: ImagePart },
}

impl Storage {
    /// Selects a part of a controller's namespace.
    pub(crate) fn of_device(device: Device, location: &Location) -> Result<Self, Error> {
        let (whole, part) = device.disks(location)?;
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
        let part = match location.range {
            Range::Whole => whole.clone(),
            Range::Bytes { offset, length } => whole.slice(offset, length)?,
            Range::Partition(number) => {
                let size = whole.bytes();
                let found = partition::find(&mut whole.stream(), number, block_bytes, size)?;
                whole.slice(found.offset, found.length)?
            }
        };
        Ok(Self::Image { block_bytes, whole, part })
    }

    /// Returns a source of the metadata of the part.
    pub(crate) fn source(&self) -> Result<Box<dyn BlockSource>, Error> {
        Ok(match self {
            Self::Controller { device, part, .. } => Box::new(device.source(part)?),
            Self::Image { part, .. } => Box::new(part.clone()),
        })
    }

    /// Creates a queue with room for `depth` commands.
    pub(crate) fn queue(&self, depth: u16) -> Result<VolumeQueue<Tag<OpenInode>>, Error> {
        Ok(match self {
            Self::Controller { device, part, .. } => {
                VolumeQueue::Disk(DiskQueue::new(device.controller(), part, depth)?)
            }
            Self::Image { part, .. } => {
                VolumeQueue::Image(ImageQueue::new(part.clone(), depth.into())?)
            }
        })
    }

    pub(crate) fn device(&self) -> Option<&Device> {
        match self {
            Self::Controller { device, .. } => Some(device),
            Self::Image { .. } => None,
        }
    }

    /// Returns the error of a filesystem that could not be opened.
    pub(crate) fn no_filesystem(&self, location: &Location, error: nvio_ext4::Error) -> Error {
        let partitioned = matches!(error, nvio_ext4::Error::NotExt4 { .. })
            && location.range == Range::Whole
            && self.is_partitioned();
        Error::Filesystem { device: location.device.to_string(), partitioned, error }
    }

    fn is_partitioned(&self) -> bool {
        match self {
            Self::Controller { device, whole, .. } => device.is_partitioned(whole),
            Self::Image { whole, block_bytes, .. } => {
                partition::is_partitioned(&mut whole.stream(), *block_bytes, whole.bytes())
            }
        }
    }
}
