//! Names are added to directories of every size, by this crate and by the kernel in turns. The oracles are
//! e2fsck, the kernel's listing, and lookups of each name.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use nvio_ext4::{
    Error, Filesystem, InodeFlags, InodeNumber, JournaledFilesystem, Options, RenameMode,
};
use nvio_testkit::random::Rng;

use super::recorder::{Recorder, cut_disks};
use super::{check, open};
use crate::common::{self, Mount, mke2fs};

/// A filesystem in a file, with the directories "d" and "e" and the files "a" and "b".
struct Image {
    path: PathBuf,
    /// The names in "d" and in "e".
    names: [BTreeSet<Vec<u8>>; 2],
}

/// Returns a name of 1 to `most` bytes. Most names are not UTF-8.
fn name(random: &mut Rng, most: u64) -> Vec<u8> {
    let length = 1 + random.below(most);
    let byte = |random: &mut Rng| match random.next_u64() as u8 {
        0 | b'/' => b'x',
        byte => byte,
    };
    let name: Vec<u8> = (0..length).map(|_| byte(random)).collect();
    if matches!(&*name, b"." | b"..") { b"dots".to_vec() } else { name }
}

/// Returns `count` names that are not in `others`.
fn names(random: &mut Rng, count: usize, most: u64, others: &Image) -> Vec<Vec<u8>> {
    let mut seen = BTreeSet::new();
    while seen.len() < count {
        let name = name(random, most);
        if others.names.iter().all(|names| !names.contains(&name)) {
            seen.insert(name);
        }
    }
    let mut names: Vec<_> = seen.into_iter().collect();
    // In random order.
    for at in (1..names.len()).rev() {
        names.swap(at, random.below(at as u64 + 1) as usize);
    }
    names
}

fn source(dir: &Path) -> PathBuf {
    let source = dir.join("source");
    if !source.exists() {
        for name in ["d", "e"] {
            fs::create_dir_all(source.join(name)).unwrap();
        }
        for name in ["a", "b"] {
            fs::write(source.join(name), name).unwrap();
        }
    }
    source
}

impl Image {
    fn new(dir: &Path, size: &str, options: &str) -> Self {
        let path = dir.join("image");
        mke2fs(&path, size, &options.split(' ').collect::<Vec<_>>(), Some(&source(dir)));
        Self { path, names: Default::default() }
    }

    fn open(&self) -> JournaledFilesystem {
        let device = File::options().read(true).write(true).open(&self.path).unwrap();
        JournaledFilesystem::open(device, Options::default()).unwrap()
    }

    fn mount(&self, options: &str) -> Option<Mount> {
        if !common::is_root() {
            println!("SKIPPED: loop mounts need root");
            return None;
        }
        let mount = Mount::new(&self.path, &self.path.with_extension("mnt"), options);
        mount.map_err(|reason| println!("SKIPPED: {reason}")).ok()
    }

    /// Adds names of the file "a" to "d".
    fn add(&mut self, names: &[Vec<u8>]) {
        let fs = self.open();
        let [file, directory] = ["/a", "/d"].map(|path| fs.lookup(path).unwrap().number());
        for (at, name) in names.iter().enumerate() {
            let links = fs.hard_link(file, directory, name).unwrap().links() as usize;
            assert_eq!(links, self.names[0].len() + self.names[1].len() + 2);
            self.names[0].insert(name.clone());
            if at % 1000 == 0 {
                let found = fs.lookup([b"/d/", &name[..]].concat()).unwrap();
                assert_eq!(found.number(), file);
                let again = fs.hard_link(file, directory, name);
                assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
            }
        }
        fs.close().unwrap();
        common::assert_clean(&self.path);
    }

    /// Moves names from "d" to "e".
    fn move_out(&mut self, names: &[Vec<u8>]) {
        let fs = self.open();
        let [d, e] = ["/d", "/e"].map(|path| fs.lookup(path).unwrap().number());
        for name in names {
            fs.rename(d, name, e, name, RenameMode::NoReplace).unwrap();
            assert!(self.names[0].remove(name));
            self.names[1].insert(name.clone());
        }
        fs.close().unwrap();
        common::assert_clean(&self.path);
    }

    /// Adds or removes names by the kernel.
    fn by_kernel(&mut self, added: &[Vec<u8>], removed: &[Vec<u8>]) -> Option<()> {
        let mount = self.mount("loop,noatime")?;
        let path = |name: &[u8]| mount.path.join("d").join(OsStr::from_bytes(name));
        for name in added {
            fs::hard_link(mount.path.join("a"), path(name)).unwrap();
            self.names[0].insert(name.clone());
        }
        for name in removed {
            fs::remove_file(path(name)).unwrap();
            self.names[0].remove(name);
        }
        drop(mount);
        common::assert_clean(&self.path);
        Some(())
    }

