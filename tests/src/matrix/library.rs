//! The library's view of an image file.

use std::collections::BTreeMap;
use std::fs::File as HostFile;
use std::io;
use std::path::Path;

use nvio_ext4::{
    BlockSource, Error, FileType, Filesystem, Inode, InodeFlags, InodeNumber, Options, Timestamp,
    Unsupported,
};
use nvio_iomap::{Mapper, MappingKind, Op};

use super::node::{Node, Tree};
use crate::sys::{Extent, Xattrs};
use crate::view::{self, Content, Entry, Time};

/// Directories with more names are searched for only some of them.
const SEARCHED: usize = 300;

/// The tree that the library has read, and its errors.
#[derive(Debug, Default)]
pub struct Found {
    /// The tree.
    pub tree: Tree,
    /// Errors, one per line.
    pub problems: Vec<String>,
}

/// Reads the whole filesystem in `image`, possibly with an external journal.
pub fn tree(image: &Path, journal: Option<&Path>) -> Found {
    let mut found = Found::default();
    let open = |path: &Path| HostFile::open(path).expect("an image");
    let opened = match journal {
        Some(journal) => {
            Filesystem::open_with_journal(open(image), open(journal), Options::default())
        }
        None => Filesystem::open(open(image)),
    };
    let fs = match opened {
        Ok(fs) => fs,
        Err(error) => {
            found.problems.push(format!("opening: {error}"));
            return found;
        }
    };
    let device = HostFile::open(image).expect("an image");
    let mut walk = Walk { fs, device, found, linked: BTreeMap::new(), searches: SEARCHED };
    match walk.fs.root() {
        Ok(root) => walk.below(&[], &root, 0),
        Err(error) => walk.problem(b"", &error),
    }
    walk.found
}

struct Walk {
    fs: Filesystem,
    device: HostFile,
    found: Found,
    /// Visited inodes that have several names.
    linked: BTreeMap<InodeNumber, Node>,
    /// Number of remaining lookups of missing names.
    searches: usize,
}

impl Walk {
    fn problem(&mut self, path: &[u8], error: &dyn std::fmt::Display) {
        self.found.problems.push(format!("/{}: {error}", path.escape_ascii()));
    }

    fn below(&mut self, path: &[u8], inode: &Inode, depth: usize) {
        assert!(depth < 1000, "a tree of {depth} levels");
        let seen = self.linked.get(&inode.number()).cloned();
        match seen.map_or_else(|| self.node(inode), Ok) {
            Ok(node) => {
                if inode.links() > 1 && !inode.is_dir() {
                    self.linked.entry(inode.number()).or_insert_with(|| node.clone());
                }
                self.found.tree.insert(path.to_vec(), node);
            }
            Err(error) => self.problem(path, &error),
        }
        if inode.is_dir()
            && let Err(error) = self.directory(path, inode, depth)
        {
            self.problem(path, &error);
        }
    }

    fn directory(&mut self, path: &[u8], directory: &Inode, depth: usize) -> Result<(), Error> {
        let mut names = BTreeMap::new();
        for entry in self.fs.read_dir(directory)? {
            let entry = entry?;
            if matches!(&entry.name[..], b"." | b"..") {
                continue;
            }
            if names.insert(entry.name.clone(), entry).is_some() {
                self.problem(path, &"a name is listed twice");
            }
        }
        let stride = names.len().div_ceil(SEARCHED).max(1);
        for (index, (name, entry)) in names.iter().enumerate() {
            let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let below = [path, slash, name].concat();
            let inode = match self.fs.inode(entry.inode) {
                Ok(inode) => inode,
                Err(error) => {
                    self.problem(&below, &error);
                    continue;
                }
            };
            if entry.kind.is_some_and(|kind| kind != inode.kind()) {
                self.problem(&below, &format!("entry {entry:?}, inode {:?}", inode.kind()));
            }
            if index % stride == 0 {
                self.search(&below, entry.inode);
                if directory.flags().contains(InodeFlags::CASEFOLD) {
                    self.search_folded(path, name, entry.inode);
                }
            }
            self.below(&below, &inode, depth + 1);
        }
        if self.searches == 0 {
            return Ok(());
        }
        self.searches -= 1;
        let missing = [path, b"/no such name".as_slice()].concat();
        match self.fs.lookup_no_follow(&missing) {
            Err(Error::NotFound { .. }) => {}
            other => self.problem(&missing, &format!("is not there, but: {other:?}")),
        }
        Ok(())
    }

    /// Checks that the path resolves to the inode in its directory entry.
    fn search(&mut self, path: &[u8], number: InodeNumber) {
        match self.fs.lookup_no_follow(path) {
            Ok(inode) if inode.number() == number => {}
            Ok(inode) => {
                let line = format!("lookup gives inode {}, not {number}", inode.number());
                self.problem(path, &line);
            }
            Err(error) => self.problem(path, &format!("lookup: {error}")),
        }
    }

