//! Damaged filesystems: what is sound is still listed, found and read, and each problem is reported.
//! The kernel, with a read-only mount, lists no more. Mounts need root; without it they are skipped.

use crate::common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Mount, mke2fs};
use nvio_ext4::{
    Error, Filesystem, Inode, NotWritable, Options, Recovery, SuperblockCopy, WalkEvent,
};
use tempfile::TempDir;

/// A change of the first 16 KiB of an image.
type Change = fn(&mut [u8]);

/// An image of a folder: `dir` with 60 names in three blocks of 1 KiB, `other/file`, and `hello`.
struct Disk {
    dir: TempDir,
    bytes: Vec<u8>,
}

/// Creates an image, whose directories have hash trees if `options` include `dir_index`.
fn image(dir: &Path, size: &str, options: &[&str]) -> PathBuf {
    let source = dir.join("source");
    for folder in ["dir", "other"] {
        fs::create_dir_all(source.join(folder)).unwrap();
    }
    for index in 0..60 {
        let name = format!("dir/a-file-with-a-rather-long-name-{index:02}");
        fs::write(source.join(name), index.to_string()).unwrap();
    }
    fs::write(source.join("other/file"), "sound").unwrap();
    fs::write(source.join("hello"), "hello").unwrap();
    let image = dir.join("image");
    mke2fs(&image, size, &[&["-t", "ext4"], options].concat(), Some(&source));
    if options.iter().any(|option| option.split(',').any(|feature| feature == "dir_index")) {
        let e2fsck = Command::new("e2fsck").arg("-fyD").arg(&image).output().unwrap();
        assert!(matches!(e2fsck.status.code(), Some(0 | 1)), "{e2fsck:?}");
    }
    image
}

impl Disk {
    fn new(size: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bytes = fs::read(image(dir.path(), size, options)).unwrap();
        Self { bytes, dir }
    }

    fn fs(&self) -> Filesystem {
        Filesystem::open(self.bytes.clone()).unwrap()
    }

    fn open(&self, options: Options) -> Result<Filesystem, Error> {
        Filesystem::open_with(self.bytes.clone(), options)
    }

    /// Returns the byte address of block `index` of a file.
    fn address(&self, path: &str, index: u64) -> usize {
        let fs = self.fs();
        let pos = index * u64::from(fs.superblock().block_size());
        let inode = fs.lookup(path).unwrap();
        let extent = fs
            .extents(&inode)
            .unwrap()
            .map(Result::unwrap)
            .find(|extent| (extent.logical..extent.logical + extent.length).contains(&pos));
        let extent = extent.unwrap();
        (extent.physical + pos - extent.logical) as usize
    }

    fn mount(&self, options: &str) -> Option<Mount> {
        if !common::is_root() {
            println!("SKIPPED: loop mounts need root");
            return None;
        }
        let image = self.dir.path().join("mounted");
        fs::write(&image, &self.bytes).unwrap();
        Mount::new(&image, &self.dir.path().join("mnt"), options)
            .inspect_err(|reason| println!("SKIPPED: {reason}"))
            .ok()
    }
}

/// Returns the paths of a walk, and its errors with their paths.
fn walk(fs: &Filesystem) -> (Vec<String>, Vec<String>) {
    let (mut paths, mut errors) = (Vec::new(), Vec::new());
    let mut walk = fs.walk("/", &fs.root().unwrap());
    while let Some(step) = walk.step() {
        match step {
            Ok(visit) if visit.event == WalkEvent::Entry => {
                paths.push(String::from_utf8_lossy(visit.path).into_owned());
            }
            Ok(_) => {}
            Err(error) => {
                let path = String::from_utf8_lossy(walk.path()).into_owned();
                errors.push(format!("{path}: {error}"));
            }
        }
    }
    (paths, errors)
}

/// Returns the paths that the kernel lists below `top`.
fn kernel_paths(top: &Path) -> Vec<String> {
    let mut todo: Vec<PathBuf> = vec![top.to_owned()];
    let mut paths = Vec::new();
    while let Some(directory) = todo.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.map_while(Result::ok) {
            let path = entry.path();
            let below = path.strip_prefix(top).unwrap().to_str().unwrap();
            paths.push(format!("/{below}"));
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(path);
            }
        }
    }
    paths
}

