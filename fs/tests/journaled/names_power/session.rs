//! A sequence as it is made and recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nvio_ext4::{
    FileType, InodeNumber, JournaledFile, JournaledFilesystem, NewFile, RenameMode, XattrMode,
};
use nvio_iomap::{CachedFile, FileQueue, ImageQueue, PageCache, Tag};

use super::model::{Node, Tree, raw};
use super::ops::{self, NAMES, Op, Sequence, Sync, paths_of, split};
use crate::common::pattern;
use crate::journaled::open;
use crate::journaled::open_files::Disk as Image;
use crate::journaled::recorder::{Disk, Event, Recorder, SECTOR};

type Queue = FileQueue<ImageQueue<Image, Tag<nvio_ext4::OpenInode>>, nvio_ext4::OpenInode>;

/// Durability that a sync promised.
struct Promise {
    /// Calls of the device when it returned.
    calls: usize,
    /// The state of names, sizes and attributes that is the oldest one from then on.
    metadata: usize,
    /// The files whose contents are those of the state `now` or of later ones.
    files: BTreeSet<u32>,
    now: usize,
}

/// A recorded sequence, with the tree after each operation.
pub struct Workload {
    pub base: Disk,
    pub events: Vec<Event>,
    pub states: Vec<Tree>,
    /// Calls of the device before each operation.
    made: Vec<usize>,
    promises: Vec<Promise>,
    /// Files whose data went through the cache, so that sizes and contents arrive later.
    cached: BTreeSet<u32>,
    /// Files whose data is not durable before a sync of it, while the order of sizes is that of the operations.
    direct: BTreeSet<u32>,
    /// Calls before the last sync.
    pub before_last: usize,
}

/// An inode that an operation changed, and whether fdatasync has to make it durable.
type Touched = Vec<(u32, bool)>;

struct Session {
    fs: JournaledFilesystem,
    cache: PageCache,
    queue: Queue,
    cached: BTreeMap<u32, CachedFile<JournaledFile>>,
    open: Vec<JournaledFile>,
    tree: Tree,
}

impl Session {
    fn new(device: &Recorder) -> Self {
        let image = || ImageQueue::new(Image(device.clone()), 32).unwrap();
        let fs = open(device);
        let tree = Tree::read(&fs, &device.disk());
        let cache = PageCache::new(ImageQueue::new(Image(device.clone()), 32).unwrap(), 256 << 10);
        let queue = FileQueue::new(image());
        Self { fs, cache, queue, cached: BTreeMap::new(), open: Vec::new(), tree }
    }

    fn directory(&self, path: &str) -> u32 {
        self.tree.get(path).unwrap()
    }

    /// Makes an operation, the one of number `index`.
    fn apply(&mut self, op: Op, index: usize) -> Touched {
        match op {
            Op::Create(at) | Op::Mkdir(at) | Op::Symlink(at) => self.create(op, NAMES[at], index),
            Op::Link(at, to) => self.link(NAMES[at], NAMES[to]),
            Op::Unlink(at) => self.unlink(NAMES[at]),
            Op::Rename(at, to) | Op::Replace(at, to) => self.rename(NAMES[at], NAMES[to]),
            Op::RenameDir(at, target) => {
                let (from, to) = paths_of(at, target);
                self.rename(&from, &to)
            }
            Op::Open(at) => {
                let inode = self.fs.inode(self.tree.get(NAMES[at]).unwrap()).unwrap();
                self.open.push(self.fs.open_file(&inode).unwrap());
                Touched::new()
            }
            Op::Unnamed(at) => {
                let directory = self.directory(["A", "B"][at]);
                let new = NewFile::with_permissions(0o600);
                self.open.push(self.fs.create_unnamed(directory, new).unwrap());
                Touched::new()
            }
            Op::WriteOpen => self.write_open(index),
            Op::Close => {
                self.open.clear();
                self.cached.clear();
                Touched::new()
            }
            Op::SetXattr(at) | Op::RemoveXattr(at) => {
                let inode = self.tree.get(NAMES[at]).unwrap();
                let is_set = matches!(op, Op::SetXattr(_));
                self.set_attribute(
                    inode,
                    is_set.then_some(if index.is_multiple_of(2) { 60 } else { 500 }),
                    index,
                );
                vec![(inode, false)]
            }
            Op::Allocate(..) | Op::Write(_) | Op::Buffered(_) | Op::Direct(_) | Op::Truncate(_) => {
                let inode = self.tree.get(&op.path().unwrap()).unwrap();
                let is_changed = self.change_file(op, inode, index);
                if is_changed { vec![(inode, true)] } else { Touched::new() }
            }
        }
    }

