//! The complete visible state of a filesystem, for comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Display};

use nvio_ext4::{DirEntry, Error, FileType, Filesystem, Inode, Xattr};
use nvio_iomap::{Mapper, MappingKind, Op};

use nvio_testkit::random::Rng;

use super::bytes::digest;
use super::source::Changed;

/// Maximum number of names, because a hostile directory may have very many.
const MOST_NAMES: usize = 4000;
/// Maximum number of bytes that are read from the start of a file.
const MOST_BYTES: u64 = 512 << 10;

/// A part of a view, or the error in its place.
pub type Part<T> = Result<T, String>;

/// The properties of one name.
#[derive(Debug, PartialEq)]
pub struct Facts {
    /// Inode number and type in the directory entry.
    pub entry: (u32, Option<FileType>),
    /// The fields of `stat`.
    pub stat: Part<Stat>,
    /// Digest of the contents of a file, or of the target of a link.
    pub contents: Part<u64>,
    /// Digest of the extents.
    pub extents: Part<u64>,
    /// Digest of the extended attributes.
    pub attributes: Part<u64>,
}

/// The fields of `stat`.
#[derive(Debug, PartialEq)]
pub struct Stat {
    pub mode: u16,
    pub owner: (u32, u32),
    pub size: u64,
    pub links: u32,
    pub blocks: u64,
    pub flags: u32,
    pub generation: u32,
    pub times: [(i64, u32); 4],
    pub project: Option<u32>,
    pub rdev: Option<(u32, u32)>,
}

impl Stat {
    fn of(inode: &Inode) -> Self {
        let crtime = inode.crtime().unwrap_or_default();
        let times = [inode.atime(), inode.mtime(), inode.ctime(), crtime];
        Self {
            mode: inode.mode(),
            owner: (inode.uid(), inode.gid()),
            size: inode.size(),
            links: inode.links(),
            blocks: inode.blocks_512(),
            flags: inode.flags().bits(),
            generation: inode.generation(),
            times: times.map(|time| (time.seconds, time.nanoseconds)),
            project: inode.project(),
            rdev: inode.rdev(),
        }
    }
}

/// The visible state of a filesystem.
#[derive(Debug, Default, PartialEq)]
pub struct View {
    pub superblock: String,
    pub names: BTreeMap<Vec<u8>, Facts>,
    /// Directories whose listing ended with an error.
    pub broken: BTreeSet<Vec<u8>>,
    /// Inode of each path that was looked up; 0 if it does not exist.
    pub lookups: Vec<Part<u32>>,
    /// Number of steps in a walk of the whole tree.
    pub walk: Option<Part<usize>>,
}

fn told<T>(result: Result<T, impl Display>) -> Part<T> {
    result.map_err(|error| {
        let line = error.to_string();
        assert!(!line.is_empty() && !line.contains('\n'), "not one line: {line}");
        line
    })
}

/// Reads everything: all names, and the lookups of `paths`.
pub fn explore(image: &Changed, paths: &[&[u8]]) -> Part<View> {
    let fs = told(Filesystem::open(image.clone()))?;
    let mut view = View { superblock: format!("{:?}", fs.superblock()), ..View::default() };
    let mut todo = vec![(Vec::new(), told(fs.root())?)];
    let mut seen = BTreeSet::new();
    while let Some((path, directory)) = todo.pop() {
        list(&fs, image, &path, &directory, &mut view, &mut |path, inode| {
            if seen.insert(inode.number()) {
                todo.push((path, inode));
            }
        });
    }
    view.lookups = paths.iter().map(|path| lookup(&fs, path)).collect();
    view.walk = Some(told(walk(&fs)));
    Ok(view)
}

/// Counts the steps of a walk. Returns an error if any step fails.
fn walk(fs: &Filesystem) -> Result<usize, Error> {
    let (mut count, mut wrong) = (0, None);
    let mut walk = fs.walk(b"/", &fs.root()?);
    while let Some(step) = walk.step() {
        count += 1;
        if let Err(error) = step {
            wrong = Some(error);
        }
        if count > 4 * MOST_NAMES {
            return Ok(0);
        }
    }
    wrong.map_or(Ok(count), Err)
}

