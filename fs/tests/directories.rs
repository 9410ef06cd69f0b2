//! Directories with hash trees built by e2fsck: every listed name is found, with few reads.

use crate::common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Rng, debugfs, mke2fs};
use nvio_ext4::{BlockSource, Error, Filesystem, InodeFlags, SourceError};

/// A source that counts reads.
struct Counted(File, Arc<AtomicUsize>);

impl BlockSource for Counted {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        BlockSource::read(&self.0, offset, buf)
    }
}

/// Creates a folder with the directory "d", which has `count` names of up to `longest` bytes. Half
/// of the names are not UTF-8.
fn fill(source: &Path, count: usize, longest: u64) {
    let mut random = Rng::new(count as u64 | 1);
    let directory = source.join("d");
    fs::create_dir_all(&directory).unwrap();
    let first = directory.join("0");
    File::create(&first).unwrap();
    for index in 1..count {
        let mut name = format!("{index}-").into_bytes();
        let ascii = index % 2 == 0;
        for _ in 0..random.below(longest - 7) {
            let byte = random.next_u64() as u8;
            let byte = if ascii { byte & 0x7f } else { byte };
            name.push(if matches!(byte, 0 | b'/') { b'x' } else { byte });
        }
        fs::hard_link(&first, directory.join(OsStr::from_bytes(&name))).unwrap();
    }
}

/// Runs e2fsck to build a tree for every directory.
fn index(image: &Path) {
    let output = nvio_testkit::image::command("e2fsck")
        .args(["-f", "-y", "-D", image.to_str().unwrap()])
        .output()
        .unwrap();
    // Exit code 1 means "errors corrected": directories were rebuilt.
    let done = matches!(output.status.code(), Some(0 | 1));
    assert!(done && !output.stdout.windows(6).any(|word| word == b"Failed"), "{output:?}");
}

/// Looks up every name in the directory "d", and some that do not exist. Returns the number of
/// names.
fn check(fs: &Filesystem) -> usize {
    let directory = fs.lookup(b"d").unwrap();
    assert!(directory.flags().contains(InodeFlags::INDEX), "no tree");
    let mut count = 0;
    for entry in fs.read_dir(&directory).unwrap() {
        let entry = entry.unwrap();
        let mut path = b"d/".to_vec();
        path.extend(&entry.name);
        let found = fs.lookup(&path).unwrap_or_else(|error| panic!("{entry:?}: {error}"));
        assert_eq!(found.number(), entry.inode, "{entry:?}");
        count += 1;
        if count % 10 == 0 {
            path.truncate(path.len().min(200));
            path.extend(b"-not");
            assert!(matches!(fs.lookup(&path), Err(Error::NotFound { .. })), "{entry:?}");
        }
    }
    count
}

/// Options of mke2fs, and commands for debugfs that set the hash function and the signedness of
/// bytes.
const TREES: &[(&str, &[&str])] = &[
    ("-t ext4 -b 1024", &[]),
    ("-t ext4 -b 1024 -O ^metadata_csum", &["ssv def_hash_version tea"]),
    ("-t ext4 -b 1024", &["ssv def_hash_version legacy", "ssv flags 2"]),
    ("-t ext4 -b 4096", &["ssv def_hash_version tea", "ssv flags 2"]),
    ("-t ext4 -b 4096 -O ^metadata_csum", &["ssv def_hash_version half_md4", "ssv flags 2"]),
    ("-t ext3 -b 1024", &["ssv def_hash_version legacy", "ssv flags 1"]),
    ("-t ext3 -b 2048 -E hash_seed=01234567-89ab-cdef-0123-456789abcdef", &[]),
    ("-t ext4 -b 65536", &[]),
    ("-t ext4 -b 65536 -O ^metadata_csum", &["ssv def_hash_version tea"]),
    ("-t ext2 -b 1024 -O dir_index,large_dir,^filetype", &[]),
];

#[test]
fn every_kind_of_tree() {
    let dir = tempfile::tempdir().unwrap();
    let (image, source) = (dir.path().join("image"), dir.path().join("source"));
    fill(&source, 1200, 255);
    for (options, changes) in TREES {
        println!("{options} {changes:?}");
        let options: Vec<&str> = options.split(' ').collect();
        let size = if options.contains(&"65536") { "64M" } else { "16M" };
        mke2fs(&image, size, &options, Some(&source));
        if !changes.is_empty() {
            debugfs(&image, changes);
        }
        index(&image);
        assert_eq!(check(&common::open(&image)), 1200);
        // If the signedness is not recorded, lookups try both.
        debugfs(&image, &["ssv flags 0"]);
        assert_eq!(check(&common::open(&image)), 1200);
    }
}

