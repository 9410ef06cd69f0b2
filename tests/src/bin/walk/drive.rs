//! A modelled drive on a stepped clock: the driver and the controller in this thread. Time passes
//! only while the driver waits for the device, so it does not depend on this machine.

use std::path::Path;
use std::time::Duration;

use nvio_driver::{Options, QueuePair, WritableController};
use nvio_emulator::{Backing, Config, NamespaceConfig, Service};
use nvio_ext4::{FileQueue, Filesystem, QueueSource};
use nvio_iomap::{Disk, DiskQueue, DiskReader, PageCache, WritableDisk};
use nvio_tests::simulator::Wrong;
use nvio_tests::simulator::device::Device;
use nvio_tests::walk::Result;
use nvio_tests::walk::image::BLOCK;

/// A fast drive: time of a read, reads and bytes per second.
pub(crate) const LATENCY: Duration = Duration::from_micros(60);
const IOPS: u64 = 3_200_000;
pub(crate) const BANDWIDTH: u64 = 14_000_000_000;
/// Queue depths of `nvio`, for metadata and for data.
const METADATA_DEPTH: u16 = 32;
const DATA_DEPTH: u16 = 128;
/// Reads of the namespace: their size and number in flight.
const RAW_BYTES: u64 = 128 << 10;
const RAW_DEPTH: usize = 64;

/// Use of the drive.
#[derive(Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) time: Duration,
    pub(crate) commands: u64,
}

/// The drive. The driver's side is dropped first.
pub(crate) struct Drive {
    controller: WritableController,
    device: Device,
}

impl Drive {
    /// Creates a drive with the contents of `image`.
    pub(crate) fn new(image: &Path) -> Result<Self> {
        let backing = Backing::image(image, false);
        let namespace = NamespaceConfig::new(backing).block_size(BLOCK as u32);
        let service = Service::new().latency(LATENCY).iops(IOPS).bandwidth(BANDWIDTH);
        let config = Config::new().namespace(namespace).mdts(Some(8)).service(service);
        let failed = |Wrong(why)| why;
        let mut device = Device::new(&config, 0, 1 << 32, false).map_err(failed)?;
        device.with(|machine| machine.count_device_time());
        let options = Options { writable: true, ..Options::default() };
        let controller = device.open(options).map_err(failed)?;
        Ok(Self { controller, device })
    }

    /// Opens the filesystem, with empty caches.
    pub(crate) fn filesystem(&self) -> Result<Filesystem> {
        let reader = DiskReader::new(&self.controller, &self.disk()?, METADATA_DEPTH)?;
        Ok(Filesystem::open(QueueSource::new(reader))?)
    }

    /// Creates a queue for data.
    pub(crate) fn queue(&self) -> Result<FileQueue> {
        Ok(FileQueue::new(DiskQueue::new(&self.controller, &self.disk()?, DATA_DEPTH)?))
    }

    /// Creates a cache of `bytes` bytes.
    pub(crate) fn cache(&self, bytes: usize) -> Result<PageCache> {
        let disk = WritableDisk::whole(&self.controller.writable_namespace(1)?);
        Ok(PageCache::new(DiskQueue::new(&self.controller, &disk, DATA_DEPTH)?, bytes))
    }

    fn disk(&self) -> Result<Disk> {
        Ok(Disk::whole(&self.controller.namespace(1)?))
    }

    /// Measures what `work` uses of the drive.
    pub(crate) fn measure(&self, work: impl FnOnce() -> Result<()>) -> Result<Spent> {
        let before = (self.device.now(), self.commands()?);
        work()?;
        let (time, commands) = (self.device.now(), self.commands()?);
        Ok(Spent { time: time - before.0, commands: commands - before.1 })
    }

    fn commands(&self) -> Result<u64> {
        Ok(u64::try_from(self.controller.health(None)?.host_reads.get())?)
    }

    /// Reads `bytes` bytes of the namespace in order.
    pub(crate) fn raw(&self, bytes: u64) -> Result<()> {
        let mut pair: QueuePair<()> = self.controller.queue_pair(DATA_DEPTH)?;
        let namespace = self.controller.namespace(1)?;
        let bufs = (0..RAW_DEPTH).map(|_| self.controller.alloc(RAW_BYTES as usize));
        let mut bufs = bufs.collect::<std::result::Result<Vec<_>, _>>()?;
        let mut next = 0;
        while next < bytes || pair.in_flight() > 0 {
            while next < bytes {
                let Some(buf) = bufs.pop() else { break };
                pair.read(&namespace, next / BLOCK, buf, ()).map_err(|rejected| rejected.error)?;
                next += RAW_BYTES;
            }
            let mut failed = None;
            pair.wait(|done| {
                if !done.status.is_success() {
                    failed = Some(done.status);
                }
                bufs.push(done.buf);
            })?;
            if let Some(status) = failed {
                return Err(format!("raw: {status:?}").into());
            }
        }
        Ok(())
    }
}
