//! Writes of blocks of a disk, for structures outside of files.

use std::fmt;

use nvio_driver::Controller;

use crate::device::bio::{Bio, BioDone, BioOp, Queue};
use crate::device::disk::WritableDisk;
use crate::device::disk_queue::DiskQueue;
use crate::error::Error;

/// The byte address and the length of a write.
type Place = (u64, usize);

/// Maximum number of commands that are made durable one by one. More are followed by a flush.
const FUA_MAX: usize = 8;

/// A writer of blocks of a disk. Offsets and lengths are multiples of the logical block size.
///
/// # Examples
/// ```
/// # use nvio_emulator::{Backing, Emulator, NamespaceConfig};
/// # use nvio_driver::Options;
/// # use nvio_testkit::controller::Served;
/// # let builder = Emulator::builder().namespace(NamespaceConfig::new(Backing::memory(1 << 20)));
/// # let options = Options { writable: true, ..Options::default() };
/// # let Served { controller, emulator } = Served::start(builder, options);
/// use nvio_iomap::{Disk, DiskReader, DiskWriter, WritableDisk};
///
/// let disk = WritableDisk::whole(&controller.writable()?.writable_namespace(1)?);
/// let mut writer = DiskWriter::new(&controller, &disk, 32)?;
/// writer.write_many(&[(4096, &[7; 4096][..]), (65536, &[8; 512])], true)?;
/// writer.flush()?;
///
/// let mut reader = DiskReader::new(&controller, &Disk::whole(&controller.namespace(1)?), 32)?;
/// let mut found = [0; 513];
/// reader.read_at(65535, &mut found)?;
/// assert_eq!((found[0], found[1], found[512]), (0, 8, 8));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DiskWriter {
    queue: DiskQueue<Option<Place>, WritableDisk>,
    in_flight: usize,
    /// The first error of the commands that were not waited for yet.
    failed: Option<Error>,
}

impl fmt::Debug for DiskWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskWriter").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl DiskWriter {
    /// Creates a writer with its own queue pair for `depth` commands. `disk` must be on a namespace
    /// of `controller`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`Controller::queue_pair`].
    pub fn new(controller: &Controller, disk: &WritableDisk, depth: u16) -> Result<Self, Error> {
        let queue = DiskQueue::new(controller, disk, depth)?;
        Ok(Self { queue, in_flight: 0, failed: None })
    }

    /// Writes all ranges, each from its offset on the disk, in any order, with as many commands in
    /// flight as the queue has room for, and waits. With `durable` they survive a loss of power from
    /// then on.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::Misaligned`] or [`Error::OutsideDisk`]; the error of the device. Each range may then
    /// have been written, in part or as a whole.
    pub fn write_many(&mut self, ranges: &[(u64, &[u8])], durable: bool) -> Result<(), Error> {
        let most = self.queue.max_transfer().max(1);
        let commands: usize = ranges.iter().map(|(_, bytes)| bytes.len().div_ceil(most)).sum();
        let must_flush = durable && self.queue.has_volatile_cache();
        let fua = must_flush && commands <= FUA_MAX;
        let mut submitted = Ok(());
        for &(offset, bytes) in ranges {
            submitted = submitted.and_then(|()| self.write(offset, bytes, fua));
        }
        let landed = self.land();
        submitted.and(landed)?;
        if must_flush && !fua { self.flush() } else { Ok(()) }
    }

    /// Makes all writes durable that have completed.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// The error of the device: writes since the last flush may be lost.
    pub fn flush(&mut self) -> Result<(), Error> {
        if !self.queue.has_volatile_cache() {
            return Ok(());
        }
        self.queue.flush(None).map_err(|rejected| rejected.error)?;
        self.in_flight += 1;
        self.land()
    }

    /// Submits the commands of a range.
    fn write(&mut self, offset: u64, bytes: &[u8], fua: bool) -> Result<(), Error> {
        let (mut addr, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let most = self.queue.max_transfer_at(addr).max(1).min(rest.len());
            let (here, after) = rest.split_at(most);
            self.submit(addr, here, fua)?;
            (addr, rest) = (addr + here.len() as u64, after);
        }
        Ok(())
    }

    /// Submits a command. Waits for others while there is no memory or no room in the queue.
    fn submit(&mut self, addr: u64, bytes: &[u8], fua: bool) -> Result<(), Error> {
        loop {
            if self.in_flight < self.queue.capacity() {
                match self.queue.alloc(bytes.len()) {
                    Ok(mut buf) => {
                        buf.copy_from_slice(bytes);
                        let tag = Some((addr, bytes.len()));
                        let bio = Bio { op: BioOp::Write, addr, buf, tag, fua };
                        self.queue.submit(bio).map_err(|rejected| rejected.error)?;
                        self.in_flight += 1;
                        return Ok(());
                    }
                    Err(error) if self.in_flight == 0 => return Err(error),
                    Err(_) => {}
                }
            }
            self.wait()?;
        }
    }

    /// Waits until no command is in flight, and returns the first error of any.
    fn land(&mut self) -> Result<(), Error> {
        while self.in_flight > 0 {
            self.wait()?;
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    fn wait(&mut self) -> Result<(), Error> {
        let Self { queue, in_flight, failed } = self;
        let waited = queue.wait(|BioDone { tag, result, .. }| {
            *in_flight = in_flight.saturating_sub(1);
            if let Err(error) = result {
                failed.get_or_insert(match tag {
                    Some((pos, length)) => Error::Bio { what: "write", pos, length, error },
                    None => Error::Flush { error },
                });
            }
        });
        if !matches!(waited, Ok(1..)) {
            // Commands in flight do not come back.
            *in_flight = 0;
        }
        waited.map(drop)
    }
}
