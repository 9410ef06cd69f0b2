//! iomap: from a range of a file to commands on a device.
//!
//! A filesystem answers one question, "where is this range?", by implementing [`Mapper`]. A device
//! takes [`Bio`]s through the [`Queue`] trait, which [`DiskQueue`] implements over a queue pair of
//! nvio's driver. Between the two, this crate iterates over mappings, splits and submits, zeroes
//! what has no blocks, and reports how many bytes arrived: [`direct::read`] into DMA memory,
//! [`bounce::read`] into any slice.
//!
//! ```
//! use nvio_driver::{Address, Controller};
//! use nvio_emulator::{Backing, Emulator, NamespaceConfig};
//! use nvio_iomap::{Disk, DiskQueue, Error, Mapper, Mapping, Op, bounce};
//!
//! /// A file of one extent, 8 KiB into the device.
//! struct OneExtent;
//!
//! impl Mapper for OneExtent {
//!     type Error = Error;
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
//! let mut queue = DiskQueue::new(&controller, &disk, 32)?;
//!
//! let mut bytes = [0xff; 1000];
//! let read = bounce::read(&mut queue, &mut OneExtent, 600, 10, &mut bytes)?;
//! assert_eq!(read, 590, "the file has 600 bytes");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

mod bio;
pub mod bounce;
pub mod direct;
mod disk;
mod error;
mod iter;
mod mapping;
#[cfg(test)]
mod mock;

pub use bio::{Bio, BioDone, Queue, Refused};
pub use disk::{Disk, DiskQueue};
pub use error::Error;
pub use iter::{Iterated, iterate};
pub use mapping::{Mapper, Mapping, MappingFlags, MappingKind, Op};
pub use nvio_driver::DmaBuf;