    fn create(&mut self, op: Op, path: &str, index: usize) -> Touched {
        let (parent, name) = split(path);
        let directory = self.directory(parent);
        let new = NewFile::with_permissions(0o755);
        // Short targets are in the inode, others have a block.
        let target = "target".repeat(1 + index % 2 * 20);
        let (kind, inode) = match op {
            Op::Mkdir(_) => (FileType::Directory, self.fs.create_dir(directory, name, new)),
            Op::Symlink(_) => {
                (FileType::Symlink, self.fs.create_symlink(&target, directory, name, new))
            }
            _ => (FileType::Regular, self.fs.create_file(directory, name, new)),
        };
        let inode = raw(inode.unwrap().number());
        let mut node = Node::new(kind, index + 1);
        if kind == FileType::Symlink {
            node.contents = Arc::new(target.into_bytes());
        }
        self.tree.add(path, inode, node);
        vec![(inode, true), (directory, true)]
    }

    fn link(&mut self, from: &str, to: &str) -> Touched {
        let (parent, name) = split(to);
        let (inode, directory) = (self.tree.get(from).unwrap(), self.directory(parent));
        self.fs.hard_link(inode, directory, name).unwrap();
        self.tree.names.insert(to.into(), inode);
        vec![(inode, true), (directory, true)]
    }

    fn unlink(&mut self, path: &str) -> Touched {
        let (parent, name) = split(path);
        let directory = self.directory(parent);
        match self.tree.kind(path) {
            Some(FileType::Directory) => self.fs.remove_dir(directory, name).unwrap(),
            _ => self.fs.remove_file(directory, name).unwrap(),
        }
        let inode = self.tree.remove(path).unwrap();
        vec![(inode, true), (directory, true)]
    }

    fn rename(&mut self, from: &str, to: &str) -> Touched {
        let (parent, name) = split(from);
        let (new_parent, new_name) = split(to);
        let [directory, new_directory] = [parent, new_parent].map(|path| self.directory(path));
        self.fs.rename(directory, name, new_directory, new_name, RenameMode::Replace).unwrap();
        let inode = self.tree.get(from).unwrap();
        let replaced = self.tree.get(to);
        self.tree.rename(from, to);
        let all = [inode, directory, new_directory].into_iter().chain(replaced);
        all.map(|inode| (inode, true)).collect()
    }

    /// Sets an attribute with a value of some length, or removes it.
    fn set_attribute(&mut self, inode: u32, length: Option<usize>, index: usize) {
        let attributes = self.tree.attributes_mut(inode);
        match length {
            Some(length) => {
                let value = pattern(index as u64, length);
                self.fs.set_xattr(inode, "user.a", &value, XattrMode::Either).unwrap();
                attributes.insert(b"user.a".to_vec(), value);
            }
            None => {
                self.fs.remove_xattr(inode, "user.a").unwrap();
                attributes.remove(&b"user.a"[..]);
            }
        }
    }

    /// Changes a file. Returns false if only its data has changed.
    fn change_file(&mut self, op: Op, inode: u32, index: usize) -> bool {
        let contents = self.tree.contents_mut(inode);
        let size = contents.len();
        let (pos, data) = match op {
            Op::Truncate(_) => {
                let size = size / 2 + 100;
                self.fs.truncate(inode, size as u64).unwrap();
                contents.resize(size, 0);
                return true;
            }
            Op::Allocate(_, keep) => {
                self.fs.allocate(inode, size as u64, 6000, keep).unwrap();
                contents.resize(if keep { size } else { size + 6000 }, 0);
                return true;
            }
            Op::Write(_) => (size, pattern(index as u64, 3000)),
            Op::Buffered(_) => (size.saturating_sub(1000), pattern(index as u64, 4000)),
            // Some of the direct writes are to blocks that the file has.
            _ if index.is_multiple_of(2) && size >= 4096 => (1024, pattern(index as u64, 2048)),
            _ => (size.saturating_sub(SECTOR) / SECTOR * SECTOR, pattern(index as u64, 4096)),
        };
        contents.resize(size.max(pos + data.len()), 0);
        contents[pos..pos + data.len()].copy_from_slice(&data);
        match op {
            Op::Write(_) => drop(self.fs.write_at(inode, pos as u64, &data).unwrap()),
            Op::Buffered(_) => {
                let open = || self.fs.cached_file(&self.fs.inode(inode).unwrap(), &self.cache);
                let cached = self.cached.entry(inode).or_insert_with(|| open().unwrap());
                let mut done = 0;
                while done < data.len() {
                    done += cached.write_at((pos + done) as u64, &data[done..]).unwrap();
                }
            }
            _ => {
                let mut file = self.fs.open_file(&self.fs.inode(inode).unwrap()).unwrap();
                file.write_at(&mut self.queue, pos as u64, &data).unwrap();
                self.open.push(file);
            }
        }
        pos + data.len() > size || !matches!(op, Op::Direct(_))
    }