    /// Compares both directories: the listings, and each name.
    fn compare(&self) {
        let fs = common::open(&self.path);
        let file = fs.lookup("/a").unwrap().number();
        let mount = self.mount("loop,ro,noatime");
        for (directory, names) in ["d", "e"].into_iter().zip(&self.names) {
            let listed = listed(&fs, directory);
            assert!(listed.keys().eq(names), "{directory}: {} {}", listed.len(), names.len());
            assert!(listed.values().all(|&inode| inode == u64::from(file)));
            for name in names {
                let path = [directory.as_bytes(), b"/", name].concat();
                assert_eq!(fs.lookup(path).unwrap().number(), file);
            }
            let Some(mount) = &mount else { continue };
            let folder = mount.path.join(directory);
            let theirs = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap());
            let theirs: BTreeMap<_, _> =
                theirs.map(|entry| (entry.file_name().into_vec(), entry.ino())).collect();
            assert!(theirs == listed, "{directory}: the kernel's listing");
            for name in names {
                let path = folder.join(OsStr::from_bytes(name));
                assert_eq!(fs::symlink_metadata(path).unwrap().ino(), u64::from(file));
            }
        }
    }

    /// Returns the output of a command of debugfs.
    fn debugfs(&self, command: &str) -> String {
        let shown = common::run("debugfs", &["-R", command, self.path.to_str().unwrap()]);
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Returns the number of levels below the root of the hash tree of "d".
    fn levels(&self) -> u32 {
        let shown = self.debugfs("htree_dump d");
        let levels = shown.lines().find_map(|line| line.trim().strip_prefix("Indirect levels: "));
        levels.unwrap_or_else(|| panic!("{shown}")).trim().parse().unwrap()
    }
}

fn listed(fs: &Filesystem, directory: &str) -> BTreeMap<Vec<u8>, u64> {
    let entries = fs.read_dir(&fs.lookup(directory).unwrap()).unwrap();
    entries.map(|entry| entry.unwrap()).map(|entry| (entry.name, entry.inode.into())).collect()
}

/// Adds names, removes half of them by the kernel, and adds as many again; then lets the kernel add some,
/// and moves some to another directory.
fn fill(image: &mut Image, random: &mut Rng, count: usize, most: u64) {
    let all = names(random, count, most, image);
    image.add(&all);
    image.compare();
    let half: Vec<_> = all.iter().step_by(2).cloned().collect();
    if image.by_kernel(&[], &half).is_none() {
        return;
    }
    let more = names(random, count / 2, most, image);
    image.add(&more);
    image.compare();
    let theirs = names(random, count / 20, most, image);
    image.by_kernel(&theirs, &[]).unwrap();
    let moved: Vec<_> = image.names[0].iter().step_by(2).cloned().collect();
    image.move_out(&moved);
    image.compare();
}

#[test]
fn sixty_thousand_names() {
    let dir = tempfile::tempdir().unwrap();
    let options = [
        ("-t ext4 -b 1024 -O large_dir -J size=4", 2),
        ("-t ext4 -b 4096 -J size=4", 1),
        ("-t ext4 -b 4096 -J size=4 -O ^metadata_csum,^64bit", 1),
    ];
    for (seed, (options, levels)) in (0..).zip(options) {
        let mut image = Image::new(dir.path(), "96M", options);
        fill(&mut image, &mut Rng::new(seed), 60_000, 255);
        assert_eq!(image.levels(), levels, "{options}");
    }
}

#[test]
fn hash_functions_and_signs() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Rng::new(7);
    for (version, function) in ["legacy", "half_md4", "tea"].into_iter().enumerate() {
        for flags in [1, 2] {
            let image = Image::new(dir.path(), "16M", "-t ext4 -b 1024 -J size=1");
            let path = image.path.to_str().unwrap();
            common::run("tune2fs", &["-E", &format!("hash_alg={function}"), path]);
            common::debugfs(&image.path, &[&format!("ssv flags {flags}")]);
            let mut image = image;
            fill(&mut image, &mut random, 2000, 60);
            let shown = image.debugfs("htree_dump d");
            assert!(shown.contains(&format!("Hash Version: {version}\n")), "{function}: {shown}");
            let fs = common::open(&image.path);
            let inode = fs.lookup("/d").unwrap();
            assert!(inode.flags().contains(InodeFlags::INDEX), "{function}, {flags}");
        }
    }
}

