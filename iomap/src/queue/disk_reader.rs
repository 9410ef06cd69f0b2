//! Reads of any bytes of a disk, for structures outside of files.

use std::fmt;

use nvio_driver::Controller;

use crate::contract::bytes::to_usize;
use crate::contract::io_args::{Done, IoArgs, Memory};
use crate::contract::mapper::{Mapper, Mapping, Op};
use crate::contract::open_file::{FileRef, OpenFile};
use crate::device::bio::Queue;
use crate::device::disk::Disk;
use crate::device::disk_queue::DiskQueue;
use crate::error::Error;
use crate::queue::file_queue::FileQueue;
use crate::queue::tag::Tag;

/// A reader of the bytes of a disk: of one range, or of many at once.
///
/// # Examples
/// ```
/// # let served = nvio_testkit::controller::Served::memory(1 << 20);
/// # let controller = &served.controller;
/// use nvio_iomap::{Disk, DiskReader};
///
/// let disk = Disk::whole(&controller.namespace(1)?);
/// let mut reader = DiskReader::new(controller, &disk, 32)?;
/// let mut superblock = [0; 1024];
/// reader.read_at(1024, &mut superblock)?;
///
/// // Several ranges in parallel.
/// let mut blocks = [[0; 4096]; 4];
/// let ranges = blocks.iter_mut().zip(0u64..).map(|(block, at)| (at * 65536, &mut block[..]));
/// reader.read_many(ranges, |index, result| {
///     assert!(result.is_ok(), "range {index}");
/// });
/// assert_eq!(reader.disk().size(), 1 << 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DiskReader {
    queue: FileQueue<DiskQueue<Tag<Whole>>, Whole>,
    whole: WholeDisk,
    disk: Disk,
    /// Token of the last read that was submitted.
    token: u64,
}

/// A range that is being read.
struct Flight<'b> {
    token: u64,
    /// Index of the range in the order of the caller.
    index: usize,
    /// Bytes of the device's block before the range.
    skip: usize,
    out: &'b mut [u8],
}

impl fmt::Debug for DiskReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskReader").field("disk", &self.disk).finish_non_exhaustive()
    }
}

impl DiskReader {
    /// Creates a reader with its own queue pair for `depth` commands. `disk` must be on a namespace
    /// of `controller`.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// As [`Controller::queue_pair`].
    pub fn new(controller: &Controller, disk: &Disk, depth: u16) -> Result<Self, Error> {
        let queue = FileQueue::new(DiskQueue::new(controller, disk, depth)?);
        let whole = WholeDisk {
            shared: FileRef::new(Whole),
            size: disk.size(),
            block_size: disk.namespace().block_size(),
        };
        Ok(Self { queue, whole, disk: disk.clone(), token: 0 })
    }

    /// Returns the disk.
    ///
    /// See the [example](Self#examples).
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Fills `out` from byte `offset` of the disk, and waits. Any alignment is allowed.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// [`Error::OutsideDisk`] unless the range is inside the disk; the error of the device.
    pub fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.disk.check(offset, out.len() as u64)?;
        let read = self.queue.read_at(&mut self.whole, offset, out)?;
        match out.len() {
            length if read == length => Ok(()),
            length => Err(Error::LostBuffer { length }),
        }
    }

    /// Fills many ranges, each from its offset on the disk, with as many commands in flight as the
    /// queue has room for. Waits for all ranges, and calls `done` once for each with its index, in
    /// any order. Any alignment is allowed. Each range has its own result, with the errors of
    /// [`read_at`](Self::read_at); after an error the contents of the range are undefined.
    ///
    /// See the [example](Self#examples).
    pub fn read_many<'b>(
        &mut self,
        ranges: impl IntoIterator<Item = (u64, &'b mut [u8])>,
        mut done: impl FnMut(usize, Result<(), Error>),
    ) {
        let mut flights: Vec<Flight<'b>> = Vec::new();
        for (index, (offset, out)) in ranges.into_iter().enumerate() {
            if out.is_empty() {
                done(index, self.disk.check(offset, 0));
                continue;
            }
            loop {
                match self.submit(offset, out.len()) {
                    Ok((token, skip)) => {
                        flights.push(Flight { token, index, skip, out });
                        break;
                    }
                    // Ranges in flight return room and memory.
                    Err(_) if !flights.is_empty() => self.land(&mut flights, &mut done),
                    Err(_) => {
                        // In smaller pieces, in case memory is short.
                        done(index, self.read_at(offset, out));
                        break;
                    }
                }
            }
        }
        while !flights.is_empty() {
            self.land(&mut flights, &mut done);
        }
    }

    /// Submits a read of the blocks of a range. Returns its token and the bytes before the range.
    fn submit(&mut self, offset: u64, length: usize) -> Result<(u64, usize), Error> {
        self.disk.check(offset, length as u64)?;
        let mask = (1u64 << self.queue.device().block_shift()) - 1;
        let start = offset & !mask;
        let end = (offset + length as u64 + mask) & !mask;
        let (skip, bytes) = (to_usize(offset - start), to_usize(end - start));
        let buf = self.queue.alloc(bytes)?;
        self.token = self.token.wrapping_add(1);
        let io = IoArgs::at(start).token(self.token);
        match self.queue.submit_read_with(&mut self.whole, io, Memory::Dma(buf)) {
            Ok(()) => Ok((self.token, skip)),
            Err(rejected) => Err(rejected.error),
        }
    }

    /// Waits for a range in flight.
    fn land(
        &mut self,
        flights: &mut Vec<Flight<'_>>,
        done: &mut impl FnMut(usize, Result<(), Error>),
    ) {
        let waited = self.queue.wait(|ended| {
            let at = flights.iter().position(|flight| flight.token == ended.token);
            // An unknown token is that of a range that was given up.
            let Some(at) = at else { return };
            let Flight { index, skip, out, .. } = flights.swap_remove(at);
            done(index, copy(ended, skip, out));
        });
        match waited {
            Ok(1..) => {}
            // No request is left that could complete.
            Ok(0) => give_up(flights, done, |length| Error::LostBuffer { length }),
            Err(error) => {
                let mut error = Some(error);
                give_up(flights, done, |length| {
                    error.take().unwrap_or(Error::LostBuffer { length })
                });
            }
        }
    }
}

