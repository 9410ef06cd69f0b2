//! Sets of interrupt vectors.

/// A set of vectors of fixed capacity.
#[derive(Debug)]
pub(crate) struct VectorSet {
    words: Vec<u64>,
    len: u16,
    /// The set is not empty. The usual answer is false, and the check is frequent.
    any: bool,
}

impl VectorSet {
    /// Creates an empty set for vectors 0 to `len` - 1.
    pub(crate) fn new(len: u16) -> Self {
        Self { words: vec![0; usize::from(len).div_ceil(64)], len, any: false }
    }

    /// Returns the number of vectors, in the set or not.
    pub(crate) fn len(&self) -> u16 {
        self.len
    }

    #[inline]
    pub(crate) fn insert(&mut self, vector: u16) {
        if let Some(word) = self.words.get_mut(usize::from(vector / 64)) {
            *word |= 1 << (vector % 64);
            self.any = true;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.words.fill(0);
        self.any = false;
    }

    /// Empties the set and returns its vectors in ascending order.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = u16> + '_ {
        let words = if std::mem::take(&mut self.any) { &mut self.words[..] } else { &mut [] };
        words.iter_mut().zip((0u16..).step_by(64)).flat_map(|(word, first)| {
            let mut bits = std::mem::take(word);
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros();
                bits &= bits.wrapping_sub(1);
                u16::try_from(bit).ok().filter(|&bit| bit < 64).map(|bit| first + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_taken_once_in_order() {
        let mut set = VectorSet::new(130);
        for vector in [129, 0, 63, 64, 63, 1000] {
            set.insert(vector);
        }
        assert_eq!(set.take().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert_eq!(set.take().next(), None);
        set.insert(5);
        set.clear();
        assert_eq!(set.take().next(), None);
    }
}
