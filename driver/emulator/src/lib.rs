//! An embedded NVMe controller, served over vfio-user.
//!
//! ```
//! use nvio_emulator::{Backing, Emulator, NamespaceConfig};
//!
//! let emulator = Emulator::builder()
//!     .namespace(NamespaceConfig::new(Backing::memory(64 << 20)).block_size(4096))
//!     .serial("TEST0001")
//!     .start()?;
//! let client = vfio_user::Client::new(emulator.socket()).expect("nobody else is connected");
//! // BAR0 is region 0; its doorbells can be mapped.
//! assert_eq!(client.region(0).map(|bar0| bar0.sparse_areas.len()), Some(1));
//! # Ok::<(), nvio_emulator::Error>(())
//! ```
#![forbid(unsafe_code)]

mod admin;
mod backing;
mod config;
mod controller;
mod device;
mod doorbell;
mod emulator;
mod error;
mod event;
mod feature;
mod gate;
mod health;
mod identify;
mod interrupt;
mod io;
mod irq;
mod memory;
mod namespace;
mod pci;
mod poller;
mod prp;
mod queue;
mod registers;
mod server;
mod shared;
mod socket;
mod wire;

pub use config::{Backing, Config, MAX_NSID, NamespaceConfig};
pub use controller::Controller;
pub use doorbell::Doorbells;
pub use emulator::{Emulator, EmulatorBuilder};
pub use error::Error;
pub use memory::{Access, ClientMemory, MAX_MAPPINGS};
