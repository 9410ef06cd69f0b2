//! Fast commits: images that were copied while mounted, directly after fsync, compared with the
//! kernel's recovery of the same image. Needs root and a kernel with loop devices; skipped with a
//! reason otherwise.

use crate::common;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nvio_ext4::RoCompatFeatures;

use common::view::View;
use common::{Mount, mke2fs, pattern, run, view};

/// Variants of the filesystem: name, options of mke2fs, block size.
pub const VARIANTS: &[(&str, &str, u64)] = &[
    ("4k", "-t ext4 -b 4096 -O fast_commit", 4096),
    ("bigalloc", "-t ext4 -b 1024 -C 4096 -O fast_commit,bigalloc", 1024),
    ("1k", "-t ext4 -b 1024 -O fast_commit", 1024),
    ("1k-nocsum", "-t ext4 -b 1024 -O fast_commit,^metadata_csum,^64bit -I 128", 1024),
    ("large-inodes", "-t ext4 -b 4096 -I 1024 -O fast_commit,orphan_file", 4096),
];

pub struct Bed {
    pub dir: tempfile::TempDir,
    pub image: PathBuf,
    pub mount: PathBuf,
    pub block: u64,
}

/// A step: its name, and the changes that it makes to a mounted filesystem.
pub type Step = (&'static str, fn(&Bed, &Path));

pub const STEPS: &[Step] = &[
    ("create", |_, top| {
        fs::write(top.join("d/new"), pattern(1, 12_345)).unwrap();
        fs::write(top.join("d/empty"), b"").unwrap();
        fsync(&top.join("d/new"));
        fsync(&top.join("d/empty"));
    }),
    ("append and overwrite", |bed, top| {
        let file = OpenOptions::new().write(true).open(top.join("d/a")).unwrap();
        file.write_all_at(&pattern(2, 30_000), 50_000).unwrap();
        file.write_all_at(&pattern(3, 100), bed.block * 3 + 5).unwrap();
        file.sync_all().unwrap();
        file.write_all_at(&pattern(4, 5000), 80_000).unwrap();
        file.sync_data().unwrap();
    }),
    ("truncate", |bed, top| {
        truncate(&top.join("d/b"), bed.block * 2 + 17);
        truncate(&top.join("d/c"), 0);
        truncate(&top.join("d/d"), 400_000);
    }),
    ("truncate and write again", |_, top| {
        truncate(&top.join("d/b"), 0);
        fs::write(top.join("d/b"), pattern(5, 70_000)).unwrap();
        fsync(&top.join("d/b"));
    }),
    ("fallocate", |_, top| {
        fallocate(top, &["-l", "300000", "d/prealloc"]);
        fallocate(top, &["-n", "-l", "500000", "d/a"]);
        fsync(&top.join("d/prealloc"));
        fsync(&top.join("d/a"));
    }),
    ("write to what is preallocated", |bed, top| {
        let file = OpenOptions::new().write(true).open(top.join("d/prealloc")).unwrap();
        for at in [0, 7, 8, 9, 30, 41] {
            file.write_all_at(&pattern(at, 900), at * bed.block + 3).unwrap();
            file.sync_all().unwrap();
        }
    }),
    ("punch", |_, top| {
        fallocate(top, &["-p", "-o", "8192", "-l", "16384", "d/a"]);
        fsync(&top.join("d/a"));
    }),
    ("many extents", |bed, top| {
        let file = File::create(top.join("d/fragmented")).unwrap();
        for index in 0..40 {
            file.write_all_at(&pattern(index, 10), index * 3 * bed.block).unwrap();
        }
        file.sync_all().unwrap();
        for index in 10..20 {
            file.write_all_at(&pattern(index, 10), (index * 3 + 1) * bed.block).unwrap();
            file.sync_all().unwrap();
        }
    }),
    ("more extents in a tree", |bed, top| {
        let file = OpenOptions::new().write(true).open(top.join("d/tree")).unwrap();
        for index in 30..90 {
            file.write_all_at(&pattern(index, 10), (index * 4 + 2) * bed.block).unwrap();
        }
        file.sync_all().unwrap();
        file.write_all_at(&pattern(7, 10), 70_000 * bed.block).unwrap();
        file.sync_all().unwrap();
    }),
    ("tree cut short", |bed, top| truncate(&top.join("d/tree"), bed.block * 9)),
    ("hole filled", |bed, top| {
        let file = OpenOptions::new().write(true).open(top.join("d/fragmented")).unwrap();
        file.write_all_at(&pattern(9, (bed.block * 120) as usize), 0).unwrap();
        file.sync_all().unwrap();
    }),
    ("link", |_, top| {
        fs::hard_link(top.join("d/a"), top.join("d/a2")).unwrap();
        fs::hard_link(top.join("d/a"), top.join("e/a3")).unwrap();
        fsync(&top.join("d/a"));
    }),
    ("unlink", |_, top| {
        fs::remove_file(top.join("d/a")).unwrap();
        fs::remove_file(top.join("d/gone")).unwrap();
        fsync(&top.join("e/a3"));
    }),
    ("rename", |_, top| {
        fs::rename(top.join("d/b"), top.join("e/b with a longer name")).unwrap();
        fs::rename(top.join("d/c"), top.join("d/a")).unwrap();
        fsync(&top.join("d/a"));
    }),
    ("rename over another", |_, top| {
        fs::write(top.join("e/tmp"), pattern(12, 4000)).unwrap();
        fsync(&top.join("e/tmp"));
        fs::rename(top.join("e/tmp"), top.join("e/a3")).unwrap();
        fsync(&top.join("e/a3"));
    }),
    ("attributes", |_, top| {
        let path = top.join("d/d");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4711)).unwrap();
        chown(&path, Some(70_000), Some(80_000)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::new(5_000_000_000, 5);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(time)).unwrap();
        file.sync_all().unwrap();
    }),
    ("created and deleted", |_, top| {
        for round in 0..3 {
            fs::write(top.join("e/short"), pattern(round, 9000)).unwrap();
            fsync(&top.join("e/short"));
            fs::remove_file(top.join("e/short")).unwrap();
            fs::write(top.join("e/other"), pattern(round, 3000)).unwrap();
            fsync(&top.join("e/other"));
        }
    }),
    ("many files", |_, top| {
        for index in 0..12 {
            let path = top.join(format!("e/file-{index}"));
            fs::write(&path, pattern(index, index as usize * 700)).unwrap();
            fsync(&path);
        }
    }),
    ("a full commit in between", |_, top| {
        full_commit(top);
        fs::write(top.join("e/after"), pattern(77, 7000)).unwrap();
        fsync(&top.join("e/after"));
    }),
    ("a directory", |_, top| {
        fs::create_dir(top.join("e/sub")).unwrap();
        fs::write(top.join("e/sub/file"), pattern(78, 700)).unwrap();
        fsync(&top.join("e/sub/file"));
        fs::hard_link(top.join("e/sub/file"), top.join("e/sub/link")).unwrap();
        fsync(&top.join("e/sub/file"));
    }),
    ("a directory removed", |_, top| {
        full_commit(top);
        fs::remove_dir(top.join("hollow")).unwrap();
        fs::write(top.join("e/after"), pattern(79, 900)).unwrap();
        fsync(&top.join("e/after"));
    }),
];

