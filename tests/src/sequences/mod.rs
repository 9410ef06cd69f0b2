//! Random sequences of operations on a file, through [`FileQueue`](nvio_iomap::FileQueue) and the
//! driver, to a controller in the same thread; compared with a model.
//!
//! A [`strategy`] draws a device, a file with its [`layout`], and what is done: reads and
//! overwrites of any kind, and all that goes wrong with the controller, the caller's
//! [`memory`] and the [`filesystem`]. A [`run`] does it on the stepped clock of the
//! [`simulation`](crate::simulation), so that a sequence that fails fails again, and [`play`] has
//! proptest make it smaller.
//!
//! What is checked:
//! - a [`request`] has its causes to fail, by the rules alone: without one it succeeds, with a
//!   certain one it fails, and the error is of a kind that has a cause ([`judge`]);
//! - the number of bytes is exact, and a read gives what blocks may hold ([`source`]), given all
//!   writes that have ended, failed or are in flight ([`effect`]); nothing else of the memory is
//!   touched, and all of it comes back;
//! - the contract with the filesystem: one end for each begin, requests counted as in flight, hooks
//!   called once;
//! - the controller accesses only what is lent at that moment, commands are within the limits and
//!   write only what is the request's ([`watch`]);
//! - in the end nothing is in flight, no memory is missing, and every block of the device holds what
//!   it may, also after a power cut.

pub mod ask;
pub mod effect;
pub mod filesystem;
mod finish;
pub mod judge;
pub mod layout;
pub mod memory;
pub mod outcome;
pub mod play;
pub mod request;
pub mod run;
pub mod source;
pub mod strategy;
pub mod watch;
