//! Memory of the threads that answer calls.

use std::cell::RefCell;

/// Most bytes that a thread keeps. Larger reads are rare.
const KEPT_MAX: usize = 1 << 20;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `size` bytes of the thread. They have any contents: what an earlier call left, and not
/// memory that the system would have to zero for each read.
pub(crate) fn with<R>(size: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut memory = SCRATCH.take();
    if memory.len() < size {
        memory.resize(size, 0);
    }
    let result = f(memory.get_mut(..size).unwrap_or_default());
    memory.truncate(KEPT_MAX);
    memory.shrink_to(KEPT_MAX);
    SCRATCH.set(memory);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_up_to_a_limit() {
        let at = |size| with(size, |buf| (buf.as_ptr() as usize, buf.len()));
        let first = at(4096);
        assert_eq!(at(4096), first);
        assert_eq!(at(100), (first.0, 100));
        assert_eq!(at(2 * KEPT_MAX).1, 2 * KEPT_MAX);
        assert!(SCRATCH.with_borrow(Vec::capacity) <= KEPT_MAX);
        // A call inside of another has memory of its own.
        with(10, |outer| with(10, |inner| assert_ne!(outer.as_ptr(), inner.as_ptr())));
    }
}
