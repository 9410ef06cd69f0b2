//! Random renames, links and removals, made by this crate and by the kernel, and on a model of the tree.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nvio_ext4::{Error, Filesystem, InodeNumber, JournaledFilesystem, Options, RenameMode};
use nvio_testkit::random::Rng;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::recorder::{Recorder, cut_disks};
use super::{check, open};
use crate::common::{self, Mount, mke2fs};

const ROOT: u64 = 2;

/// A tree: the entries of each directory, by inode number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tree {
    directories: BTreeMap<u64, BTreeMap<String, u64>>,
}

/// A change of names.
#[derive(Clone, Debug)]
enum Change {
    Rename { from: (u64, String), to: (u64, String), mode: RenameMode },
    Link { inode: u64, to: (u64, String) },
}

impl Tree {
    /// Reads the tree by this crate.
    fn read(fs: &Filesystem) -> Self {
        let (mut tree, mut todo) = (Self::default(), vec![ROOT]);
        while let Some(number) = todo.pop() {
            let directory = fs.inode(number as u32).unwrap();
            let mut entries = BTreeMap::new();
            for entry in fs.read_dir(&directory).unwrap().map(|entry| entry.unwrap()) {
                let inode = u64::from(entry.inode);
                if fs.inode(entry.inode).unwrap().is_dir() {
                    todo.push(inode);
                }
                entries.insert(String::from_utf8(entry.name).unwrap(), inode);
            }
            assert!(tree.directories.insert(number, entries).is_none(), "{number} twice");
        }
        tree.check_links(fs);
        tree
    }

    /// Compares the counts of links with the names.
    fn check_links(&self, fs: &Filesystem) {
        let mut links = HashMap::<u64, u32>::new();
        for (directory, entries) in &self.directories {
            *links.entry(*directory).or_default() += 1;
            for inode in entries.values() {
                *links.entry(*inode).or_default() += 1;
                if self.directories.contains_key(inode) {
                    *links.entry(*directory).or_default() += 1;
                }
            }
        }
        // The root is its own parent.
        *links.entry(ROOT).or_default() += 1;
        for (inode, links) in links {
            assert_eq!(fs.inode(inode as u32).unwrap().links(), links, "inode {inode}");
        }
    }

