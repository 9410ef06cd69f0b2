//! A tree of names and files, as it should be after each operation, and as a filesystem has it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::{fmt, fs};

use nvio_ext4::{FileType, Filesystem, InodeNumber};

use crate::common::attributes;
use crate::common::read_file;
use crate::journaled::recorder::{Disk, SECTOR};

pub type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

/// An inode. Contents are those of a file, or the target of a symbolic link.
#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: FileType,
    pub contents: Arc<Vec<u8>>,
    pub attributes: Arc<Attributes>,
    /// Number of the operation that created it, because inode numbers are used again.
    pub created: usize,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = self.attributes.values().map(Vec::len).collect::<Vec<_>>();
        write!(f, "{:?} of {} bytes, attributes {lengths:?}", self.kind, self.contents.len())
    }
}

impl Node {
    pub fn new(kind: FileType, created: usize) -> Self {
        Self { kind, contents: Arc::default(), attributes: Arc::default(), created }
    }

    /// Returns true if a sector of the file is `found`; there are zeroes after the end.
    pub fn has(&self, sector: usize, found: &[u8]) -> bool {
        let rest = self.contents.get(sector * SECTOR..).unwrap_or_default();
        let (inside, after) = found.split_at(rest.len().min(found.len()));
        inside == &rest[..inside.len()] && after.iter().all(|&byte| byte == 0)
    }
}

/// All names, with the numbers of their inodes, and the inodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    pub names: BTreeMap<String, u32>,
    pub nodes: BTreeMap<u32, Node>,
}

pub fn raw(number: InodeNumber) -> u32 {
    number.get()
}

/// Returns the directory of a path.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Returns the last name of a path.
pub fn last(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

impl Tree {
    /// Reads the tree of a filesystem, and checks its counts of links.
    pub fn read(fs: &Filesystem, disk: &Disk) -> Self {
        let (mut tree, mut links) = (Self::default(), BTreeMap::new());
        let mut todo = vec![(String::new(), fs.root().unwrap())];
        while let Some((path, inode)) = todo.pop() {
            if inode.is_dir() {
                for entry in fs.read_dir(&inode).unwrap() {
                    let entry = entry.unwrap();
                    let child = fs.inode(entry.inode).unwrap();
                    assert_eq!(entry.kind.unwrap_or(child.kind()), child.kind(), "{path}");
                    let name = String::from_utf8(entry.name).unwrap();
                    let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                    todo.push((path, child));
                }
            }
            let number = raw(inode.number());
            let before = tree.names.insert(path.clone(), number);
            assert!(before.is_none(), "{path:?} twice");
            links.insert(number, inode.links());
            tree.nodes.entry(number).or_insert_with(|| {
                let contents = match inode.kind() {
                    FileType::Regular => read_file(fs, disk, &inode),
                    FileType::Symlink => fs.read_link(&inode).unwrap(),
                    _ => Vec::new(),
                };
                let attributes = attributes::ours(fs, &inode).unwrap();
                Node {
                    kind: inode.kind(),
                    contents: Arc::new(contents),
                    attributes: Arc::new(attributes),
                    created: 0,
                }
            });
        }
        assert_eq!(links, tree.links());
        tree
    }

    /// Reads the tree as the kernel sees it.
    pub fn by_kernel(top: &Path) -> Self {
        let (mut tree, mut links) = (Self::default(), BTreeMap::new());
        let mut all = attributes::getfattr(top);
        for path in crate::common::walk(top) {
            let full = top.join(&path);
            let meta = full.symlink_metadata().unwrap();
            let number = u32::try_from(meta.ino()).unwrap();
            links.insert(number, u32::try_from(meta.nlink()).unwrap());
            tree.names.insert(path.to_str().unwrap().to_owned(), number);
            let kind = crate::common::kind_of(&meta);
            let contents = match kind {
                FileType::Regular => fs::read(&full).unwrap(),
                FileType::Symlink => fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec(),
                _ => Vec::new(),
            };
            let attributes = Arc::new(all.remove(&path).unwrap_or_default());
            let node = Node { kind, contents: Arc::new(contents), attributes, created: 0 };
            tree.nodes.insert(number, node);
        }
        assert_eq!(links, tree.links());
        tree
    }

    /// Returns the number of links of each inode, by the names.
    pub fn links(&self) -> BTreeMap<u32, u32> {
        let mut links = BTreeMap::new();
        for (path, &number) in &self.names {
            *links.entry(number).or_default() += 1;
            if self.nodes[&number].kind == FileType::Directory {
                // The name "." in it, and ".." of each subdirectory. The root is its own parent.
                *links.entry(number).or_default() += u32::from(!path.is_empty());
                *links.entry(self.names[parent(path)]).or_default() += 1;
            }
        }
        links
    }

    pub fn get(&self, path: &str) -> Option<u32> {
        self.names.get(path).copied()
    }

    pub fn kind(&self, path: &str) -> Option<FileType> {
        self.get(path).map(|number| self.nodes[&number].kind)
    }

    pub fn is_file(&self, path: &str) -> bool {
        self.kind(path) == Some(FileType::Regular)
    }

    pub fn is_empty_dir(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.kind(path) == Some(FileType::Directory)
            && !self.names.keys().any(|name| name.starts_with(&below))
    }

    pub fn add(&mut self, path: &str, number: u32, node: Node) {
        assert!(self.names.insert(path.to_owned(), number).is_none(), "{path}");
        self.nodes.insert(number, node);
    }

    /// Removes a name, and the inode with its last one.
    pub fn remove(&mut self, path: &str) -> Option<u32> {
        let number = self.names.remove(path)?;
        if !self.names.values().any(|&other| other == number) {
            self.nodes.remove(&number);
        }
        Some(number)
    }

    /// Moves a name, and all below it.
    pub fn rename(&mut self, from: &str, to: &str) {
        if self.get(from) == self.get(to) {
            return;
        }
        self.remove(to);
        let below = format!("{from}/");
        let moves = |path: &String| path == from || path.starts_with(&below);
        let moved: BTreeSet<String> =
            self.names.keys().filter(|path| moves(path)).cloned().collect();
        for path in moved {
            let number = self.names.remove(&path).unwrap();
            self.names.insert(format!("{to}{}", &path[from.len()..]), number);
        }
    }

    pub fn contents_mut(&mut self, number: u32) -> &mut Vec<u8> {
        Arc::make_mut(&mut self.nodes.get_mut(&number).unwrap().contents)
    }

    pub fn attributes_mut(&mut self, number: u32) -> &mut Attributes {
        Arc::make_mut(&mut self.nodes.get_mut(&number).unwrap().attributes)
    }
}
