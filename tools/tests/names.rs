//! Verbs that create, rename and remove names, looked at with e2fsck and debugfs.

use crate::common;

use std::fs;
use std::path::Path;

use common::{Disk, must, pattern};

fn fill(folder: &Path) {
    fs::create_dir_all(folder.join("a/b")).unwrap();
    fs::write(folder.join("a/b/data"), pattern(100_000, 3)).unwrap();
    fs::write(folder.join("text"), "hello\n").unwrap();
    std::os::unix::fs::symlink("text", folder.join("link")).unwrap();
}

fn assert_clean(disk: &Disk) {
    must("e2fsck", &["-f".as_ref(), "-n".as_ref(), disk.image().as_ref()]);
}

/// Returns the names in the filesystem.
fn names(disk: &Disk) -> String {
    let found = disk.run("find", &["/", "--name", "*"]).text();
    let kept = found.lines().filter(|line| !line.contains("lost+found") && *line != "/");
    kept.collect::<Vec<_>>().join(" ")
}

fn stat(disk: &Disk, path: &str) -> serde_json::Value {
    disk.run("stat", &["--json", path]).json()
}

#[test]
fn directories_are_created() {
    let disk = Disk::new(fill, &[]);
    disk.run("mkdir", &["new", "/a/new"]).ok();
    disk.run("mkdir", &["-p", "-m", "1777", "x/y/z", "a/b"]).ok();
    disk.run("mkdir", &["-m", "go-rwx", "private"]).ok();
    assert_eq!(stat(&disk, "new")["mode"], "0040755");
    assert_eq!(stat(&disk, "x/y")["mode"], "0040755");
    assert_eq!(stat(&disk, "x/y/z")["mode"], "0041777");
    assert_eq!(stat(&disk, "private")["mode"], "0040700");
    disk.run("mkdir", &["a", "second"]).refused(&["/a: exists already"]);
    assert!(names(&disk).contains("/second"), "the rest is created");
    disk.run("mkdir", &["none/below"]).refused(&["/none/below: no such file", "-p creates"]);
    disk.run("mkdir", &["-p", "text/below"]).refused(&["/text", "not a directory"]);
    assert_eq!(disk.run("mkdir", &["-m", "x", "y"]).code, 2);
    assert_clean(&disk);
}

#[test]
fn names_are_removed() {
    let disk = Disk::new(fill, &[]);
    disk.run("rm", &["a"]).refused(&["/a is a directory; -r removes it"]);
    disk.run("rm", &["-d", "a"]).refused(&["/a: ", "is not empty; -r removes it"]);
    disk.run("rm", &["none"]).refused(&["/none: no such file"]);
    for path in ["/", "a/.", "a/.."] {
        disk.run("rm", &["-rf", path]).refused(&["cannot be removed; name its entries"]);
    }
    disk.run("rm", &["-f", "none"]).ok();
    disk.run("rm", &["-f"]).ok();
    assert_eq!(disk.run("rm", &[]).code, 2);
    disk.run("rm", &["link"]).ok();
    assert_eq!(names(&disk), "/a /a/b /a/b/data /text");
    disk.run("mkdir", &["empty"]).ok();
    disk.run("rm", &["-d", "empty", "text"]).ok();
    let outcome = disk.run("rm", &["-r", "none", "a"]);
    assert_eq!((outcome.code, names(&disk).as_str()), (1, ""));
    assert_clean(&disk);
}

#[test]
fn names_are_moved() {
    let disk = Disk::new(fill, &[]);
    disk.run("mv", &["text", "renamed"]).ok();
    disk.run("mv", &["renamed", "link", "a/"]).ok();
    assert_eq!(names(&disk), "/a /a/b /a/b/data /a/link /a/renamed");
    disk.run("mv", &["a/b", "/"]).ok();
    disk.run("mv", &["b", "a", "none"]).refused(&["/none does not exist", "`nvio mkdir`"]);
    disk.run("mv", &["b", "a", "a/renamed"]).refused(&["is not a directory"]);
    disk.run("mv", &["-n", "a/link", "a/renamed"]).refused(&["/a/renamed: exists already"]);
    disk.run("mv", &["--exchange", "a/renamed", "b"]).ok();
    assert_eq!(names(&disk), "/a /a/link /a/renamed /a/renamed/data /b");
    assert_eq!(disk.run("cat", &["b"]).stdout, b"hello\n");
    disk.run("mv", &["a", "a/renamed"]).refused(&["/a: "]);
    disk.run("mv", &["none", "x"]).refused(&["/none: no such file"]);
    disk.run("mv", &["a/renamed/data", "b"]).ok();
    assert!(disk.run("cat", &["b"]).stdout == pattern(100_000, 3), "it was replaced");
    disk.run("mv", &["--exchange", "a", "b", "x"]).refused(&["--exchange needs two paths"]);
    assert_eq!(disk.run("mv", &["-n", "--exchange", "a", "b"]).code, 2);
    assert_clean(&disk);
}

#[test]
fn links_are_created() {
    let disk = Disk::new(fill, &[]);
    disk.run("ln", &["text", "second"]).ok();
    disk.run("ln", &["-s", "../text", "a"]).ok();
    disk.run("ln", &["/text", "a/b"]).ok();
    assert_eq!(stat(&disk, "text")["links"], 3);
    assert_eq!(disk.run("cat", &["a/text"]).stdout, b"hello\n");
    disk.run("ln", &["a/b/data", "second"]).refused(&["/second: exists already; -f replaces"]);
    disk.run("ln", &["-f", "a/b/data", "second"]).ok();
    disk.run("ln", &["-f", "a/b/data", "second"]).ok();
    disk.run("ln", &["-sf", "nowhere", "link"]).ok();
    assert_eq!(stat(&disk, "link")["target"], "nowhere");
    disk.run("ln", &["a", "hard"]).refused(&["/a: "]);
    disk.run("ln", &["none", "hard"]).refused(&["/none: no such file"]);
    disk.run("mkdir", &["-p", "d/text"]).ok();
    assert_eq!(disk.run("ln", &["-f", "text", "d"]).code, 1);
    let expected = "/a /a/b /a/b/data /a/b/text /a/text /d /d/text /link /second /text";
    assert_eq!(names(&disk), expected);
    assert_eq!(stat(&disk, "second")["links"], 2);
    assert_clean(&disk);
}
