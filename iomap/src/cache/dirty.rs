//! The folios of a file that have dirty blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::sync::Mutex;

/// The list of dirty folios. A folio enters and leaves it under its own lock, in the step that
/// changes its blocks: a dirty folio is always in the list.
pub(super) struct DirtyList<F>(Mutex<Vec<Arc<F>>>);

/// A folio, as the list knows it.
pub(super) trait Dirty {
    /// Returns its place in the list.
    fn listed(&self) -> &Listed;

    /// Returns its first byte in the file.
    fn pos(&self) -> u64;
}

/// The place of a folio in the list.
pub(super) struct Listed(AtomicUsize);

impl Listed {
    const NO: usize = usize::MAX;

    pub(super) const fn no() -> Self {
        Self(AtomicUsize::new(Self::NO))
    }

    /// Returns true if the folio is in the list. The caller has its lock.
    #[inline]
    pub(super) fn is_listed(&self) -> bool {
        self.0.load(Relaxed) != Self::NO
    }
}

impl<F: Dirty> DirtyList<F> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Adds a folio, whose lock the caller has.
    pub(super) fn add(&self, folio: &Arc<F>) {
        let mut list = self.0.lock();
        folio.listed().0.store(list.len(), Relaxed);
        list.push(Arc::clone(folio));
    }

    /// Removes a folio, whose lock the caller has.
    pub(super) fn remove(&self, folio: &F) {
        let mut list = self.0.lock();
        let index = folio.listed().0.swap(Listed::NO, Relaxed);
        if index < list.len() {
            list.swap_remove(index);
        }
        if let Some(moved) = list.get(index) {
            moved.listed().0.store(index, Relaxed);
        }
    }

    /// Returns the folios in the order of the file.
    pub(super) fn all(&self) -> Vec<Arc<F>> {
        let mut all = self.0.lock().clone();
        all.sort_unstable_by_key(|folio| folio.pos());
        all
    }
}
