//! What each block may hold, given what was asked for and what was answered.
//!
//! Requests overlap in time, and one that failed may have been executed or not. So a block has a
//! set of values that it may hold:
//! - A write may be executed at any moment between its submission and its end.
//! - When it ends with success, the block holds its value, or that of a write which was in flight
//!   at the same time; what had ended before it was submitted is overwritten.
//! - When it ends in any other way, its value is one more that the block may hold.
//! - A read that nothing overlaps settles which value it is.
//! - A power cut may bring back what was overwritten, unless the write that did it had ended before
//!   a flush was submitted that succeeded, or was made with Force Unit Access.

/// A moment in the order of submissions and ends.
pub type Moment = u64;

/// Not yet.
const NEVER: Moment = Moment::MAX;

/// A value that a block may hold, or held.
#[derive(Clone, Debug)]
struct Entry {
    /// The write it is of; 0 for what was there at the start.
    token: u64,
    value: u64,
    ended: Moment,
    /// When it was certain that the block does not hold it any more.
    superseded: Moment,
    /// No power cut brings it back.
    buried: bool,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With success.
    Done {
        /// It was durable at that moment (FUA).
        durable: bool,
    },
    /// Nobody can say whether it was executed, but it will not be any more.
    Unknown,
    /// It may even be executed later.
    Open,
}

/// A read gave what the block cannot hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impossible {
    /// What the block may have held.
    pub possible: Vec<u64>,
}

/// Everything that the namespaces of a controller may hold.
#[derive(Debug)]
pub struct Model {
    /// By namespace and block.
    spaces: Vec<Vec<Vec<Entry>>>,
    /// Whether there is a volatile write cache.
    cached: bool,
    now: Moment,
    /// When the power was cut last.
    cut: Moment,
}

impl Model {
    /// Namespaces of these sizes in blocks, zeroed.
    pub fn new(sizes: impl IntoIterator<Item = u64>, cached: bool) -> Self {
        let zero = Entry { token: 0, value: 0, ended: 0, superseded: NEVER, buried: false };
        let space = |blocks| (0..blocks).map(|_| vec![zero.clone()]).collect();
        Self { spaces: sizes.into_iter().map(space).collect(), cached, now: 0, cut: 0 }
    }

