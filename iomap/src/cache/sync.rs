//! Locks, atomics and pauses of the cache.
//!
//! In unit tests each of them is a point at which the scheduler of the random sequences may let
//! another thread run; see `tests/switched.rs`.

#[cfg(not(test))]
pub(super) use std::hint::spin_loop;
#[cfg(not(test))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
#[cfg(not(test))]
pub(super) use std::thread::yield_now;

#[cfg(not(test))]
pub(super) use parking_lot::{Mutex, RwLock, RwLockReadGuard};

#[cfg(test)]
pub(super) use super::tests::switched::{
    AtomicBool, AtomicU64, AtomicUsize, Mutex, RwLock, RwLockReadGuard, spin_loop, yield_now,
};
