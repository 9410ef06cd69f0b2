//! A filesystem as a user sees it, according to the kernel and to this crate.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nvio_ext4::{FileType, Filesystem, Inode};

use super::extents::{Record, filefrag, join};
use super::{read_file, walk};

/// Everything below a directory, by path.
pub type View = BTreeMap<PathBuf, Entry>;

/// The attributes and contents of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub number: u64,
    pub mode: u32,
    pub owner: (u32, u32),
    pub links: u64,
    pub size: u64,
    /// Allocated size, in units of 512 bytes.
    pub blocks: u64,
    /// Times of the last access, change of the contents, and change of the inode: seconds and
    /// nanoseconds.
    pub times: [(i64, i64); 3],
    pub extents: Vec<Record>,
    pub contents: Contents,
}

/// The contents of a file. Debug output contains only a digest.
#[derive(Clone, PartialEq, Eq)]
pub struct Contents(pub Vec<u8>);

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sum = self.0.iter().fold(7u64, |sum, &b| sum.wrapping_mul(31).wrapping_add(b.into()));
        let start = &self.0[..self.0.len().min(24)];
        write!(f, "{} bytes {sum:016x} \"{}\"", self.0.len(), start.escape_ascii())
    }
}

/// Returns the kernel's view of the filesystem mounted at `mount`.
pub fn of_kernel(mount: &Path) -> View {
    let mut view = View::new();
    let mut files = Vec::new();
    for path in walk(mount) {
        let full = mount.join(&path);
        let meta = full.symlink_metadata().unwrap();
        let mut contents = Vec::new();
        if meta.is_file() {
            contents = fs::read(&full).unwrap();
            files.push(full);
        } else if meta.is_symlink() {
            contents = fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec();
        }
        let entry = Entry {
            number: meta.ino(),
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            links: meta.nlink(),
            size: meta.size(),
            blocks: meta.blocks(),
            times: [
                (meta.atime(), meta.atime_nsec()),
                (meta.mtime(), meta.mtime_nsec()),
                (meta.ctime(), meta.ctime_nsec()),
            ],
            extents: Vec::new(),
            contents: Contents(contents),
        };
        view.insert(path, entry);
    }
    for files in files.chunks(200) {
        for (file, records) in files.iter().zip(filefrag(files)) {
            let path = file.strip_prefix(mount).unwrap();
            view.get_mut(path).unwrap().extents = join(records.into_iter());
        }
    }
    view
}

/// Returns this crate's view of the image.
pub fn of_image(image: &Path) -> View {
    let fs = super::open(image);
    let device = File::open(image).unwrap();
    let mut view = View::new();
    let mut todo = vec![(PathBuf::new(), fs.root().unwrap())];
    while let Some((path, inode)) = todo.pop() {
        if inode.is_dir() {
            for entry in fs.read_dir(&inode).unwrap_or_else(|error| panic!("{path:?}: {error}")) {
                let entry = entry.unwrap_or_else(|error| panic!("{path:?}: {error}"));
                let child = fs.inode(entry.inode);
                let child = child.unwrap_or_else(|error| panic!("{path:?} {entry:?}: {error}"));
                if let Some(kind) = entry.kind {
                    assert_eq!(kind, child.kind(), "{path:?} {entry:?}");
                }
                let path = path.join(std::ffi::OsStr::from_bytes(&entry.name));
                let found = fs.lookup_no_follow(path.as_os_str().as_bytes()).unwrap();
                assert_eq!(found.number(), entry.inode, "{path:?}");
                todo.push((path, child));
            }
        }
        let before = view.insert(path.clone(), entry(&fs, &device, &inode));
        assert!(before.is_none(), "{path:?} twice");
    }
    view
}