    /// The next moment: each submission and each end has one of its own.
    pub fn moment(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    fn block(&mut self, space: usize, lba: u64) -> &mut Vec<Entry> {
        &mut self.spaces[space][usize::try_from(lba).unwrap_or(usize::MAX)]
    }

    /// The write `token` was submitted.
    pub fn write_begins(&mut self, space: usize, lba: u64, token: u64, value: u64) {
        let entry = Entry { token, value, ended: NEVER, superseded: NEVER, buried: false };
        self.block(space, lba).push(entry);
    }

    /// The write `token`, submitted at `begun`, ends now.
    pub fn write_ends(&mut self, space: usize, lba: u64, token: u64, begun: Moment, how: Ending) {
        let (now, cut, cached) = (self.now, self.cut, self.cached);
        let durable = how == Ending::Done { durable: true };
        // Executed before the power was cut, it may be lost.
        let done = matches!(how, Ending::Done { .. }) && (begun > cut || durable || !cached);
        for entry in self.block(space, lba) {
            if entry.token == token {
                entry.ended = if how == Ending::Open { NEVER } else { now };
            } else if done {
                if entry.superseded == NEVER && entry.ended < begun {
                    entry.superseded = now;
                    entry.buried = !cached || durable;
                } else if durable && entry.superseded < begun {
                    entry.buried = true;
                }
            }
        }
    }

    /// A read that was submitted at `begun` and ends now gave `value`.
    ///
    /// # Errors
    /// [`Impossible`].
    pub fn read_ends(
        &mut self,
        space: usize,
        lba: u64,
        value: u64,
        begun: Moment,
    ) -> Result<(), Impossible> {
        let (now, cut, cached) = (self.now, self.cut, self.cached);
        let entries = self.block(space, lba);
        let possible = || entries.iter().filter(|entry| entry.superseded > begun);
        if !possible().any(|entry| entry.value == value) {
            return Err(Impossible { possible: possible().map(|entry| entry.value).collect() });
        }
        let settled = begun > cut && possible().all(|entry| entry.ended < begun);
        if settled {
            let others = entries.iter_mut().filter(|e| e.superseded == NEVER && e.value != value);
            for entry in others {
                entry.superseded = now;
                entry.buried = !cached;
            }
        }
        Ok(())
    }

    /// What a read of a block that was submitted at `begun` and ends now may give, each once.
    pub fn candidates(&mut self, space: usize, lba: u64, begun: Moment) -> Vec<u64> {
        let entries = self.block(space, lba).iter().filter(|entry| entry.superseded > begun);
        let mut values: Vec<u64> = entries.map(|entry| entry.value).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    /// It is known by now that the write `token` of a block was never given to the device.
    pub fn withdraw(&mut self, space: usize, lba: u64, token: u64) {
        self.block(space, lba).retain(|entry| entry.token != token);
    }

    /// Whether a read of a block that was submitted at `begun` and ends now could give something
    /// else than `value`.
    pub fn may_differ(&mut self, space: usize, lba: u64, value: u64, begun: Moment) -> bool {
        let entries = self.block(space, lba);
        entries.iter().any(|entry| entry.superseded > begun && entry.value != value)
    }

    /// One of the values that a block may hold now.
    pub fn guess(&mut self, space: usize, lba: u64) -> u64 {
        let entries = self.block(space, lba);
        entries.iter().rev().find(|entry| entry.superseded == NEVER).map_or(0, |entry| entry.value)
    }

    /// A flush that was submitted at `begun` has succeeded.
    pub fn flushed(&mut self, space: usize, begun: Moment) {
        for entry in self.spaces[space].iter_mut().flatten() {
            entry.buried |= entry.superseded < begun;
        }
    }

    /// The power is cut.
    pub fn power_cut(&mut self) {
        self.cut = self.moment();
        for entry in self.spaces.iter_mut().flatten().flatten().filter(|entry| !entry.buried) {
            entry.superseded = NEVER;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Ending = Ending::Done { durable: false };

    /// One block, and a write of `value` that ends as it says.
    fn write(model: &mut Model, value: u64, how: Ending) {
        let begun = model.moment();
        model.write_begins(0, 0, value, value);
        model.moment();
        model.write_ends(0, 0, value, begun, how);
    }

    fn flush(model: &mut Model) {
        let begun = model.moment();
        model.moment();
        model.flushed(0, begun);
    }

    /// What a read now may give. Asking settles nothing.
    fn possible(model: &mut Model) -> Vec<u64> {
        let begun = model.moment();
        model.read_ends(0, 0, u64::MAX, begun).unwrap_err().possible
    }

    fn read(model: &mut Model, value: u64) -> bool {
        let begun = model.moment();
        model.moment();
        model.read_ends(0, 0, value, begun).is_ok()
    }

    #[test]
    fn what_succeeded_is_there_and_what_failed_may_be() {
        let mut model = Model::new([1], false);
        assert_eq!(possible(&mut model), [0]);
        write(&mut model, 1, DONE);
        assert_eq!(possible(&mut model), [1]);
        write(&mut model, 2, Ending::Unknown);
        assert_eq!(possible(&mut model), [1, 2]);
        assert!(!read(&mut model, 0) && read(&mut model, 1));
        // Settled: it was not executed, and will not be.
        assert!(!read(&mut model, 2));
        write(&mut model, 3, Ending::Open);
        assert!(read(&mut model, 1) && read(&mut model, 3) && read(&mut model, 1));
    }

    #[test]
    fn writes_at_the_same_time_end_in_either_order() {
        let mut model = Model::new([1], false);
        let (first, second) = (model.moment(), model.moment());
        model.write_begins(0, 0, 1, 1);
        model.write_begins(0, 0, 2, 2);
        let early = model.moment();
        assert_eq!(possible(&mut model), [0, 1, 2]);
        model.moment();
        model.write_ends(0, 0, 2, second, DONE);
        assert_eq!(possible(&mut model), [1, 2]);
        model.moment();
        model.write_ends(0, 0, 1, first, DONE);
        assert_eq!(possible(&mut model), [1, 2]);
        assert!(read(&mut model, 2) && !read(&mut model, 1));
        // A read that began before may have seen what is gone now.
        assert!(model.read_ends(0, 0, 0, early).is_ok());
    }

    #[test]
    fn a_power_cut_takes_back_what_was_not_flushed() {
        let mut model = Model::new([1], true);
        write(&mut model, 1, DONE);
        flush(&mut model);
        write(&mut model, 2, DONE);
        write(&mut model, 3, DONE);
        assert_eq!(possible(&mut model), [3]);
        let begun = model.moment();
        model.write_begins(0, 0, 4, 4);
        model.power_cut();
        model.write_ends(0, 0, 4, begun, DONE);
        assert_eq!(possible(&mut model), [1, 2, 3, 4], "success before the cut is not enough");
        assert!(read(&mut model, 2) && !read(&mut model, 3));
        write(&mut model, 5, Ending::Done { durable: true });
        model.power_cut();
        assert_eq!(possible(&mut model), [5]);
        write(&mut model, 6, DONE);
        assert!(read(&mut model, 6));
        model.power_cut();
        assert!(read(&mut model, 5));
    }

    #[test]
    fn without_a_cache_a_power_cut_takes_nothing() {
        let mut model = Model::new([1], false);
        write(&mut model, 1, DONE);
        model.power_cut();
        assert_eq!(possible(&mut model), [1]);
    }
}
