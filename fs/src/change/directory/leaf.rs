//! The entries of one block of names: where they are, and how they change.

use crate::error::Error;
use crate::format::corrupt::{Problem, Structure};
use crate::format::dir_entry;
use crate::format::dir_entry::Directory;
use crate::number::{InodeNumber, as_usize};

/// The inode number, the file type and the name of an entry.
pub(super) type NewEntry<'a> = (InodeNumber, u8, &'a [u8]);

/// An entry of a block, checked.
#[derive(Clone, Copy)]
pub(super) struct Slot<'b> {
    pub offset: usize,
    /// Number of bytes up to the next entry.
    pub length: usize,
    /// Number of the inode; 0 if the entry is unused.
    pub inode: InodeNumber,
    pub file_type: u8,
    pub name: &'b [u8],
}

impl<'b> Slot<'b> {
    /// Creates an entry that is not in a block yet.
    pub(super) fn new((inode, file_type, name): NewEntry<'b>) -> Self {
        Self { offset: 0, length: 0, inode, file_type, name }
    }

    /// Returns the number of bytes that the entry needs.
    pub(super) fn used(&self) -> usize {
        if self.inode == 0 { 0 } else { dir_entry::needed(self.name.len()) }
    }

    /// Returns the number of bytes that another entry could have.
    fn free(&self) -> usize {
        self.length.saturating_sub(self.used())
    }

    pub(super) fn is_dot(&self) -> bool {
        matches!(self.name, b"." | b"..")
    }

    /// Returns the offset of the next entry.
    pub(super) fn end(&self) -> usize {
        self.offset.saturating_add(self.length)
    }

    pub(super) fn entry(&self) -> NewEntry<'b> {
        (self.inode, self.file_type, self.name)
    }
}

/// Returns the entries of block `index`, which end at byte `end`.
///
/// # Errors
/// Damage. Nothing may be changed in a block with an entry that breaks a rule.
pub(super) fn slots<'b>(
    directory: &Directory,
    block: &'b [u8],
    index: u64,
    end: usize,
) -> Result<Vec<Slot<'b>>, Error> {
    let mut slots = Vec::new();
    each_slot(directory, block, index, end, |slot| slots.push(slot))?;
    Ok(slots)
}

/// Calls `visit` for each entry of block `index`, which end at byte `end`.
///
/// # Errors
/// As [`slots`].
pub(super) fn each_slot<'b>(
    directory: &Directory,
    block: &'b [u8],
    index: u64,
    end: usize,
    mut visit: impl FnMut(Slot<'b>),
) -> Result<(), Error> {
    let mut offset = 0;
    // The loop ends, because an entry has a length.
    while offset < end {
        let Some(entry) = directory.entry(block, index, offset)? else { break };
        directory.check(index, offset, &entry)?;
        let length = entry.next.saturating_sub(offset);
        if entry.next > end {
            let name_len = entry.name.len();
            let problem = Problem::EntryLength { offset, rec_len: length, name_len };
            let structure = Structure::DirectoryBlock { inode: directory.inode, index };
            return Err(structure.corrupt(problem));
        }
        let (inode, file_type, name) = (entry.inode, entry.file_type, entry.name);
        visit(Slot { offset, length, inode, file_type, name });
        offset = entry.next;
    }
    Ok(())
}

