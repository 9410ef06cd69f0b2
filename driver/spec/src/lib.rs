//! The NVMe wire types: registers, queue entries, and the data structures of commands.
//!
//! The driver, which is the host, and the embedded controller share this crate. It has no I/O and
//! no `unsafe`. Every structure is `#[repr(C)]`, little-endian and of asserted size, so that it can
//! be read from and written to bytes with [`zerocopy`](https://docs.rs/zerocopy).
//!
//! Values that a device chooses (status codes, opcodes, identify fields) are numbers with named
//! constants, never closed enums: a value without a constant stays representable.
//!
//! Section numbers refer to the NVM Express Base Specification 2.0 ("Base"), the NVM Command Set
//! Specification 1.0 ("NVM") and the NVMe over PCIe Transport Specification 1.0 ("PCIe").
//!
//! ```
//! use nvio_spec::{Sqe, opcode};
//! use zerocopy::IntoBytes;
//!
//! let read = Sqe::read(1, 2048, 8);
//! assert_eq!(read.opcode, opcode::nvm::READ);
//! assert_eq!(read.as_bytes().len(), 64);
//! assert_eq!((read.slba(), read.nlb()), (2048, 8));
//! ```
#![doc(html_root_url = "https://docs.rs/nvio-spec/0.1.0")]
#![forbid(unsafe_code)]

mod command;
mod completion;
mod effects;
mod extended_format;
mod feature;
mod identify;
mod information;
mod log_page;
pub mod namespace;
pub mod opcode;
pub mod protection;
mod range;
pub mod register;
pub mod sgl;

pub use command::Sqe;
pub use completion::{Cqe, Status, status};
pub use effects::{FeatureEffects, ManagementEffects, scope};
pub use extended_format::{ExtendedFormat, GuardFormat, IdentifyNvmNamespace};
pub use feature::{HostBehaviorSupport, QueueCount, feature_id};
pub use identify::{
    IdentifyController, IdentifyNamespace, IdentifyNvmController, LbaFormat, NamespaceList,
    PowerState, cns,
};
pub use information::{ExpectedTags, Information, InformationFormat};
pub use log_page::{
    ChangedNamespaces, CommandEffects, ErrorLogEntry, EventType, FirmwareSlotLog, HealthLog,
    SupportedLogPages, critical_warning, error_event, health_event, log_id, lpa,
};
pub use range::{CopyRange, DsmRange, MAX_RANGES};

/// Size in bytes of a submission queue entry (Base 3.3.3.1).
///
/// See the [example](crate::Sqe#examples).
pub const SQE_SIZE: usize = 64;
/// Size in bytes of a completion queue entry (Base 3.3.3.2).
///
/// See the [example](crate::Cqe#examples).
pub const CQE_SIZE: usize = 16;
/// Size in bytes of every Identify data structure (Base 5.17).
///
/// See the [example](crate::IdentifyController#examples).
pub const IDENTIFY_SIZE: usize = 4096;
/// NSID that addresses all namespaces (Base 3.2.1.2).
///
/// See the [example](crate::Sqe#examples).
pub const NSID_ALL: u32 = 0xffff_ffff;
/// PCI class code (base, sub-class, interface) of an NVMe I/O controller (PCIe 3.8.1).
///
/// See the [example](crate::register#examples).
pub const PCI_CLASS: u32 = 0x01_08_02;
