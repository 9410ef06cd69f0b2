//! Driver and embedded controller in one thread, where a seed decides everything.
//!
//! [`run`] plays one seed: it draws a controller, a driver's options, a workload and faults
//! ([`mix`]), and has both sides take turns over a [`transport`] that goes straight to a stepped
//! controller ([`machine`]) whose clock moves only when somebody lets time pass. Nothing depends on
//! real time, threads or addresses, so that a seed that fails fails again.
//!
//! What is checked, for every seed:
//! - each request ends exactly once, within the time that the options allow ([`bound`]);
//! - what a read gives is what the block may hold ([`model`]), and a write that succeeded is there
//!   when everything is read back with the faults off;
//! - the controller accesses only what the driver lends at that moment, in the direction it lends
//!   it ([`lend`]);
//! - counters add up, no memory leaks, and the same seed is the same run ([`trace`]).

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

/// Takes a lock that nobody else has: everything is in one thread. There are locks because a
/// transport must be able to move to another one.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a run found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong(pub String);

/// What a step of a run gives.
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
