//! A set of ring entries.

/// Which entries of a ring are marked.
pub(super) struct Marks {
    words: Box<[u64]>,
    entries: u32,
}

impl Marks {
    /// No mark, for `entries`.
    pub(super) fn new(entries: u32) -> Self {
        Self { words: vec![0; entries.div_ceil(64) as usize].into(), entries }
    }

    /// Marks an entry.
    pub(super) fn set(&mut self, at: u32) {
        if let Some(word) = self.words.get_mut(at as usize / 64) {
            *word |= 1 << (at % 64);
        }
    }

    /// Takes a mark away; whether there was one.
    pub(super) fn clear(&mut self, at: u32) -> bool {
        let Some(word) = self.words.get_mut(at as usize / 64) else { return false };
        let bit = 1 << (at % 64);
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }

    /// The first marked entry from `from` on, or the number of entries.
    pub(super) fn next(&self, from: u32) -> u32 {
        let mut at = from;
        while at < self.entries {
            let word = self.words.get(at as usize / 64).map_or(0, |word| word >> (at % 64));
            if word != 0 {
                return at + word.trailing_zeros();
            }
            at = (at | 63) + 1;
        }
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::Marks;

    #[test]
    fn marks_are_found_in_order() {
        for entries in [2, 64, 128, 4096] {
            let mut marks = Marks::new(entries);
            assert_eq!(marks.next(0), entries);
            let set: Vec<_> =
                [0, 1, 63, 64, 100, 4095].into_iter().filter(|&at| at < entries).collect();
            set.iter().for_each(|&at| marks.set(at));
            let mut found = vec![];
            let mut at = marks.next(0);
            while at < entries {
                found.push(at);
                at = marks.next(at + 1);
            }
            assert_eq!(found, set);
            assert!(marks.clear(1) && !marks.clear(1));
            assert_eq!(marks.next(1), set.get(2).copied().unwrap_or(entries));
        }
    }
}