fn attributes(fs: &Filesystem, inode: &Inode) -> Result<u64, Error> {
    let mut hash = 3;
    let mut wrong = None;
    for (count, attribute) in fs.xattrs(inode)?.enumerate() {
        assert!(count < 1 << 16, "{count} attributes of {inode:?}");
        match attribute {
            Ok(Xattr { name, value }) => {
                assert!(value.len() <= 64 << 10, "a value of {} bytes", value.len());
                let _ = fs.xattr(inode, &name);
                hash = digest(digest(hash, &name), &value);
            }
            Err(error) => wrong = Some(error),
        }
    }
    // Access control lists that cannot be decoded must be errors.
    for list in [fs.acl(inode), fs.default_acl(inode)] {
        hash = list?.map_or(hash, |list| digest(hash, list.to_string().as_bytes()));
    }
    wrong.map_or(Ok(hash), Err)
}

fn list(
    fs: &Filesystem,
    image: &Changed,
    path: &[u8],
    directory: &Inode,
    view: &mut View,
    found: &mut dyn FnMut(Vec<u8>, Inode),
) {
    let entries = match told(fs.read_dir(directory)) {
        Ok(entries) => entries,
        Err(_) => {
            view.broken.insert(path.to_vec());
            return;
        }
    };
    for entry in entries {
        let Ok(DirEntry { inode: number, name, kind }) = told(entry) else {
            view.broken.insert(path.to_vec());
            return;
        };
        assert!(!name.is_empty() && name.len() <= 255, "a name of {} bytes", name.len());
        if view.names.len() >= MOST_NAMES {
            view.broken.insert(path.to_vec());
            return;
        }
        let path = [path, b"/", &name].concat();
        let inode = told(fs.inode(number));
        let facts = match inode {
            Ok(inode) => {
                let facts = Facts {
                    entry: (number.get(), kind),
                    stat: Ok(Stat::of(&inode)),
                    contents: told(contents(fs, image, &inode)),
                    extents: told(extents(fs, &inode)),
                    attributes: told(attributes(fs, &inode)),
                };
                if inode.is_dir() {
                    found(path.clone(), inode);
                }
                facts
            }
            Err(error) => Facts {
                entry: (number.get(), kind),
                stat: Err(error.clone()),
                contents: Err(error.clone()),
                extents: Err(error.clone()),
                attributes: Err(error),
            },
        };
        view.names.insert(path, facts);
    }
}

fn lookup(fs: &Filesystem, path: &[u8]) -> Part<u32> {
    match fs.lookup_no_follow(path) {
        Ok(inode) => Ok(inode.number().get()),
        Err(Error::NotFound { .. }) => Ok(0),
        Err(error) => told(Err(error)),
    }
}

fn contents(fs: &Filesystem, image: &Changed, inode: &Inode) -> Result<u64, Error> {
    match inode.kind() {
        FileType::Symlink => fs.read_link(inode).map(|target| digest(1, &target)),
        FileType::Regular => read(fs, image, inode),
        _ => Ok(0),
    }
}

/// Reads a file from its start, and compares it with single bytes that are read in random order.
fn read(fs: &Filesystem, image: &Changed, inode: &Inode) -> Result<u64, Error> {
    let mut random = Rng::new(inode.number().into());
    let mut bytes = vec![0; inode.size().min(MOST_BYTES) as usize];
    let mut scattered = fs.file(inode)?;
    let mut at_random = Vec::new();
    for round in 0..4 {
        let limit = if round == 0 { inode.size() } else { inode.size().min(MOST_BYTES) };
        let pos = random.below(limit);
        let mut byte = [0];
        at_random.push((pos, piece(&mut scattered, image, pos, &mut byte).map(|_| byte[0])));
    }
    let mut file = fs.file(inode)?;
    let mut pos = 0;
    while pos < bytes.len() {
        pos += piece(&mut file, image, pos as u64, &mut bytes[pos..])?;
    }
    for (pos, byte) in at_random {
        match (bytes.get(pos as usize), byte) {
            (Some(&same), Ok(byte)) => assert_eq!(byte, same, "byte {pos} of {inode:?}"),
            (None, Err(error)) => return Err(error),
            _ => (),
        }
    }
    Ok(digest(inode.size(), &bytes))
}

