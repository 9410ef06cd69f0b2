//! Recent blocks of metadata, bounded in bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A block of metadata, as it is on the device.
pub(crate) type Block = Arc<[u8]>;

/// Keeps blocks until there are too many, then forgets one that was not used since the hand last
/// passed it (CLOCK).
pub(crate) struct BlockCache {
    state: Mutex<State>,
    capacity: usize,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    /// Where in `slots` a block is.
    index: HashMap<u64, usize>,
    hand: usize,
}

struct Slot {
    number: u64,
    block: Block,
    used: bool,
}

impl BlockCache {
    /// A cache of at most `capacity` blocks; with 0 it keeps nothing.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), capacity }
    }

    /// The block `number`, if it is here.
    pub(crate) fn get(&self, number: u64) -> Option<Block> {
        let mut state = self.lock();
        let &at = state.index.get(&number)?;
        let slot = state.slots.get_mut(at)?;
        slot.used = true;
        Some(Arc::clone(&slot.block))
    }

    /// Keeps a block.
    pub(crate) fn insert(&self, number: u64, block: Block) {
        if self.capacity == 0 {
            return;
        }
        let state = &mut *self.lock();
        let slot = Slot { number, block, used: false };
        if let Some(old) = state.index.get(&number).and_then(|&at| state.slots.get_mut(at)) {
            *old = slot;
        } else if state.slots.len() < self.capacity {
            state.index.insert(number, state.slots.len());
            state.slots.push(slot);
        } else {
            state.replace(slot);
        }
    }

    /// Nothing that holds the lock can leave the state half changed in a way that matters: a
    /// wrong index entry would only point at another slot, and that is checked by number.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn replace(&mut self, new: Slot) {
        // Two rounds: the first may only clear marks.
        for _ in 0..self.slots.len().saturating_mul(2) {
            let at = self.hand;
            self.hand = at.saturating_add(1);
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let Some(slot) = self.slots.get_mut(at) else { continue };
            if !std::mem::take(&mut slot.used) {
                self.index.remove(&slot.number);
                self.index.insert(new.number, at);
                *slot = new;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(byte: u8) -> Block {
        Arc::from([byte; 4])
    }

    #[test]
    fn bounded_and_exact() {
        let cache = BlockCache::new(8);
        let mut random = 1u64;
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (random >> 33) % 24;
            match cache.get(number) {
                Some(found) => assert_eq!(u64::from(found[0]), number),
                None => cache.insert(number, block(number as u8)),
            }
            let state = cache.lock();
            assert!(state.slots.len() <= 8 && state.index.len() == state.slots.len());
        }
    }

    #[test]
    fn what_is_used_stays() {
        let cache = BlockCache::new(4);
        for number in 0..100 {
            cache.insert(number, block(0));
            if number > 0 {
                assert!(cache.get(0).is_some(), "after {number}");
            }
        }
        assert!(cache.get(1).is_none());
    }

    #[test]
    fn none_at_all() {
        let cache = BlockCache::new(0);
        cache.insert(1, block(1));
        assert!(cache.get(1).is_none());
    }
}
