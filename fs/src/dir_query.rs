//! What is looked for in a directory.

use crate::Superblock;
use crate::htree::hash::{Chars, Function, Hash};

/// A name to be found.
pub(crate) enum Query<'a> {
    /// The name itself, byte for byte.
    Exact(&'a [u8]),
}

impl Query<'_> {
    /// Whether the directory's entry with this name is the one.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => *wanted == name,
        }
    }

    /// Whether entries of the directory carry their hashes.
    pub(crate) fn has_own_hashes(&self) -> bool {
        false
    }

    /// The hash by which a tree finds it; `None` if it cannot be known.
    pub(crate) fn hash(
        &self,
        superblock: &Superblock,
        function: Function,
        chars: Chars,
    ) -> Option<Hash> {
        match self {
            Self::Exact(name) => superblock.hash.hash(function, chars, name),
        }
    }
}