fn assert_lists_as_much(disk: &Disk, paths: &[String]) {
    let Some(mounted) = disk.mount("loop,ro,noatime,errors=continue") else { return };
    let theirs = kernel_paths(&mounted.path);
    assert!(theirs.len() > 3, "{theirs:?}");
    for path in theirs {
        assert!(paths.contains(&path), "the kernel lists {path}");
    }
}

fn contents(fs: &Filesystem, path: &str, disk: &Disk) -> Vec<u8> {
    let image = disk.dir.path().join("contents");
    fs::write(&image, &disk.bytes).unwrap();
    let inode: Inode = fs.lookup(path).unwrap();
    common::read_file(fs, &File::open(image).unwrap(), &inode)
}

/// Options of mke2fs for directories without and with checksums.
const CHECKSUMS: [&str; 2] = ["^metadata_csum", "metadata_csum"];

#[test]
fn a_wrong_checksum_of_a_group_is_reported_and_the_group_is_read() {
    for options in ["uninit_bg,^metadata_csum", "metadata_csum"] {
        let mut disk = Disk::new("8M", &["-b", "1024", "-O", options]);
        disk.bytes[2048 + 30] ^= 0x55;
        let fs = disk.fs();
        assert_eq!(contents(&fs, "/other/file", &disk), b"sound");
        let damage = fs.take_damage();
        assert_eq!((damage.len(), damage[0].group()), (1, Some(0)), "{options}");
        assert!(damage[0].is_checksum() && fs.take_damage().is_empty());
        assert!(matches!(fs.writable(), Err(Error::Corrupt(_))), "{options}");
        assert!(fs.statfs().is_ok());
        let (paths, errors) = walk(&fs);
        assert!(errors.is_empty(), "{errors:?}");
        assert_lists_as_much(&disk, &paths);
    }
}

#[test]
fn a_zeroed_block_loses_only_its_own_names() {
    for checksums in CHECKSUMS {
        for index in ["^dir_index", "dir_index"] {
            for block in 0..3 {
                let options = format!("{index},{checksums},^has_journal");
                let mut disk = Disk::new("8M", &["-b", "1024", "-O", &options]);
                let at = disk.address("/dir", block);
                disk.bytes[at..at + 1024].fill(0);
                let fs = disk.fs();
                let (paths, errors) = walk(&fs);
                let listed = paths.iter().filter(|path| path.starts_with("/dir/")).count();
                assert!((30..=60).contains(&listed), "{options} {block}: {listed} names");
                assert_eq!(errors.len(), 1, "{options} {block}: {errors:?}");
                assert!(errors[0].starts_with("/dir: corrupt directory block"), "{errors:?}");
                assert!(paths.contains(&"/other/file".to_owned()));
                for path in paths.iter().filter(|path| path.starts_with("/dir/")) {
                    assert!(fs.lookup(path).is_ok(), "{options} {block}: {path}");
                }
                // A name that may be in the block is not said to be missing.
                assert!(matches!(
                    fs.lookup("/dir/gone"),
                    Err(Error::Corrupt(_) | Error::NotFound { .. })
                ));
                assert_lists_as_much(&disk, &paths);
            }
        }
    }
}

/// Returns the byte address of the entry `name` in block 0 to 2 of `/dir`.
fn entry(disk: &Disk, name: &str) -> usize {
    let found = (0..3).find_map(|index| {
        let at = disk.address("/dir", index);
        let block = &disk.bytes[at..at + 1024];
        let place = block.windows(name.len()).position(|bytes| bytes == name.as_bytes());
        place.map(|place| at + place - 8)
    });
    found.unwrap()
}

