//! Damaged images: whatever is changed, nothing panics, everything comes to an end, and where
//! metadata has checksums no wrong answer is given.
//!
//! `NVIO_MUTANTS` sets how many, `NVIO_SEED` where the random numbers start.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Random, mke2fs, pattern};
use nvio_ext4::{Error, FileType, Filesystem, Inode, Source, SourceError};
use nvio_iomap::{Mapper, MappingKind, Op};

/// Most entries, extents and mappings that one walk looks at; the images have far fewer.
const STEPS: usize = 20_000;
/// Longest time for one walk. What is expected is milliseconds; this allows for busy machines.
const BOUND: Duration = Duration::from_secs(5);

/// An image with some bytes changed. It notes which ranges are read.
#[derive(Clone)]
struct Mutant {
    image: Arc<Vec<u8>>,
    changes: Vec<(u64, u8)>,
    reads: Arc<Mutex<BTreeSet<(u64, usize)>>>,
}

impl Mutant {
    fn new(image: &Arc<Vec<u8>>, changes: Vec<(u64, u8)>) -> Self {
        Self { image: Arc::clone(image), changes, reads: Arc::default() }
    }

    fn bytes(&self, offset: u64, buf: &mut [u8]) {
        Source::read(&*self.image, offset, buf).unwrap();
        for &(at, byte) in &self.changes {
            if let Some(place) =
                at.checked_sub(offset).and_then(|at| buf.get_mut(usize::try_from(at).unwrap()))
            {
                *place = byte;
            }
        }
    }
}

impl Source for Mutant {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        assert!(buf.len() <= 256 << 10, "a read of {} bytes", buf.len());
        let end = offset.checked_add(buf.len() as u64).expect("a read past 2^64");
        assert!(end <= self.size(), "a read past the end");
        self.reads.lock().unwrap().insert((offset, buf.len()));
        self.bytes(offset, buf);
        Ok(())
    }
}

/// What was found: by path, what it is and its contents, or the error.
type Found = BTreeMap<Vec<u8>, Result<(FileType, u64, Vec<u8>), String>>;

/// Looks at everything.
fn explore(mutant: &Mutant) -> Result<Found, Error> {
    let fs = Filesystem::open(mutant.clone())?;
    let mut found = Found::new();
    let mut steps = 0;
    let mut todo = vec![(Vec::new(), fs.root()?)];
    let mut seen = BTreeSet::new();
    while let Some((path, directory)) = todo.pop() {
        for entry in fs.read_dir(&directory)? {
            steps += 1;
            assert!(steps < STEPS);
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    found.insert([&path[..], b"/?"].concat(), Err(error.to_string()));
                    break;
                }
            };
            let path = [&path[..], b"/", &entry.name].concat();
            let result = fs.inode(entry.inode).and_then(|inode| {
                if inode.is_dir() && seen.insert(entry.inode) {
                    fs.read_dir(&inode)?;
                    todo.push((path.clone(), inode.clone()));
                }
                contents(&fs, mutant, &inode, &mut steps)
            });
            let _ = fs.lookup(&path);
            found.insert(path, result.map_err(|error| error.to_string()));
        }
    }
    Ok(found)
}

fn contents(
    fs: &Filesystem,
    mutant: &Mutant,
    inode: &Inode,
    steps: &mut usize,
) -> Result<(FileType, u64, Vec<u8>), Error> {
    let bytes = match inode.kind() {
        FileType::Symlink => fs.read_link(inode)?,
        FileType::Regular => {
            let mut file = fs.file(inode)?;
            for extent in file.extents() {
                extent?;
                *steps += 1;
                assert!(*steps < STEPS);
            }
            let size = file.size().min(1 << 20);
            let mut bytes = vec![0; size as usize];
            let mut pos = 0;
            while pos < size {
                let mapping = file.begin(pos, size - pos, Op::empty())?;
                assert!(mapping.offset <= pos && mapping.end() > pos);
                let end = mapping.end().min(size);
                if mapping.kind == MappingKind::Mapped {
                    let address = mapping.device_address(pos).unwrap();
                    assert!(address + (end - pos) <= mutant.size());
                    mutant.bytes(address, &mut bytes[pos as usize..end as usize]);
                }
                pos = end;
            }
            // The far end, too.
            file.begin(file.size().saturating_sub(1), 1, Op::empty())?;
            bytes
        }
        _ => Vec::new(),
    };
    Ok((inode.kind(), inode.size(), bytes))
}

