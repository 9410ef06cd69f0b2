//! Changes of names on an image and on its twin, by this crate and by the kernel: counts, times and versions
//! of all inodes are the same.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nvio_ext4::{JournaledFilesystem, Options, RenameMode};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::common::{self, Mount, mke2fs};

/// The time of everything before a change, seconds.
const OLD: i64 = 1_000_000_000;

/// A change: two paths, and the mode of a rename; `None` for a hard link.
type Change = (&'static str, &'static str, Option<RenameMode>);

const CHANGES: &[Change] = &[
    ("d/f", "e/new", None),
    ("d/x", "d/z", Some(RenameMode::Replace)),
    ("d/x", "e/x", Some(RenameMode::NoReplace)),
    ("d/x", "d/w", Some(RenameMode::Replace)),
    ("d/x", "e/y", Some(RenameMode::Replace)),
    ("d/x", "e/g", Some(RenameMode::Replace)),
    ("d/f", "e/g", Some(RenameMode::Replace)),
    ("d/sub", "d/other", Some(RenameMode::Replace)),
    ("d/sub", "e/other", Some(RenameMode::Replace)),
    ("d/sub", "e/empty", Some(RenameMode::Replace)),
    ("d/sub", "d/void", Some(RenameMode::Replace)),
    ("d/x", "e/y", Some(RenameMode::Exchange)),
    ("d/x", "d/f", Some(RenameMode::Exchange)),
    ("d/sub", "e/y", Some(RenameMode::Exchange)),
    ("d/y", "e/empty", Some(RenameMode::Exchange)),
    ("d/sub", "e/empty", Some(RenameMode::Exchange)),
];

fn image(dir: &Path, options: &str) -> PathBuf {
    let (image, source) = (dir.join("image"), dir.join("source"));
    if !source.exists() {
        for name in ["d/sub/below", "d/void", "e/empty"] {
            fs::create_dir_all(source.join(name)).unwrap();
        }
        for name in ["d/x", "d/w", "d/f", "d/y", "e/y"] {
            fs::write(source.join(name), name.repeat(1000)).unwrap();
        }
        fs::hard_link(source.join("d/f"), source.join("e/g")).unwrap();
    }
    mke2fs(&image, "32M", &options.split(' ').collect::<Vec<_>>(), Some(&source));
    let fs = common::open(&image);
    let inodes = (2..=2).chain(11..40).filter(|&number| fs.inode(number).is_ok());
    let fields = ["atime", "ctime", "mtime"];
    let set = |number: u32| fields.map(|field| format!("sif <{number}> {field} @{OLD}"));
    let lines: Vec<String> = inodes.flat_map(set).collect();
    common::debugfs(&image, &lines.iter().map(|line| &**line).collect::<Vec<_>>());
    image
}

/// Returns what a change may change: for each inode its counts, whether its times are new, and its version.
fn state(image: &Path) -> BTreeMap<u32, String> {
    let fs = common::open(image);
    let mut all = BTreeMap::new();
    for number in (2..=2).chain(11..40) {
        let Ok(inode) = fs.inode(number) else { continue };
        let shown =
            common::run("debugfs", &["-R", &format!("stat <{number}>"), image.to_str().unwrap()]);
        let shown = String::from_utf8_lossy(&shown);
        let version =
            shown.split("Version: ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let times = [inode.atime(), inode.mtime(), inode.ctime()].map(|time| time.seconds != OLD);
        let counts = (inode.links(), inode.size(), inode.blocks_512(), inode.flags());
        assert!(version.is_some_and(|version| version.starts_with("0x")), "{shown}");
        let version = version.filter(|_| inode.is_dir());
        all.insert(number, format!("{counts:?}, new times {times:?}, version {version:?}"));
    }
    let stat = fs.statfs().unwrap();
    all.insert(0, format!("{} blocks, {} inodes", stat.free_blocks, stat.free_files));
    all
}

fn here(image: &Path, (from, to, mode): Change) {
    let device = File::options().read(true).write(true).open(image).unwrap();
    let fs = JournaledFilesystem::open(device, Options::default()).unwrap();
    let split = |path: &'static str| {
        let (parent, name) = path.split_once('/').unwrap();
        (fs.lookup(parent).unwrap().number(), name)
    };
    let ((parent, name), (new_parent, new_name)) = (split(from), split(to));
    match mode {
        Some(mode) => fs.rename(parent, name, new_parent, new_name, mode).unwrap(),
        None => {
            fs.hard_link(fs.lookup(from).unwrap().number(), new_parent, new_name)
                .map(drop)
                .unwrap();
        }
    }
    fs.close().unwrap();
    common::assert_clean(image);
}

fn by_kernel(image: &Path, (from, to, mode): Change) {
    let mount = Mount::new(image, &image.with_extension("mnt"), "loop,noatime").unwrap();
    let [from, to] = [from, to].map(|path| mount.path.join(path));
    let flags = match mode {
        None => return fs::hard_link(from, to).unwrap(),
        Some(RenameMode::Replace) => RenameFlags::empty(),
        Some(RenameMode::NoReplace) => RenameFlags::NOREPLACE,
        Some(RenameMode::Exchange) => RenameFlags::EXCHANGE,
    };
    renameat_with(CWD, from, CWD, to, flags).unwrap();
}

#[test]
fn counts_times_and_versions_are_the_kernels() {
    if !common::is_root() {
        println!("SKIPPED: loop mounts need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for options in ["-t ext4 -b 1024 -J size=1", "-t ext4 -b 4096 -I 128 -J size=4"] {
        let image = image(dir.path(), options);
        let [ours, theirs] = ["ours", "theirs"].map(|name| dir.path().join(name));
        for &change in CHANGES {
            for copy in [&ours, &theirs] {
                fs::copy(&image, copy).unwrap();
            }
            here(&ours, change);
            by_kernel(&theirs, change);
            let (ours, theirs) = (state(&ours), state(&theirs));
            for (number, state) in &ours {
                assert_eq!(Some(state), theirs.get(number), "{change:?}: inode {number}");
            }
            assert_eq!(ours.len(), theirs.len(), "{change:?}");
        }
    }
}