#[test]
fn directories_without_hash_trees() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Rng::new(8);
    for options in [
        "-t ext4 -b 1024 -J size=1 -O ^dir_index",
        "-t ext4 -b 4096 -J size=4 -O ^dir_index,^metadata_csum",
        "-t ext4 -b 1024 -I 128 -J size=1 -O ^dir_index,^filetype",
    ] {
        let mut image = Image::new(dir.path(), "16M", options);
        fill(&mut image, &mut random, 1500, 255);
        assert!(
            !common::open(&image.path).lookup("/d").unwrap().flags().contains(InodeFlags::INDEX)
        );
    }
    // The superblock does not tell how names are hashed: other programs may do it in either way.
    let mut image = Image::new(dir.path(), "16M", "-t ext4 -b 1024 -J size=1");
    common::debugfs(&image.path, &["ssv flags 0"]);
    let all = names(&mut random, 500, 100, &image);
    image.add(&all);
    assert!(!common::open(&image.path).lookup("/d").unwrap().flags().contains(InodeFlags::INDEX));
    image.compare();
}

#[test]
fn the_first_overflow_makes_a_tree() {
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new(dir.path(), "16M", "-t ext4 -b 4096");
    let fs = image.open();
    let [file, directory] = ["/a", "/d"].map(|path| fs.lookup(path).unwrap().number());
    for at in 1..=204 {
        fs.hard_link(file, directory, format!("name-{at:07}")).unwrap();
        let inode = fs.inode(directory).unwrap();
        let is_tree = inode.flags().contains(InodeFlags::INDEX);
        let expected = if at < 204 { (4096, 8, false) } else { (12288, 24, true) };
        assert_eq!((inode.size(), inode.blocks_512(), is_tree), expected, "name {at}");
    }
    fs.close().unwrap();
    common::assert_clean(&image.path);
    let shown = image.debugfs("htree_dump d");
    assert!(shown.contains("Number of entries (limit): 507"), "{shown}");
    assert!(shown.contains("Number of entries (count): 2"), "{shown}");
}

/// The hash "legacy" with signed bytes, from the state after other bytes.
fn legacy((mut last, mut before): (u32, u32), name: &[u8]) -> (u32, u32) {
    for &byte in name {
        let byte = i32::from(byte as i8) as u32;
        let mut next = before.wrapping_add(last ^ byte.wrapping_mul(7_152_373));
        if next & 0x8000_0000 != 0 {
            next = next.wrapping_sub(0x7fff_ffff);
        }
        (before, last) = (last, next);
    }
    (last, before)
}

#[test]
fn names_with_equal_hashes() {
    let dir = tempfile::tempdir().unwrap();
    let mut image = Image::new(dir.path(), "16M", "-t ext4 -b 1024 -J size=1");
    common::run("tune2fs", &["-E", "hash_alg=legacy", image.path.to_str().unwrap()]);
    // Three names fill a block, so that many cuts are between two of the same hash.
    let front = [b'n'; 246];
    let state = legacy((0x12a3_fe2d, 0x37ab_e8f9), &front);
    let mut by_hash = BTreeMap::<u32, Vec<u32>>::new();
    let text = |number: u32| format!("{number:08x}");
    for number in 0u32..1 << 20 {
        let (hash, _) = legacy(state, text(number.wrapping_mul(2_654_435_761)).as_bytes());
        by_hash.entry(hash << 1).or_default().push(number);
    }
    let equal = by_hash.values().filter(|numbers| numbers.len() > 1).flatten();
    let name =
        |number: &u32| [&front, text(number.wrapping_mul(2_654_435_761)).as_bytes()].concat();
    let mut all: Vec<_> = equal.map(name).collect();
    assert!(all.len() > 200, "{}", all.len());
    let mut random = Rng::new(11);
    for at in (1..all.len()).rev() {
        all.swap(at, random.below(at as u64 + 1) as usize);
    }
    image.add(&all);
    image.compare();
    let odd = |line: &&str| line.contains("Hash") && line.contains("(**)");
    let shown = image.debugfs("htree_dump d");
    let continued = shown.lines().filter(odd).count();
    assert!(continued > 5, "{continued} blocks continue a hash:\n{shown}");
    // The kernel removes and adds some of the names.
    let some: Vec<_> = all.iter().step_by(3).cloned().collect();
    if image.by_kernel(&[], &some).is_some() {
        image.by_kernel(&some[some.len() / 2..], &[]).unwrap();
        image.add(&some[..some.len() / 2]);
        image.compare();
    }
}

