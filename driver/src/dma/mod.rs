//! Memory that a controller can access.
//!
//! Each controller has one [`Arena`], mapped into the device's address space once; more memory can
//! be registered. A command transfers a [`DmaBuf`], which is owned: it moves into the request and
//! comes back with the completion, so that safe code never accesses memory while a device may
//! write to it.

mod arena;
mod bounce;
mod buf;
mod frozen;
mod memory;
mod numa;
mod page_map;
mod pages;
mod scatter_list;
mod space;
mod split_buffer;

pub use arena::Arena;
pub use bounce::{BOUNCE_BYTES_MAX, BouncePool};
pub use buf::{DmaBuf, PageSpan};
pub use frozen::FrozenBuf;
pub use memory::DmaMemory;
pub use page_map::PAGE_SIZE;
pub(crate) use page_map::PageMap;
pub(crate) use pages::Shared;
pub use scatter_list::ScatterList;
pub(crate) use space::{Claim, first_free};
pub use split_buffer::SplitBuffer;
