//! An allocator that counts and limits memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};

/// Counts the memory of each thread, and fails allocations far above the limit.
pub struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
    static LIMIT: Cell<usize> = const { Cell::new(usize::MAX) };
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Calls `work`, and returns its result and the peak of its memory. If that exceeds twice `most`,
/// prints `line` and ends the process.
pub fn measure<T>(most: usize, line: &str, work: impl FnOnce() -> T) -> (T, usize) {
    line.clone_into(&mut LINE.take());
    LINE.set(line.to_owned());
    let before = LIVE.get();
    PEAK.set(before);
    LIMIT.set(before.saturating_add(2 * most));
    let result = work();
    LIMIT.set(usize::MAX);
    (result, PEAK.get() - before)
}

fn take(bytes: usize) -> bool {
    let live = LIVE.get().saturating_add(bytes);
    if live > LIMIT.get() {
        LIMIT.set(usize::MAX);
        LINE.with_borrow(|line| eprintln!("damage {line}: {bytes} bytes more, of {live}"));
        return false;
    }
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
    true
}

fn give(bytes: usize) {
    LIVE.set(LIVE.get().saturating_sub(bytes));
}

// SAFETY: all calls are forwarded to the system's allocator. The counters are plain thread-local
// numbers, which need no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        give(layout.size());
        // SAFETY: the memory was allocated by the system's allocator with the same layout.
        unsafe { System.dealloc(memory, layout) };
    }
}
