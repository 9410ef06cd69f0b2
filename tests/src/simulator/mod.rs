//! The simulator: the driver and a stepped controller in one thread.
//!
//! A [`device::Device`] is a controller that the driver has opened over a [`transport`] to a
//! [`machine`]. The machine's clock moves only when a run advances it, or the driver reads it, so a
//! seed always plays the same run ([`trace`]). The machine checks each memory access of the
//! controller against the memory that the driver lends at that moment ([`lend`]). A [`model`] has the
//! values that each block may hold, and [`content`] turns a value into bytes.
//!
//! Two workloads use it: the [`simulation`](crate::simulation) of queue pairs, and the
//! [`sequences`](crate::sequences) of operations on a file.

pub mod bound;
pub mod buffers;
pub mod content;
pub mod device;
pub mod lend;
pub mod machine;
pub mod model;
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

/// Returns the error of a step that must succeed.
pub fn wrong(what: &str, error: &impl std::fmt::Display) -> Wrong {
    Wrong(format!("{what}: {error}"))
}

/// Fails the run unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::simulator::Wrong(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;
