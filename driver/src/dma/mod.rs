//! Memory that a controller can reach.
//!
//! Most of it comes from one [`Arena`] per controller, mapped into the device's address space once;
//! more can be registered. What a command transfers is in a [`DmaBuf`], which is owned: it moves into the request and
//! comes back with the completion, so that safe code never sees memory that a device may be
//! writing.

mod arena;
mod buf;
mod memory;
mod scatter_list;
mod space;
mod split_buffer;

pub use arena::{Arena, PAGE_SIZE};
pub(crate) use arena::{PageMap, Shared};
pub use buf::DmaBuf;
pub use memory::DmaMemory;
pub use scatter_list::ScatterList;
pub(crate) use space::Claim;
pub use split_buffer::SplitBuffer;
