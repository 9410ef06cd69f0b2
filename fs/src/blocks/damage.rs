//! The list of damage that reads went around.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::format::corrupt::Corrupt;

/// Maximum length of the list. Later damage is only logged.
const DAMAGE_MAX: usize = 1024;

/// Damage that did not fail a read, each listed once.
#[derive(Debug, Default)]
pub(crate) struct DamageList {
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    all: Vec<Corrupt>,
    /// Number of entries that were returned by `take`.
    taken: usize,
}

impl DamageList {
    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds damage, unless it is listed.
    #[cold]
    pub(crate) fn add(&self, damage: Corrupt) {
        let mut found = self.lock();
        if found.all.len() >= DAMAGE_MAX || found.all.contains(&damage) {
            return;
        }
        log::warn!("{damage}");
        found.all.push(damage);
    }

    /// Returns the damage that was added since the last call.
    pub(crate) fn take(&self) -> Vec<Corrupt> {
        let mut found = self.lock();
        let all = found.all.len();
        let taken = std::mem::replace(&mut found.taken, all);
        found.all.get(taken..).unwrap_or_default().to_vec()
    }

    /// Returns the first damage, whether or not it was taken.
    pub(crate) fn first(&self) -> Option<Corrupt> {
        self.lock().all.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::corrupt::{Problem, Structure};

    #[test]
    fn damage_is_listed_and_taken_once() {
        let problem = Problem::Checksum { stored: 1, computed: 2 };
        let corrupt = |group| Corrupt::new(Structure::GroupDescriptor(group), problem);
        let list = DamageList::default();
        assert!(list.first().is_none() && list.take().is_empty());
        for group in [1, 2, 1] {
            list.add(corrupt(group));
        }
        assert_eq!(list.take(), [corrupt(1), corrupt(2)]);
        list.add(corrupt(2));
        assert!(list.take().is_empty());
        list.add(corrupt(3));
        assert_eq!((list.take(), list.first()), (vec![corrupt(3)], Some(corrupt(1))));
        (0..2000).for_each(|group| list.add(corrupt(group)));
        assert_eq!(list.take().len(), DAMAGE_MAX - 3);
    }
}
