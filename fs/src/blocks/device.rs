//! The interface through which metadata is written.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use crate::blocks::source::{BlockSource, SourceError};

/// A device that a filesystem can be changed on: a [`BlockSource`] with writes.
///
/// Offsets and lengths are multiples of the filesystem's block size. Several threads may call at the
/// same time; writes of one block are never in flight together.
///
/// # Examples
/// ```
/// # let sample = nvio_testkit::image::Sample::new();
/// # let image = sample.path();
/// use std::fs::File;
///
/// use nvio_ext4::{BlockDevice, BlockSource, WriteRange};
///
/// let device = File::options().read(true).write(true).open(&image)?;
/// let mut block = [0; 1024];
/// device.read(0, &mut block)?;
/// device.write_many(&[WriteRange { offset: 0, bytes: &block }], true)?;
/// device.flush()?;
/// device.pause(std::time::Duration::ZERO);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub trait BlockDevice: BlockSource {
    /// Writes all ranges, in any order, and waits. A range that is `durable` survives a loss of
    /// power from then on; any other does after the next [`flush`](Self::flush).
    ///
    /// See the [example](BlockDevice#examples).
    ///
    /// # Errors
    /// Any error of the device. Each range may then have been written, in part or as a whole.
    fn write_many(&self, ranges: &[WriteRange<'_>], durable: bool) -> Result<(), SourceError>;

    /// Makes all writes durable that have completed.
    ///
    /// See the [example](BlockDevice#examples).
    ///
    /// # Errors
    /// Any error of the device: writes since the last flush may be lost.
    fn flush(&self) -> Result<(), SourceError>;

    /// Sleeps between two looks at a block that another host may write meanwhile.
    ///
    /// See the [example](BlockDevice#examples).
    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Bytes to write, and their place; see [`BlockDevice::write_many`].
///
/// See the [example](BlockDevice#examples).
#[derive(Clone, Copy, Debug)]
pub struct WriteRange<'b> {
    /// First byte, from the start of the filesystem.
    pub offset: u64,
    /// The data.
    pub bytes: &'b [u8],
}

/// An image, or a block device of the kernel.
impl BlockDevice for File {
    fn write_many(&self, ranges: &[WriteRange<'_>], durable: bool) -> Result<(), SourceError> {
        for range in ranges {
            self.write_all_at(range.bytes, range.offset)?;
        }
        if durable { BlockDevice::flush(self) } else { Ok(()) }
    }

    fn flush(&self) -> Result<(), SourceError> {
        Ok(self.sync_data()?)
    }
}

impl<D: BlockDevice + ?Sized> BlockDevice for Arc<D> {
    fn write_many(&self, ranges: &[WriteRange<'_>], durable: bool) -> Result<(), SourceError> {
        (**self).write_many(ranges, durable)
    }

    fn flush(&self) -> Result<(), SourceError> {
        (**self).flush()
    }

    fn pause(&self, time: Duration) {
        (**self).pause(time);
    }
}
