//! The read-ahead of the leaves of a map.

use crate::blocks::metadata::Metadata;

/// Maximum number of blocks of a file's map in one read-ahead.
const LEAVES_AHEAD: usize = 64;

/// Reads ahead a leaf and those after it, unless the leaf is cached, because the others were then
/// read ahead with it.
pub(crate) fn prefetch(metadata: &Metadata, leaf: u64, following: impl IntoIterator<Item = u64>) {
    if leaf == 0 || metadata.is_cached(leaf) {
        return;
    }
    let leaves = std::iter::once(leaf).chain(following).take(LEAVES_AHEAD);
    metadata.prefetch(leaves.map(|number| number..number.saturating_add(1)));
}
