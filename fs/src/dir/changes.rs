//! Changes of a directory's names.

use std::collections::BTreeMap;

use crate::format::file_type::FileType;
use crate::number::InodeNumber;

/// The change of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameChange {
    /// The name was added or replaced, and refers to this inode.
    For(InodeNumber, FileType),
    /// The name was removed.
    Removed,
}

/// The names of a directory that differ from its blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameChanges {
    changes: BTreeMap<Box<[u8]>, NameChange>,
    /// The directory is new, and its blocks were never written.
    is_new: bool,
}

impl NameChanges {
    pub(crate) fn of_new_directory() -> Self {
        Self { is_new: true, ..Self::default() }
    }

    /// Returns true if the directory's blocks must be ignored.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    pub(crate) fn set(&mut self, name: &[u8], change: NameChange) {
        self.changes.insert(name.into(), change);
    }

    /// Returns the change of a name; `None` if it is unchanged.
    pub(crate) fn get(&self, name: &[u8]) -> Option<NameChange> {
        self.changes.get(name).copied()
    }

    /// Returns the added names, sorted.
    pub(crate) fn added(&self) -> impl Iterator<Item = (&[u8], InodeNumber, FileType)> {
        self.changes.iter().filter_map(|(name, change)| match *change {
            NameChange::For(inode, kind) => Some((&**name, inode, kind)),
            NameChange::Removed => None,
        })
    }
}
