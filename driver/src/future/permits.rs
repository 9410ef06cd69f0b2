//! How many commands there may be, and who waits for one to end: first come, first served.

use std::task::Waker;

/// A fixed number of permits, and a fixed number of places for those who wait.
pub(super) struct Permits {
    free: usize,
    places: Box<[Place]>,
    /// The line of those who wait; [`NONE`] when there is none.
    first: u32,
    last: u32,
    /// The first place that nobody has; they are chained through `next`.
    unused: u32,
}

/// A place in the line.
struct Place {
    state: State,
    before: u32,
    next: u32,
}

enum State {
    Unused,
    Waiting(Waker),
    /// Out of the line, with a permit that was not taken yet.
    Granted,
}

const NONE: u32 = u32::MAX;

/// The right to one place. It is given back through [`Permits::check`] or [`Permits::leave`].
#[derive(Debug)]
pub(super) struct Turn(u32);

/// What became of a turn.
pub(super) enum Checked {
    /// The permit is the caller's, and the place is free again.
    Granted,
    /// Not yet. A waker that is not needed any more comes back, to be dropped by the caller: that
    /// can run any code.
    Waiting(Turn, Option<Waker>),
}

/// What is to be done after a turn was given up.
#[derive(Default)]
pub(super) struct Left {
    /// To be woken: a permit has become theirs.
    pub(super) next: Option<Waker>,
    /// To be dropped.
    pub(super) own: Option<Waker>,
}

impl Permits {
    /// `permits`, and room for so many who wait, at most 2^32 - 1.
    pub(super) fn new(permits: usize, places: usize) -> Self {
        let places = u32::try_from(places).unwrap_or(NONE).min(NONE - 1);
        let place = |at| {
            let next = if at + 1 < places { at + 1 } else { NONE };
            Place { state: State::Unused, before: NONE, next }
        };
        let unused = if places == 0 { NONE } else { 0 };
        let places = (0..places).map(place).collect();
        Self { free: permits, places, first: NONE, last: NONE, unused }
    }

    /// Those who can wait.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// Takes a permit, if nobody waits for one.
    pub(super) fn try_take(&mut self) -> bool {
        let available = self.free > 0 && self.first == NONE;
        self.free -= usize::from(available);
        available
    }

    /// Joins the line.
    ///
    /// # Errors
    /// Gives the waker back when every place is taken.
    pub(super) fn join(&mut self, waker: Waker) -> Result<Turn, Waker> {
        let (at, last) = (self.unused, self.last);
        let Some(place) = self.places.get_mut(at as usize) else { return Err(waker) };
        self.unused = place.next;
        *place = Place { state: State::Waiting(waker), before: last, next: NONE };
        *self.after(last) = at;
        self.last = at;
        Ok(Turn(at))
    }

    /// Looks whether a permit was granted; else `waker` is the one to wake.
    pub(super) fn check(&mut self, turn: Turn, waker: &Waker) -> Checked {
        match self.places.get_mut(turn.0 as usize).map(|place| &mut place.state) {
            Some(State::Granted) => {
                self.free_place(turn.0);
                Checked::Granted
            }
            Some(State::Waiting(known)) if !known.will_wake(waker) => {
                let old = std::mem::replace(known, waker.clone());
                Checked::Waiting(turn, Some(old))
            }
            _ => Checked::Waiting(turn, None),
        }
    }

    /// Leaves the line; a permit that was granted goes to the next.
    #[must_use]
    pub(super) fn leave(&mut self, turn: Turn) -> Left {
        let Some(place) = self.places.get_mut(turn.0 as usize) else { return Left::default() };
        match std::mem::replace(&mut place.state, State::Unused) {
            State::Waiting(waker) => {
                self.unlink(turn.0);
                self.free_place(turn.0);
                Left { next: None, own: Some(waker) }
            }
            State::Granted => {
                self.free_place(turn.0);
                Left { next: self.give(), own: None }
            }
            State::Unused => Left::default(),
        }
    }

    /// Gives a permit back, and the waker of whom it goes to.
    #[must_use]
    pub(super) fn give(&mut self) -> Option<Waker> {
        let first = self.first;
        let Some(place) = self.places.get_mut(first as usize) else {
            self.free += 1;
            return None;
        };
        let state = std::mem::replace(&mut place.state, State::Granted);
        self.unlink(first);
        match state {
            State::Waiting(waker) => Some(waker),
            _ => None,
        }
    }

    /// The link to what follows a place; to the first, for [`NONE`].
    fn after(&mut self, at: u32) -> &mut u32 {
        match self.places.get_mut(at as usize) {
            Some(place) => &mut place.next,
            None => &mut self.first,
        }
    }

    /// The link to what is before a place; to the last, for [`NONE`].
    fn before(&mut self, at: u32) -> &mut u32 {
        match self.places.get_mut(at as usize) {
            Some(place) => &mut place.before,
            None => &mut self.last,
        }
    }

    fn unlink(&mut self, at: u32) {
        if let Some(&Place { before, next, .. }) = self.places.get(at as usize) {
            *self.after(before) = next;
            *self.before(next) = before;
        }
    }

    fn free_place(&mut self, at: u32) {
        let next = self.unused;
        if let Some(place) = self.places.get_mut(at as usize) {
            *place = Place { state: State::Unused, before: NONE, next };
            self.unused = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
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
    fn a_permit_goes_to_who_has_waited_longest_and_to_nobody_else() {
        let mut permits = Permits::new(1, 3);
        assert!(permits.try_take() && !permits.try_take());
        let [a, b, c] = [(); 3].map(|()| permits.join(Waker::noop().clone()).unwrap());
        assert!(permits.join(Waker::noop().clone()).is_err(), "no place is left");
        assert!(permits.give().is_some());
        assert!(!permits.try_take(), "it is the first one's");
        let b = granted(&mut permits, b).unwrap_err();
        granted(&mut permits, a).unwrap();
        // The next but one leaves; the last comes after the second.
        assert!(permits.leave(b).own.is_some());
        assert!(permits.give().is_some());
        granted(&mut permits, c).unwrap();
        assert!(permits.give().is_none());
        assert!(permits.try_take());
    }

    #[test]
    fn a_permit_that_is_not_wanted_any_more_goes_on() {
        let mut permits = Permits::new(0, 2);
        let count = Arc::new(Count::default());
        let a = permits.join(Waker::noop().clone()).unwrap();
        let b = permits.join(Arc::clone(&count).into()).unwrap();
        assert!(permits.give().is_some());
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
                0..=5 if permits.try_take() => held += 1,
                0..=5 => match permits.join(Waker::noop().clone()) {
                    Ok(turn) => line.push_back(turn),
                    Err(_) => assert_eq!(line.len() + grants.len(), 5),
                },
                6..=11 if held > 0 => {
                    held -= 1;
                    assert_eq!(permits.give().is_some(), !line.is_empty());
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