#[test]
fn a_wrong_name_is_reported_and_the_others_are_listed() {
    let name = "a-file-with-a-rather-long-name-30";
    type Change = fn(&mut [u8]);
    let changes: [(&str, Change); 6] = [
        ("has a name that is empty or has a slash", |entry| entry[12] = b'/'),
        ("has a name that is empty or has a slash or zero byte", |entry| entry[12] = 0),
        ("has a name that is empty", |entry| entry[6] = 0),
        ("is a second \".\" or \"..\"", |entry| {
            entry[6] = 2;
            entry[8..10].copy_from_slice(b"..");
        }),
        ("a second entry of this name", |entry| {
            let end = 8 + usize::from(entry[6]);
            entry[end - 1] = b'1';
        }),
        ("refers to inode 16777215", |entry| {
            entry[..4].copy_from_slice(&16_777_215u32.to_le_bytes());
        }),
    ];
    for (message, change) in changes {
        let mut disk =
            Disk::new("8M", &["-b", "1024", "-O", "^dir_index,^metadata_csum,^has_journal"]);
        let at = entry(&disk, name);
        change(&mut disk.bytes[at..at + 8 + name.len()]);
        let fs = disk.fs();
        let (paths, errors) = walk(&fs);
        let listed = paths.iter().filter(|path| path.starts_with("/dir/")).count();
        assert_eq!((listed, errors.len()), (59, 1), "{message}: {errors:?}");
        let place = match message {
            "a second entry of this name" => "/dir/a-file-with-a-rather-long-name-31: ",
            _ => "/dir: ",
        };
        assert!(errors[0].starts_with(place) && errors[0].contains(message), "{errors:?}");
        assert!(fs.lookup("/dir/a-file-with-a-rather-long-name-59").is_ok(), "{message}");
        assert!(paths.contains(&"/other/file".to_owned()));
    }
}

#[test]
fn a_cycle_of_directories_is_reported_and_the_rest_is_listed() {
    let mut disk = Disk::new("8M", &["-b", "1024", "-O", "^dir_index,^metadata_csum,^has_journal"]);
    let fs = disk.fs();
    let other = fs.lookup("/other").unwrap().number().get();
    // A name in `dir` for `other`, which comes before the place of `other`; and one in `other` for
    // `dir`, its ancestor on that path.
    let dir = fs.lookup("/dir").unwrap().number().get();
    let at = entry(&disk, "a-file-with-a-rather-long-name-30");
    disk.bytes[at..at + 4].copy_from_slice(&other.to_le_bytes());
    disk.bytes[at + 7] = 2;
    let at = disk.address("/other", 0) + 24;
    disk.bytes[at..at + 4].copy_from_slice(&dir.to_le_bytes());
    disk.bytes[at + 7] = 2;
    let (paths, errors) = walk(&disk.fs());
    assert!(paths.contains(&"/other/file".to_owned()), "listed at its own place: {paths:?}");
    assert!(paths.contains(&"/dir/a-file-with-a-rather-long-name-59".to_owned()));
    assert!(!errors.is_empty() && errors.len() <= 4, "{errors:?}");
    assert!(errors.iter().all(|error| error.contains("second entry for directory")), "{errors:?}");
    assert!(paths.len() < 200, "{}", paths.len());
}

#[test]
fn a_damaged_index_is_searched_in_order() {
    for checksums in CHECKSUMS {
        let options = format!("dir_index,{checksums},^has_journal");
        let mut disk = Disk::new("8M", &["-b", "1024", "-O", &options]);
        let at = disk.address("/dir", 0);
        // The hash of the second leaf.
        disk.bytes[at + 40..at + 44].fill(0xff);
        let fs = disk.fs();
        let found = (0..60)
            .filter(|index| {
                fs.lookup(format!("/dir/a-file-with-a-rather-long-name-{index:02}")).is_ok()
            })
            .count();
        if checksums == "metadata_csum" {
            assert_eq!((found, fs.take_damage().len()), (60, 1));
        } else {
            assert!(found >= 20, "{found}");
        }
    }
}

