//! An embedded NVMe controller, served over vfio-user.
//!
//! A PCI NVMe controller in software: a test double for a driver, and the device of those who
//! have none. It runs in two threads of this process, one that polls the doorbells and one that
//! answers messages, and any vfio-user client may drive it, in this process or another. The
//! doorbells are memory shared with the client: to ring one is a store, not a message.
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
//!
//! # What it does
//! It is strict: what the specification calls an error is answered with that status, as a real
//! controller may or may not. It follows NVM Express 1.4 in what is mandatory for an I/O
//! controller, with the NVM command set's Read, Write, Flush, Write Zeroes, Compare, Verify, Copy
//! and Dataset Management. Sections cited are of the later Base Specification 2.0, NVM Command Set
//! Specification 1.0 and PCIe Transport Specification 1.0. Data pointers are PRPs, and SGLs with
//! [`Config::sgl`].
//!
//! - A client must turn bus mastering on in PCI configuration space, or nothing is processed.
//! - One client at a time: a second is refused. When a client goes, however it goes, the
//!   controller is reset and its mappings are dropped; what was written stays.
//! - A queue is in one mapping of client memory, and so is each page of data or of a list. What is not mapped
//!   is a Data Transfer Error for data, and fatal (CSTS.CFS) for a queue.
//! - Image files are locked. Writes go to the page cache; Flush, FUA, a shutdown, and every write
//!   while the Volatile Write Cache feature is off, make them durable.
//! - An idle controller is polled ever less often, up to every 100 microseconds; one that is not
//!   enabled is not polled at all.
//! - With [`Config::shadow_doorbells`], doorbells can be in client memory, until the next reset.
//! - With [`Config::controller_memory`], submission queues can be in memory of the controller.
//!
//! # Metadata
//! Blocks may have metadata, interleaved or in a buffer of its own, and in it protection
//! information of types 1 to 3 with a 16-bit guard, which is checked, inserted and stripped as
//! commands ask ([`NamespaceConfig::metadata`], [`NamespaceConfig::protection`]). A write of up to
//! 1 MiB that fails a check stores nothing. MDTS counts metadata that is interleaved (CTRATT.MEM
//! is 0).
//!
//! # Formats and namespaces
//! With [`Config::format_nvm`] namespaces can be formatted, and with
//! [`Config::namespace_management`] created, deleted, attached and detached. The Changed Namespace
//! List log says which changed, and a Namespace Attribute Changed event that it does.
//!
//! # Power cuts
//! With [`Config::write_cache`], writes stay in a volatile cache until they are flushed, and
//! [`Controller::power_cut`] loses some of them, by seed.
//!
//! # Speed
//! A [`Service`] gives I/O commands a latency, with or without jitter, and caps their rate and
//! bandwidth; without it, a command completes when its data has been moved.
//!
//! # Misbehaviour
//! [`Faults`] say what goes wrong, by script ([`Rule`]) and by seed ([`Rates`]): commands that end
//! with any status, late, never, twice or under a wrong identifier, and a controller that fails,
//! will not become ready, or is gone. [`Controller::inject`] and [`Emulator::inject`] do it now.
//! With a [`Controller`] that is stepped, time is counted in steps, and a seed decides the whole
//! run; in an [`Emulator`] time is real and the order of commands is the client's.
//!
//! # Layers
//! [`Controller`] is the controller proper: a state machine with no thread or socket, which a test
//! can step by itself, and its clock with it, over [`ClientMemory`] and [`Doorbells`]. A driver in
//! the same process shares both by file: its memory with [`ClientMemory::map_file`], the doorbells
//! with [`Doorbells::file`]; and [`ClientMemory::observe`] tells of each access of the controller.
//! [`Emulator`] puts it into a PCI function and serves that.
//!
//! # Whom it trusts
//! Messages, commands, queues and data pointers are taken as hostile. But a client shares its
//! memory as files, and one that truncates such a file while it is mapped kills the process that
//! maps it with SIGBUS. Sockets are therefore made for this user only.
#![forbid(unsafe_code)]

mod abort;
mod admin;
mod atomic;
mod backing;
mod cache;
mod cmb;
mod conduct;
mod config;
mod controller;
mod copy;
mod device;
mod doorbell;
mod emulator;
mod error;
mod event;
mod fault;
mod feature;
mod format;
mod gate;
mod group;
mod health;
mod held;
mod identify;
mod integrity;
mod interrupt;
mod inventory;
mod io;
mod irq;
mod manage;
mod memfd;
mod memory;
mod metadata;
mod namespace;
mod namespace_config;
mod observe;
mod pci;
mod poller;
mod prp;
mod queue;
mod random;
mod rates;
mod registers;
mod server;
mod service;
mod sgl;
mod shadow;
mod shared;
mod socket;
mod stream;
mod supported;
mod table;
mod tagged;
mod wire;

pub use cmb::ControllerMemory;
pub use config::{Config, MAX_NSID};
pub use controller::Controller;
pub use doorbell::Doorbells;
pub use emulator::{Emulator, EmulatorBuilder};
pub use error::Error;
pub use fault::{DeviceFault, Fault, FaultCounts, Faults, Rule};
pub use memory::{Access, ClientMemory, MAX_MAPPINGS};
pub use namespace_config::{Backing, NamespaceConfig};
pub use observe::Dma;
pub use rates::Rates;
pub use service::Service;
