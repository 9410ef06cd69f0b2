//! A table of fixed size.

/// Entries by number; those that are free are a list through the table.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    entries: Box<[Entry<T>]>,
    free: u32,
}

#[derive(Debug)]
enum Entry<T> {
    Free { next: u32 },
    Used(T),
}

/// The number of no entry.
pub(crate) const NONE: u32 = u32::MAX;

impl<T> Pool<T> {
    pub(crate) fn new(capacity: u32) -> Self {
        let entry =
            |index: u32| Entry::Free { next: if index + 1 < capacity { index + 1 } else { NONE } };
        let free = if capacity == 0 { NONE } else { 0 };
        Self { entries: (0..capacity).map(entry).collect(), free }
    }

    /// Puts a value into a free entry.
    ///
    /// # Errors
    /// Gives it back when there is none.
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> Result<u32, T> {
        let index = self.free;
        match self.entries.get_mut(index as usize) {
            Some(entry @ Entry::Free { .. }) => {
                if let Entry::Free { next } = std::mem::replace(entry, Entry::Used(value)) {
                    self.free = next;
                }
                Ok(index)
            }
            _ => Err(value),
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.entries.get_mut(index as usize) {
            Some(Entry::Used(value)) => Some(value),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let entry = self.entries.get_mut(index as usize)?;
        if let Entry::Free { .. } = entry {
            return None;
        }
        let free = Entry::Free { next: self.free };
        self.free = index;
        match std::mem::replace(entry, free) {
            Entry::Used(value) => Some(value),
            Entry::Free { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_used_again_and_bounded() {
        let mut pool = Pool::new(2);
        assert_eq!(
            (pool.insert('a'), pool.insert('b'), pool.insert('c')),
            (Ok(0), Ok(1), Err('c'))
        );
        assert_eq!((pool.remove(0), pool.remove(0), pool.remove(7)), (Some('a'), None, None));
        assert!(pool.get_mut(0).is_none() && pool.get_mut(1) == Some(&mut 'b'));
        assert_eq!((pool.insert('d'), pool.insert('e')), (Ok(0), Err('e')));
        assert!(Pool::new(0).insert(()).is_err());
    }
}
