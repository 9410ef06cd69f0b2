//! iomap: direct I/O on files, from ranges of a file to commands of a device.
//!
//! A filesystem implements [`Mapper`], which maps ranges of a file to the device. A device
//! implements [`Queue`], which accepts [`Bio`]s: [`DiskQueue`] over a queue pair of an NVMe
//! controller, [`ImageQueue`] over a file of the host or bytes. [`FileQueue`] connects the two. It
//! maps the range of a request, splits it into bios, zeroes memory for holes, bounces data that the
//! device cannot access, and returns the result.
//!
//! ```
//! use nvio_iomap::{
//!     Error, FileQueue, FileRef, ImageQueue, Mapper, Mapping, Op, OpenFile,
//! };
//!
//! /// The state that requests in flight share: none.
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
//! let disk = vec![7; 2 << 20];
//! let mut queue = FileQueue::new(ImageQueue::new(disk, 32)?);
//! let mut file = OneExtent(FileRef::new(NoState));
//!
//! // Waits, at any position, into any memory.
//! let mut bytes = [0xff; 1000];
//! assert_eq!(queue.read_at(&mut file, 99_990, &mut bytes)?, 10, "the end of the file");
//!
//! // Does not wait: blocks into DMA memory, many in flight.
//! for block in 0..8 {
//!     let buf = queue.alloc(4096)?;
//!     queue.submit_read(&mut file, block * 4096, buf, block)?;
//! }
//! queue.ring();
//! let mut done = 0;
//! while done < 8 {
//!     done += queue.poll(8, |done| assert_eq!(done.result.unwrap(), 4096));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Verbs
//! `submit_*` never waits for the result; [`FileQueue::poll`] returns it. `read_at`, `read_with`,
//! `read_into` and their counterparts for writing wait. [`AsyncFileQueue`] has futures.
//!
//! # Paths
//! A read of one block or less that is one command takes the *simple path*: the command carries all
//! of its state. Any other request takes the *generic path*. Data is *bounced*, that is copied
//! through private memory, if the device cannot access the caller's memory or the memory may change
//! during a write. [`FileQueue::counters`] counts the requests of each path, with the reasons.
#![doc(html_root_url = "https://docs.rs/nvio-iomap/0.1.0")]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

mod async_queue;
mod cache;
mod contract;
mod device;
mod error;
mod memory;
mod queue;
#[cfg(test)]
mod tests;

pub use async_queue::AsyncFileQueue;
pub use cache::{CachedFile, CachedQueue, PageCache, Ticket, WeakCachedFile};
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
pub use nvio_driver::{BOUNCE_BYTES_MAX, DmaBuf, Handler, PageSpan};
pub use queue::counters::{Counters, Reason};
pub use queue::disk_reader::DiskReader;
pub use queue::disk_writer::DiskWriter;
pub use queue::file_queue::FileQueue;
pub use queue::tag::Tag;