    /// Reads the tree as the kernel sees it.
    fn by_kernel(top: &Path) -> Self {
        let mut tree = Self::default();
        let mut todo = vec![top.to_owned()];
        while let Some(path) = todo.pop() {
            let mut entries = BTreeMap::new();
            for entry in fs::read_dir(&path).unwrap().map(|entry| entry.unwrap()) {
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    todo.push(entry.path());
                }
                entries.insert(entry.file_name().into_string().unwrap(), metadata.ino());
            }
            tree.directories.insert(fs::metadata(path).unwrap().ino(), entries);
        }
        tree
    }

    fn get(&self, (directory, name): &(u64, String)) -> Option<u64> {
        self.directories[directory].get(name).copied()
    }

    fn is_dir(&self, inode: u64) -> bool {
        self.directories.contains_key(&inode)
    }

    /// Returns the path of a directory.
    fn path(&self, inode: u64) -> PathBuf {
        if inode == ROOT {
            return PathBuf::new();
        }
        let parents = self.directories.iter();
        let mut found = parents.flat_map(|(&parent, entries)| {
            entries.iter().map(move |(name, &child)| (parent, name, child))
        });
        let (parent, name, _) = found.find(|&(.., child)| child == inode).unwrap();
        self.path(parent).join(name)
    }

    fn path_of(&self, (directory, name): &(u64, String)) -> PathBuf {
        self.path(*directory).join(name)
    }

    /// Returns true if `inode` is `below`, or a directory above it.
    fn is_above(&self, inode: u64, below: u64) -> bool {
        let top = self.path(inode);
        self.path(below).starts_with(top)
    }

    /// Makes a change, or returns the kind of its error.
    fn apply(&mut self, change: &Change) -> Result<(), ErrorKind> {
        match change {
            Change::Link { inode, to } => match self.get(to) {
                Some(_) => Err(ErrorKind::AlreadyExists),
                None => self.set(to, *inode),
            },
            Change::Rename { from, to, mode } => self.rename(from, to, *mode),
        }
    }

    fn set(&mut self, (directory, name): &(u64, String), inode: u64) -> Result<(), ErrorKind> {
        self.directories.get_mut(directory).unwrap().insert(name.clone(), inode);
        Ok(())
    }

    fn rename(
        &mut self,
        from: &(u64, String),
        to: &(u64, String),
        mode: RenameMode,
    ) -> Result<(), ErrorKind> {
        let source = self.get(from).ok_or(ErrorKind::NotFound)?;
        let target = self.get(to);
        let exchange = mode == RenameMode::Exchange;
        if mode == RenameMode::NoReplace && target.is_some() {
            return Err(ErrorKind::AlreadyExists);
        }
        if exchange && target.is_none() {
            return Err(ErrorKind::NotFound);
        }
        if target == Some(source) {
            return Ok(());
        }
        if self.is_dir(source) && self.is_above(source, to.0) {
            return Err(ErrorKind::InvalidInput);
        }
        if let Some(target) = target {
            if exchange {
                if self.is_dir(target) && self.is_above(target, from.0) {
                    return Err(ErrorKind::InvalidInput);
                }
                self.set(from, target)?;
                return self.set(to, source);
            }
            if self.is_dir(target) && self.is_above(target, from.0) {
                return Err(ErrorKind::DirectoryNotEmpty);
            }
            match (self.is_dir(source), self.is_dir(target)) {
                (true, false) => return Err(ErrorKind::NotADirectory),
                (false, true) => return Err(ErrorKind::IsADirectory),
                (true, true) if !self.directories[&target].is_empty() => {
                    return Err(ErrorKind::DirectoryNotEmpty);
                }
                (true, true) => drop(self.directories.remove(&target)),
                (false, false) => (),
            }
        }
        self.directories.get_mut(&from.0).unwrap().remove(&from.1);
        self.set(to, source)
    }

    /// Draws a change.
    fn draw(&self, random: &mut Rng) -> Change {
        let pick = |random: &mut Rng, count: usize| random.below(count as u64) as usize;
        let directories: Vec<u64> = self.directories.keys().copied().collect();
        let place = |random: &mut Rng| {
            let directory = directories[pick(random, directories.len())];
            let names: Vec<&String> = self.directories[&directory].keys().collect();
            let name = match random.below(4) {
                0..3 if !names.is_empty() => names[pick(random, names.len())].clone(),
                _ => format!("{:0>1$}", random.below(30), 1 + 7 * pick(random, 30)),
            };
            (directory, name)
        };
        let (from, to) = (place(random), place(random));
        let files = self.directories.values().flat_map(|entries| entries.values());
        let files: Vec<u64> = files.copied().filter(|&inode| !self.is_dir(inode)).collect();
        let is_own = |(directory, name): &(u64, String)| *directory == ROOT && name == "lost+found";
        if random.below(4) == 0 && !files.is_empty() {
            return Change::Link { inode: files[pick(random, files.len())], to };
        }
        if is_own(&from) || is_own(&to) {
            return self.draw(random);
        }
        let mode = match random.below(6) {
            0 => RenameMode::NoReplace,
            1 => RenameMode::Exchange,
            _ => RenameMode::Replace,
        };
        Change::Rename { from, to, mode }
    }
}

impl Change {
    fn here(&self, fs: &JournaledFilesystem) -> Result<(), Error> {
        let number = |inode: u64| InodeNumber::from(inode as u32);
        match self {
            Self::Link { inode, to } => fs.hard_link(number(*inode), number(to.0), &to.1).map(drop),
            Self::Rename { from, to, mode } => {
                fs.rename(number(from.0), &from.1, number(to.0), &to.1, *mode)
            }
        }
    }

    /// Makes the change by the kernel, where `tree` is mounted at `top`.
    fn by_kernel(&self, tree: &Tree, top: &Path) -> Result<(), ErrorKind> {
        let path = |place: &(u64, String)| top.join(tree.path_of(place));
        match self {
            Self::Link { inode, to } => {
                let name = tree.directories.iter().find_map(|(&directory, entries)| {
                    let (name, _) = entries.iter().find(|&(_, other)| other == inode)?;
                    Some((directory, name.clone()))
                });
                fs::hard_link(path(&name.unwrap()), path(to)).map_err(|error| error.kind())
            }
            Self::Rename { from, to, mode } => {
                let flags = match mode {
                    RenameMode::Replace => RenameFlags::empty(),
                    RenameMode::NoReplace => RenameFlags::NOREPLACE,
                    RenameMode::Exchange => RenameFlags::EXCHANGE,
                };
                renameat_with(CWD, path(from), CWD, path(to), flags)
                    .map_err(|error| std::io::Error::from(error).kind())
            }
        }
    }
}

/// Makes an image with a tree of `directories` directories and as many files.
fn image(dir: &Path, options: &str, directories: usize) -> PathBuf {
    let (image, source) = (dir.join("image"), dir.join("source"));
    if !source.exists() {
        let mut paths = vec![source.clone()];
        for at in 0..directories {
            let path = paths[at * 7 % paths.len()].join(format!("directory-{at}"));
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join(format!("file-{at}")), vec![at as u8; at * 900]).unwrap();
            std::os::unix::fs::symlink("target".repeat(at + 1), path.join("link")).unwrap();
            paths.push(path);
        }
    }
    mke2fs(&image, "16M", &options.split(' ').collect::<Vec<_>>(), Some(&source));
    image
}

