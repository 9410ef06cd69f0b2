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
    /// The parent of a new directory, whose blocks were never written.
    parent: Option<InodeNumber>,
}

impl NameChanges {
    pub(crate) fn of_new_directory(parent: InodeNumber) -> Self {
        Self { parent: Some(parent), ..Self::default() }
    }

    /// Returns true if the directory's blocks must be ignored.
    pub(crate) fn is_new(&self) -> bool {
        self.parent.is_some()
    }

    /// Returns the parent of a new directory.
    pub(crate) fn parent(&self) -> Option<InodeNumber> {
        self.parent
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

    /// Returns the removed names, sorted.
    pub(crate) fn removed(&self) -> impl Iterator<Item = &[u8]> {
        let removed = self.changes.iter().filter(|(_, change)| **change == NameChange::Removed);
        removed.map(|(name, _)| &**name)
    }
}
