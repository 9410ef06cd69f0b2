//! Random sequences of operations on a file, through [`FileQueue`](nvio_iomap::FileQueue) and the
//! driver, to a controller in the same thread, compared with a model.
//!
//! A [`strategy`] draws a device, a file with its [`layout`], and the steps: reads and overwrites
//! of all kinds, and faults of the controller, of the caller's [`memory`] and of the
//! [`filesystem`]. A [`run`] executes them on the stepped clock of the
//! [`simulation`](crate::simulator), so that a failing sequence fails again, and [`play`] shrinks
//! it with proptest.
//!
//! The checks:
//! - the rules yield the causes for which a [`request`] may or must fail: without a cause it
//!   succeeds, with a certain cause it fails, and the error's class has a cause ([`judge`]);
//! - the number of bytes is exact, and a read returns possible contents of the blocks ([`source`]),
//!   given all writes that completed, failed or are in flight ([`effect`]); no other memory is
//!   changed, and all memory is returned;
//! - the contract with the filesystem holds: one `end` for each `begin`, a correct count of
//!   requests in flight, one call of each hook;
//! - the controller accesses only lent memory, and commands are within the limits and write only
//!   the request's blocks ([`watch`]);
//! - at the end, no request is in flight, no memory is missing, and every block of the device holds
//!   a possible value, also after a power cut.

pub mod ask;
pub mod effect;
pub mod filesystem;
mod finish;
pub mod judge;
pub mod layout;
pub mod memory;
pub mod outcome;
pub mod pending;
pub mod play;
pub mod request;
pub mod run;
pub mod source;
pub mod strategy;
pub mod watch;
