//! Search keys: the comparison and the hash for a lookup by name.

use crate::dir::casefold;
use crate::dir::nokey_name::NoKeyName;
use crate::format::dir_hash::{Chars, Function, Hash};
use crate::format::features::IncompatFeatures;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::format::superblock::Superblock;

/// A name to look up, in the form that the directory requires.
pub(crate) struct Query<'a> {
    kind: Kind<'a>,
    own_hashes: bool,
}

enum Kind<'a> {
    /// Compares names byte for byte.
    Exact(&'a [u8]),
    /// Compares names ignoring case. Names that are not UTF-8 are compared byte for byte.
    Folded { name: &'a [u8], folded: Option<Vec<u8>> },
    /// Compares encrypted names with the no-key name that the caller passed.
    NoKey(NoKeyName),
}

/// Returns true if the directory ignores case.
pub(crate) fn is_folded(superblock: &Superblock, directory: &Inode) -> bool {
    superblock.has(IncompatFeatures::CASEFOLD) && directory.flags().contains(InodeFlags::CASEFOLD)
}

/// Returns true if the entries of a directory store their hashes: the hash is computed from the
/// decrypted and folded name, so it cannot be computed from the stored name.
pub(crate) fn has_own_hashes(superblock: &Superblock, directory: &Inode) -> bool {
    directory.flags().contains(InodeFlags::ENCRYPT) && is_folded(superblock, directory)
}

impl<'a> Query<'a> {
    /// Prepares a lookup of `name` in `directory`. Returns `None` if no entry can match.
    pub(crate) fn new(superblock: &Superblock, directory: &Inode, name: &'a [u8]) -> Option<Self> {
        let kind = if directory.flags().contains(InodeFlags::ENCRYPT) {
            Kind::NoKey(NoKeyName::decode(name)?)
        } else if is_folded(superblock, directory) {
            Kind::Folded { name, folded: casefold::fold(name) }
        } else {
            Kind::Exact(name)
        };
        Some(Self { kind, own_hashes: has_own_hashes(superblock, directory) })
    }

    /// Returns true if the stored name of an entry matches.
    pub(crate) fn matches(&self, stored: &[u8]) -> bool {
        match &self.kind {
            Kind::Exact(name) => *name == stored,
            Kind::Folded { name, folded } => {
                let folded = folded.as_ref();
                *name == stored || folded.is_some_and(|name| casefold::is_equal(name, stored))
            }
            Kind::NoKey(name) => name.matches(stored),
        }
    }

    /// Returns true if the entries of the directory store their hashes.
    pub(crate) fn has_own_hashes(&self) -> bool {
        self.own_hashes
    }

    /// Returns true if the entry may be in another block of the tree, because it was hashed with
    /// the tables of another Unicode version.
    pub(crate) fn may_be_elsewhere(&self, superblock: &Superblock) -> bool {
        /// `s_encoding_flags`: all names were hashed with the current tables.
        const NO_COMPAT_FALLBACK: u16 = 0x2;
        matches!(self.kind, Kind::Folded { .. })
            && superblock.encoding_flags & NO_COMPAT_FALLBACK == 0
    }

    /// Returns the hash of the name in a tree.
    pub(crate) fn hash(
        &self,
        superblock: &Superblock,
        function: Function,
        chars: Chars,
    ) -> Option<Hash> {
        let hash = |name: &[u8]| superblock.hash.hash(function, chars, name);
        match &self.kind {
            Kind::Exact(name) | Kind::Folded { name, folded: None } => hash(name),
            Kind::Folded { folded: Some(folded), .. } => hash(folded),
            Kind::NoKey(name) => match name.encrypted() {
                Some(encrypted) if !self.own_hashes => hash(encrypted),
                _ => Some(name.hash),
            },
        }
    }
}