fn image(dir: &Path, options: &[&str]) -> Arc<Vec<u8>> {
    let (image, source) = (dir.join("image"), dir.join("source"));
    if !source.exists() {
        fs::create_dir_all(source.join("a/b")).unwrap();
        for index in 0..60 {
            let name = format!("{index}-{}", "n".repeat(index * 4));
            fs::write(source.join("a").join(name), pattern(index as u64, index * 50)).unwrap();
        }
        let sparse = fs::File::create(source.join("a/b/sparse")).unwrap();
        for index in 0..100 {
            use std::os::unix::fs::FileExt;
            sparse.write_all_at(&pattern(index, 500), index * 8192).unwrap();
        }
        symlink("a/b", source.join("short")).unwrap();
        symlink("x".repeat(200), source.join("long")).unwrap();
    }
    mke2fs(&image, "4M", options, Some(&source));
    // e2fsck makes hash trees of directories.
    let fixed = std::process::Command::new("e2fsck").arg("-fyD").arg(&image).output().unwrap();
    assert!(fixed.status.code().unwrap() <= 1);
    Arc::new(fs::read(&image).unwrap())
}

/// One byte, or a few, in what a walk reads; most of them where something is.
fn changes(random: &mut Random, image: &[u8], places: &[u64]) -> Vec<(u64, u8)> {
    let count = if random.below(4) == 0 { 1 + random.below(6) } else { 1 };
    (0..count)
        .map(|_| {
            let at = places[random.below(places.len() as u64) as usize];
            let old = image[at as usize];
            let byte = match random.below(4) {
                0 => old ^ (1 << random.below(8)),
                1 => [0, 1, 0x7f, 0x80, 0xff, old.wrapping_add(1)][random.below(6) as usize],
                _ => random.next() as u8,
            };
            (at, byte)
        })
        .collect()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

fn check(options: &[&str], has_checksums: bool) {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), options);
    let sound = Mutant::new(&image, Vec::new());
    let expected = explore(&sound).unwrap();
    assert!(expected.len() > 60 && expected.values().all(Result::is_ok), "{expected:?}");
    let mut places: Vec<u64> = Vec::new();
    for &(offset, length) in &*sound.reads.lock().unwrap() {
        let range = offset..offset + length as u64;
        places.extend(range.filter(|&at| image[at as usize] != 0 || at % 64 == 0));
    }
    // The target of a long link is data, which has no checksum; its length is in the inode.
    let target = image.windows(200).position(|bytes| bytes == [b'x'; 200]).unwrap() as u64;
    places.retain(|&at| !(target..target + 200).contains(&at));
    // Without the bit that says that there are checksums, none is verified.
    places.retain(|&at| at != 1024 + 0x65);

    let (mut refused, mut noticed, mut same, mut slowest) = (0, 0, 0, Duration::ZERO);
    let mut random = Random(number("NVIO_SEED", 42));
    let count = number("NVIO_MUTANTS", 3000);
    for round in 0..count {
        let changes = changes(&mut random, &image, &places);
        let start = Instant::now();
        let found = explore(&Mutant::new(&image, changes.clone()));
        let took = start.elapsed();
        assert!(took < BOUND, "mutant {round} took {took:?}: {changes:x?}");
        slowest = slowest.max(took);
        let Ok(found) = found else {
            refused += 1;
            continue;
        };
        if found == expected {
            same += 1;
        } else {
            noticed += 1;
        }
        if !has_checksums {
            continue;
        }
        for (path, result) in &found {
            let sound = expected.get(path);
            let right = result.is_err() || sound == Some(result);
            assert!(right, "mutant {round}: {changes:x?}: {}", path.escape_ascii());
        }
        let complete = found.values().all(Result::is_ok);
        assert!(!complete || found == expected, "mutant {round}: {changes:x?}: paths are missing");
    }
    println!(
        "{count} mutants: {refused} refused at once, {noticed} with other answers, {same} with \
         the same; slowest {slowest:?}"
    );
    assert!(noticed + refused > count / 4);
}

#[test]
fn with_checksums() {
    check(&["-t", "ext4", "-b", "1024", "-N", "128"], true);
}

#[test]
fn without_checksums() {
    check(&["-t", "ext4", "-b", "1024", "-N", "128", "-O", "^metadata_csum,^64bit"], false);
}

#[test]
fn without_extents() {
    check(&["-t", "ext3", "-b", "1024", "-N", "128"], false);
}
