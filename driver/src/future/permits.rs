//! Permits to submit a request, and the futures that wait for one: first come, first served.

use std::collections::VecDeque;
use std::task::Waker;

/// A number of permits, and a bounded line of futures that wait for one.
pub(super) struct Permits {
    free: usize,
    /// Waiting futures by number, in order. A future that is not in the line any more has a permit.
    line: VecDeque<(u64, Waker)>,
    places: usize,
    next: u64,
}

/// A place in the line. [`Permits::check`] or [`Permits::leave`] consume it.
#[derive(Debug)]
pub(super) struct Turn(u64);

/// The state of a turn. The caller drops wakers when nothing is borrowed, because that runs any
/// code.
pub(super) enum Checked {
    /// The caller has a permit.
    Granted,
    /// The caller still waits. The waker is not needed any more.
    Waiting(Turn, Option<Waker>),
}

/// The effect of a turn that was given up.
#[derive(Default)]
pub(super) struct Left {
    /// Waker of the future that received the permit, to be woken.
    pub(super) next: Option<Waker>,
    /// Waker of the turn, to be dropped.
    pub(super) own: Option<Waker>,
}

impl Permits {
    /// Creates `permits` permits, and a line of `places` places.
    pub(super) fn new(permits: usize, places: usize) -> Self {
        Self { free: permits, line: VecDeque::new(), places, next: 0 }
    }

    /// Returns the maximum number of futures that wait.
    pub(super) fn places(&self) -> usize {
        self.places
    }

    /// Acquires a permit, if one is free and no future waits.
    pub(super) fn try_acquire(&mut self) -> bool {
        let available = self.free > 0 && self.line.is_empty();
        self.free -= usize::from(available);
        available
    }

    /// Joins the line.
    ///
    /// # Errors
    /// Returns the waker if every place is taken.
    pub(super) fn join(&mut self, waker: Waker) -> Result<Turn, Waker> {
        if self.line.len() >= self.places {
            return Err(waker);
        }
        let number = self.next;
        self.next += 1;
        self.line.push_back((number, waker));
        Ok(Turn(number))
    }

    /// Checks for a permit. A turn that still waits stores `waker`.
    pub(super) fn check(&mut self, turn: Turn, waker: &Waker) -> Checked {
        match self.find(&turn) {
            None => Checked::Granted,
            Some(at) => {
                let known = &mut self.line[at].1;
                let old =
                    (!known.will_wake(waker)).then(|| std::mem::replace(known, waker.clone()));
                Checked::Waiting(turn, old)
            }
        }
    }

    /// Leaves the line. A permit that was granted goes to the next future.
    #[must_use]
    pub(super) fn leave(&mut self, turn: Turn) -> Left {
        match self.find(&turn) {
            None => Left { next: self.release(), own: None },
            Some(at) => Left { next: None, own: self.line.remove(at).map(|(_, waker)| waker) },
        }
    }

    /// Releases a permit, and returns the waker of the future that receives it.
    #[must_use]
    pub(super) fn release(&mut self) -> Option<Waker> {
        let first = self.line.pop_front();
        self.free += usize::from(first.is_none());
        first.map(|(_, waker)| waker)
    }

    fn find(&self, turn: &Turn) -> Option<usize> {
        self.line.binary_search_by_key(&turn.0, |&(number, _)| number).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn granted(permits: &mut Permits, turn: Turn) -> Result<(), Turn> {
        match permits.check(turn, Waker::noop()) {
            Checked::Granted => Ok(()),
            Checked::Waiting(turn, _) => Err(turn),
        }
    }

    #[test]
    fn a_permit_goes_to_the_future_that_has_waited_longest() {
        let mut permits = Permits::new(1, 3);
        assert!(permits.try_acquire() && !permits.try_acquire());
        let [a, b, c] = [(); 3].map(|()| permits.join(Waker::noop().clone()).unwrap());
        assert!(permits.join(Waker::noop().clone()).is_err(), "no place is left");
        assert!(permits.release().is_some());
        assert!(!permits.try_acquire(), "it is the first one's");
        let b = granted(&mut permits, b).unwrap_err();
        granted(&mut permits, a).unwrap();
        // The next but one leaves; the last comes after the second.
        assert!(permits.leave(b).own.is_some());
        assert!(permits.release().is_some());
        granted(&mut permits, c).unwrap();
        assert!(permits.release().is_none());
        assert!(permits.try_acquire());
    }

    #[test]
    fn a_permit_that_is_not_wanted_any_more_goes_on() {
        let mut permits = Permits::new(0, 2);
        let count = Arc::new(Count::default());
        let a = permits.join(Waker::noop().clone()).unwrap();
        let b = permits.join(Arc::clone(&count).into()).unwrap();
        assert!(permits.release().is_some());
        let Left { next: Some(next), own: None } = permits.leave(a) else { panic!("lost") };
        next.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        granted(&mut permits, b).unwrap();
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn any_order_of_joining_and_leaving_keeps_the_line() {
        let mut permits = Permits::new(2, 5);
        let mut line = VecDeque::new();
        let (mut held, mut grants) = (0, VecDeque::<Turn>::new());
        let mut random = 12345u64;
        for _ in 0..100_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            match random >> 60 {
                0..=5 if permits.try_acquire() => held += 1,
                0..=5 => match permits.join(Waker::noop().clone()) {
                    Ok(turn) => line.push_back(turn),
                    Err(_) => assert_eq!(line.len(), 5),
                },
                6..=11 if held > 0 => {
                    held -= 1;
                    assert_eq!(permits.release().is_some(), !line.is_empty());
                    grants.extend(line.pop_front());
                }
                12 | 13 => {
                    if let Some(turn) = grants.pop_back() {
                        granted(&mut permits, turn).unwrap();
                        held += 1;
                    }
                }
                _ if !line.is_empty() => {
                    let at = (random >> 32) as usize % line.len();
                    assert!(permits.leave(line.remove(at).unwrap()).own.is_some());
                }
                _ => {
                    if let Some(turn) = grants.pop_front() {
                        assert_eq!(permits.leave(turn).next.is_some(), !line.is_empty());
                        grants.extend(line.pop_front());
                    }
                }
            }
            assert_eq!(held + grants.len() + permits.free, 2);
            line = line.into_iter().map(|turn| granted(&mut permits, turn).unwrap_err()).collect();
        }
    }
}
