//! What is looked for in a directory.

use crate::dir::casefold;
use crate::dir::htree::hash::{Chars, Function, Hash};
use crate::dir::nokey_name::NoKeyName;
use crate::format::features::IncompatFeatures;
use crate::format::inode::Inode;
use crate::format::inode_flags::InodeFlags;
use crate::format::superblock::Superblock;

/// A name to be found.
pub(crate) struct Query<'a> {
    kind: Kind<'a>,
    own_hashes: bool,
}

enum Kind<'a> {
    /// The name itself, byte for byte.
    Exact(&'a [u8]),
    /// Any that is equal but for case. What is not text is only equal to itself.
    Folded { name: &'a [u8], folded: Option<Vec<u8>> },
    /// The name of which this is shown, as the directory is encrypted.
    NoKey(NoKeyName),
}

/// Whether names of a directory are equal if they are but for case.
pub(crate) fn is_folded(superblock: &Superblock, directory: &Inode) -> bool {
    superblock.has(IncompatFeatures::CASEFOLD) && directory.flags().contains(InodeFlags::CASEFOLD)
}

/// Whether entries of a directory carry their hashes: those of encrypted names that were folded
/// cannot be had from what is stored.
pub(crate) fn has_own_hashes(superblock: &Superblock, directory: &Inode) -> bool {
    directory.flags().contains(InodeFlags::ENCRYPT) && is_folded(superblock, directory)
}

impl<'a> Query<'a> {
    /// How `name` is to be found in `directory`; `None` if no entry can have it.
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

    /// Whether the directory's entry with this name is the one.
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

    /// Whether entries of the directory carry their hashes.
    pub(crate) fn has_own_hashes(&self) -> bool {
        self.own_hashes
    }

    /// Whether a tree may have the name where another version of Unicode puts it.
    pub(crate) fn may_be_elsewhere(&self, superblock: &Superblock) -> bool {
        /// `s_encoding_flags`: all trees are as they should be.
        const NO_COMPAT_FALLBACK: u16 = 0x2;
        matches!(self.kind, Kind::Folded { .. })
            && superblock.encoding_flags & NO_COMPAT_FALLBACK == 0
    }

    /// The hash by which a tree finds it.
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
