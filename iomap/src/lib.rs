//! iomap: from a range of a file to commands on a device.
//!
//! A filesystem answers one question, "where is this range?", by implementing [`Mapper`]. A device
//! takes [`Bio`]s through the [`Queue`] trait, which [`DiskQueue`] implements over a queue pair of
//! nvio's driver. Between the two stands [`FileQueue`]: it takes requests, has them mapped, splits
//! and submits, zeroes what has no blocks, copies where the device cannot reach the memory, and
//! gives results.
//!
//! ```
//! use nvio_driver::{Address, Controller};
//! use nvio_emulator::{Backing, Emulator, NamespaceConfig};
//! use nvio_iomap::{Disk, DiskQueue, Error, FileQueue, OpenFile, Mapper, Mapping, Op, FileRef};
//!
//! /// What requests in flight have of a file: here nothing.
//! struct NoState;
//!
//! impl OpenFile for NoState {
//!     type Error = Error;
//! }
//!
//! /// A file of one extent, 8 KiB into the device.
//! struct OneExtent(FileRef<NoState>);
//!
//! impl Mapper for OneExtent {
//!     type OpenFile = NoState;
//!     fn open_file(&self) -> &FileRef<NoState> {
//!         &self.0
//!     }
//!     fn size(&self) -> u64 {
//!         100_000
//!     }
//!     fn block_size(&self) -> u32 {
//!         4096
//!     }
//!     fn begin(&mut self, _pos: u64, _length: u64, _op: Op) -> Result<Mapping, Error> {
//!         Ok(Mapping::mapped(0, 1 << 20, 8192))
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let disk = NamespaceConfig::new(Backing::memory(16 << 20));
//! let emulator = Emulator::builder().namespace(disk).start()?;
//! let controller = Controller::open(&Address::VfioUser(emulator.socket().to_owned()))?;
//! let disk = Disk::whole(&controller.namespace(1)?);
//! let mut queue = FileQueue::new(DiskQueue::new(&controller, &disk, 32)?);
//! let mut file = OneExtent(FileRef::new(NoState));
//!
//! // Blocks into DMA memory, many in flight, without a copy.
//! for block in 0..8 {
//!     queue.submit_read(&mut file, block * 4096, controller.alloc(4096)?, block)?;
//! }
//! queue.ring();
//! let mut done = 0;
//! while done < 8 {
//!     done += queue.poll(8, |done| assert_eq!(done.result.unwrap(), 4096));
//! }
//!
//! // Any bytes, into any memory, and waiting.
//! let mut bytes = [0xff; 1000];
//! assert_eq!(queue.read_at(&mut file, 99_990, &mut bytes)?, 10, "the end of the file");
//! # Ok(())
//! # }
//! ```
//!
//! # Paths
//! A read of one block or less that is one command takes the *simple path*: its whole state goes
//! into the queue's table of commands beside the bio. Everything else takes the *generic path*.
//! Memory that a device cannot reach, or that may change while it is written, is *bounced*:
//! copied through private memory. [`FileQueue::counters`] tells which way requests went, and why.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

mod async_queue;
mod contract;
mod device;
mod error;
mod memory;
mod queue;
#[cfg(test)]
mod tests;

pub use async_queue::AsyncFileQueue;
pub use contract::io_args::{Done, Failed, IoArgs, IoFlags, Memory, Rejected};
pub use contract::iter::{Iterated, iterate};
pub use contract::mapper::{
    ErrorOf, Mapper, Mapping, MappingFlags, MappingKind, Op, PAGE, page_end,
};
pub use contract::open_file::{EndIo, FileRef, OpenFile, Report, WeakFileRef};
pub use device::bio::{Bio, BioDone, BioOp, Queue, WriteQueue};
pub use device::disk::{Disk, DiskAccess, WritableDisk};
pub use device::disk_queue::DiskQueue;
pub use device::image_queue::{Image, ImageQueue, WritableImage};
pub use device::protection::{BadProtection, NamespaceProtection};
pub use error::{BioError, Error, FileError};
pub use memory::borrowed::{Cursor, Sink, Source};
pub use nvio_driver::{BOUNCE_BYTES_MAX, DmaBuf, Handler};
pub use queue::counters::{Counters, Reason};
pub use queue::disk_reader::DiskReader;
pub use queue::file_queue::FileQueue;
pub use queue::tag::Tag;