/// Adds names by the kernel to "d" until it refuses one. Returns their number.
fn kernels_limit(image: &Image) -> Option<u32> {
    let mount = image.mount("loop,noatime")?;
    let full = (1..).find(|at| {
        let path = mount.path.join("d").join(format!("{at:0>255}"));
        fs::hard_link(mount.path.join("a"), path).is_err()
    });
    full.map(|at: u32| at - 1)
}

#[test]
fn a_full_tree_is_as_full_as_the_kernels() {
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new(dir.path(), "64M", "-t ext4 -b 1024 -J size=1 -N 1024");
    let twin = Image { path: dir.path().join("twin"), names: Default::default() };
    fs::copy(&image.path, &twin.path).unwrap();
    let fs = image.open();
    let [file, directory] = ["/a", "/d"].map(|path| fs.lookup(path).unwrap().number());
    let mut added = 0;
    let error = loop {
        let name = format!("{:0>255}", added + 1);
        if let Err(error) = fs.hard_link(file, directory, name) {
            break error;
        }
        added += 1;
    };
    assert!(matches!(error, Error::DirectoryFull { inode } if inode == directory), "{error}");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(added > 15_000, "{added}");
    assert_eq!(kernels_limit(&twin).unwrap_or(added), added);
    fs.close().unwrap();
    common::assert_clean(&image.path);
    assert_eq!(image.levels(), 1);
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> std::io::ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn names_that_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new(dir.path(), "16M", "-t ext4 -b 1024 -J size=1 -O project -I 256");
    common::debugfs(&image.path, &["sif b links_count 65000"]);
    common::debugfs(&image.path, &["sif e flags 0x20080000", "sif e projid 7"]);
    let device = Recorder::new(fs::read(&image.path).unwrap());
    let fs = open(&device);
    let [a, b, d, e] = ["/a", "/b", "/d", "/e"].map(|path| fs.lookup(path).unwrap().number());
    let calls = device.calls();
    use std::io::ErrorKind as Kind;
    for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
        assert_eq!(kind(fs.hard_link(a, d, name)), Kind::InvalidInput, "{name:?}");
    }
    assert_eq!(kind(fs.hard_link(a, d, [b'n'; 256])), Kind::InvalidFilename);
    assert_eq!(kind(fs.hard_link(b, d, "b")), Kind::TooManyLinks);
    assert_eq!(kind(fs.hard_link(d, e, "d")), Kind::PermissionDenied);
    assert_eq!(kind(fs.hard_link(a, e, "a")), Kind::CrossesDevices);
    assert_eq!(kind(fs.hard_link(a, b, "a")), Kind::NotADirectory);
    assert_eq!(kind(fs.hard_link(a, 9999, "a")), Kind::NotFound);
    assert_eq!(kind(fs.hard_link(9999, d, "a")), Kind::NotFound);
    assert_eq!(kind(fs.hard_link(8, d, "a")), Kind::PermissionDenied);
    assert_eq!(kind(fs.hard_link(a, 2, "b")), Kind::AlreadyExists);
    let root = fs.root().unwrap().number();
    let rename = |name: &str, to: InodeNumber, new: &str| {
        fs.rename(root, name, to, new, RenameMode::Replace)
    };
    assert_eq!(kind(rename("a", e, "a")), Kind::CrossesDevices);
    assert_eq!(kind(rename("d", d, "d")), Kind::InvalidInput);
    assert_eq!(kind(rename("none", d, "d")), Kind::NotFound);
    assert_eq!(kind(rename("a", root, "d")), Kind::IsADirectory);
    assert_eq!(kind(rename("d", root, "a")), Kind::NotADirectory);
    fs.sync().unwrap();
    assert_eq!(device.calls(), calls, "something was changed");
    // Names of all lengths.
    for length in 1..=255 {
        fs.hard_link(a, d, vec![b'n'; length]).unwrap();
    }
    fs.close().unwrap();
}

#[test]
fn directories_that_cannot_be_changed() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("-t ext3 -b 1024", "sif d mtime 0", "block pointers"),
        ("-t ext4 -b 1024", "sif d flags 0x80810", "immutable"),
        ("-t ext4 -b 1024", "sif d flags 0x80800", "encrypted"),
        ("-t ext4 -b 1024", "sif d flags 0x40080000", "ignores case"),
        ("-t ext4 -b 1024 -O ^dir_index,^metadata_csum", "sif d flags 0x81000", "hash tree"),
        ("-t ext4 -b 1024", "sif d flags 0x81000", "corrupt"),
        ("-t ext4 -b 1024 -O ^metadata_csum", "sif d flags 0x81000", "corrupt"),
    ];
    for (options, command, expected) in cases {
        let image = Image::new(dir.path(), "16M", options);
        common::debugfs(&image.path, &[command]);
        let device = Recorder::new(fs::read(&image.path).unwrap());
        let fs = open(&device);
        let [a, d] = ["/a", "/d"].map(|path| fs.lookup(path).unwrap().number());
        let calls = device.calls_but_of_superblock();
        let error = fs.hard_link(a, d, "name").unwrap_err();
        assert!(error.to_string().contains(expected), "{command}: {error}");
        fs.sync().unwrap();
        assert_eq!(device.calls_but_of_superblock(), calls, "something was changed");
    }
}