/// Writes an entry to the first gap that is large enough. Returns false if there is none.
pub(super) fn insert(block: &mut [u8], slots: &[Slot<'_>], entry: NewEntry<'_>) -> bool {
    let needed = dir_entry::needed(entry.2.len());
    let Some(slot) = slots.iter().find(|slot| slot.free() >= needed) else { return false };
    let used = slot.used();
    if used > 0 && dir_entry::set_length(block, slot.offset, used).is_none() {
        return false;
    }
    let offset = slot.offset.saturating_add(used);
    dir_entry::write(block, offset, slot.free(), entry).is_some()
}

/// Removes an entry: its bytes belong to the entry before it, or, for the first one, to an unused entry.
pub(super) fn remove(block: &mut [u8], slots: &[Slot<'_>], at: usize) -> Option<()> {
    let slot = slots.get(at)?;
    let before = at.checked_sub(1).and_then(|before| slots.get(before));
    let bytes = block.get_mut(slot.offset..slot.end())?;
    bytes.fill(0);
    match before {
        Some(before) => {
            let length = before.length.saturating_add(slot.length);
            dir_entry::set_length(block, before.offset, length)
        }
        None => dir_entry::set_length(block, slot.offset, slot.length),
    }
}

/// Returns a block of `size` bytes with these entries, which end at byte `end`. Returns `None` if
/// they do not fit.
pub(super) fn pack<'a>(
    size: u32,
    end: usize,
    entries: impl IntoIterator<Item = NewEntry<'a>>,
) -> Option<Vec<u8>> {
    let mut block = vec![0; as_usize(size)];
    let (mut offset, mut last) = (0usize, None);
    for entry in entries {
        let length = dir_entry::needed(entry.2.len());
        let next = offset.checked_add(length).filter(|&next| next <= end)?;
        dir_entry::write(&mut block, offset, length, entry)?;
        (last, offset) = (Some(offset), next);
    }
    // The last entry has the rest of the block; without entries, an unused one has all of it.
    let last = last.unwrap_or(0);
    dir_entry::set_length(&mut block, last, end.checked_sub(last)?)?;
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Image;

    const SIZE: u32 = 4096;
    const END: usize = 4084;

    fn directory() -> Directory {
        let fs = Image::new().open();
        Directory::new(fs.superblock(), &fs.root().unwrap())
    }

    fn names(slots: &[Slot<'_>]) -> Vec<Vec<u8>> {
        slots.iter().filter(|slot| slot.inode != 0).map(|slot| slot.name.to_vec()).collect()
    }

    #[test]
    fn random_changes_are_those_of_a_list() {
        let directory = directory();
        let mut random = nvio_testkit::random::Rng::new(4);
        let mut block = pack(SIZE, END, []).unwrap();
        let (mut model, mut refused) = (Vec::<Vec<u8>>::new(), 0);
        for _ in 0..20_000 {
            let before = block.clone();
            let slots = slots(&directory, &before, 1, END).unwrap();
            let mut found = names(&slots);
            found.sort();
            model.sort();
            assert_eq!(found, model);
            assert_eq!(slots.last().unwrap().end(), END);
            if random.below(5) < 3 {
                let name: Vec<u8> =
                    (0..1 + random.below(255)).map(|_| b'a' + random.below(26) as u8).collect();
                let largest = slots.iter().map(Slot::free).max().unwrap();
                let fits = insert(&mut block, &slots, (12.into(), 1, &name));
                assert_eq!(fits, largest >= dir_entry::needed(name.len()));
                refused += usize::from(!fits);
                model.extend(fits.then_some(name));
            } else if let Some(at) = slots.iter().position(|slot| slot.inode != 0) {
                let at = at + random.below((slots.len() - at) as u64) as usize;
                if slots[at].inode != 0 {
                    remove(&mut block, &slots, at).unwrap();
                    let gone = model.iter().position(|name| **name == *slots[at].name).unwrap();
                    model.remove(gone);
                }
            }
        }
        assert!(refused > 100, "{refused}");
    }

    #[test]
    fn an_entry_over_the_tail_is_damage() {
        let directory = directory();
        let name = |at: u8| vec![at; 100];
        let names: Vec<_> = (1..20).map(|at| name(b'a' + at)).collect();
        let entries = || names.iter().map(|name| (12.into(), 1, &**name));
        let block = pack(SIZE, END, entries()).unwrap();
        assert_eq!(super::tests::names(&slots(&directory, &block, 1, END).unwrap()), names);
        let block = pack(SIZE, 4096, entries()).unwrap();
        assert!(slots(&directory, &block, 1, 4096).is_ok());
        assert!(slots(&directory, &block, 1, END).is_err());
        assert!(pack(SIZE, 1000, entries()).is_none());
    }
}
