//! Counts allocations and frees on the I/O path.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// True while this thread is on the I/O path.
    static ON_PATH: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator with a counter.
struct Counting;

fn count() {
    if ON_PATH.get() {
        COUNT.set(COUNT.get() + 1);
    }
}

// SAFETY: all calls are forwarded unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller upholds the same contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts the allocations and frees of `path` in this thread.
pub(crate) fn watch<R>(path: impl FnOnce() -> R) -> R {
    ON_PATH.set(true);
    let result = path();
    ON_PATH.set(false);
    result
}

/// Returns the number of counted allocations and frees.
pub(crate) fn counted() -> u64 {
    COUNT.get()
}
