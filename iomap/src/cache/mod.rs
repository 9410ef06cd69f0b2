//! Buffered I/O: file data in folios of DMA memory, which the device reads and writes in place.

mod accounts;
mod bits;
mod cleaned;
mod device;
mod dirty;
mod file;
mod folio;
mod handle;
mod pool;
mod read;
mod read_ahead;
mod requests;
mod runs;
mod state;
mod sync;
#[cfg(test)]
mod tests;
mod ticket;
mod truncate;
mod wait;
mod write;
mod write_back;

pub use handle::{CachedFile, WeakCachedFile};
pub use pool::PageCache;
pub use requests::CachedQueue;
pub use ticket::Ticket;