    /// Like [`Self::search`], in upper case and in lower case.
    fn search_folded(&mut self, directory: &[u8], name: &[u8], number: InodeNumber) {
        let Ok(text) = std::str::from_utf8(name) else { return };
        for name in [text.to_uppercase(), text.to_lowercase()] {
            self.search(&[directory, b"/", name.as_bytes()].concat(), number);
        }
    }

    fn node(&mut self, inode: &Inode) -> Result<Node, Error> {
        let kind = inode.kind();
        let target = if kind == FileType::Symlink { Some(self.fs.read_link(inode)?) } else { None };
        let mut node = Node {
            entry: Entry {
                mode: inode.mode().into(),
                uid: inode.uid(),
                gid: inode.gid(),
                size: inode.size(),
                links: inode.links().into(),
                inode: inode.number().into(),
                atime: time(inode.atime()),
                mtime: time(inode.mtime()),
                ctime: time(inode.ctime()),
                target,
            },
            crtime: inode.crtime().map(time),
            blocks: Some(inode.blocks_512()),
            rdev: inode.rdev(),
            flags: Some(inode.flags().bits()),
            project: inode.project(),
            xattrs: Some(xattrs(&self.fs, inode)?),
            extents: None,
            digest: None,
        };
        if matches!(kind, FileType::Regular | FileType::Directory) {
            node.extents = match extents(&self.fs, inode) {
                Err(Error::UnsupportedInode { what: Unsupported::Encrypted, .. }) => None,
                extents => Some(extents?),
            };
        }
        if kind == FileType::Regular {
            let file = match self.fs.file(inode) {
                Err(Error::UnsupportedInode { what: Unsupported::Encrypted, .. }) => {
                    return Ok(node);
                }
                file => file?,
            };
            let mut mapped = Mapped { file, device: &self.device };
            match view::digest_content(&mut mapped, inode.size()) {
                Ok(digest) => node.digest = Some(digest),
                Err(error) => node.digest = Some(error.to_string()),
            }
        }
        Ok(node)
    }
}

fn xattrs(fs: &Filesystem, inode: &Inode) -> Result<Xattrs, Error> {
    fs.xattrs(inode)?.map(|xattr| xattr.map(|xattr| (xattr.name, xattr.value))).collect()
}

fn extents(fs: &Filesystem, inode: &Inode) -> Result<Vec<Extent>, Error> {
    let extent = |extent: nvio_ext4::Extent| Extent {
        logical: extent.logical,
        physical: extent.physical,
        length: extent.length,
        unwritten: extent.unwritten,
        inline: extent.inline,
        last: extent.last,
    };
    fs.extents(inode)?.map(|found| found.map(extent)).collect()
}

/// A file that is read from the image through its map.
struct Mapped<'a> {
    file: nvio_ext4::File,
    device: &'a HostFile,
}

impl Content for Mapped<'_> {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        while at < buffer.len() {
            let pos = offset + at as u64;
            let length = (buffer.len() - at) as u64;
            let mapping = self.file.begin(pos, length, Op::empty()).map_err(io::Error::other)?;
            assert!(mapping.offset <= pos && mapping.end() > pos, "{mapping:?} at {pos}");
            let end = (mapping.end() - offset).min(buffer.len() as u64) as usize;
            let part = &mut buffer[at..end];
            match mapping.kind {
                MappingKind::Mapped => {
                    let address = mapping.device_address(pos).expect("an address");
                    BlockSource::read(self.device, address, part).map_err(io::Error::other)?;
                }
                MappingKind::Inline => {
                    self.file.read_inline(&mapping, pos, part).map_err(io::Error::other)?;
                }
                MappingKind::Hole | MappingKind::Unwritten => part.fill(0),
                other => return Err(io::Error::other(format!("{other:?} at {pos}"))),
            }
            let done = (end - at) as u64;
            self.file.end(&mapping, pos, length, done, Op::empty()).map_err(io::Error::other)?;
            at = end;
        }
        Ok(())
    }

    fn next_data(&mut self, mut offset: u64) -> io::Result<Option<u64>> {
        while offset < self.file.size() {
            let mapping = self.file.begin(offset, 1, Op::empty()).map_err(io::Error::other)?;
            self.file.end(&mapping, offset, 1, 0, Op::empty()).map_err(io::Error::other)?;
            match mapping.kind {
                MappingKind::Hole | MappingKind::Unwritten => offset = mapping.end(),
                _ => return Ok(Some(offset)),
            }
        }
        Ok(None)
    }
}

fn time(time: Timestamp) -> Time {
    (time.seconds, time.nanoseconds)
}