/// Reads the part of a range that one mapping covers.
fn piece(
    file: &mut nvio_ext4::File,
    image: &Changed,
    pos: u64,
    out: &mut [u8],
) -> Result<usize, Error> {
    let mapping = file.begin(pos, out.len() as u64, Op::empty())?;
    assert!(mapping.offset <= pos && mapping.end() > pos, "{mapping:?} at {pos}");
    let length = (mapping.end() - pos).min(out.len() as u64) as usize;
    let out = &mut out[..length];
    match mapping.kind {
        MappingKind::Mapped => {
            let address = mapping.device_address(pos).unwrap() as usize;
            assert!(address + length <= image.len(), "{mapping:?} at {pos}");
            image.copy(address, out);
        }
        MappingKind::Inline => file.read_inline(&mapping, pos, out)?,
        MappingKind::Hole | MappingKind::Unwritten => out.fill(0),
        other => panic!("{other:?}"),
    }
    Ok(length)
}

fn extents(fs: &Filesystem, inode: &Inode) -> Result<u64, Error> {
    let most = fs.superblock().blocks_count;
    let extents = match fs.extents(inode) {
        Ok(extents) => extents,
        Err(Error::NotAFile { .. }) => return Ok(0),
        Err(error) => return Err(error),
    };
    let (mut hash, mut count) = (7, 0);
    for extent in extents {
        let extent = extent?;
        let flags = u64::from(extent.unwritten) | u64::from(extent.last) << 1;
        for word in [extent.logical, extent.physical, extent.length, flags] {
            hash = digest(hash, &word.to_le_bytes());
        }
        count += 1;
        assert!(count <= most, "{count} extents of {inode:?}");
    }
    Ok(hash)
}

impl View {
    /// Returns the first difference to `sound` that is not an error.
    pub fn wrong(&self, sound: &Self) -> Option<String> {
        let wrong = differs("the superblock", &Ok(&self.superblock), &Ok(&sound.superblock));
        let wrong = wrong.or_else(|| self.wrong_name(sound)).or_else(|| self.missing(sound));
        let wrong = wrong.or_else(|| {
            let mut pairs = self.lookups.iter().zip(&sound.lookups);
            pairs.find_map(|(found, sound)| differs("a lookup", found, sound))
        });
        wrong.or_else(|| differs("a walk", self.walk.as_ref()?, sound.walk.as_ref()?))
    }

    fn wrong_name(&self, sound: &Self) -> Option<String> {
        self.names.iter().find_map(|(path, found)| {
            let name = path.escape_ascii();
            let Some(sound) = sound.names.get(path) else {
                return Some(format!("there is no {name}"));
            };
            let wrong = differs("entry", &Ok(found.entry), &Ok(sound.entry))
                .or_else(|| differs("stat", &found.stat, &sound.stat))
                .or_else(|| differs("contents", &found.contents, &sound.contents))
                .or_else(|| differs("extents", &found.extents, &sound.extents))
                .or_else(|| differs("attributes", &found.attributes, &sound.attributes));
            wrong.map(|wrong| format!("{name}: {wrong}"))
        })
    }

    /// Finds a missing name in a directory that was listed without an error.
    fn missing(&self, sound: &Self) -> Option<String> {
        let gone = |path: &&Vec<u8>| {
            let slash = path.iter().rposition(|&byte| byte == b'/').unwrap();
            let parent = &path[..slash];
            let listed =
                parent.is_empty() || self.names.get(parent).is_some_and(|facts| facts.stat.is_ok());
            !self.names.contains_key(*path) && listed && !self.broken.contains(parent)
        };
        let path = sound.names.keys().find(gone)?;
        Some(format!("{} is missing without an error", path.escape_ascii()))
    }
}

fn differs<T: PartialEq + Debug>(what: &str, found: &Part<T>, sound: &Part<T>) -> Option<String> {
    if found.is_err() || found == sound {
        return None;
    }
    Some(format!("{what} is {found:?}, not {sound:?}"))
}