fn entry(fs: &Filesystem, device: &File, inode: &Inode) -> Entry {
    let (mut extents, mut contents) = (Vec::new(), Vec::new());
    if inode.kind() == FileType::Regular {
        contents = read_file(fs, device, inode);
        let block = u64::from(fs.superblock().block_size());
        let listed = fs.extents(inode).unwrap().map(|extent| {
            let extent = extent.unwrap();
            (
                extent.logical / block,
                extent.physical / block,
                extent.length / block,
                extent.unwritten,
            )
        });
        extents = join(listed);
    } else if inode.kind() == FileType::Symlink {
        contents = fs.read_link(inode).unwrap();
    }
    Entry {
        number: inode.number().into(),
        mode: inode.mode().into(),
        owner: (inode.uid(), inode.gid()),
        links: inode.links().into(),
        size: inode.size(),
        blocks: inode.blocks_512(),
        times: [inode.atime(), inode.mtime(), inode.ctime()]
            .map(|time| (time.seconds, i64::from(time.nanoseconds))),
        extents,
        contents: Contents(contents),
    }
}

/// Replaces our block counts of files and directories by the kernel's. A mount recounts the blocks
/// of inodes that fast commits changed and of files that it truncates, while this crate returns the
/// stored count, which is right only after a clean unmount or a full commit.
pub fn ignore_recounted_blocks(ours: &mut View, theirs: &View, recounted: impl Fn(&Path) -> bool) {
    for (path, entry) in ours {
        let has_blocks = matches!(entry.mode & 0o170_000, 0o100_000 | 0o040_000);
        if let Some(theirs) = theirs.get(path).filter(|_| has_blocks && recounted(path)) {
            entry.blocks = theirs.blocks;
        }
    }
}

/// Replaces our times of files by those of the kernel where it has set both to one later time. A mount does
/// so with files that are in the list of orphans, which it truncates to their size: also with one whose inode
/// a file had that was deleted, and got its new name by a fast commit.
pub fn ignore_times_of_orphans(ours: &mut View, theirs: &View) {
    for (path, entry) in ours {
        if let Some(theirs) = theirs.get(path).filter(|_| entry.mode & 0o170_000 == 0o100_000) {
            let [[_, mtime, ctime], [_, our_mtime, our_ctime]] = [theirs.times, entry.times];
            if mtime == ctime && mtime > our_mtime.max(our_ctime) {
                (entry.times[1], entry.times[2]) = (mtime, ctime);
            }
        }
    }
}

/// Replaces our counts of links of directories by the kernel's, whose replay of fast commits does not count
/// the links of directories that it creates or removes.
pub fn ignore_links_of_directories(ours: &mut View, theirs: &View) {
    for (path, entry) in ours {
        if let Some(theirs) = theirs.get(path).filter(|_| entry.mode & 0o170_000 == 0o040_000) {
            entry.links = theirs.links;
        }
    }
}

/// Returns a view without counts of blocks, which depend on the nodes of trees, and without the times of
/// directories, which a mount by the kernel changes.
pub fn settled(mut view: View) -> View {
    for entry in view.values_mut() {
        entry.blocks = 0;
        if entry.mode & 0o170_000 == 0o040_000 {
            entry.times = Default::default();
        }
    }
    view
}

/// Panics with the paths that differ. `ignore_times` selects paths whose times the kernel has
/// changed during the mount.
pub fn assert_same(what: &str, ours: &View, theirs: &View, ignore_times: impl Fn(&Path) -> bool) {
    let mut different = Vec::new();
    let paths: std::collections::BTreeSet<&PathBuf> = ours.keys().chain(theirs.keys()).collect();
    for path in paths {
        let [mut ours, theirs] = [ours.get(path).cloned(), theirs.get(path).cloned()];
        if ignore_times(path)
            && let (Some(ours), Some(theirs)) = (&mut ours, &theirs)
        {
            ours.times = theirs.times;
        }
        if ours != theirs {
            different.push(format!("{path:?}:\n   ours {ours:?}\n theirs {theirs:?}"));
        }
    }
    assert!(different.is_empty(), "{what}: {}", different.join("\n"));
}