fn our_turn(image: &Path, random: &mut Rng, model: &mut Tree, count: usize) -> HashSet<String> {
    let device = File::options().read(true).write(true).open(image).unwrap();
    let fs = JournaledFilesystem::open(device, Options::default()).unwrap();
    let mut kinds = HashSet::new();
    for at in 0..count {
        let change = model.draw(random);
        let expected = model.apply(&change);
        let found = change.here(&fs).map_err(|error| error.kind());
        assert_eq!(found, expected, "{change:?}");
        kinds.insert(format!("{expected:?}"));
        if at % 50 == 0 {
            // Lookups see the change, and no old inode or block.
            assert!(Tree::read(&fs) == *model, "{change:?}");
        }
    }
    fs.close().unwrap();
    kinds
}

fn kernels_turn(image: &Path, random: &mut Rng, model: &mut Tree, count: usize) {
    let mount = Mount::new(image, &image.with_extension("mnt"), "loop,noatime").unwrap();
    assert!(Tree::by_kernel(&mount.path) == *model);
    for at in 0..count {
        let change = model.draw(random);
        let before = model.clone();
        let expected = model.apply(&change);
        assert_eq!(change.by_kernel(&before, &mount.path), expected, "{change:?}");
        if at % 4 == 0 {
            // New files and directories, because renames remove some.
            let directory = *model.directories.keys().nth(at % model.directories.len()).unwrap();
            let place = (directory, format!("new-{at}"));
            let path = mount.path.join(model.path_of(&place));
            let made = match at % 8 {
                0 => fs::create_dir(&path),
                _ => File::create_new(&path).and_then(|mut file| file.write_all(b"new")),
            };
            if made.is_ok() {
                let inode = fs::metadata(path).unwrap().ino();
                model.set(&place, inode).unwrap();
                if at % 8 == 0 {
                    model.directories.insert(inode, BTreeMap::new());
                }
            }
        }
    }
    drop(mount);
}

#[test]
fn random_renames_in_turns_with_the_kernel() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let long = if std::env::var_os("NVIO_LONG").is_some() { 10 } else { 1 };
    for (seed, options) in [
        "-t ext4 -b 1024 -J size=1",
        "-t ext4 -b 4096 -J size=4 -O orphan_file",
        "-t ext4 -b 1024 -J size=1 -O ^metadata_csum,^64bit,^dir_index",
        "-t ext4 -b 1024 -J size=2 -O fast_commit",
    ]
    .into_iter()
    .enumerate()
    {
        let image = image(dir.path(), options, 12);
        let mut random = Rng::new(seed as u64);
        let mut model = Tree::read(&common::open(&image));
        let mut kinds = HashSet::new();
        for _ in 0..4 * long {
            kinds.extend(our_turn(&image, &mut random, &mut model, 500));
            common::assert_clean(&image);
            assert!(Tree::read(&common::open(&image)) == model, "{options}");
            kernels_turn(&image, &mut random, &mut model, 60);
            common::assert_clean(&image);
        }
        assert_eq!(kinds.len(), 7, "{kinds:?}");
    }
}

#[test]
fn every_cut_leaves_an_old_tree_or_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let options = "-t ext4 -b 1024 -J size=1";
    let base = fs::read(image(dir.path(), options, 8)).unwrap();
    let device = Recorder::new(base.clone());
    let fs = open(&device);
    let mut random = Rng::new(21);
    let mut model = Tree::read(&fs);
    // All trees so far, each with the number of calls after which it was there, and the number of calls
    // with which it was durable.
    let mut trees = vec![(model.clone(), 0)];
    let mut durable = vec![(0, 0)];
    while trees.len() < 60 {
        let change = model.draw(&mut random);
        if model.apply(&change).is_err() {
            continue;
        }
        change.here(&fs).unwrap();
        trees.push((model.clone(), device.calls()));
        if trees.len() % 3 == 0 {
            fs.sync().unwrap();
            durable.push((trees.len() - 1, device.calls()));
        }
    }
    let events = device.events();
    drop(fs);
    let mut found = HashSet::new();
    cut_disks(&base.into(), &events, &mut random, 2, |at, disk| {
        let device = Recorder::new(disk);
        let fs = open(&device);
        let tree = Tree::read(&fs);
        fs.close().unwrap();
        check(dir.path(), &device.bytes());
        let last = durable.iter().rfind(|&&(_, calls)| calls <= at).unwrap().0;
        let found_at = trees.iter().enumerate().skip(last);
        let mut possible =
            found_at.take_while(|(_, (_, calls))| *calls <= at || at >= events.len());
        let (index, _) = possible.find(|(_, (other, _))| *other == tree).expect("no such tree");
        found.insert(index);
    });
    assert!(found.len() > 15, "{}", found.len());
}

