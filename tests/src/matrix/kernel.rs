//! The kernel's view of a mounted filesystem.

use std::collections::BTreeMap;
use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::node::{Node, Tree};
use crate::sys;
use crate::view::{self, Time};

/// Returns the tree mounted at `root`, as the kernel reads it.
pub fn tree(root: &Path) -> io::Result<Tree> {
    let mut walk = Walk::default();
    walk.below(root, &[])?;
    Ok(walk.tree)
}

#[derive(Default)]
struct Walk {
    tree: Tree,
    /// Visited inodes that have several names.
    linked: BTreeMap<u64, Node>,
}

impl Walk {
    fn below(&mut self, path: &Path, name: &[u8]) -> io::Result<()> {
        let metadata = path.symlink_metadata()?;
        if metadata.is_dir() {
            for item in fs::read_dir(path)? {
                let item = item?;
                let slash: &[u8] = if name.is_empty() { b"" } else { b"/" };
                let below = [name, slash, item.file_name().as_bytes()].concat();
                self.below(&item.path(), &below)?;
            }
        }
        let node = match self.linked.get(&metadata.ino()) {
            Some(node) => Node { entry: view::entry_of(path, &metadata)?, ..node.clone() },
            None => node(path, &metadata)?,
        };
        if metadata.nlink() > 1 && !metadata.is_dir() {
            self.linked.entry(metadata.ino()).or_insert_with(|| node.clone());
        }
        self.tree.insert(name.to_vec(), node);
        Ok(())
    }
}

fn node(path: &Path, metadata: &Metadata) -> io::Result<Node> {
    let mut node = Node {
        entry: view::entry_of(path, metadata)?,
        crtime: metadata.created().ok().map(time),
        blocks: Some(metadata.blocks()),
        rdev: None,
        flags: None,
        project: None,
        xattrs: Some(sys::xattrs(path)?),
        extents: None,
        digest: None,
    };
    if matches!(metadata.mode() & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK) {
        node.rdev = Some((libc::major(metadata.rdev()), libc::minor(metadata.rdev())));
    }
    if metadata.is_file() || metadata.is_dir() {
        // O_NONBLOCK, because a lease or a lock could block the call.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = match opened {
            // The file is encrypted, and its key is not available.
            Err(error) if error.raw_os_error() == Some(libc::ENOKEY) => return Ok(node),
            opened => opened?,
        };
        node.flags = Some(sys::flags(&file)?);
        node.project = Some(sys::project(&file)?);
        node.extents = Some(sys::fiemap(&file)?);
    }
    if metadata.is_file() {
        node.digest = Some(view::digest(path)?);
    }
    Ok(node)
}

fn time(time: std::time::SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (after.as_secs() as i64, after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let whole = before.as_secs() as i64;
            match before.subsec_nanos() {
                0 => (-whole, 0),
                nanoseconds => (-whole - 1, 1_000_000_000 - nanoseconds),
            }
        }
    }
}
