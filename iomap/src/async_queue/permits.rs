//! How many requests there may be, and who waits for one to end: first come, first served.

use std::collections::VecDeque;
use std::task::Waker;

/// A number of permits, and a line of bounded length of those who wait for one.
pub(super) struct Permits {
    free: usize,
    /// Those who wait, by number. Who is not in it any more has a permit.
    line: VecDeque<(u64, Waker)>,
    places: usize,
    next: u64,
}

/// A place in the line. It is given back through [`Permits::check`] or [`Permits::leave`].
#[derive(Debug)]
pub(super) struct Turn(u64);

/// What became of a turn. Wakers that come back are to be dropped when nothing is borrowed: that
/// can run any code.
pub(super) enum Checked {
    /// The permit is the caller's.
    Granted,
    /// Not yet; with a waker that is not needed any more.
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
    pub(super) fn new(permits: usize, places: usize) -> Self {
        Self { free: permits, line: VecDeque::with_capacity(places), places, next: 0 }
    }

    /// Takes a permit, if nobody waits for one.
    pub(super) fn try_take(&mut self) -> bool {
        let available = self.free > 0 && self.line.is_empty();
        self.free -= usize::from(available);
        available
    }

    /// Joins the line.
    ///
    /// # Errors
    /// Gives the waker back when every place is taken.
    pub(super) fn join(&mut self, waker: Waker) -> Result<Turn, Waker> {
        if self.line.len() >= self.places {
            return Err(waker);
        }
        let number = self.next;
        self.next += 1;
        self.line.push_back((number, waker));
        Ok(Turn(number))
    }

    /// Looks whether a permit was granted; else `waker` is the one to wake.
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

    /// Leaves the line; a permit that was granted goes to the next.
    #[must_use]
    pub(super) fn leave(&mut self, turn: Turn) -> Left {
        match self.find(&turn) {
            None => Left { next: self.give(), own: None },
            Some(at) => Left { next: None, own: self.line.remove(at).map(|(_, waker)| waker) },
        }
    }

    /// Gives a permit back, and the waker of whom it goes to.
    #[must_use]
    pub(super) fn give(&mut self) -> Option<Waker> {
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

    fn granted(permits: &mut Permits, turn: Turn) -> Result<(), Turn> {
        match permits.check(turn, Waker::noop()) {
            Checked::Granted => Ok(()),
            Checked::Waiting(turn, _) => Err(turn),
        }
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
                    Err(_) => assert_eq!(line.len(), 5),
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
