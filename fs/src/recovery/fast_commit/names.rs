//! Changes of a directory's names.

use std::collections::BTreeMap;

use crate::format::file_type::FileType;

/// What a name became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameChange {
    /// It is for this inode.
    For(u32, FileType),
    /// It is not there any more.
    Removed,
}

/// NameChanges that are not as the directory's blocks say.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameChanges {
    changes: BTreeMap<Box<[u8]>, NameChange>,
    /// The directory is a new one: its blocks were never written.
    is_new: bool,
}

impl NameChanges {
    pub(crate) fn of_new_directory() -> Self {
        Self { is_new: true, ..Self::default() }
    }

    /// Whether there is nothing in the directory's blocks.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    pub(crate) fn set(&mut self, name: &[u8], change: NameChange) {
        self.changes.insert(name.into(), change);
    }

    /// What the name became; `None` if it is as in the blocks.
    pub(crate) fn get(&self, name: &[u8]) -> Option<NameChange> {
        self.changes.get(name).copied()
    }

    /// The names that were added, in order.
    pub(crate) fn added(&self) -> impl Iterator<Item = (&[u8], u32, FileType)> {
        self.changes.iter().filter_map(|(name, change)| match *change {
            NameChange::For(inode, kind) => Some((&**name, inode, kind)),
            NameChange::Removed => None,
        })
    }
}
