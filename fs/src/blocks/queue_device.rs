//! Metadata on an NVMe namespace or partition that is written to.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use nvio_iomap::{DiskReader, DiskWriter};

use crate::blocks::device::{BlockDevice, WriteRange};
use crate::blocks::queue_source::QueueSource;
use crate::blocks::source::{BlockSource, ReadRange, SourceError};

/// A [`BlockDevice`] with queue pairs of its own: one for reads, one for writes. Concurrent callers
/// are serialised by mutexes; file data uses other queue pairs and does not wait.
///
/// # Examples
/// ```
/// # use nvio_driver::Options;
/// # use nvio_emulator::{Backing, Emulator, NamespaceConfig};
/// # use nvio_testkit::controller::Served;
/// # let sample = nvio_testkit::image::Sample::new();
/// # let namespace = NamespaceConfig::new(Backing::image(sample.path(), false));
/// # let options = Options { writable: true, ..Options::default() };
/// # let Served { controller, emulator } = Served::start(Emulator::builder().namespace(namespace), options);
/// use nvio_ext4::{JournaledFilesystem, QueueDevice};
/// use nvio_iomap::{Disk, DiskReader, DiskWriter, WritableDisk};
///
/// // `controller` is an NVMe controller that was opened for writing.
/// let reader = DiskReader::new(&controller, &Disk::whole(&controller.namespace(1)?), 32)?;
/// let disk = WritableDisk::whole(&controller.writable()?.writable_namespace(1)?);
/// let device = QueueDevice::new(reader, DiskWriter::new(&controller, &disk, 32)?);
/// let fs = JournaledFilesystem::open(device, nvio_ext4::Options::default())?;
/// fs.set_permissions(fs.lookup("/hello.txt")?.number(), 0o600)?;
/// fs.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct QueueDevice {
    reader: QueueSource,
    writer: Mutex<DiskWriter>,
}

impl fmt::Debug for QueueDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueDevice").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl QueueDevice {
    /// Creates a device from a reader and a writer of the disk or partition that holds the
    /// filesystem.
    ///
    /// See the [example](Self#examples).
    pub fn new(reader: DiskReader, writer: DiskWriter) -> Self {
        Self { reader: QueueSource::new(reader), writer: Mutex::new(writer) }
    }
}

impl BlockSource for QueueDevice {
    fn size(&self) -> u64 {
        self.reader.size()
    }

    fn block_size(&self) -> u32 {
        self.reader.block_size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.reader.read(offset, buf)
    }

    fn read_many(&self, ranges: &mut [ReadRange<'_>]) {
        self.reader.read_many(ranges);
    }
}

impl BlockDevice for QueueDevice {
    fn write_many(&self, ranges: &[WriteRange<'_>], durable: bool) -> Result<(), SourceError> {
        let ranges: Vec<(u64, &[u8])> =
            ranges.iter().map(|range| (range.offset, range.bytes)).collect();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(writer.write_many(&ranges, durable)?)
    }

    fn flush(&self) -> Result<(), SourceError> {
        Ok(self.writer.lock().unwrap_or_else(PoisonError::into_inner).flush()?)
    }
}
