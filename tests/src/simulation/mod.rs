//! A deterministic simulation of the driver and the embedded controller, on the
//! [`simulator`](crate::simulator).
//!
//! [`run`] plays one seed: it draws a controller, the driver's options, a workload and faults
//! ([`mix`]). The result does not depend on real time, threads or addresses, so a failing seed fails
//! again.
//!
//! The checks of each seed:
//! - each request completes exactly once, within the time that the options allow
//!   ([`bound`](crate::simulator::bound));
//! - a read returns a value that the block may hold
//!   ([`model`](crate::simulator::model)), and successful writes are present
//!   when all blocks are read at the end without faults;
//! - the controller accesses only memory that the driver lends at that moment, in the right
//!   direction ([`lend`](crate::simulator::lend));
//! - counters add up, memory does not leak, and a seed always plays the same run
//!   ([`trace`](crate::simulator::trace)).

mod deliver;
mod finish;
pub mod lane;
pub mod mix;
pub mod outcome;
pub mod request;
pub mod run;
mod submit;
