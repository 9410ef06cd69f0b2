//! The read-ahead of the leaves of a map.

use crate::blocks::metadata::Metadata;
use crate::number::PhysicalBlock;

/// Maximum number of blocks of a file's map in one read-ahead.
pub(crate) const LEAVES_AHEAD: usize = 64;

/// Reads ahead a leaf and those after it, unless the leaf is cached, because the others were then
/// read ahead with it.
pub(crate) fn prefetch(
    metadata: &Metadata,
    leaf: PhysicalBlock,
    following: impl IntoIterator<Item = PhysicalBlock>,
) {
    if leaf == 0 || metadata.is_cached(leaf) {
        return;
    }
    metadata.prefetch(std::iter::once(leaf).chain(following).take(LEAVES_AHEAD));
}
