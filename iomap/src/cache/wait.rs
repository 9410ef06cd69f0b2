//! The two ways to wait: futures, and calls that block.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::sync;

/// Most attempts in a row before a blocked call lets other threads run.
const SPINS: u32 = 64;

/// Completes when `attempt` returns a value. Each attempt in vain asks to be polled again, because
/// progress is made only by polling the device.
pub(super) async fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    poll_fn(|context| match attempt() {
        Some(value) => Poll::Ready(value),
        None => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// Lets other threads and futures run before the next attempt.
pub(super) async fn pause() {
    sync::yield_now();
    let mut is_first = true;
    until(|| (!std::mem::replace(&mut is_first, false)).then_some(())).await;
}

/// Runs a future of the cache to its end.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    let mut attempts = 0_u32;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        attempts = attempts.wrapping_add(1);
        if attempts.is_multiple_of(SPINS) {
            sync::yield_now();
        } else {
            sync::spin_loop();
        }
    }
}
