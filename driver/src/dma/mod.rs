//! Memory that a controller can reach.
//!
//! Most of it comes from one [`Arena`] per controller, mapped into the device's address space once;
//! more can be registered. What a command transfers is in a [`DmaBuf`], which is owned: it moves into the request and
//! comes back with the completion, so that safe code never sees memory that a device may be
//! writing.

mod arena;
mod buf;
mod memory;
mod parts;
mod pieces;
mod space;

pub use arena::{Arena, PAGE_SIZE};
pub(crate) use arena::{PageMap, Shared};
pub use buf::DmaBuf;
pub use memory::DmaMemory;
pub use parts::Parts;
pub use pieces::DmaPieces;
pub(crate) use space::Claim;
