//! Locks and atomics at which shuttle can switch between the threads of a random sequence.
//!
//! All of those threads are coroutines of one thread of the process. A lock that another coroutine
//! holds is tried again and again, so that a deadlock ends as any other hang does: at the limit of
//! switches. Outside of a random sequence these are the types of parking_lot and std.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::panic::resume_unwind;
use std::sync::atomic::{self, Ordering};
use std::thread::panicking;
use std::time::Duration;

thread_local! {
    /// Switches that are left to the sequence that this thread plays, if it plays one.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The payload of the panic that ends a thread of a sequence that has no switches left.
pub(super) struct NoSwitchLeft;

/// Calls `play`, in which locks and atomics switch between coroutines, at most `most` times. Returns
/// the number of switches.
pub(super) fn switching(most: u64, play: impl FnOnce()) -> u64 {
    LEFT.set(Some(most));
    play();
    most - LEFT.replace(None).unwrap_or(0)
}

/// Ends the sequence: each thread ends at its next switch.
pub(super) fn stop() {
    LEFT.set(LEFT.get().map(|_| 0));
}

/// Calls `body` as if no sequence were played.
pub(super) fn unswitched(body: impl FnOnce()) {
    let left = LEFT.replace(None);
    body();
    LEFT.set(left);
}

fn is_switching() -> bool {
    LEFT.get().is_some()
}

fn switch(pause: impl FnOnce()) {
    let Some(left) = LEFT.get().filter(|_| !panicking()) else { return };
    if left == 0 {
        resume_unwind(Box::new(NoSwitchLeft));
    }
    LEFT.set(Some(left - 1));
    pause();
}

/// Lets the scheduler choose the thread that runs on.
fn point() {
    switch(|| shuttle::thread::sleep(Duration::ZERO));
}

/// Pauses a thread that waits for another.
pub(in super::super) fn yield_now() {
    switch(shuttle::thread::yield_now);
    if !is_switching() {
        std::thread::yield_now();
    }
}

/// Pauses a thread that polls.
pub(in super::super) fn spin_loop() {
    switch(shuttle::thread::yield_now);
    std::hint::spin_loop();
}

/// A guard, after whose end the scheduler may choose.
pub(in super::super) struct Guard<G>(Option<G>);

impl<G> Guard<G> {
    fn new(try_lock: impl Fn() -> Option<G>, lock: impl FnOnce() -> G) -> Self {
        point();
        if !is_switching() {
            return Self(Some(lock()));
        }
        loop {
            if let Some(guard) = try_lock() {
                return Self(Some(guard));
            }
            spin_loop();
        }
    }
}

impl<G: Deref> Deref for Guard<G> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        self.0.as_ref().unwrap()
    }
}

impl<G: DerefMut> DerefMut for Guard<G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        self.0.as_mut().unwrap()
    }
}

impl<G> Drop for Guard<G> {
    fn drop(&mut self) {
        self.0 = None;
        point();
    }
}

type Inner<'a, T> = Guard<parking_lot::MutexGuard<'a, T>>;
pub(in super::super) type RwLockReadGuard<'a, T> = Guard<parking_lot::RwLockReadGuard<'a, T>>;
type RwLockWriteGuard<'a, T> = Guard<parking_lot::RwLockWriteGuard<'a, T>>;

#[derive(Default)]
pub(in super::super) struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    pub(in super::super) fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    pub(in super::super) fn lock(&self) -> Inner<'_, T> {
        Guard::new(|| self.0.try_lock(), || self.0.lock())
    }

    pub(in super::super) fn try_lock(&self) -> Option<Inner<'_, T>> {
        point();
        self.0.try_lock().map(|guard| Guard(Some(guard)))
    }
}

#[derive(Default)]
pub(in super::super) struct RwLock<T>(parking_lot::RwLock<T>);

impl<T> RwLock<T> {
    pub(in super::super) fn new(value: T) -> Self {
        Self(parking_lot::RwLock::new(value))
    }

