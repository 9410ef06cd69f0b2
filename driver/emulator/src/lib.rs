//! An embedded NVMe controller, served over vfio-user.
//!
//! The emulator is a PCI NVMe controller in software: a test double for a driver, and a device for
//! machines without one. It runs in two threads of this process: one polls the doorbells, the other
//! serves messages. Any vfio-user client, in this process or another, may drive it. The doorbells
//! are memory shared with the client, so that it rings one with a store.
//!
//! ```
//! use nvio_emulator::{Backing, Emulator, NamespaceConfig};
//!
//! let emulator = Emulator::builder()
//!     .namespace(NamespaceConfig::new(Backing::memory(64 << 20)).block_size(4096))
//!     .serial("TEST0001")
//!     .start()?;
//! let client = vfio_user::Client::new(emulator.socket()).expect("no other client is connected");
//! // BAR0 is region 0; its doorbells can be mapped.
//! assert_eq!(client.region(0).map(|bar0| bar0.sparse_areas.len()), Some(1));
//! # Ok::<(), nvio_emulator::Error>(())
//! ```
//!
//! # Conformance
//! The emulator is strict: it completes every command that the specification calls an error with
//! the specified status, which real controllers do not always do. It implements the mandatory
//! features of an I/O controller of NVM Express 1.4, and of the NVM command set Read, Write, Flush,
//! Write Zeroes, Compare, Verify, Copy and Dataset Management. Cited sections are those of the Base
//! Specification 2.0, the NVM Command Set Specification 1.0 and the PCIe Transport Specification
//! 1.0. Data pointers are PRPs, and SGLs with [`Config::sgl`].
//!
//! - A client must set Bus Master Enable in PCI configuration space, or no command is processed.
//! - One client is served at a time; a second is refused. When a client disconnects or dies, the
//!   controller is reset and its mappings are dropped. Written data stays.
//! - One mapping of client memory holds all of a queue, and all of each page of data or of a list.
//!   Memory that is not mapped is a Data Transfer Error for data, and fatal (CSTS.CFS) for a queue.
//! - Image files are locked. Writes go to the page cache; Flush, FUA, a shutdown, and every write
//!   while the Volatile Write Cache feature is off, make them durable.
//! - An idle controller is polled every 100 microseconds; a disabled one is not polled.
//! - With [`Config::shadow_doorbells`], doorbells can be in host memory, until the next reset.
//! - With [`Config::controller_memory`], submission queues can be in memory of the controller.
//! - With [`Config::intx`], interrupts are treated as SPDK's target treats them.
//!
//! # Metadata
//! Blocks may have metadata, interleaved or in a separate buffer. It may hold protection
//! information of types 1 to 3 with a guard of 16, 32 or 64 bits, which commands check, insert and
//! strip ([`NamespaceConfig::metadata`], [`NamespaceConfig::protection`],
//! [`NamespaceConfig::information`]). A write of up to 1 MiB that
//! fails a check stores no block. MDTS counts interleaved metadata (CTRATT.MEM is 0).
//!
//! # Formats and namespaces
//! With [`Config::format_nvm`] namespaces can be formatted, and with
//! [`Config::namespace_management`] created, deleted, attached and detached. A Namespace Attribute
//! Changed event reports a change, and the Changed Namespace List has the identifiers.
//!
//! # Power cuts
//! With [`Config::write_cache`], writes stay in a volatile cache until they are flushed, and
//! [`Controller::power_cut`] loses some of them, by seed.
//!
//! # Speed
//! A [`Service`] adds latency and jitter to I/O commands, and caps their rate and bandwidth.
//! Without it, a command completes when its data has been transferred.
//!
//! # Faults
//! [`Faults`] are injected by script ([`Rule`]) and by seed ([`Rates`]): commands that complete
//! with any status, late, never, twice or with a wrong identifier, and a controller that fails,
//! does not become ready, or is removed. [`Controller::inject`] and [`Emulator::inject`] inject a
//! fault now. With a [`Controller`] that is stepped, time is counted in steps, and a seed decides
//! the whole run. In an [`Emulator`] time is real, and the client decides the order of commands.
//!
//! # Quirks
//! A [`Quirk`] makes the controller old, or different from the specification as real ones are.
//!
//! # Layers
//! [`Controller`] is a state machine without threads and sockets over [`HostMemory`] and
//! [`Doorbells`]. A test can step it and its clock. A driver in this process shares both by file:
//! its memory with [`HostMemory::map_file`], the doorbells with [`Doorbells::file`].
//! [`HostMemory::observe`] reports each access of the controller. [`Emulator`] serves the
//! controller as a PCI function.
//!
//! # Trust
//! Messages, commands, queues and data pointers are treated as hostile. A client shares its memory
//! as files, and truncating such a file while it is mapped kills the process that maps it with
//! SIGBUS. Therefore only this user can connect to the sockets.
#![doc(html_root_url = "https://docs.rs/nvio-emulator/0.1.0")]
#![forbid(unsafe_code)]

mod admin;
mod config;
mod controller;
mod error;
mod faults;
mod host;
mod media;
mod nvm;
mod random;
mod serve;

pub use config::namespace::{Backing, NamespaceConfig};
pub use config::quirk::{ParseQuirkError, Quirk};
pub use config::{Config, NSID_MAX};
pub use controller::controller_memory::ControllerMemory;
pub use controller::doorbells::Doorbells;
pub use controller::state::Controller;
pub use error::Error;
pub use faults::plan::{DeviceFault, Fault};
pub use faults::rates::Rates;
pub use faults::service::Service;
pub use faults::{FaultCounts, Faults, Rule};
pub use host::access::{Access, Dma};
pub use host::memory::{HostMemory, MAPPINGS_MAX};
pub use serve::emulator::Emulator;
pub use serve::helper::Helper;