/// A file that is open when it is replaced keeps its inode until the next open.
#[test]
fn a_file_that_is_open_when_it_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), "-t ext4 -b 1024 -J size=1", 4);
    let device = Recorder::new(fs::read(image).unwrap());
    let fs = open(&device);
    let root = fs.root().unwrap().number();
    let parent = fs.lookup("/directory-0").unwrap().number();
    let [old, new] =
        ["/directory-0/file-0", "/directory-0/link"].map(|path| fs.lookup_no_follow(path).unwrap());
    let free = fs.statfs().unwrap().free_files;
    let file = fs.open_file(&old).unwrap();
    fs.rename(parent, "link", root, "moved", RenameMode::Replace).unwrap();
    fs.rename(root, "moved", parent, "file-0", RenameMode::Replace).unwrap();
    assert_eq!(fs.lookup_no_follow("/directory-0/file-0").unwrap().number(), new.number());
    // The replaced file can be used while it is open, and a loss of power frees it.
    fs.write_at(old.number(), 0, b"without a name").unwrap();
    assert_eq!(fs.inode(old.number()).unwrap().links(), 0);
    fs.sync().unwrap();
    let crashed = Recorder::new(device.bytes());
    let after = open(&crashed);
    assert_eq!(after.statfs().unwrap().free_files, free + 1);
    after.close().unwrap();
    check(dir.path(), &crashed.bytes());
    assert_eq!(fs.statfs().unwrap().free_files, free);
    let error = fs.hard_link(old.number(), root, "again").unwrap_err();
    assert!(matches!(error, Error::InodeNotInUse { .. }), "{error}");
    drop(file);
    assert!(matches!(fs.inode(old.number()), Err(Error::InodeNotInUse { .. })));
    assert_eq!(fs.statfs().unwrap().free_files, free + 1);
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
}

/// The log has copies of the blocks of a directory that is freed, and a file gets the blocks.
#[test]
fn freed_directories_are_not_replayed_over_data() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), "-t ext4 -b 1024 -J size=1", 3);
    let device = Recorder::new(fs::read(image).unwrap());
    let fs = open(&device);
    let root = fs.root().unwrap().number();
    let [file, parent] =
        ["/directory-0/file-0", "/directory-0"].map(|path| fs.lookup(path).unwrap().number());
    // "lost+found" is an empty directory.
    let full = fs.lookup("/lost+found").unwrap();
    let name = |at: usize| format!("{at:0>170}");
    for at in 0..60 {
        fs.hard_link(file, full.number(), name(at)).unwrap();
    }
    fs.sync().unwrap();
    for at in 0..60 {
        fs.rename(full.number(), name(at), root, name(at), RenameMode::Replace).unwrap();
    }
    fs.sync().unwrap();
    // An empty directory replaces it.
    let full = full.number();
    let moved = fs.lookup("/directory-0/directory-1");
    let moved = moved.or_else(|_| fs.lookup("/directory-1")).unwrap().number();
    let mut names = Vec::new();
    for entry in fs.read_dir(&fs.inode(moved).unwrap()).unwrap() {
        names.push(entry.unwrap().name);
    }
    for (at, name) in names.iter().enumerate() {
        fs.rename(moved, name, root, format!("moved-{at}"), RenameMode::NoReplace).unwrap();
    }
    let place = [parent, root].into_iter().find(|&parent| {
        fs.rename(parent, "directory-1", root, "lost+found", RenameMode::Replace).is_ok()
    });
    assert!(place.is_some());
    assert!(matches!(fs.inode(full), Err(Error::InodeNotInUse { .. })));
    fs.sync().unwrap();
    // A file gets all blocks.
    let data = vec![0xa5; 64 << 10];
    let mut size = 0;
    for length in [data.len(), 1024] {
        while fs.write_at(file, size, &data[..length]).is_ok() {
            size += length as u64;
        }
    }
    let size = fs.lookup(format!("/{}", name(0))).unwrap().size();
    fs.sync().unwrap();
    let crashed = Recorder::new(device.disk());
    drop(fs);
    let fs = open(&crashed);
    let revoked = fs.recovered().unwrap().revoked;
    assert!(revoked > 10, "the log has copies that are not replayed: {:?}", fs.recovered());
    let inode = fs.lookup(format!("/{}", name(0))).unwrap();
    assert_eq!(inode.size(), size);
    let contents = common::read_file(&fs, &crashed, &inode);
    assert!(contents.iter().all(|&byte| byte == 0xa5), "old blocks of a directory in a file");
    fs.close().unwrap();
    check(dir.path(), &crashed.bytes());
}
