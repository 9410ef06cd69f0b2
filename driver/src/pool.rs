//! A table of fixed capacity.

/// A table of at most `capacity` values. The free entries form a list through the table, so that
/// inserting and removing a value takes constant time and no memory.
///
/// # Examples
/// ```
/// use nvio_driver::Pool;
///
/// let mut pool = Pool::new(2);
/// let first = pool.insert("first")?;
/// let second = pool.reserve().ok_or("the table is full")?;
/// assert_eq!(pool.get_mut(second), None);
/// pool.put(second, "second");
/// assert_eq!(pool.insert("third"), Err("third"), "the table is full");
/// assert_eq!(pool.remove(first), Some("first"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pool<T> {
    entries: Box<[Entry<T>]>,
    /// First free entry; [`NONE`] in a full table.
    free: u32,
}

#[derive(Debug)]
enum Entry<T> {
    Free {
        next: u32,
    },
    /// Taken from the list of free entries, but empty.
    Reserved,
    Used(T),
}

const NONE: u32 = u32::MAX;

impl<T> Pool<T> {
    /// Allocates an empty table of `capacity` entries, at most 2^32 - 1.
    ///
    /// See the [example](Self#examples).
    pub fn new(capacity: u32) -> Self {
        let entry =
            |index: u32| Entry::Free { next: if index + 1 < capacity { index + 1 } else { NONE } };
        let free = if capacity == 0 { NONE } else { 0 };
        Self { entries: (0..capacity).map(entry).collect(), free }
    }

    /// Reserves a free entry and returns its index; `None` if the table is full. A reserved entry
    /// takes a value through [`put`](Self::put), or is freed by [`remove`](Self::remove).
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn reserve(&mut self) -> Option<u32> {
        let index = self.free;
        let entry = self.entries.get_mut(index as usize)?;
        if let Entry::Free { next } = *entry {
            self.free = next;
            *entry = Entry::Reserved;
        }
        Some(index)
    }

    /// Stores a value in a reserved entry.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn put(&mut self, index: u32, value: T) {
        if let Some(entry @ Entry::Reserved) = self.entries.get_mut(index as usize) {
            *entry = Entry::Used(value);
        }
    }

    /// Stores a value in a free entry and returns the index of the entry.
    ///
    /// See the [example](Self#examples).
    ///
    /// # Errors
    /// Returns the value if the table is full.
    #[inline]
    pub fn insert(&mut self, value: T) -> Result<u32, T> {
        match self.reserve() {
            Some(index) => {
                self.put(index, value);
                Ok(index)
            }
            None => Err(value),
        }
    }

    /// Returns the value at `index`; `None` for an empty entry.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.entries.get_mut(index as usize) {
            Some(Entry::Used(value)) => Some(value),
            _ => None,
        }
    }

    /// Removes the value at `index`; `None` for an empty entry.
    ///
    /// See the [example](Self#examples).
    #[inline]
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let entry = self.entries.get_mut(index as usize)?;
        if let Entry::Free { .. } = entry {
            return None;
        }
        let free = Entry::Free { next: self.free };
        self.free = index;
        match std::mem::replace(entry, free) {
            Entry::Used(value) => Some(value),
            Entry::Reserved | Entry::Free { .. } => None,
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
        assert_eq!((pool.remove(0), pool.reserve(), pool.reserve()), (Some('d'), Some(0), None));
        assert!(pool.get_mut(0).is_none());
        pool.put(0, 'f');
        pool.put(0, 'g');
        assert_eq!(pool.remove(0), Some('f'), "only a reserved entry takes a value");
        assert_eq!((pool.reserve(), pool.remove(0), pool.reserve()), (Some(0), None, Some(0)));
        assert!(Pool::new(0).insert(()).is_err());
    }
}