#[test]
fn a_damaged_leaf_of_the_map_loses_only_its_own_range() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    let image = dir.path().join("image");
    for options in
        ["^extents,^64bit,^metadata_csum,^has_journal", "extent,metadata_csum,^has_journal"]
    {
        // Every second block of a file of 2 MiB: hundreds of extents, in several leaves.
        let file = File::create(source.join("file")).unwrap();
        file.set_len(4 << 20).unwrap();
        for block in 0..2000u64 {
            let data = [block as u8; 1024];
            file.write_all_at(&data, block * 2048).unwrap();
        }
        mke2fs(&image, "16M", &["-t", "ext4", "-b", "1024", "-O", options], Some(&source));
        let fs = common::open(&image);
        let inode = fs.lookup("/file").unwrap();
        let sound: Vec<_> = fs.extents(&inode).unwrap().map(Result::unwrap).collect();
        drop(fs);
        // The block with the pointers or the extents of the middle of the file.
        let said = common::run("debugfs", &["-R", "ex /file", image.to_str().unwrap()]);
        let said = String::from_utf8(said).unwrap();
        let is_tree = options.starts_with("extent,");
        let node = if is_tree {
            // Level, entries, logical, physical of an index entry.
            let line = said.lines().filter(|line| line.trim_start().starts_with("1/")).nth(2);
            let numbers: Vec<u64> = line
                .unwrap()
                .split(|byte: char| !byte.is_ascii_digit())
                .filter_map(|number| number.parse().ok())
                .collect();
            numbers[6]
        } else {
            let said = common::run("debugfs", &["-R", "stat /file", image.to_str().unwrap()]);
            let said = String::from_utf8(said).unwrap();
            let after = said.split("(IND):").nth(2).unwrap();
            after.split(|byte: char| !byte.is_ascii_digit()).next().unwrap().parse().unwrap()
        };
        let mut bytes = fs::read(&image).unwrap();
        let at = node as usize * 1024;
        bytes[at..at + 1024].fill(0xee);
        let fs = Filesystem::open(bytes).unwrap();
        let inode = fs.lookup("/file").unwrap();
        let (found, errors): (Vec<_>, Vec<_>) =
            fs.extents(&inode).unwrap().partition(Result::is_ok);
        let found: Vec<_> = found.into_iter().map(Result::unwrap).collect();
        assert_eq!(errors.len(), 1, "{options}: {errors:?}");
        assert!(found.len() > sound.len() / 2 && found.len() < sound.len(), "{}", found.len());
        assert!(found.iter().all(|extent| sound.contains(extent)), "{options}");
        assert_eq!(found.last(), sound.last());
    }
}

#[test]
fn pointers_after_the_end_are_not_read() {
    let mut disk =
        Disk::new("8M", &["-b", "1024", "-O", "^extents,^64bit,^metadata_csum,^has_journal"]);
    let fs = disk.fs();
    let number = fs.lookup("/hello").unwrap().number().get();
    drop(fs);
    let image = disk.dir.path().join("image");
    common::debugfs(
        &image,
        &[
            &format!("sif <{number}> block[DIND] 4000000"),
            &format!("sif <{number}> block[5] 4000000"),
        ],
    );
    disk.bytes = fs::read(&image).unwrap();
    let fs = disk.fs();
    assert_eq!(contents(&fs, "/hello", &disk), b"hello");
    assert_eq!(fs.take_damage().len(), 1, "the pointer beside that of the data");
    let inode = fs.lookup("/hello").unwrap();
    assert!(fs.extents(&inode).unwrap().any(|extent| extent.is_err()));
    assert!(fs.extents(&inode).unwrap().until(inode.size()).all(|extent| extent.is_ok()));
}

