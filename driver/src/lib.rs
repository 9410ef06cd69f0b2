//! A poll-mode NVMe driver in user space.
//!
//! A [`Controller`] is opened by its [`Address`]: a PCI function bound to vfio-pci, or the socket
//! of a vfio-user server. The controller creates [`QueuePair`]s, one for each thread, and allocates
//! [`DmaBuf`]s, the buffers of commands. Between [`QueuePair::read`] and the completion that
//! [`QueuePair::poll`] returns there is no lock, no allocation and no system call.
//!
//! ```
//! use nvio_driver::{Address, Controller};
//! use nvio_emulator::{Backing, Emulator, NamespaceConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The embedded controller, served by a thread of this process.
//! let disk = NamespaceConfig::new(Backing::memory(16 << 20));
//! let emulator = Emulator::builder().namespace(disk).start()?;
//!
//! let controller = Controller::open(&Address::vfio_user(emulator.socket()))?;
//! let namespace = controller.namespace(1)?;
//! let mut queue = controller.queue_pair(64)?;
//!
//! // Two reads, one doorbell; the buffers come back with the completions.
//! queue.read(&namespace, 0, controller.alloc(4096)?, "first")?;
//! queue.read(&namespace, 8, controller.alloc(4096)?, "second")?;
//! while queue.in_flight() > 0 {
//!     queue.wait(|done| {
//!         assert!(done.status.is_success());
//!         println!("{}: {:?}", done.context, done.buf);
//!     })?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Ways to wait
//!
//! - [`QueuePair::poll`] in a loop of the caller, for any number of commands in flight.
//! - Blocking calls that poll inside: [`QueuePair::blocking`].
//! - Futures, for any single-threaded executor: [`AsyncQueue`].
//!
//! The latter two accept buffers of any size. With [`Wait::Interrupt`], waiting sleeps instead of
//! using a whole processor.
//!
//! # Memory
//!
//! Buffers come from the controller's arena ([`Controller::alloc`]), or from memory that is
//! registered with it ([`Controller::register`]). Bytes in memory that the device cannot access are
//! copied ([`Blocking::read_bytes`], [`Blocking::write_bytes`]).
//!
//! # Safety
//!
//! `unsafe` is confined to the modules that own device registers (`mmio`), DMA memory (`dma`),
//! controller memory (`controller_memory`) and the rings (`queue`), and to the calls that map memory
//! into an IOMMU (`transport`). Raw pass-through is unsafe to call, and [`Transport`] to implement.
//! Data from a device is never trusted: identifiers are checked against a table, sizes against
//! bounds, and every wait has a bound.

#![doc(html_root_url = "https://docs.rs/nvio-driver/0.1.0")]
#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the ordering of queue entries and doorbells is verified for x86-64 only");

mod address;
mod admin;
mod aer;
mod controller;
mod dma;
mod error;
pub mod future;
mod interrupts;
mod mmio;
mod namespace;
pub mod pci;
mod pool;
mod queue;
mod quirks;
mod rejected;
#[cfg(test)]
mod served;
mod transport;

pub use address::{Address, ParseAddressError};
pub use aer::AsyncEvent;
pub use controller::Controller;
pub use controller::feature::FeatureValue;
pub use controller::log_page::LogPage;
pub use controller::management::NewNamespace;
pub use controller::options::{Options, Wait};
pub use controller::resets::Resets;
pub use controller::writable::WritableController;
pub use dma::{
    Arena, BOUNCE_BYTES_MAX, BouncePool, DmaBuf, DmaMemory, FrozenBuf, PAGE_SIZE, PageSpan,
    ScatterList, SplitBuffer,
};
pub use error::{Error, Result};
pub use future::{AsyncQueue, Ticket};
pub use mmio::Mmio;
pub use namespace::{Namespace, PageRead, WritableNamespace};
pub use nvio_spec as spec;
pub use pool::Pool;
pub use queue::{Blocking, CommandOptions, Completion, Counters, Handler, Protection, QueuePair};
pub use quirks::{ParseQuirkError, PciId, Quirk, Quirks};
pub use rejected::{Failed, Rejected, SubmitResult, TransferResult};
pub use transport::Transport;
