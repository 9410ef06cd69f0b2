//! The sorted entries of a directory in a compact form.

use std::ops::ControlFlow;

use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::corrupt::{Problem, Structure};
use crate::format::file_type::FileType;
use crate::format::inode::Inode;
use crate::number::{InodeNumber, as_usize};

/// The entries of a directory. Each uses 24 bytes and the bytes of its name.
#[derive(Default)]
pub(crate) struct Listing {
    /// All names, without separators.
    names: Vec<u8>,
    items: Vec<Item>,
}

/// An entry.
#[derive(Clone, Copy)]
pub(crate) struct Item {
    /// The first bytes of the name after the prefix that all names share. They decide most
    /// comparisons.
    key: u64,
    /// Byte offset of the name in `names`.
    at: u32,
    length: u8,
    /// File type, if it is known.
    pub kind: Option<FileType>,
    /// Number of the inode.
    pub inode: InodeNumber,
}

const _: () = assert!(size_of::<Item>() == 24);

impl Listing {
    /// Replaces the contents by the entries of a directory that can be read, sorted by name.
    /// Returns the errors of the others.
    pub(crate) fn read(
        &mut self,
        fs: &Filesystem,
        directory: &Inode,
    ) -> Result<Vec<Failed>, Error> {
        self.clear();
        let mut too_large = false;
        let mut errors = Errors::default();
        let visit = |inode, name: &[u8], kind| {
            too_large = self.push(inode, name, kind).is_none();
            if too_large { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        fs.read_dir(directory)?.each(visit, |error| errors.add(&[], error));
        let structure = Structure::Directory(directory.number());
        if too_large {
            let (value, max) = (directory.size(), u32::MAX.into());
            let problem = Problem::TooLarge { field: "length of all names", value, max };
            return Err(structure.corrupt(problem));
        }
        self.sort();
        self.drop_repeated(|name, inode| {
            errors.add(name, structure.corrupt(Problem::NameTwice { inode }));
        });
        Ok(errors.finish(structure))
    }

    /// Removes entries whose name is that of the entry before, which a lookup finds, and calls
    /// `dropped` with the name and the inode number of each.
    fn drop_repeated(&mut self, mut dropped: impl FnMut(&[u8], InodeNumber)) {
        let Self { names, items } = self;
        items.dedup_by(|item, before| {
            let name = name_of(names, item);
            let is_same = name == name_of(names, before);
            if is_same {
                dropped(name, item.inode);
            }
            is_same
        });
    }

    pub(crate) fn clear(&mut self) {
        self.names.clear();
        self.items.clear();
    }

    /// Appends an entry. Returns `None` if the names exceed 4 GiB.
    fn push(&mut self, inode: InodeNumber, name: &[u8], kind: Option<FileType>) -> Option<()> {
        let at = u32::try_from(self.names.len()).ok()?;
        let length = u8::try_from(name.len()).ok()?;
        self.names.extend_from_slice(name);
        self.items.push(Item { key: 0, at, length, kind, inode });
        Some(())
    }

    fn sort(&mut self) {
        let Self { names, items } = self;
        let Some(first) = items.first().map(|item| name_of(names, item)) else { return };
        let in_common = |item: &Item| {
            name_of(names, item).iter().zip(first).take_while(|(a, b)| a == b).count()
        };
        let common = items.iter().map(in_common).min().unwrap_or(0);
        for item in items.iter_mut() {
            let rest = name_of(names, item).get(common..).unwrap_or_default();
            // Names have no zero bytes, so zero padding sorts a prefix before longer names.
            let mut key = [0; 8];
            key.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            item.key = u64::from_be_bytes(key);
        }
        items.sort_unstable_by(|a, b| {
            let by_name = || name_of(names, a).cmp(name_of(names, b));
            a.key.cmp(&b.key).then_with(by_name).then(a.at.cmp(&b.at))
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Item> {
        self.items.get(index)
    }

    pub(crate) fn name(&self, item: &Item) -> &[u8] {
        name_of(&self.names, item)
    }

    /// Returns the entries from `start` on.
    pub(crate) fn rest(&self, start: usize) -> &[Item] {
        self.items.get(start..).unwrap_or_default()
    }

    /// Sets the type of an entry.
    pub(crate) fn set_kind(&mut self, index: usize, kind: Option<FileType>) {
        if let Some(item) = self.items.get_mut(index) {
            item.kind = kind;
        }
    }

    /// Returns a list of only the directories, with no spare capacity.
    pub(crate) fn directories(&self) -> Self {
        let directories =
            || self.items.iter().filter(|item| item.kind == Some(FileType::Directory));
        let bytes = directories().map(|item| usize::from(item.length)).sum();
        let mut only = Self {
            names: Vec::with_capacity(bytes),
            items: Vec::with_capacity(directories().count()),
        };
        for item in directories() {
            // This cannot fail, because the larger list had room for all names.
            let _ = only.push(item.inode, self.name(item), item.kind);
        }
        only
    }
}

/// Maximum number of errors of one directory that are reported one by one.
const ERRORS_MAX: usize = 1024;

/// An error of a directory, or of one of its names.
pub(crate) struct Failed {
    /// The name; empty for an error of the directory.
    pub name: Box<[u8]>,
    pub error: Error,
}

/// The errors of a directory.
#[derive(Default)]
struct Errors {
    first: Vec<Failed>,
    /// Number of errors after the first ones.
    more: u64,
}

impl Errors {
    fn add(&mut self, name: &[u8], error: Error) {
        if self.first.len() < ERRORS_MAX {
            self.first.push(Failed { name: name.into(), error });
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    fn finish(mut self, structure: Structure) -> Vec<Failed> {
        let count = self.more;
        if count > 0 {
            let error = structure.corrupt(Problem::MoreProblems { count });
            self.first.push(Failed { name: Box::default(), error });
        }
        self.first
    }
}

fn name_of<'n>(names: &'n [u8], item: &Item) -> &'n [u8] {
    let start = as_usize(item.at);
    names.get(start..).and_then(|rest| rest.get(..usize::from(item.length))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(names: &[&str]) -> Vec<String> {
        let mut listing = Listing::default();
        for (inode, name) in names.iter().enumerate() {
            listing.push((inode as u32).into(), name.as_bytes(), None).unwrap();
        }
        listing.sort();
        let name = |item: &Item| String::from_utf8(listing.name(item).to_vec()).unwrap();
        listing.rest(0).iter().map(|item| format!("{} {}", name(item), item.inode)).collect()
    }

    #[test]
    fn by_bytes_whatever_they_have_in_common() {
        assert_eq!(sorted(&[]), Vec::<String>::new());
        assert_eq!(sorted(&["x"]), ["x 0"]);
        let names = ["file-10", "file-9", "file-", "file-1", "file-100000000000002"];
        let names = [&names[..], &["file-100000000000001"]].concat();
        let expected = [
            "file- 2",
            "file-1 3",
            "file-10 0",
            "file-100000000000001 5",
            "file-100000000000002 4",
            "file-9 1",
        ];
        assert_eq!(sorted(&names), expected);
        assert_eq!(sorted(&["b", "\u{fc}", "a", "B"]), ["B 3", "a 2", "b 0", "\u{fc} 1"]);
        // Equal names, as in a damaged directory.
        assert_eq!(sorted(&["same", "a", "same"]), ["a 1", "same 0", "same 2"]);
    }

    #[test]
    fn as_the_standard_library_sorts() {
        let mut random = 1u64;
        let mut names: Vec<Vec<u8>> = Vec::new();
        for _ in 0..5000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let length = 1 + (random >> 60) as usize;
            names.push((0..length).map(|at| b'a' + (random >> (at * 2 + 8)) as u8 % 3).collect());
        }
        let mut listing = Listing::default();
        for name in &names {
            listing.push(1.into(), name, Some(FileType::Regular)).unwrap();
        }
        listing.sort();
        names.sort();
        let found: Vec<&[u8]> = listing.rest(0).iter().map(|item| listing.name(item)).collect();
        assert_eq!(found, names);
    }

    #[test]
    fn directories_stay_in_order() {
        let mut listing = Listing::default();
        for (inode, kind) in [(1, FileType::Directory), (2, FileType::Fifo)].repeat(3) {
            listing
                .push(inode.into(), format!("{}", 9 - listing.len()).as_bytes(), Some(kind))
                .unwrap();
        }
        listing.sort();
        let only = listing.directories();
        let names: Vec<&[u8]> = only.rest(0).iter().map(|item| only.name(item)).collect();
        assert_eq!(names, [b"5", b"7", b"9"]);
        assert!(only.rest(0).iter().all(|item| item.inode == 1));
    }
}
