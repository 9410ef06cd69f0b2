//! The filesystem stressors of stress-ng, on a writable mount.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use nvio_testkit::image;

use super::{Mounted, assert_same, by_kernel, check, listing, mkfs};

/// Stressors whose operations take a fraction of a millisecond.
const SHORT: &[&str] = &[
    "access",
    "aio",
    "close",
    "dentry",
    "dir",
    "dup",
    "fault",
    "file-ioctl",
    "flock",
    "fstat",
    "getdent",
    "handle",
    "hdd",
    "io",
    "io-uring",
    "iomix",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "open",
    "readahead",
    "rename",
    "revio",
    "seek",
    "sendfile",
    "splice",
    "touch",
    "utime",
];

/// Stressors with longer operations, some of them thousands of calls.
const LONG: &[&str] = &[
    "aiol",
    "chattr",
    "chdir",
    "chroot",
    "copy-file",
    "dnotify",
    "fallocate",
    "fanotify",
    "filename",
    "fsize",
    "lease",
    "mmap",
    "msync",
    "sync-file",
    "xattr",
];

/// Stressors whose second worker fails or waits forever at times, on every filesystem: the first one may have
/// removed by then the file or the directory that they share.
const SINGLE: &[&str] = &["chmod", "chown", "dirdeep", "fcntl"];

/// Stressors whose operations are longer than a tenth of a second.
const SLOW: &[&str] = &["inotify", "msyncmany"];

/// Stressors of which an operation creates 8,192 names, which takes seconds.
const NAMES: &[&str] = &["link", "symlink"];

/// Stressors that count no operations on any filesystem, and run until a timeout therefore.
const UNCOUNTED: &[&str] = &["fpunch", "dirmany", "inode-flags"];

/// Stressors that stress-ng skips: the kernel has no call to FUSE for the mappings of a file (`fiemap`),
/// and the kernel's ext4 has no fs-verity without the feature `verity`, either.
const SKIPPED: &[&str] = &["fiemap", "verity"];

/// Stressors that run at a time: they leave room for each other, and do not end early if others use inodes.
const TOGETHER: &[&str] = &[
    "access",
    "chmod",
    "dentry",
    "dir",
    "fcntl",
    "filename",
    "flock",
    "fstat",
    "getdent",
    "hdd",
    "iomix",
    "lockf",
    "mknod",
    "mmap",
    "open",
    "readahead",
    "rename",
    "seek",
    "touch",
    "utime",
    "xattr",
];

/// Stressors whose files are kept, so that there is a tree to compare.
const KEPT: &[&str] = &["dirdeep", "hdd", "mknod", "rename", "seek"];

/// Returns options that keep the files of a stressor small.
fn small(stressor: &str) -> &'static [&'static str] {
    match stressor {
        "chdir" => &["--chdir-dirs", "100"],
        "copy-file" => &["--copy-file-bytes", "128M"],
        "fallocate" => &["--fallocate-bytes", "4M"],
        "hdd" => &["--hdd-bytes", "4M"],
        "iomix" => &["--iomix-bytes", "4M"],
        "mmap" => &["--mmap-bytes", "1M", "--mmap-file"],
        "readahead" => &["--readahead-bytes", "4M"],
        "seek" => &["--seek-size", "4M", "--seek-punch"],
        "sync-file" => &["--sync-file-bytes", "4M"],
        _ => &[],
    }
}

/// A run of stress-ng.
struct Stress<'a> {
    work: &'a Path,
    directory: &'a Path,
    options: Vec<String>,
}

impl<'a> Stress<'a> {
    fn new(work: &'a Path, directory: &'a Path) -> Self {
        let options = ["--verify", "--no-rand-seed", "--metrics"].map(str::to_owned).to_vec();
        Self { work, directory, options }
    }

    /// Adds a stressor: the number of workers, and of operations of all of them.
    fn add(mut self, stressor: &str, workers: u32, ops: u32) -> Self {
        let counts = [format!("--{stressor}"), workers.to_string()];
        self.options.extend(counts);
        self.options.extend([format!("--{stressor}-ops"), ops.to_string()]);
        self.with(small(stressor))
    }

