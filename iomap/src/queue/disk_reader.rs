//! Any bytes of a disk, for those who read structures and not files.

use nvio_driver::Controller;

use crate::contract::io_args::{Done, IoArgs, Memory};
use crate::contract::mapper::{Mapper, Mapping, Op};
use crate::contract::open_file::{FileRef, OpenFile};
use crate::device::bio::Queue;
use crate::device::disk::Disk;
use crate::device::disk_queue::DiskQueue;
use crate::error::Error;
use crate::queue::file_queue::FileQueue;
use crate::queue::request::to_usize;
use crate::queue::tag::Tag;

/// Reads bytes of a disk: one range, or many at once.
pub struct DiskReader {
    queue: FileQueue<DiskQueue<Tag<Whole>>, Whole>,
    whole: WholeDisk,
    disk: Disk,
    /// Of the next read that is not waited for.
    token: u64,
}

/// A range that is being read.
struct Flight<'b> {
    token: u64,
    /// Of the range, among those that were asked for.
    index: usize,
    /// Bytes of the device's block in front of the range.
    skip: usize,
    out: &'b mut [u8],
}

impl DiskReader {
    /// A reader with a queue pair of its own, with room for `depth` commands. `disk` must be of a
    /// namespace of `controller`.
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

    /// The disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Fills `out` from byte `offset` of the disk, and waits. No alignment is needed.
    ///
    /// # Errors
    /// [`Error::OutsideDisk`] if the range is not inside, else what the device fails with.
    pub fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.disk.check(offset, out.len() as u64)?;
        let read = self.queue.read_at(&mut self.whole, offset, out)?;
        match out.len() {
            length if read == length => Ok(()),
            length => Err(Error::LostBuffer { length }),
        }
    }

    /// Fills many ranges, each from its byte of the disk on, with as many commands in flight as the
    /// queue has room for. Waits for all of them, and calls `done` once for each: with its index,
    /// in no particular order. No alignment is needed. An error is that of one range, and those
    /// are as for [`read_at`](Self::read_at); what that range then holds is of no use.
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
                    // Room and memory come back with what is in flight.
                    Err(_) if !flights.is_empty() => self.land(&mut flights, &mut done),
                    Err(_) => {
                        // In smaller pieces, if memory is what there is too little of.
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

    /// Submits a read of the blocks that a range is in.
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

    /// Waits for some of what is in flight.
    fn land(
        &mut self,
        flights: &mut Vec<Flight<'_>>,
        done: &mut impl FnMut(usize, Result<(), Error>),
    ) {
        let waited = self.queue.wait(|ended| {
            let at = flights.iter().position(|flight| flight.token == ended.token);
            // Others are those that were given up.
            let Some(at) = at else { return };
            let Flight { index, skip, out, .. } = flights.swap_remove(at);
            done(index, copy(ended, skip, out));
        });
        match waited {
            Ok(1..) => {}
            // Nothing is in flight any more, or nothing will ever end.
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

/// Copies what has arrived.
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

/// Nothing is to be remembered of a disk.
struct Whole;

impl OpenFile for Whole {
    type Error = Error;
}

/// The disk itself as a file: every byte is where it is.
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
    use nvio_driver::spec::Status;
    use nvio_driver::{Address, Options};
    use nvio_emulator::{Backing, Emulator, Fault, Faults, NamespaceConfig, Rule};

    const SIZE: u64 = 4 << 20;
    /// Reads of this block fail.
    const BAD: u64 = 1000;

    fn pattern() -> Vec<u8> {
        (0..SIZE).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
    }

    /// An arena of less than is asked for at once, and fewer commands.
    fn reader(folder: &std::path::Path) -> (Emulator, DiskReader) {
        let image = folder.join("image");
        std::fs::write(&image, pattern()).unwrap();
        let bad = Rule::new(Fault::Status(Status(0x0281 << 1))).lbas(BAD..BAD + 1);
        let emulator = Emulator::builder()
            .namespace(NamespaceConfig::new(Backing::image(&image, true)))
            .mdts(Some(4))
            .faults(Faults::new().rule(bad))
            .start()
            .unwrap();
        let address = Address::VfioUser(emulator.socket().to_owned());
        let options = Options { arena_bytes: 2 << 20, ..Options::default() };
        let controller = Controller::open_with(&address, options).unwrap();
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
