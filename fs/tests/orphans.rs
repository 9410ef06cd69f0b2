//! Orphans: inodes to be removed or truncated after a crash, compared with the kernel's processing
//! of the same image at mount. Needs root and a kernel with loop devices; skipped with a reason
//! otherwise.

use crate::common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Mount, debugfs, mke2fs, pattern, run, sum, view};
use nvio_ext4::Filesystem;

/// A file to be truncated: its name, and the size in its inode.
type Cut = (&'static str, u64);

struct Bed {
    _dir: tempfile::TempDir,
    image: PathBuf,
    copy: PathBuf,
    mount: PathBuf,
}

impl Bed {
    /// Creates a folder for images, or returns `None` if loop mounts are impossible.
    fn new() -> Option<Self> {
        if !common::is_root() {
            println!("SKIPPED: loop mounts need root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let [image, copy, mount] = ["image", "copy", "mnt"].map(|name| dir.path().join(name));
        let bed = Self { _dir: dir, image, copy, mount };
        mke2fs(&bed.image, "8M", &["-t", "ext4"], None);
        match bed.mount(&bed.image, "loop") {
            Ok(_) => Some(bed),
            Err(reason) => {
                println!("SKIPPED: {reason}");
                None
            }
        }
    }

    fn mount(&self, image: &Path, options: &str) -> Result<Mount, String> {
        Mount::new(image, &self.mount, options)
    }

    /// Compares this crate's view of the image with the kernel's view of a copy. Returns the number
    /// of paths.
    fn compare(&self, what: &str, truncated: &[Cut]) -> usize {
        // Mounted writable, so that the kernel processes the orphans.
        self.compare_mounted(what, truncated, "loop,noatime")
    }

    fn compare_mounted(&self, what: &str, truncated: &[Cut], options: &str) -> usize {
        let before = sum(&self.image);
        let mut ours = view::of_image(&self.image);
        assert_eq!(before, sum(&self.image), "{what}: the image was changed");
        fs::copy(&self.image, &self.copy).unwrap();
        let theirs = {
            let _mounted = self.mount(&self.copy, options).unwrap();
            view::of_kernel(&self.mount)
        };
        // The truncation changes the times of the file.
        let ignore = |path: &Path| truncated.iter().any(|(name, _)| Path::new(name) == path);
        view::ignore_recounted_blocks(&mut ours, &theirs, ignore);
        view::assert_same(what, &ours, &theirs, ignore);
        ours.len()
    }
}

/// Links files into the list of orphans, in order.
fn chain(image: &Path, fs: &Filesystem, cuts: &[Cut]) {
    let numbers: Vec<u32> =
        cuts.iter().map(|(name, _)| fs.lookup(name.as_bytes()).unwrap().number().get()).collect();
    let mut lines = vec![format!("set_super_value last_orphan {}", numbers[0])];
    for (at, (name, size)) in cuts.iter().enumerate() {
        let next = numbers.get(at + 1).copied().unwrap_or(0);
        lines.push(format!("set_inode_field /{name} dtime @{next}"));
        lines.push(format!("set_inode_field /{name} size {size}"));
    }
    debugfs(image, &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Creates a file in which every second block is a hole.
fn fragmented(path: &Path, block: u64, count: u64) {
    let file = File::create(path).unwrap();
    for index in 0..count {
        file.write_all_at(&pattern(index, 100), index * 2 * block).unwrap();
    }
}

fn populate(top: &Path, block: u64) {
    for name in ["whole", "part", "empty", "kept"] {
        fs::write(top.join(name), pattern(9, 300_000)).unwrap();
    }
    fragmented(&top.join("many"), block, 1000);
    fragmented(&top.join("most"), block, 1000);
    fragmented(&top.join("few"), block, 3);
    for name in ["far", "far2"] {
        let far = File::create(top.join(name)).unwrap();
        for at in [3, 20, 300, 5000, 70_000, 70_300] {
            far.write_all_at(&pattern(at, 2000), at * block).unwrap();
        }
    }
    let prealloc = top.join("preallocated");
    fs::write(&prealloc, pattern(11, 10_000)).unwrap();
    let _ = Command::new("fallocate").args(["-n", "-l", "1M"]).arg(&prealloc).output();
}

#[test]
#[ignore = "takes a minute; in the suite kernel-ext4"]
fn files_are_truncated() {
    let Some(bed) = Bed::new() else { return };
    let variants = [
        ("4k", "64M", "-t ext4 -b 4096", 4096),
        ("1k", "48M", "-t ext4 -b 1024", 1024),
        ("1k-nocsum", "48M", "-t ext4 -b 1024 -O ^metadata_csum", 1024),
        ("ext3-1k", "48M", "-t ext3 -b 1024", 1024),
        ("ext3-4k", "64M", "-t ext3 -b 4096 -I 128", 4096),
        ("no-journal", "48M", "-t ext4 -b 2048 -O ^has_journal", 2048),
        ("bigalloc", "256M", "-t ext4 -b 4096 -C 65536 -O bigalloc", 4096),
        ("bigalloc-1k", "48M", "-t ext4 -b 1024 -C 4096 -O bigalloc", 1024),
    ];
    for (name, size, options, block) in variants {
        mke2fs(&bed.image, size, &options.split(' ').collect::<Vec<_>>(), None);
        {
            let mounted = bed.mount(&bed.image, "loop,noatime").unwrap();
            populate(&mounted.path, block);
        }
        let cuts: [Cut; 9] = [
            ("part", 100_001),
            ("empty", 0),
            ("many", block * 4 + 1),
            ("most", block * 2 * 500),
            ("few", block * 5),
            ("far", block * 300 + 7),
            ("far2", block * 4),
            ("preallocated", 10_000),
            ("whole", 300_000),
        ];
        chain(&bed.image, &common::open(&bed.image), &cuts);
        assert_eq!(bed.compare(name, &cuts), 12, "{name}");
        // Each size is tested, so that the end is inside clusters and blocks of pointers.
        for size in [1, block * 3, block * 12, block * 13, block * 268] {
            let cuts: [Cut; 3] = [("kept", size), ("far", size), ("many", size)];
            chain(&bed.image, &common::open(&bed.image), &cuts);
            let cuts: [Cut; 10] = [
                ("part", 0),
                ("empty", 0),
                ("many", 0),
                ("most", 0),
                ("few", 0),
                ("far", 0),
                ("far2", 0),
                ("preallocated", 0),
                ("whole", 0),
                ("kept", 0),
            ];
            bed.compare(&format!("{name} at {size}"), &cuts);
        }
    }
}

/// Creates a small filesystem with a few files. The tests change a list with `c` in the middle.
fn small(bed: &Bed) {
    mke2fs(&bed.image, "8M", &["-t", "ext4"], None);
    let mounted = bed.mount(&bed.image, "loop,noatime").unwrap();
    for name in ["a", "b", "c", "d"] {
        fs::write(mounted.path.join(name), pattern(5, 50_000)).unwrap();
    }
    std::os::unix::fs::symlink("a", mounted.path.join("fast")).unwrap();
}

#[test]
fn lists_that_end_early() {
    let Some(bed) = Bed::new() else { return };
    let cuts: [Cut; 4] = [("a", 5000), ("b", 6000), ("c", 7000), ("d", 1)];
    let changes: [(&str, &[&str]); 8] = [
        ("sound", &[]),
        ("a number that is none", &["set_inode_field /b dtime @4000000000"]),
        ("a reserved inode", &["set_inode_field /b dtime @8"]),
        ("a loop", &["set_inode_field /d dtime @12"]),
        ("a link in the way", &["set_inode_field /b dtime @16"]),
        ("no links", &["set_inode_field /b links_count 0", "unlink /b"]),
        ("errors are noted", &["set_super_value state 2"]),
        ("an unknown feature", &["set_super_value feature_ro_compat 0x40046b"]),
    ];
    for (what, lines) in changes {
        small(&bed);
        chain(&bed.image, &common::open(&bed.image), &cuts);
        let sums = ["set_super_value checksum_seed 0"];
        debugfs(&bed.image, if lines.is_empty() { &sums } else { lines });
        let mount = if what == "an unknown feature" { "loop,ro,noatime" } else { "loop,noatime" };
        bed.compare_mounted(what, &cuts, mount);
    }
}

#[test]
fn the_orphan_file() {
    let Some(bed) = Bed::new() else { return };
    for block in ["4096", "1024"] {
        let options = ["-t", "ext4", "-b", block, "-O", "orphan_file"];
        mke2fs(&bed.image, "32M", &options, None);
        let dirty = bed.copy.with_extension("dirty");
        {
            let mounted = bed.mount(&bed.image, "loop,noatime").unwrap();
            let names: Vec<PathBuf> =
                (0..600).map(|at| mounted.path.join(format!("file-{at}"))).collect();
            let files: Vec<File> = names
                .iter()
                .map(|name| {
                    fs::write(name, pattern(1, 9000)).unwrap();
                    File::open(name).unwrap()
                })
                .collect();
            for name in names.iter().step_by(2) {
                fs::remove_file(name).unwrap();
            }
            File::open(&mounted.path).unwrap().sync_all().unwrap();
            fs::copy(&bed.image, &dirty).unwrap();
            drop(files);
        }
        fs::rename(&dirty, &bed.image).unwrap();
        // Replay only the journal; the entries in the orphan file are kept.
        let image = bed.image.to_str().unwrap();
        let _ = Command::new("e2fsck").args(["-y", "-E", "journal_only", image]).output().unwrap();
        let features = String::from_utf8(run("dumpe2fs", &["-h", image])).unwrap();
        assert!(features.contains("orphan_present"), "{features}");
        assert_eq!(bed.compare(block, &[]), 302);
    }
}