    fn with(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    /// Runs the stressors, none of which may fail. Returns the number of operations of each.
    fn run(self) -> (BTreeMap<String, f64>, String) {
        let report = self.work.join("report.yaml");
        let mut command = Command::new("stress-ng");
        // By an absolute path, `io-uring` would ask for a file that it has removed, and count the error.
        command.arg("--yaml").arg(&report).args(["--temp-path", "."]).current_dir(self.directory);
        // Without a timeout, it would end after a day.
        let has_end = self.options.iter().any(|option| option == "--timeout");
        command.args(if has_end { &[][..] } else { &["--timeout", "0"] });
        command.args(&self.options);
        let what = format!("stress-ng {}", self.options.join(" "));
        let output = command.output().unwrap_or_else(|error| panic!("{what}: {error}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{what}: {}\n{said}", output.status);
        (counted(&fs::read_to_string(report).unwrap()), said)
    }
}

/// Returns the operations of each stressor of a report.
fn counted(report: &str) -> BTreeMap<String, f64> {
    let mut counted = BTreeMap::new();
    let mut stressor = "";
    for line in report.lines() {
        match line.trim().trim_start_matches("- ").split_once(": ") {
            Some(("stressor", name)) => stressor = name.trim(),
            Some(("bogo-ops", count)) => {
                counted.insert(stressor.to_owned(), count.trim().parse().unwrap());
            }
            _ => {}
        }
    }
    counted
}

/// Runs every stressor alone.
fn alone(work: &Path, top: &Path, times: u32) {
    let new = || Stress::new(work, top);
    let names = if times > 1 { NAMES } else { &[] };
    for (stressors, workers, ops) in [
        (SHORT, 2, 50 * times),
        (LONG, 2, 4 * times),
        (SINGLE, 1, 50 * times),
        (SLOW, 1, times),
        (names, 2, times.div_ceil(5)),
    ] {
        for stressor in stressors {
            let (counted, said) = new().add(stressor, workers, ops).run();
            let count = counted.get(*stressor).copied().unwrap_or_default();
            assert!(count >= f64::from(ops), "{stressor}: {count}\n{said}");
        }
    }
    let uncounted = if times > 1 { UNCOUNTED } else { &UNCOUNTED[..1] };
    for stressor in uncounted {
        new().with(&[&format!("--{stressor}"), "1", "--timeout", "1"]).run();
    }
    for stressor in SKIPPED {
        let (counted, said) = new().add(stressor, 1, 1).run();
        assert!(said.contains("skipping") || counted.contains_key(*stressor), "{said}");
    }
    let left: Vec<_> = fs::read_dir(top).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lost+found"]);
}

/// Runs many stressors at a time.
fn together(work: &Path, top: &Path, times: u32) {
    let stress = Stress::new(work, top);
    let stress = TOGETHER.iter().fold(stress, |run, stressor| run.add(stressor, 1, 3 * times));
    let (counted, said) = stress.run();
    let idle =
        TOGETHER.iter().find(|&&stressor| !counted.get(stressor).is_some_and(|&ops| ops > 0.0));
    assert_eq!(idle, None, "{said}");
}

#[test]
#[ignore = "needs root and FUSE; in the suite mount"]
fn stressors_find_no_fault_and_the_kernel_finds_their_tree() {
    let times = if std::env::var_os("NVIO_LONG").is_some() { 50 } else { 1 };
    let work = image::work_folder("nvio-stress");
    let image = work.path().join("image");
    for options in [&["--writable", "--dev"][..], &["--writable", "--dev", "--direct"]] {
        mkfs(&image, 512, &[]);
        let mounted = Mounted::new(&image, &work.path().join("mnt"), options);
        alone(work.path(), &mounted.path, times);
        together(work.path(), &mounted.path, times);
        for stressor in KEPT {
            let keep = Stress::new(work.path(), &mounted.path).with(&["--keep-files"]);
            keep.add(stressor, 1, 20).run();
        }
        let ours = listing(&mounted.path);
        assert!(ours.lines().count() > 100, "{ours}");
        mounted.unmount();
        check(&image);
        let theirs = by_kernel(&image, &work.path().join("kernel"));
        assert_same(&format!("{options:?}"), &ours, &theirs);
    }
}
