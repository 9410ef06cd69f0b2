//! Tests of synthetic fast commits on a filesystem in memory.

use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::format::checksum::crc32c;
use crate::format::inode_flags::InodeFlags;
use crate::mount::options::Options;
use crate::recovery::fast_commit::changes::FastCommit;
use crate::recovery::fast_commit::replay::{Area, replay};
use crate::testing::{BLOCK, FREE, Image, extent, node};

/// Transaction number of valid fast commits.
const TID: u32 = 7;
/// A regular file with an extent of four blocks.
const FILE: u32 = 12;
/// A directory with the entry "file" for it.
const DIR: u32 = 13;

/// A fast-commit area. Each tail extends to the end of its block.
#[derive(Default)]
struct Bytes {
    blocks: Vec<Vec<u8>>,
    open: Vec<u8>,
    checksum: u32,
}

impl Area for Bytes {
    fn blocks(&self) -> u32 {
        self.blocks.len() as u32
    }

    fn block(&mut self, index: u32) -> Result<&[u8], Error> {
        Ok(&self.blocks[index as usize])
    }
}

fn tag(kind: u16, value: &[&[u8]]) -> Vec<u8> {
    let value = value.concat();
    [&kind.to_le_bytes()[..], &(value.len() as u16).to_le_bytes(), &value].concat()
}

fn head(tid: u32) -> Vec<u8> {
    tag(9, &[&[0; 4], &tid.to_le_bytes()])
}

fn name(kind: u16, directory: u32, inode: u32, name: &[u8]) -> Vec<u8> {
    tag(kind, &[&directory.to_le_bytes(), &inode.to_le_bytes(), name])
}

fn add(inode: u32, extent: &[u8]) -> Vec<u8> {
    tag(1, &[&inode.to_le_bytes(), extent])
}

fn del(inode: u32, logical: u32, count: u32) -> Vec<u8> {
    tag(2, &[&inode.to_le_bytes(), &logical.to_le_bytes(), &count.to_le_bytes()])
}

/// Encodes an inode tag for a regular file of `size` bytes with extents.
fn inode(number: u32, size: u32, links: u8) -> Vec<u8> {
    let mut bytes = vec![0; 160];
    bytes[..2].copy_from_slice(&0o100_600u16.to_le_bytes());
    bytes[4..8].copy_from_slice(&size.to_le_bytes());
    bytes[0x1a] = links;
    bytes[0x22] = 0x8;
    bytes[0x80] = 32;
    tag(6, &[&number.to_le_bytes(), &bytes])
}

impl Bytes {
    fn with(tags: &[Vec<u8>]) -> Self {
        let mut area = Self::default();
        area.push(&head(TID));
        area.commit(tags, TID);
        area
    }

    fn push(&mut self, tag: &[u8]) {
        self.checksum = crc32c(self.checksum, tag);
        self.open.extend_from_slice(tag);
    }

    /// Appends tags and a tail, which ends a block.
    fn commit(&mut self, tags: &[Vec<u8>], tid: u32) {
        for tag in tags {
            self.push(tag);
        }
        let length = BLOCK - self.open.len() - 4;
        self.push(&[&8u16.to_le_bytes()[..], &(length as u16).to_le_bytes()].concat());
        self.push(&tid.to_le_bytes());
        let checksum = std::mem::take(&mut self.checksum);
        self.open.extend_from_slice(&checksum.to_le_bytes());
        self.open.resize(BLOCK, 0);
        self.blocks.push(std::mem::take(&mut self.open));
    }
}

fn image() -> Image {
    let mut image = Image::new();
    image.inode(FILE, |bytes| {
        bytes[4..8].copy_from_slice(&16_384u32.to_le_bytes());
        let root = node(0, 4, &[extent(0, 4, 2000)]);
        bytes[0x28..0x28 + root.len()].copy_from_slice(&root);
    });
    image.inode(DIR, |bytes| {
        bytes[1] = 0x41;
        bytes[5] = 0x10;
        let root = node(0, 4, &[extent(0, 1, FREE)]);
        bytes[0x28..0x28 + root.len()].copy_from_slice(&root);
    });
    let seed = image.seed(DIR);
    let block = image.block(FREE);
    for (at, inode, length, name) in
        [(0, DIR, 12, &b"."[..]), (12, 2, 12, b".."), (24, FILE, 4060, b"file")]
    {
        block[at..at + 4].copy_from_slice(&inode.to_le_bytes());
        block[at + 4..at + 6].copy_from_slice(&u16::to_le_bytes(length));
        block[at + 6] = name.len() as u8;
        block[at + 7] = 1;
        block[at + 8..at + 8 + name.len()].copy_from_slice(name);
    }
    block[4088] = 12;
    block[4091] = 0xde;
    let crc = crc32c(seed, &block[..4084]);
    block[4092..].copy_from_slice(&crc.to_le_bytes());
    image
}