    /// Appends to the open files, which may have no names.
    fn write_open(&mut self, index: usize) -> Touched {
        let mut touched = Touched::new();
        for (at, file) in (0..).zip(&self.open) {
            let inode = raw(file.inode().number());
            let data = pattern(1000 * index as u64 + at, 2500);
            let size = self.fs.inode(inode).unwrap().size();
            self.fs.write_at(inode, size, &data).unwrap();
            if self.tree.nodes.contains_key(&inode) {
                self.tree.contents_mut(inode).extend(data);
            }
            touched.push((inode, true));
        }
        touched
    }

    fn sync_file(&mut self, inode: u32, data: bool) {
        match (self.cached.get_mut(&inode), data) {
            (Some(file), true) => file.sync_data().unwrap(),
            (Some(file), false) => file.sync_all().unwrap(),
            (None, true) => self.fs.sync_data(inode).unwrap(),
            (None, false) => self.fs.sync_inode(inode).unwrap(),
        }
    }
}

/// The operations that a later sync has to make durable, by inode.
#[derive(Default)]
struct Last {
    change: BTreeMap<u32, usize>,
    map: BTreeMap<u32, usize>,
}

/// Returns the path of the directory whose sync follows an operation.
fn directory_of(op: Op, path: &str) -> String {
    let from = match op {
        // The old directory of some of the renames, and the new one of others.
        Op::Rename(at, to) if at > to => Some(NAMES[at]),
        _ => None,
    };
    split(from.unwrap_or(path)).0.to_owned()
}

impl Workload {
    /// Makes a sequence in the filesystem `bytes`, whose log is at another place after some `rounds`. Returns
    /// `None` if an operation cannot be made, or leaves it out with `lenient`.
    pub fn record(
        bytes: &Disk,
        rounds: u32,
        sequence: &Sequence,
        files: &[usize],
        (lenient, ends): (bool, bool),
    ) -> Option<Self> {
        let device = Recorder::new(bytes.clone());
        let mut session = Session::new(&device);
        let has_attributes = sequence.iter().any(|(op, _)| matches!(op, Op::RemoveXattr(_)));
        for &at in files {
            session.create(Op::Create(at), NAMES[at], 0);
            let inode = session.tree.get(NAMES[at]).unwrap();
            let data = pattern(100 + at as u64, 5000 + 300 * at);
            session.fs.write_at(inode, 0, &data).unwrap();
            *session.tree.contents_mut(inode) = data;
            if has_attributes {
                session.set_attribute(
                    inode,
                    Some(if at.is_multiple_of(2) { 60 } else { 500 }),
                    10 + at,
                );
            }
        }
        session.fs.sync().unwrap();
        for round in 0..rounds {
            session.fs.set_owner(InodeNumber::ROOT, Some(round), None).unwrap();
            session.fs.sync().unwrap();
        }
        let base = device.disk();
        let (before, mut last) = (device.calls(), Last::default());
        let mut this = Self {
            base,
            events: Vec::new(),
            states: vec![session.tree.clone()],
            made: Vec::new(),
            promises: Vec::new(),
            cached: BTreeSet::new(),
            direct: BTreeSet::new(),
            before_last: 0,
        };
        for &(op, sync) in sequence {
            if !op.is_possible(&session.tree) {
                if lenient {
                    continue;
                }
                return None;
            }
            let path = op.path();
            let directory = path.as_ref().map(|path| directory_of(op, path));
            let directory = directory.and_then(|path| session.tree.get(&path));
            this.made.push(device.calls() - before);
            let now = this.made.len();
            match (op, path.as_ref().and_then(|path| session.tree.get(path))) {
                (Op::Buffered(_), Some(inode)) => drop(this.cached.insert(inode)),
                (Op::Direct(_), Some(inode)) => drop(this.direct.insert(inode)),
                _ => (),
            }
            for (inode, is_map) in session.apply(op, now) {
                last.change.insert(inode, now);
                if is_map {
                    last.map.insert(inode, now);
                }
            }
            this.states.push(session.tree.clone());
            this.before_last = device.calls() - before;
            let file = path.and_then(|path| session.tree.get(&path));
            let at = |last: &BTreeMap<u32, usize>, inode| last.get(&inode).copied().unwrap_or(0);
            let (metadata, files) = match (sync, file, directory) {
                (Sync::File, Some(file), _) => {
                    session.sync_file(file, false);
                    (at(&last.change, file), BTreeSet::from([file]))
                }
                (Sync::Data, Some(file), _) => {
                    session.sync_file(file, true);
                    (at(&last.map, file), BTreeSet::from([file]))
                }
                (Sync::Directory, _, Some(directory)) => {
                    session.sync_file(directory, false);
                    (at(&last.change, directory), BTreeSet::new())
                }
                (Sync::All, ..) => {
                    session.cached.values_mut().for_each(|file| file.sync_data().unwrap());
                    session.fs.sync().unwrap();
                    (now, session.tree.nodes.keys().copied().collect())
                }
                _ => continue,
            };
            this.promises.push(Promise { calls: device.calls() - before, metadata, files, now });
        }
        let found = Tree::read(&session.fs, &device.disk());
        let Session { fs, cached, open, tree, .. } = session;
        let live = |inode| this.cached.contains(&inode);
        assert!(is_like(&tree, &found, live), "{sequence:?}: {found:?}");
        if ends {
            drop((cached, open));
            fs.close().unwrap();
            let now = this.states.len() - 1;
            let files = tree.nodes.keys().copied().collect();
            let calls = device.calls() - before;
            this.promises.push(Promise { calls, metadata: now, files, now });
            this.events = device.events()[before..].to_vec();
        } else {
            this.events = device.events()[before..].to_vec();
        }
        Some(this)
    }