/// Copies the data of a range.
fn copy(ended: Done<Error>, skip: usize, out: &mut [u8]) -> Result<(), Error> {
    let length = out.len();
    ended.result?;
    let buf = ended.memory.and_then(Memory::into_dma);
    let bytes = buf.as_ref().and_then(|buf| buf.get(skip..)?.get(..length));
    out.copy_from_slice(bytes.ok_or(Error::LostBuffer { length })?);
    Ok(())
}

fn give_up(
    flights: &mut Vec<Flight<'_>>,
    done: &mut impl FnMut(usize, Result<(), Error>),
    mut error: impl FnMut(usize) -> Error,
) {
    for Flight { index, out, .. } in flights.drain(..) {
        done(index, Err(error(out.len())));
    }
}

/// The shared state of a disk: none.
struct Whole;

impl OpenFile for Whole {
    type Error = Error;
}

/// The disk as a file whose positions are its addresses.
struct WholeDisk {
    shared: FileRef<Whole>,
    size: u64,
    block_size: u32,
}

impl Mapper for WholeDisk {
    type OpenFile = Whole;

    fn open_file(&self) -> &FileRef<Whole> {
        &self.shared
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn begin(&mut self, _pos: u64, _length: u64, _op: Op) -> Result<Mapping, Error> {
        Ok(Mapping::mapped(0, self.size, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvio_driver::Options;
    use nvio_driver::spec::Status;
    use nvio_emulator::{Backing, Emulator, Fault, Faults, NamespaceConfig, Rule};
    use nvio_testkit::controller::Served;

    const SIZE: u64 = 4 << 20;
    /// Reads of this block fail.
    const BAD: u64 = 1000;

    fn pattern() -> Vec<u8> {
        (0..SIZE).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
    }

    /// Returns an arena of less than is asked for at once, and fewer commands.
    fn reader(folder: &std::path::Path) -> (Emulator, DiskReader) {
        let image = folder.join("image");
        std::fs::write(&image, pattern()).unwrap();
        let bad = Rule::new(Fault::Status(Status(0x0281 << 1))).lbas(BAD..BAD + 1);
        let builder = Emulator::builder()
            .namespace(NamespaceConfig::new(Backing::image(&image, true)))
            .mdts(Some(4))
            .faults(Faults::new().rule(bad));
        let options = Options { arena_bytes: 2 << 20, ..Options::default() };
        let Served { controller, emulator } = Served::start(builder, options);
        let disk = Disk::whole(&controller.namespace(1).unwrap());
        let reader = DiskReader::new(&controller, &disk, 8).unwrap();
        (emulator, reader)
    }

    #[test]
    fn many_ranges_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (_emulator, mut reader) = reader(folder.path());
        let disk = pattern();
        let lengths = [1, 511, 512, 4096, 10_000, 200_000, 0];
        let mut bufs: Vec<(u64, Vec<u8>)> = (0..100u64)
            .map(|i| (i * 30_567 + 700_000, vec![0; lengths[i as usize % lengths.len()]]))
            .collect();
        for _ in 0..3 {
            let mut ended = vec![0; bufs.len()];
            let ranges = bufs.iter_mut().map(|(offset, out)| (*offset, out.as_mut_slice()));
            reader.read_many(ranges, |index, result| {
                result.unwrap();
                ended[index] += 1;
            });
            assert!(ended.iter().all(|&times| times == 1));
            for (offset, out) in &mut bufs {
                assert_eq!(*out, disk[*offset as usize..][..out.len()]);
                out.fill(0);
            }
        }
    }

    #[test]
    fn an_error_is_that_of_one_range() {
        let folder = tempfile::tempdir().unwrap();
        let (_emulator, mut reader) = reader(folder.path());
        let disk = pattern();
        let offsets = [0, BAD * 512 + 7, SIZE - 10, 4096, SIZE, u64::MAX, 8192];
        let mut bufs = offsets.map(|offset| (offset, [0; 10]));
        let mut results = offsets.map(|_| None);
        let ranges = bufs.iter_mut().map(|(offset, out)| (*offset, out.as_mut_slice()));
        reader.read_many(ranges, |index, result| results[index] = Some(result));
        for (i, (result, (offset, out))) in results.iter().zip(&bufs).enumerate() {
            match (i, result.as_ref().unwrap()) {
                (0 | 2 | 3 | 6, Ok(())) => assert_eq!(*out, disk[*offset as usize..][..10]),
                (1, Err(Error::Bio { .. })) | (4 | 5, Err(Error::OutsideDisk { .. })) => {}
                (_, result) => panic!("{i}: {result:?}"),
            }
        }
        reader.read_many([], |_, _| panic!("nothing was asked for"));
    }
}
