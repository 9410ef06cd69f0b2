//! The values that each block may hold, given the requests and their results.
//!
//! Requests overlap in time, and a failed request may or may not have been executed. So each block
//! has a set of possible values:
//! - A write may be executed at any moment between its submission and its completion.
//! - After a successful write, the block holds its value, or the value of a write that was in
//!   flight at the same time. Values of writes that completed before its submission are
//!   overwritten.
//! - After a write with any other result, its value is one more possible value.
//! - A read without concurrent writes reduces the set to the value that was read.
//! - A power cut may restore an overwritten value, unless the overwriting write completed before
//!   the submission of a successful flush, or used Force Unit Access.

/// A moment in the order of submissions and completions.
pub type Moment = u64;

/// A moment that has not come yet.
const NEVER: Moment = Moment::MAX;

/// A value that a block may hold now or may have held.
#[derive(Clone, Debug)]
struct Entry {
    /// Token of the write; 0 for the initial value.
    token: u64,
    value: u64,
    ended: Moment,
    /// Moment from which the block certainly does not hold the value.
    superseded: Moment,
    /// A power cut cannot restore the value.
    buried: bool,
}

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The write succeeded.
    Done {
        /// The data is durable (FUA).
        durable: bool,
    },
    /// The write may have been executed, but will not be executed later.
    Unknown,
    /// The write may be executed at any later moment.
    Open,
}

/// A read returned a value that the block cannot hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impossible {
    /// The possible values of the block.
    pub possible: Vec<u64>,
}

/// The possible contents of all namespaces of a controller.
#[derive(Debug)]
pub struct Model {
    /// Possible values by namespace and block.
    spaces: Vec<Vec<Vec<Entry>>>,
    /// The controller has a volatile write cache.
    cached: bool,
    now: Moment,
    /// Moment of the last power cut.
    cut: Moment,
}

impl Model {
    /// Creates a model of zeroed namespaces with these sizes in blocks.
    pub fn new(sizes: impl IntoIterator<Item = u64>, cached: bool) -> Self {
        let zero = Entry { token: 0, value: 0, ended: 0, superseded: NEVER, buried: false };
        let space = |blocks| (0..blocks).map(|_| vec![zero.clone()]).collect();
        Self { spaces: sizes.into_iter().map(space).collect(), cached, now: 0, cut: 0 }
    }

    /// Returns the next moment. Each submission and each completion has a moment of its own.
    pub fn moment(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    fn block(&mut self, space: usize, lba: u64) -> &mut Vec<Entry> {
        &mut self.spaces[space][usize::try_from(lba).unwrap_or(usize::MAX)]
    }

    /// Records the submission of the write `token`.
    pub fn write_begins(&mut self, space: usize, lba: u64, token: u64, value: u64) {
        let entry = Entry { token, value, ended: NEVER, superseded: NEVER, buried: false };
        self.block(space, lba).push(entry);
    }

    /// Records the completion of the write `token`, which was submitted at `begun`.
    pub fn write_ends(&mut self, space: usize, lba: u64, token: u64, begun: Moment, how: Ending) {
        let (now, cut, cached) = (self.now, self.cut, self.cached);
        let durable = how == Ending::Done { durable: true };
        // A write that was submitted before the power cut may be lost.
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

    /// Checks the result `value` of a read that was submitted at `begun` and completes now.
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

    /// Returns the possible results of a read that was submitted at `begun` and completes now,
    /// without duplicates.
    pub fn candidates(&mut self, space: usize, lba: u64, begun: Moment) -> Vec<u64> {
        let entries = self.block(space, lba).iter().filter(|entry| entry.superseded > begun);
        let mut values: Vec<u64> = entries.map(|entry| entry.value).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    /// Removes the write `token` from a block, because it is known that the device never received
    /// it.
    pub fn withdraw(&mut self, space: usize, lba: u64, token: u64) {
        self.block(space, lba).retain(|entry| entry.token != token);
    }

    /// Returns true if a read that was submitted at `begun` and completes now may return another
    /// value than `value`.
    pub fn may_differ(&mut self, space: usize, lba: u64, value: u64, begun: Moment) -> bool {
        let entries = self.block(space, lba);
        entries.iter().any(|entry| entry.superseded > begun && entry.value != value)
    }

    /// Returns one of the values that a block may hold now.
    pub fn guess(&mut self, space: usize, lba: u64) -> u64 {
        let entries = self.block(space, lba);
        entries.iter().rev().find(|entry| entry.superseded == NEVER).map_or(0, |entry| entry.value)
    }

    /// Records the success of a flush that was submitted at `begun`.
    pub fn flushed(&mut self, space: usize, begun: Moment) {
        for entry in self.spaces[space].iter_mut().flatten() {
            entry.buried |= entry.superseded < begun;
        }
    }

    /// Records a power cut.
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

    /// Makes a write of `value` to one block, with this result.
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

    /// Returns the possible results of a read, without changing the model.
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
    fn successful_writes_are_present_and_failed_ones_may_be() {
        let mut model = Model::new([1], false);
        assert_eq!(possible(&mut model), [0]);
        write(&mut model, 1, DONE);
        assert_eq!(possible(&mut model), [1]);
        write(&mut model, 2, Ending::Unknown);
        assert_eq!(possible(&mut model), [1, 2]);
        assert!(!read(&mut model, 0) && read(&mut model, 1));
        // The read of 1 shows that the write of 2 was not executed.
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
        // A read that was submitted earlier may return the overwritten value.
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
