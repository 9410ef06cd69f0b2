//! Writes to the device, with the errors of this crate, and their number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::blocks::device::{BlockDevice, WriteRange};
use crate::error::Error;
use crate::mount::protection::Protection;
use crate::number::as_u64;

/// The device that a filesystem is changed on.
pub(crate) struct Sink {
    device: Arc<dyn BlockDevice>,
    written: AtomicU64,
    /// Shows other hosts that this one changes the filesystem.
    protection: Option<Arc<Protection>>,
}

impl Sink {
    pub(crate) fn new(device: Arc<dyn BlockDevice>, protection: Option<Arc<Protection>>) -> Self {
        Self { device, written: AtomicU64::new(0), protection }
    }

    /// Fails if another host has taken the filesystem.
    fn check(&self) -> Result<(), Error> {
        match self.protection.as_ref().and_then(|protection| protection.lost()) {
            Some(holder) => Err(Error::InUse(Box::new(holder.clone()))),
            None => Ok(()),
        }
    }

    /// Writes ranges, and waits. With `durable` they survive a loss of power from then on.
    pub(crate) fn write(&self, ranges: &[WriteRange<'_>], durable: bool) -> Result<(), Error> {
        let Some(first) = ranges.first() else { return Ok(()) };
        self.check()?;
        let (offset, length) = (first.offset, first.bytes.len());
        self.device.write_many(ranges, durable).map_err(|error| Error::Sink {
            offset,
            length,
            error,
        })?;
        let bytes = ranges.iter().map(|range| as_u64(range.bytes.len())).sum();
        self.written.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Makes all writes durable that have completed.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        self.check()?;
        self.device.flush().map_err(|error| Error::Sink { offset: 0, length: 0, error })
    }

    /// Returns the number of bytes that were written.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}
