//! The queues of one kind, by identifier.

/// Queues by identifier. Each command finds its queues by an index, because a search would cost more
/// than the rest of the way from the doorbell to the command.
#[derive(Debug)]
pub(crate) struct QueueTable<Q> {
    /// As long as the largest identifier that was created, at most 65,536 entries.
    queues: Vec<Option<Q>>,
    /// Number of queues.
    len: usize,
}

impl<Q> Default for QueueTable<Q> {
    fn default() -> Self {
        Self { queues: Vec::new(), len: 0 }
    }
}

impl<Q> QueueTable<Q> {
    /// Returns the number of queues.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn get(&self, qid: u16) -> Option<&Q> {
        self.queues.get(usize::from(qid))?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, qid: u16) -> Option<&mut Q> {
        self.queues.get_mut(usize::from(qid))?.as_mut()
    }

    pub(crate) fn contains(&self, qid: u16) -> bool {
        self.get(qid).is_some()
    }

    /// Adds a queue, or replaces the one with this identifier.
    pub(crate) fn insert(&mut self, qid: u16, queue: Q) {
        let index = usize::from(qid);
        if index >= self.queues.len() {
            self.queues.resize_with(index + 1, || None);
        }
        self.len += usize::from(self.queues[index].replace(queue).is_none());
    }

    /// Removes a queue, and returns true if there was one.
    pub(crate) fn remove(&mut self, qid: u16) -> bool {
        let removed = self.queues.get_mut(usize::from(qid)).and_then(Option::take).is_some();
        self.len -= usize::from(removed);
        removed
    }

    pub(crate) fn clear(&mut self) {
        self.queues.clear();
        self.len = 0;
    }

    /// Returns the queues with their identifiers, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &Q)> {
        (0..=u16::MAX).zip(&self.queues).filter_map(|(qid, queue)| Some((qid, queue.as_ref()?)))
    }

    /// Returns the identifier of the first queue from `from` on; `None` after the last.
    #[inline]
    pub(crate) fn next(&self, from: u16) -> Option<u16> {
        (from..=u16::MAX)
            .zip(self.queues.get(usize::from(from)..)?)
            .find_map(|(qid, queue)| queue.is_some().then_some(qid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_found_in_order_and_removed_once() {
        let mut table = QueueTable::default();
        assert_eq!((table.next(0), table.next(u16::MAX)), (None, None));
        for qid in [7, 0, u16::MAX] {
            table.insert(qid, qid);
        }
        assert_eq!([0, 1, 7, 8].map(|from| table.next(from)), [0, 7, 7, u16::MAX].map(Some));
        assert_eq!(table.len(), 3);
        assert!(table.remove(7) && !table.remove(7) && !table.remove(6));
        assert_eq!((table.next(1), table.contains(7)), (Some(u16::MAX), false));
        assert_eq!(table.iter().collect::<Vec<_>>(), [(0, &0), (u16::MAX, &u16::MAX)]);
        assert_eq!((table.get(0), table.get(1)), (Some(&0), None));
        assert_eq!(table.get_mut(0), Some(&mut 0));
        assert_eq!(table.len(), 2);
        table.clear();
        assert_eq!((table.len(), table.next(0)), (0, None));
    }
}