/// A file has the inode of one that was deleted, which the last full commit has in the list of orphans.
pub const ORPHAN: Step = ("an orphan's inode used again", |_, top| {
    let orphan = File::create(top.join("e/orphan")).unwrap();
    orphan.write_all_at(&pattern(5, 3000), 0).unwrap();
    fs::remove_file(top.join("e/orphan")).unwrap();
    full_commit(top);
    drop(orphan);
    for index in 0..3 {
        fs::write(top.join(format!("e/again-{index}")), "").unwrap();
        fsync(&top.join(format!("e/again-{index}")));
    }
});

fn fsync(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

fn truncate(path: &Path, size: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(size).unwrap();
    file.sync_all().unwrap();
}

fn fallocate(top: &Path, arguments: &[&str]) {
    let (name, options) = arguments.split_last().unwrap();
    let path = top.join(name);
    let mut arguments = options.to_vec();
    arguments.push(path.to_str().unwrap());
    run("fallocate", &arguments);
}

/// Forces a full commit, because a fast commit cannot contain a new symbolic link.
pub fn full_commit(top: &Path) {
    let link = top.join("link");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink("anywhere", &link).unwrap();
    fsync(top);
}

pub fn populate(top: &Path, block: u64) {
    for directory in ["d", "e", "hollow"] {
        fs::create_dir(top.join(directory)).unwrap();
    }
    for name in ["a", "b", "c", "d", "gone"] {
        fs::write(top.join("d").join(name), pattern(100, 50_000)).unwrap();
    }
    let tree = File::create(top.join("d/tree")).unwrap();
    for index in 0..400 {
        tree.write_all_at(&pattern(index, 10), index * 4 * block).unwrap();
    }
    tree.sync_all().unwrap();
    full_commit(top);
}

impl Bed {
    pub fn new() -> Option<Self> {
        if !common::is_root() {
            println!("SKIPPED: loop mounts need root");
            return None;
        }
        // In memory if possible, because each step copies the image and waits for its writes.
        let in_memory = tempfile::tempdir_in("/dev/shm");
        let dir = in_memory.unwrap_or_else(|_| tempfile::tempdir().unwrap());
        let [image, mount] = ["image", "mnt"].map(|name| dir.path().join(name));
        let bed = Self { dir, image, mount, block: 4096 };
        mke2fs(&bed.image, "8M", &["-t", "ext4", "-O", "fast_commit"], None);
        match Mount::new(&bed.image, &bed.mount, "loop") {
            Ok(_) => Some(bed),
            Err(reason) => {
                println!("SKIPPED: {reason}");
                None
            }
        }
    }

    /// Copies the mounted image, and returns the copy with the kernel's view of what it recovers.
    pub fn copy(&self, what: &str) -> (PathBuf, View) {
        let dirty = self.dir.path().join("dirty");
        let copy = self.dir.path().join("copy");
        let duplicate = |from: &Path, to: &Path| {
            let arguments = ["--sparse=always", from.to_str().unwrap(), to.to_str().unwrap()];
            run("cp", &arguments);
        };
        let mount = self.dir.path().join("mnt2");
        let mut attempts = 0;
        loop {
            duplicate(&self.image, &dirty);
            duplicate(&dirty, &copy);
            match Mount::new(&copy, &mount, "loop,noatime") {
                Ok(mounted) => return (dirty, view::of_kernel(&mounted.path)),
                // The image was copied during a write of the journal's superblock, which waits for the
                // kernel's threads.
                Err(reason) if attempts < 150 => {
                    println!("{what}: again, as {reason}");
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(reason) => panic!("{what}: {reason}"),
            }
            attempts += 1;
        }
    }

    /// Compares this crate's view of the mounted image with the kernel's view of a copy. Returns
    /// the number of fast commits.
    fn compare(&self, what: &str) -> u32 {
        let (dirty, theirs) = self.copy(what);
        let sum = |path: &Path| run("cksum", &[path.to_str().unwrap()]);
        let before = sum(&dirty);
        let fs = common::open(&dirty);
        let fast_commits = fs.recovered().map_or(0, |done| done.fast_commits);
        let has_orphans = fs.superblock().last_orphan != 0
            || fs.superblock().ro_compat.contains(RoCompatFeatures::ORPHAN_PRESENT);
        let mut ours = view::of_image(&dirty);
        assert_eq!(before, sum(&dirty), "{what}: the image was changed");
        view::ignore_recounted_blocks(&mut ours, &theirs, |_| fast_commits > 0);
        if has_orphans && fast_commits > 0 {
            println!("{what}: a mount truncates orphans");
            view::ignore_times_of_orphans(&mut ours, &theirs);
        }
        if what.contains("a directory") {
            view::ignore_links_of_directories(&mut ours, &theirs);
        }
        // The mount changes the times of directories whose names have changed.
        let ignore =
            |path: &Path| ours.get(path).is_some_and(|entry| entry.mode & 0o170_000 == 0o040_000);
        view::assert_same(what, &ours, &theirs, ignore);
        fast_commits
    }
}

#[test]
fn some_steps() {
    compare_steps(&VARIANTS[..1], &STEPS[..3], 3);
}

#[test]
#[ignore = "takes a minute; in the suite kernel-ext4"]
fn the_kernel_replays_the_same() {
    let few = if std::env::var_os("NVIO_LONG").is_some() { VARIANTS.len() } else { 2 };
    compare_steps(&VARIANTS[..few], STEPS, 15);
}

/// Compares after each step. At least `least` of the steps must have used fast commits.
fn compare_steps(variants: &[(&str, &str, u64)], steps: &[Step], least: u32) {
    let Some(mut bed) = Bed::new() else { return };
    let only = std::env::var("NVIO_TEST_ONLY").ok();
    for &(name, options, block) in variants {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        mke2fs(&bed.image, "40M", &options.split(' ').collect::<Vec<_>>(), None);
        bed.block = block;
        let mounted = Mount::new(&bed.image, &bed.mount, "loop,noatime,commit=900").unwrap();
        populate(&mounted.path, block);
        let mut fast = 0;
        let mut failed = Vec::new();
        let orphan = [ORPHAN];
        let last = if steps.len() == STEPS.len() { &orphan[..] } else { &[] };
        for (step, make) in steps.iter().chain(last) {
            make(&bed, &mounted.path);
            let what = format!("{name}: {step}");
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bed.compare(&what))) {
                Ok(commits) => {
                    println!("{what}: {commits} fast commits");
                    fast += u32::from(commits > 0);
                }
                Err(_) => failed.push(what),
            }
        }
        assert!(failed.is_empty(), "{failed:?}");
        assert!(fast >= least, "{name}: only {fast} steps with fast commits");
    }
}
