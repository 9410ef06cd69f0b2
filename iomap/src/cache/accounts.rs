//! The bytes that a cache has, counted for its limits.

use std::sync::atomic::Ordering::Relaxed;

use super::sync::AtomicUsize;

/// Counters of a cache.
#[derive(Debug)]
pub(super) struct Accounts {
    /// Most bytes of folios.
    limit: usize,
    /// Bytes of folios.
    used: AtomicUsize,
    /// Bytes of dirty blocks.
    dirty: AtomicUsize,
}

impl Accounts {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0), dirty: AtomicUsize::new(0) }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    pub(super) fn dirty(&self) -> usize {
        self.dirty.load(Relaxed)
    }

    /// Counts the bytes of a folio, unless they exceed the limit.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    pub(super) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }

    pub(super) fn add_dirty(&self, bytes: usize) {
        self.dirty.fetch_add(bytes, Relaxed);
    }

    pub(super) fn remove_dirty(&self, bytes: usize) {
        self.dirty.fetch_sub(bytes, Relaxed);
    }
}