#[test]
fn each_number_of_free_blocks() {
    let dir = tempfile::tempdir().unwrap();
    for options in ["-t ext4 -b 1024 -J size=1", "-t ext4 -b 1024 -J size=1 -O ^metadata_csum"] {
        let image = Image::new(dir.path(), "3M", options);
        let fs = image.open();
        let [a, b, d] = ["/a", "/b", "/d"].map(|path| fs.lookup(path).unwrap().number());
        // The rest of the filesystem is the file "b".
        let mut end = 1;
        while fs.allocate(b, (end - 1) * 1024, 1024, false).is_ok() {
            end += 1;
        }
        let free = |fs: &JournaledFilesystem| fs.statfs().unwrap().free_blocks;
        let (mut failures, mut sizes) = (0, BTreeSet::new());
        for at in 0..900 {
            let name = format!("{at:0>150}");
            // One block more after each failure.
            while let Err(error) = fs.hard_link(a, d, &name) {
                assert!(matches!(error, Error::NoSpace), "{error}");
                failures += 1;
                let directory = fs.lookup("/d").unwrap();
                assert_eq!(fs.read_dir(&directory).unwrap().count(), at);
                assert_eq!(fs.lookup("/a").unwrap().links() as usize, at + 1);
                fs.sync().unwrap();
                // As after a loss of power.
                let crashed = Recorder::new(fs::read(&image.path).unwrap());
                open(&crashed).close().unwrap();
                check(dir.path(), &crashed.bytes());
                end -= 1;
                let before = free(&fs);
                fs.truncate(b, (end - 1) * 1024).unwrap();
                fs.sync().unwrap();
                assert!(free(&fs) > before);
            }
            sizes.insert(fs.inode(d).unwrap().size());
        }
        assert_eq!(free(&fs), 0, "{options}");
        assert!(failures > 150 && sizes.len() > 150, "{failures}, {}", sizes.len());
        fs.close().unwrap();
        common::assert_clean(&image.path);
    }
}

#[test]
fn every_cut_while_a_directory_grows() {
    let dir = tempfile::tempdir().unwrap();
    for options in ["-t ext4 -b 1024 -J size=1", "-t ext4 -b 1024 -J size=1 -O ^metadata_csum"] {
        let image = Image::new(dir.path(), "8M", options);
        let base = fs::read(&image.path).unwrap();
        let device = Recorder::new(base.clone());
        let fs = open(&device);
        let [file, directory] = ["/a", "/d"].map(|path| fs.lookup(path).unwrap().number());
        let name = |at: usize| format!("{at:0>170}").into_bytes();
        // The number of names that were durable after so many calls.
        let mut durable = vec![(0, 0)];
        for at in 0..1000 {
            fs.hard_link(file, directory, name(at)).unwrap();
            if at % 23 == 0 {
                fs.sync_inode(directory).unwrap();
                durable.push((at + 1, device.calls()));
            }
        }
        assert!(fs.inode(directory).unwrap().size() > 200_000);
        let events = device.events();
        drop(fs);
        let (mut found, mut random) = (BTreeSet::new(), Rng::new(31));
        cut_disks(&base.into(), &events, &mut random, 1, |at, disk| {
            let device = Recorder::new(disk);
            let fs = open(&device);
            let count = listed(&fs, "d").len();
            let least = durable.iter().rfind(|&&(_, calls)| calls <= at).unwrap().0;
            assert!(count >= least, "{count} of {least} names that were durable");
            assert_eq!(fs.lookup("/a").unwrap().links() as usize, count + 1);
            for at in 0..count {
                let path = [b"/d/", &*name(at)].concat();
                assert_eq!(fs.lookup(path).unwrap().number(), file);
            }
            // The recovered directory can be changed.
            fs.hard_link(file, directory, name(count)).unwrap();
            fs.close().unwrap();
            check(dir.path(), &device.bytes());
            found.insert(count);
        });
        assert!(found.len() > 30, "{found:?}");
    }
}
