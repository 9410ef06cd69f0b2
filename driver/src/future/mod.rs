//! Futures of requests, for any executor of one thread.
//!
//! [`Reactor`] makes futures of the requests of any queue that implements [`ReactorQueue`].
//! [`AsyncQueue`] is the reactor of a queue pair.

mod async_queue;
mod permits;
mod reactor;
mod request;
mod table;
mod ticket;
mod transfer;

pub use async_queue::AsyncQueue;
pub use reactor::{Reactor, ReactorQueue};
pub use ticket::Ticket;