    pub(in super::super) fn read(&self) -> RwLockReadGuard<'_, T> {
        Guard::new(|| self.0.try_read(), || self.0.read())
    }

    pub(in super::super) fn write(&self) -> RwLockWriteGuard<'_, T> {
        Guard::new(|| self.0.try_write(), || self.0.write())
    }

    pub(in super::super) fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        point();
        self.0.try_write().map(|guard| Guard(Some(guard)))
    }
}

/// An atomic type with the methods of std that the cache calls.
macro_rules! atomic {
    ($name:ident, $value:ty, $($method:ident($($argument:ident),*) -> $result:ty),+) => {
        #[derive(Debug, Default)]
        pub(in super::super) struct $name(atomic::$name);

        impl $name {
            pub(in super::super) const fn new(value: $value) -> Self {
                Self(atomic::$name::new(value))
            }

            $(pub(in super::super) fn $method(
                &self,
                $($argument: $value,)*
                order: Ordering,
            ) -> $result {
                point();
                self.0.$method($($argument,)* order)
            })+
        }
    };
}

atomic!(AtomicBool, bool, load() -> bool, store(value) -> (), swap(value) -> bool);
atomic!(AtomicU64, u64, load() -> u64, store(value) -> (), fetch_add(more) -> u64, fetch_max(least) -> u64);
atomic!(AtomicUsize, usize, load() -> usize, fetch_add(more) -> usize, fetch_sub(less) -> usize);

impl AtomicUsize {
    pub(in super::super) fn fetch_update(
        &self,
        set: Ordering,
        fetch: Ordering,
        change: impl FnMut(usize) -> Option<usize>,
    ) -> Result<usize, usize> {
        point();
        self.0.fetch_update(set, fetch, change)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    use shuttle::scheduler::RandomScheduler;
    use shuttle::{Config, FailurePersistence, Runner, thread};

    use super::*;

    /// Runs two threads once, with at most `most` switches.
    fn two(seed: u64, most: u64, body: impl Fn() + Send + Sync + 'static) -> u64 {
        let mut config = Config::new();
        config.failure_persistence = FailurePersistence::None;
        let body = Arc::new(body);
        switching(most, || {
            Runner::new(RandomScheduler::new_from_seed(seed, 1), config).run(move || {
                let other = Arc::clone(&body);
                let thread = thread::spawn(move || other());
                body();
                thread.join().unwrap();
            });
        })
    }

    #[test]
    fn schedules_lose_an_increment_outside_of_a_lock_and_none_inside() {
        let lost = |locked: bool| {
            (0..20).any(|seed| {
                let sum = Arc::new((Mutex::new(()), AtomicU64::new(0)));
                let shared = Arc::clone(&sum);
                let switches = two(seed, 1000, move || {
                    let guard = locked.then(|| shared.0.lock());
                    let before = shared.1.load(Ordering::Relaxed);
                    shared.1.fetch_max(before + 1, Ordering::Relaxed);
                    drop(guard);
                });
                assert!((4..1000).contains(&switches));
                sum.1.load(Ordering::Relaxed) < 2
            })
        };
        assert!(lost(false) && !lost(true));
    }

    #[test]
    fn a_deadlock_ends_when_no_switch_is_left() {
        let (locks, ends) = (Arc::new((Mutex::new(0), Mutex::new(0))), Arc::new(AtomicU64::new(0)));
        let (shared, counted) = (Arc::clone(&locks), Arc::clone(&ends));
        let turn = AtomicBool::new(false);
        two(1, 100, move || {
            let ends = catch_unwind(AssertUnwindSafe(|| {
                let (first, second) = match turn.swap(true, Ordering::Relaxed) {
                    true => (&shared.0, &shared.1),
                    false => (&shared.1, &shared.0),
                };
                let _first = first.lock();
                // Until the other thread has its first lock.
                (0..30).for_each(|_| yield_now());
                drop(second.lock());
            }));
            let is_stuck = ends.is_err_and(|panic| panic.is::<NoSwitchLeft>());
            stop();
            unswitched(|| _ = counted.fetch_add(u64::from(is_stuck), Ordering::Relaxed));
        });
        assert_eq!(ends.load(Ordering::Relaxed), 2);
        assert!(locks.0.try_lock().is_some() && locks.1.try_lock().is_some());
    }
}
