//! `sha256` beside sha256sum, on the folder that the image is made of.

use crate::common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;

use common::{Disk, pattern};

fn fill(folder: &Path) {
    fs::create_dir_all(folder.join("a/b")).unwrap();
    fs::write(folder.join("a/hello"), "hello\n").unwrap();
    fs::write(folder.join("a/empty"), "").unwrap();
    symlink("hello", folder.join("a/link")).unwrap();
    fs::write(folder.join("a/b/large"), pattern(3_000_001, 1)).unwrap();
    fs::write(folder.join(OsStr::from_bytes(b"a/odd\\ \xff\nname\r")), "x").unwrap();
    let sparse = File::create(folder.join("sparse")).unwrap();
    sparse.write_all_at(&pattern(5000, 2), 100_000).unwrap();
    sparse.set_len(2_000_000).unwrap();
}

/// Returns the output of sha256sum, run in the folder of the disk.
fn sha256sum(disk: &Disk, args: &[&OsStr]) -> Vec<u8> {
    let output = Command::new("sha256sum").args(args).current_dir(disk.folder()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn sums_are_those_of_sha256sum() {
    let disk = Disk::new(fill, &[]);
    let odd = OsStr::from_bytes(b"a/odd\\ \xff\nname\r");
    let paths = ["a/hello", "a/empty", "a/link", "a/b/large", "sparse"].map(OsStr::new);
    let paths: Vec<&OsStr> = paths.into_iter().chain([odd]).collect();
    let image = disk.image();
    let args = ["sha256".as_ref(), image.as_os_str()].into_iter().chain(paths.iter().copied());
    assert_eq!(common::nvio(args).ok(), sha256sum(&disk, &paths));
    // Absolute paths stay absolute.
    assert!(disk.run("sha256", &["/a/hello"]).text().ends_with("  /a/hello\n"));
}

#[test]
fn a_tree_is_checked_by_sha256sum() {
    let disk = Disk::new(fill, &[]);
    for (paths, files) in [(&["-r", "."][..], 5), (&["-r", "a", "sparse"], 5), (&["-r", "a/b"], 1)]
    {
        let sums = disk.run("sha256", paths).ok();
        fs::write(disk.path("sums"), &sums).unwrap();
        let checked = sha256sum(&disk, &["-c".as_ref(), disk.path("sums").as_ref()]);
        let good = checked.windows(4).filter(|part| part == b": OK").count();
        assert_eq!(good, files, "{paths:?}: {}", String::from_utf8_lossy(&checked));
    }
    let report = disk.run("sha256", &["-r", "--json", "/a"]).json();
    let paths: Vec<_> = report.as_array().unwrap().iter().map(|sum| &sum["path"]).collect();
    assert_eq!(paths[..3], ["/a/b/large", "/a/empty", "/a/hello"]);
    let hello = disk.run("sha256", &["--json", "a/hello"]).json();
    assert_eq!(hello, report[2]);
}

#[test]
fn failures_do_not_stop_the_other_paths() {
    let disk = Disk::new(fill, &[]);
    let outcome = disk.run("sha256", &["none", "a", "a/hello"]);
    assert_eq!((outcome.code, outcome.stdout.len()), (1, 64 + "  a/hello\n".len()));
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(lines[0], "nvio: /none: no such file or directory");
    assert!(lines.len() == 2 && lines[1].contains("`nvio sha256 -r`"), "{lines:?}");
}