#[test]
fn one_name_is_a_few_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (image, source) = (dir.path().join("image"), dir.path().join("source"));
    fill(&source, 6000, 255);
    mke2fs(&image, "64M", &["-t", "ext4", "-b", "1024"], Some(&source));
    index(&image);
    let names: Vec<Vec<u8>> = {
        let fs = common::open(&image);
        let directory = fs.lookup(b"d").unwrap();
        assert!(directory.size() > 700 << 10, "{} bytes", directory.size());
        fs.read_dir(&directory).unwrap().map(|entry| entry.unwrap().name).collect()
    };
    let (mut looked_up, mut all) = (0, 0);
    for name in names.iter().step_by(97) {
        let reads = Arc::new(AtomicUsize::new(0));
        let source = Counted(File::open(&image).unwrap(), Arc::clone(&reads));
        let fs = Filesystem::open(source).unwrap();
        fs.lookup(b"d/no such name").unwrap_err();
        let before = reads.load(Ordering::Relaxed);
        let path = [b"d/", name.as_slice()].concat();
        fs.lookup(&path).unwrap();
        let cold = reads.load(Ordering::Relaxed) - before;
        // A node, a block of names, and the inode with its neighbours. The root is cached, and so are the
        // blocks that the other lookup has read.
        assert!(cold <= 4, "{cold} reads");
        (looked_up, all) = (looked_up + 1, all + cold);
        fs.lookup(&path).unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), before + cold, "a warm lookup reads");
    }
    assert!(all >= looked_up, "{all} reads for {looked_up} names");
}

/// Returns names, each with other spellings of it in a case-insensitive directory.
fn folded_names() -> Vec<(Vec<u8>, Vec<Vec<u8>>)> {
    let mut names: Vec<(String, Vec<String>)> = [
        ("Stra\u{df}e", &["STRASSE", "stra\u{1e9e}e"][..]),
        (
            "\u{3a3}\u{3af}\u{3c3}\u{3c5}\u{3c6}\u{3bf}\u{3c2}",
            &["\u{3c3}\u{38a}\u{3a3}\u{3a5}\u{3a6}\u{39f}\u{3c3}"],
        ),
        ("\u{130}stanbul", &["i\u{307}STANBUL"]),
        ("A\u{301}\u{323}", &["\u{1ea1}\u{301}", "a\u{323}\u{301}"]),
        ("\u{212b}ngstr\u{f6}m", &["a\u{30a}NGSTRO\u{308}M", "\u{e5}ngstr\u{d6}m"]),
        ("\u{d55c}\u{ae00}", &["\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}"]),
        ("e\u{fb03}cient", &["EFFICIENT"]),
        ("zero\u{200d}width\u{ad}", &["ZEROWIDTH", "zero\u{feff}width"]),
        ("\u{10400}deseret", &["\u{10428}DESERET"]),
        ("new\u{a7c7}", &["NEW\u{a7c7}"]),
    ]
    .map(|(name, others)| (name.to_owned(), others.iter().map(|&name| name.to_owned()).collect()))
    .into();
    for index in 0..1500u32 {
        let letter = char::from_u32(0x410 + index % 32).unwrap();
        let name = format!("{letter}-File-{index}-{}", "\u{e9}T".repeat((index % 40) as usize));
        let other = name.to_uppercase();
        names.push((name.to_lowercase(), vec![other]));
    }
    let bytes = |name: String| name.into_bytes();
    // All names are UTF-8, because e2fsck does not build trees for other names.
    names
        .into_iter()
        .map(|(name, others)| (bytes(name), others.into_iter().map(bytes).collect()))
        .collect()
}

/// For case-insensitive names, e2fsck computes the same hashes as the kernel.
#[test]
fn names_are_folded() {
    let dir = tempfile::tempdir().unwrap();
    let (image, source) = (dir.path().join("image"), dir.path().join("source"));
    fs::create_dir_all(source.join("d")).unwrap();
    fs::create_dir_all(source.join("few")).unwrap();
    let names = folded_names();
    for (index, (name, _)) in names.iter().enumerate() {
        fs::write(source.join("d").join(OsStr::from_bytes(name)), b"").unwrap();
        if index < 12 {
            fs::write(source.join("few").join(OsStr::from_bytes(name)), b"").unwrap();
        }
    }
    for options in ["-t ext4 -b 1024 -O casefold", "-t ext4 -b 4096 -O casefold,^metadata_csum"] {
        mke2fs(&image, "24M", &options.split(' ').collect::<Vec<_>>(), Some(&source));
        // The flags for extents and for directories that ignore case.
        debugfs(&image, &["sif d flags 0x40080000", "sif few flags 0x40080000"]);
        index(&image);
        common::assert_clean(&image);
        let fs = common::open(&image);
        assert_eq!(check(&fs), names.len());
        for (index, (name, others)) in names.iter().enumerate() {
            for directory in [&b"d/"[..], b"few/"].into_iter().take(1 + usize::from(index < 12)) {
                let path = |name: &[u8]| [directory, name].concat();
                let number = fs.lookup(path(name)).unwrap().number();
                for other in others {
                    let found = fs.lookup(path(other)).unwrap_or_else(|error| panic!("{error}"));
                    assert_eq!(found.number(), number, "{}", other.escape_ascii());
                }
            }
        }
        for name in [&b"d/\xff"[..], b"d/strase", b"few/\xc3\xc3"] {
            assert!(matches!(fs.lookup(name), Err(Error::NotFound { .. })));
        }
    }
}