/// Returns the filesystem after the replay, and the number of replayed fast commits.
fn open(mut area: Bytes) -> Result<(Filesystem, u32), String> {
    let options = Options::default().cached_inodes(0);
    let fs = Filesystem::open_with(image().bytes, options).unwrap();
    let found = replay(&fs, &mut area, TID).map_err(|error| error.to_string())?;
    let commits = found.as_ref().map_or(0, FastCommit::commits);
    Ok((fs.with_fast_commits(found.unwrap_or_default()), commits))
}

fn names(fs: &Filesystem, directory: u32) -> Vec<(String, u32)> {
    let inode = fs.inode(directory).unwrap();
    let list: Vec<_> = fs
        .read_dir(&inode)
        .unwrap()
        .map(Result::unwrap)
        .map(|entry| (String::from_utf8(entry.name).unwrap(), entry.inode.get()))
        .collect();
    for (name, number) in &list {
        assert_eq!(fs.find(&inode, name.as_bytes()).unwrap(), Some((*number).into()));
    }
    list
}

/// Returns the extents in blocks: logical, physical, count, unwritten.
fn extents(fs: &Filesystem, number: u32) -> Vec<(u64, u64, u64, bool)> {
    let size = BLOCK as u64;
    fs.extents(&fs.inode(number).unwrap())
        .unwrap()
        .map(Result::unwrap)
        .map(|e| (e.logical / size, e.physical / size, e.length / size, e.unwritten))
        .collect()
}

#[test]
fn inodes_and_maps() {
    let area = Bytes::with(&[
        add(FILE, &extent(2, 4, 3000)),
        add(FILE, &extent(8, 32_768 + 3, 4000)),
        del(FILE, 0, 1),
        inode(FILE, 50_000, 3),
    ]);
    let (fs, commits) = open(area).unwrap();
    let inode = fs.inode(FILE).unwrap();
    assert_eq!((commits, inode.size(), inode.links()), (1, 50_000, 3));
    assert_eq!(inode.mode(), 0o100_600);
    let expected = [(1, 2001, 1, false), (2, 3000, 4, false), (8, 4000, 3, true)];
    assert_eq!(extents(&fs, FILE), expected);
}

#[test]
fn names_and_links() {
    let area = Bytes::with(&[
        name(4, DIR, FILE, b"second"),
        name(5, DIR, FILE, b"file"),
        inode(14, 0, 1),
        name(3, DIR, 14, b"new"),
        // A name that exists, a name that does not, and a free inode.
        name(4, DIR, FILE, b"new"),
        name(5, DIR, FILE, b"none"),
        name(4, DIR, 999, b"ghost"),
    ]);
    let (fs, _) = open(area).unwrap();
    assert_eq!(names(&fs, DIR), [("new".to_owned(), 14), ("second".to_owned(), FILE)]);
    assert_eq!(fs.find(&fs.inode(DIR).unwrap(), b"file").unwrap(), None);
    assert_eq!(fs.inode(FILE).unwrap().links(), 1);
    assert!(fs.inode(14).unwrap().flags().contains(InodeFlags::EXTENTS));
    assert_eq!(extents(&fs, 14), []);
}

/// The kernel's replay counts no links of directories.
#[test]
fn directories_have_their_links() {
    let new_directory = |number| {
        let mut tag = inode(number, 1024, 2);
        tag[8 + 1] = 0x41;
        tag
    };
    let links = |fs: &Filesystem, number: u32| fs.inode(number).unwrap().links();
    let mut tags = vec![
        new_directory(14),
        name(3, DIR, 14, b"new"),
        new_directory(15),
        name(3, 14, 15, b"sub"),
        name(4, 14, FILE, b"second"),
    ];
    let (fs, _) = open(Bytes::with(&tags)).unwrap();
    // A directory with one link does not count its subdirectories.
    assert_eq!([DIR, 14, 15, FILE].map(|number| links(&fs, number)), [1, 3, 2, 2]);
    assert_eq!(names(&fs, 14), [("second".to_owned(), FILE), ("sub".to_owned(), 15)]);
    tags.push(name(5, 14, 15, b"sub"));
    let (fs, _) = open(Bytes::with(&tags)).unwrap();
    assert_eq!([DIR, 14, FILE].map(|number| links(&fs, number)), [1, 2, 2]);
    assert_eq!(names(&fs, 14), [("second".to_owned(), FILE)]);
    assert!(matches!(fs.inode(15), Err(Error::InodeNotInUse { .. })));
}

#[test]
fn an_inode_that_is_used_again_has_nothing_of_the_old_one() {
    let area = Bytes::with(&[
        name(5, DIR, FILE, b"file"),
        inode(FILE, 5000, 1),
        name(3, DIR, FILE, b"file"),
        add(FILE, &extent(0, 1, 3000)),
    ]);
    let (fs, _) = open(area).unwrap();
    assert_eq!(extents(&fs, FILE), [(0, 3000, 1, false)]);
    let (fs, _) = open(Bytes::with(&[name(5, DIR, FILE, b"file")])).unwrap();
    assert!(matches!(fs.inode(FILE), Err(Error::InodeNotInUse { .. })));
    assert_eq!(names(&fs, DIR), []);
}

