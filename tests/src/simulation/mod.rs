//! A deterministic simulation of the driver and the embedded controller in one thread.
//!
//! [`run`] plays one seed: it draws a controller, the driver's options, a workload and faults
//! ([`mix`]). Both sides run in turns over a [`transport`] to a stepped controller ([`machine`]),
//! whose clock moves only when the run advances it. The result does not depend on real time,
//! threads or addresses, so a failing seed fails again.
//!
//! The checks of each seed:
//! - each request completes exactly once, within the time that the options allow ([`bound`]);
//! - a read returns a value that the block may hold ([`model`]), and successful writes are present
//!   when all blocks are read at the end without faults;
//! - the controller accesses only memory that the driver lends at that moment, in the right
//!   direction ([`lend`]);
//! - counters add up, memory does not leak, and a seed always plays the same run ([`trace`]).

pub mod bound;
pub mod buffers;
pub mod content;
mod deliver;
mod finish;
pub mod lane;
pub mod lend;
pub mod machine;
pub mod mix;
pub mod model;
pub mod outcome;
pub mod request;
pub mod run;
mod submit;
pub mod trace;
pub mod transport;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex. It is never contended, because everything runs in one thread, but a transport
/// must be `Send`.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error that a run has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong(pub String);

/// The result of a step of a run.
pub type Checked<T = ()> = Result<T, Wrong>;

/// Fails the run unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::simulation::Wrong(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;
