//! A bounded cache for blocks, inodes and group descriptors.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

/// A cache with CLOCK eviction: a full cache replaces the first value that was not used since the
/// clock hand last passed it.
pub(crate) struct Cache<K, V> {
    state: Mutex<State<K, V>>,
    capacity: usize,
}

struct State<K, V> {
    slots: Vec<Slot<K, V>>,
    /// Index in `slots` by key.
    index: HashMap<K, usize, RandomState>,
    hand: usize,
}

struct Slot<K, V> {
    key: K,
    value: V,
    used: bool,
}

impl<K: Copy + Eq + Hash, V: Clone> Cache<K, V> {
    /// Creates a cache of at most `capacity` values; 0 disables it.
    pub(crate) fn new(capacity: usize) -> Self {
        let state = State { slots: Vec::new(), index: HashMap::default(), hand: 0 };
        Self { state: Mutex::new(state), capacity }
    }

    /// Returns the value of `key`, if it is cached.
    pub(crate) fn get(&self, key: K) -> Option<V> {
        let mut state = self.lock();
        let &at = state.index.get(&key)?;
        let slot = state.slots.get_mut(at).filter(|slot| slot.key == key)?;
        slot.used = true;
        Some(slot.value.clone())
    }

    /// Returns true if the value of `key` is cached. This does not count as a use.
    pub(crate) fn contains(&self, key: K) -> bool {
        self.lock().index.contains_key(&key)
    }

    /// Inserts or replaces a value.
    pub(crate) fn insert(&self, key: K, value: V) {
        if self.capacity == 0 {
            return;
        }
        let state = &mut *self.lock();
        let slot = Slot { key, value, used: false };
        if let Some(old) = state.index.get(&key).and_then(|&at| state.slots.get_mut(at)) {
            *old = slot;
        } else if state.slots.len() < self.capacity {
            state.index.insert(key, state.slots.len());
            state.slots.push(slot);
        } else {
            state.replace(slot);
        }
    }

    /// Removes a value.
    pub(crate) fn remove(&self, key: K) {
        let state = &mut *self.lock();
        let Some(at) = state.index.remove(&key) else { return };
        if at >= state.slots.len() {
            return;
        }
        state.slots.swap_remove(at);
        // The last slot has moved.
        if let Some(moved) = state.slots.get(at) {
            state.index.insert(moved.key, at);
        }
    }

    /// Locks the state. A poisoned lock is ignored, because a partial update leaves at most a wrong
    /// index entry, which `get` detects by comparing the key.
    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash, V> State<K, V> {
    fn replace(&mut self, new: Slot<K, V>) {
        // Two rounds are enough, because the first clears all marks.
        for _ in 0..self.slots.len().saturating_mul(2) {
            let at = self.hand;
            self.hand = at.saturating_add(1);
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let Some(slot) = self.slots.get_mut(at) else { continue };
            if !std::mem::take(&mut slot.used) {
                self.index.remove(&slot.key);
                self.index.insert(new.key, at);
                *slot = new;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::blocks::block_cache::Block;

    fn block(byte: u8) -> Block {
        Arc::from([byte; 4])
    }

    #[test]
    fn bounded_and_exact() {
        let cache = Cache::<u64, Block>::new(8);
        let mut random = 1u64;
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (random >> 33) % 24;
            match cache.get(number) {
                Some(found) => assert_eq!(u64::from(found[0]), number),
                None => cache.insert(number, block(number as u8)),
            }
            if random & 7 == 0 {
                cache.remove(number);
                assert!(!cache.contains(number));
            }
            let state = cache.lock();
            assert!(state.slots.len() <= 8 && state.index.len() == state.slots.len());
        }
    }

    #[test]
    fn recently_used_blocks_stay_in_the_cache() {
        let cache = Cache::<u64, Block>::new(4);
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
        let cache = Cache::<u64, Block>::new(0);
        cache.insert(1, block(1));
        assert!(cache.get(1).is_none());
    }
}