/// A file that was unlinked while open, and synced. The kernel would not mount such a filesystem.
#[test]
fn a_file_without_names_is_gone() {
    let area = Bytes::with(&[
        name(5, DIR, FILE, b"file"),
        add(FILE, &extent(4, 1, 3000)),
        inode(FILE, 20_000, 0),
    ]);
    let (fs, _) = open(area).unwrap();
    assert!(matches!(fs.inode(FILE), Err(Error::InodeNotInUse { .. })));
    assert_eq!(names(&fs, DIR), []);
}

#[test]
fn only_what_is_whole_counts() {
    let link = |text: &[u8]| name(4, DIR, FILE, text);
    let commits = |area| open(area).map(|(fs, commits)| (commits, names(&fs, DIR).len()));
    let two = || {
        let mut area = Bytes::with(&[link(b"a")]);
        area.commit(&[link(b"b")], TID);
        area
    };
    assert_eq!(commits(two()), Ok((2, 3)));
    // An empty area, and fast commits of another transaction.
    assert_eq!(commits(Bytes::default()), Ok((0, 1)));
    let mut old = Bytes::default();
    old.push(&head(TID - 1));
    old.commit(&[link(b"a")], TID - 1);
    assert_eq!(commits(old), Ok((0, 1)));
    // The second fast commit is torn, belongs to an older transaction, or does not start with a
    // tag.
    let mut torn = two();
    torn.blocks[1][10] ^= 1;
    assert_eq!(commits(torn), Ok((1, 2)));
    let mut stale = Bytes::with(&[link(b"a")]);
    stale.commit(&[link(b"b")], TID - 1);
    assert_eq!(commits(stale), Ok((1, 2)));
    let mut garbage = two();
    garbage.blocks[1].fill(0xff);
    assert_eq!(commits(garbage), Ok((1, 2)));
    // The first fast commit must be complete.
    let mut first = two();
    first.blocks[0][20] ^= 1;
    let message = commits(first).unwrap_err();
    assert!(message.starts_with("corrupt fast commit block 0: its checksum is"), "{message}");
    let mut features = Bytes::default();
    features.push(&tag(9, &[&[1, 0, 0, 0], &TID.to_le_bytes()]));
    features.commit(&[], TID);
    assert!(commits(features).unwrap_err().contains("features is 1"));
    let unknown = commits(Bytes::with(&[tag(77, &[b"?"])])).unwrap_err();
    assert!(unknown.contains("the tag 0x4d at byte 12"), "{unknown}");
    for bad in [tag(1, &[b"short"]), tag(3, &[&[0; 8]]), tag(6, &[&[0; 100]]), tag(6, &[&[0; 400]])]
    {
        assert!(commits(Bytes::with(&[bad])).unwrap_err().contains("at byte 12 is unknown"));
    }
}

#[test]
fn contradicting_fast_commits_are_damage() {
    let message = |tags: &[Vec<u8>]| open(Bytes::with(tags)).err().unwrap();
    assert!(message(&[add(FILE, &extent(0, 1, 1))]).contains("1 block(s) from block 1 are not"));
    assert!(message(&[add(FILE, &extent(!0, 1, 2000))]).contains("outside [0, 4294967295)"));
    assert!(message(&[name(3, DIR, 999, b"x")]).contains("refers to inode 999"));
    assert!(message(&[name(4, DIR, FILE, b"a/b")]).contains("slash"));
    // Tags of reserved or impossible inodes are ignored.
    let nothing = [add(4_000_000, &extent(0, 1, 2000)), inode(5_000, 1, 1), del(8, 0, 1)];
    open(Bytes::with(&nothing)).unwrap();
}

#[test]
fn every_flipped_byte_is_seen_or_harmless() {
    for at in 0..200 {
        let mut area = Bytes::with(&[
            name(4, DIR, FILE, b"second"),
            add(FILE, &extent(2, 4, 3000)),
            inode(FILE, 50_000, 3),
        ]);
        area.blocks[0][at] ^= 0x11;
        if let Ok((_, commits)) = open(area) {
            assert_eq!(commits, 0, "byte {at}");
        }
    }
}

#[test]
fn a_damaged_inode_is_not_made_sound() {
    // The parts of an inode that a tag leaves unchanged get a new checksum with the rest.
    for at in [0x34, 0x3c, 0xf0] {
        let mut image = image();
        image.block(77)[(FILE as usize - 1) * 256 + at] ^= 1;
        let options = Options::default().cached_inodes(0);
        let fs = Filesystem::open_with(image.bytes, options).unwrap();
        let mut area = Bytes::with(&[inode(FILE, 50_000, 1)]);
        let error = replay(&fs, &mut area, TID).unwrap_err().to_string();
        assert!(error.starts_with("corrupt inode 12: its checksum is"), "{error}");
    }
}