    /// Panics unless the tree after a cut before call `at` is as it may be: names, sizes and attributes are
    /// those after one of the operations, and each sector is that one's or newer. Returns the operation.
    pub fn check(&self, what: &str, at: usize, found: &Tree) -> usize {
        let most = self.made.iter().filter(|&&calls| calls <= at).count();
        let promises = || self.promises.iter().filter(|promise| promise.calls <= at);
        let least = promises().map(|promise| promise.metadata).max().unwrap_or(0);
        let is_cached = |inode| self.cached.contains(&inode);
        let prefix = (least..=most).find(|&state| is_like(&self.states[state], found, is_cached));
        let Some(prefix) = prefix else {
            let states = &self.states[least..=most];
            panic!(
                "{what}: the tree is none of the states {least} to {most}\n{found:?}\n{states:?}"
            );
        };
        for (&inode, node) in &found.nodes {
            if node.kind != FileType::Regular {
                continue;
            }
            let kept = promises().filter(|promise| promise.files.contains(&inode));
            let mut least = kept.map(|promise| promise.now).max().unwrap_or(0);
            if !self.cached.contains(&inode) && !self.direct.contains(&inode) {
                least = least.max(prefix);
            }
            let created = self.states[prefix].nodes[&inode].created;
            let states = self.states[least..=most].iter();
            let nodes: Vec<&Node> = states
                .filter_map(|state| state.nodes.get(&inode))
                .filter(|node| node.created == created)
                .collect();
            // The file is gone in later states, but not on the disk.
            let nodes =
                if nodes.is_empty() { vec![&self.states[prefix].nodes[&inode]] } else { nodes };
            let sizes = || nodes.iter().map(|node| node.contents.len());
            let size = node.contents.len();
            assert!(
                sizes().min() <= Some(size) && Some(size) <= sizes().max()
                    || !self.cached.contains(&inode),
                "{what}: inode {inode} has {size} bytes"
            );
            for (index, sector) in node.contents.chunks(SECTOR).enumerate() {
                assert!(
                    nodes.iter().any(|node| node.has(index, sector)),
                    "{what}: inode {inode}, sector {index} is of none of the states {least} to {most}: {}",
                    sector[..40].escape_ascii()
                );
            }
        }
        prefix
    }
}

/// Compares trees but for the contents of files, and the sizes of those that are cached.
pub fn is_like(state: &Tree, found: &Tree, is_cached: impl Fn(u32) -> bool) -> bool {
    state.names == found.names
        && state.nodes.len() == found.nodes.len()
        && state.nodes.iter().all(|(inode, node)| {
            let Some(other) = found.nodes.get(inode) else { return false };
            let same = match node.kind {
                FileType::Regular => {
                    is_cached(*inode) || node.contents.len() == other.contents.len()
                }
                _ => node.contents == other.contents,
            };
            same && node.kind == other.kind && node.attributes == other.attributes
        })
}

/// Returns the sequences of open files without names, for files that are all there.
pub fn without_names(seed: u64) -> (Sequence, Vec<usize>) {
    let mut random = nvio_testkit::random::Rng::new(seed);
    (ops::random_without_names(&mut random, 9), vec![0, 2, 4])
}