#[test]
fn copies_of_the_superblock_are_found_and_used() {
    for (size, options) in [
        ("20M", &["-b", "1024"][..]),
        ("20M", &["-b", "1024", "-g", "2048"]),
        ("300M", &["-b", "4096", "-O", "^has_journal"]),
        ("300M", &["-b", "4096", "-O", "sparse_super2,^has_journal", "-E", "num_backup_sb=2"]),
        ("40M", &["-b", "1024", "-O", "meta_bg,^resize_inode"]),
        ("20M", &["-b", "1024", "-O", "^sparse_super,^resize_inode,^metadata_csum,^has_journal"]),
        ("40M", &["-b", "2048", "-g", "4096", "-O", "^64bit"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let sound = image(dir.path(), size, options);
        let what = format!("{size} {options:?}");
        let (all, _) = walk(&common::open(&sound));
        let changes: [(&str, Change); 3] = [
            ("magic number", |bytes| bytes[1080..1082].fill(0)),
            ("checksum", |bytes| bytes[2044] ^= 1),
            ("superblock and descriptors", |bytes| {
                let block = 1024usize << bytes[1024 + 24];
                bytes[1024..3 * block].fill(0);
            }),
        ];
        let features = options.join(" ");
        for (wiped, change) in changes {
            let damaged = dir.path().join("damaged");
            let arguments = ["--sparse=always", sound.to_str().unwrap(), damaged.to_str().unwrap()];
            common::run("cp", &arguments);
            let file = File::options().read(true).write(true).open(&damaged).unwrap();
            let mut start = vec![0; 16 << 10];
            file.read_exact_at(&mut start, 0).unwrap();
            change(&mut start);
            file.write_all_at(&start, 0).unwrap();
            let open = |options| Filesystem::open_with(File::open(&damaged).unwrap(), options);
            let copies = match open(Options::default()) {
                Err(Error::BadSuperblock { copies, error }) => {
                    assert!(matches!(*error, Error::NotExt4 { .. } | Error::Corrupt(_)), "{what}");
                    copies
                }
                Ok(_) if wiped == "checksum" && features.contains("^metadata_csum") => continue,
                // The size of groups is lost with the superblock, and it is not the usual one.
                Err(Error::NotExt4 { .. }) if features.contains("-g") && wiped.contains("and") => {
                    continue;
                }
                other => panic!("{what}, {wiped}: {other:?}"),
            };
            for &SuperblockCopy { block, block_size } in &copies {
                for options in [
                    Options::default().superblock(block),
                    Options::default().superblock(block).block_size(block_size),
                    Options::default().superblock(block).recovery(Recovery::Skip).ignore_mmp(true),
                ] {
                    let fs = open(options)
                        .unwrap_or_else(|error| panic!("{what}, {wiped}, {block}: {error}"));
                    assert_eq!(walk(&fs), (all.clone(), Vec::new()), "{what}, {wiped}, {block}");
                    let refused = fs.writable().unwrap_err();
                    assert!(
                        matches!(refused, Error::NotWritable(NotWritable::Rescue)),
                        "{refused}"
                    );
                }
            }
        }
        let options = Options::default().superblock(5);
        let nowhere = Filesystem::open_with(File::open(&sound).unwrap(), options).unwrap_err();
        assert!(nowhere.to_string().contains("block 5 has no copy of it"), "{nowhere}");
    }
}

#[test]
fn the_journal_can_be_skipped() {
    let mut disk = Disk::new("16M", &["-b", "1024"]);
    let fs = disk.fs();
    let journal = fs.inode(8).unwrap();
    let extent = fs.extents(&journal).unwrap().next().unwrap().unwrap();
    let at = extent.physical as usize;
    disk.bytes[1024 + 0x60] |= 4;
    disk.bytes[at..at + 4].fill(0xff);
    let sum = nvio_testkit::image::crc32c(&disk.bytes[1024..2044]);
    disk.bytes[2044..2048].copy_from_slice(&sum.to_le_bytes());
    let refused = disk.open(Options::default()).unwrap_err();
    assert!(matches!(refused, Error::Corrupt(_)), "{refused}");
    let fs = disk.open(Options::default().recovery(Recovery::Skip)).unwrap();
    assert_eq!(contents(&fs, "/hello", &disk), b"hello");
    assert!(matches!(fs.writable(), Err(Error::NotWritable(NotWritable::Rescue))));
    assert!(fs.recovered().is_none() && fs.statfs().is_ok());
    let (paths, errors) = walk(&fs);
    assert!(errors.is_empty(), "{errors:?}");
    let Some(mounted) = disk.mount("loop,ro,noload,errors=continue") else { return };
    let mut theirs = kernel_paths(&mounted.path);
    theirs.sort();
    let mut ours = paths;
    ours.sort();
    assert_eq!(ours, theirs);
}
