//! Verbs that change metadata, on images that mke2fs made, looked at with e2fsprogs.

use crate::common;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::{Disk, command, must, pattern};

fn fill(folder: &Path) {
    fs::write(folder.join("large"), pattern(300_001, 1)).unwrap();
    fs::write(folder.join("small"), "hello, world\n").unwrap();
    fs::create_dir(folder.join("directory")).unwrap();
}

fn assert_clean(disk: &Disk) {
    must("e2fsck", &["-f".as_ref(), "-n".as_ref(), disk.image().as_ref()]);
}

fn stat(disk: &Disk, path: &str) -> serde_json::Value {
    disk.run("stat", &["--json", path]).json()
}

#[test]
fn permissions_owners_and_times() {
    let disk = Disk::new(fill, &[]);
    disk.run("chmod", &["u+s,go-r", "small", "/large"]).ok();
    disk.run("chmod", &["1777", "directory"]).ok();
    disk.run("chown", &["1000:100", "small"]).ok();
    disk.run("chown", &[":7", "large"]).ok();
    disk.run("touch", &["--date", "2001-09-09T01:46:40Z", "small", "large"]).ok();
    disk.run("touch", &["-a", "--date", "1960-01-01T00:00:00.25Z", "large"]).ok();
    assert_clean(&disk);
    let small = stat(&disk, "small");
    // The owner's rights were taken away with the owner.
    assert_eq!(
        (&small["mode"], &small["uid"], &small["gid"]),
        (&"0100600".into(), &1000.into(), &100.into())
    );
    let lines = disk.debugfs("stat /large");
    assert!(lines.contains("Group:     7"), "{lines}");
    assert!(lines.contains("mtime: 0x3b9aca00"), "{lines}");
    assert_eq!(stat(&disk, "directory")["mode"], "0041777");
}

#[test]
fn sizes_blocks_and_holes() {
    let disk = Disk::new(fill, &[]);
    disk.run("truncate", &["-s", "5", "small"]).ok();
    disk.run("truncate", &["--size", "1G", "large"]).ok();
    disk.run("fallocate", &["-l", "1M", "-o", "512K", "large"]).ok();
    disk.run("fallocate", &["--punch-hole", "-o", "4000", "-l", "100000", "large"]).ok();
    assert_clean(&disk);
    assert_eq!(disk.run("cat", &["small"]).stdout, b"hello");
    let mut expected = pattern(300_001, 1);
    expected[4000..104_000].fill(0);
    expected.resize(400_000, 0);
    assert!(disk.run("cat", &["--length", "400000", "large"]).stdout == expected);
    let large = stat(&disk, "large");
    assert_eq!(large["size"], 1 << 30);
    let extents = disk.run("map", &["--json", "large"]).json();
    let unwritten = extents["extents"].as_array().unwrap().iter();
    let unwritten = unwritten.filter(|extent| extent["unwritten"] == true);
    let bytes: u64 = unwritten.map(|extent| extent["length"].as_u64().unwrap()).sum();
    assert_eq!(bytes, 1 << 20);
}

#[test]
fn ranges_that_are_zeroed_and_moved() {
    let disk = Disk::new(fill, &[]);
    disk.run("fallocate", &["--zero-range", "-o", "5000", "-l", "20000", "large"]).ok();
    disk.run("fallocate", &["-z", "--keep-size", "-o", "290000", "-l", "1M", "large"]).ok();
    disk.run("fallocate", &["--collapse-range", "-o", "8K", "-l", "64K", "large"]).ok();
    disk.run("fallocate", &["--insert-range", "-o", "4K", "-l", "128K", "large"]).ok();
    assert_clean(&disk);
    let mut expected = pattern(300_001, 1);
    expected[5000..25_000].fill(0);
    expected[290_000..].fill(0);
    expected.drain(8192..8192 + 65_536);
    expected.splice(4096..4096, std::iter::repeat_n(0, 131_072));
    assert!(disk.run("cat", &["large"]).stdout == expected);
    for (option, reason) in [
        ("--collapse-range", "the range does not end before the end of the file"),
        ("--insert-range", "the range does not begin before the end of the file"),
    ] {
        let outcome = disk.run("fallocate", &[option, "-o", "1M", "-l", "64K", "large"]);
        assert!(outcome.code == 1 && outcome.stderr.contains(reason), "{}", outcome.stderr);
        let outcome = disk.run("fallocate", &[option, "-o", "1", "-l", "64K", "large"]);
        assert!(outcome.stderr.contains("not of whole blocks of"), "{}", outcome.stderr);
        let outcome = disk.run("fallocate", &[option, "--keep-size", "-l", "64K", "large"]);
        assert_eq!(outcome.code, 2);
    }
    assert!(disk.run("cat", &["large"]).stdout == expected);
}

#[test]
fn a_file_that_grows() {
    for mode in ["--direct", "--buffered", "--writethrough", "--dsync"] {
        grow(mode);
    }
}

fn grow(mode: &str) {
    let disk = Disk::new(fill, &[]);
    let more = pattern(3_000_000, 9);
    let image = disk.image();
    let arguments = ["write", "", "large", "--grow", mode, "--offset", "300001"].map(OsStr::new);
    let arguments = arguments.map(|word| if word.is_empty() { image.as_ref() } else { word });
    let mut child =
        command(arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&more).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_clean(&disk);
    let expected = [pattern(300_001, 1), more].concat();
    assert!(disk.run("cat", &["large"]).stdout == expected);
    let map = disk.run("map", &["--json", "large"]).json();
    assert!(map["extents"].as_array().unwrap().len() <= 2, "{mode}: {map}");
}

#[test]
fn failures_name_the_path_and_the_rest_is_changed() {
    let disk = Disk::new(fill, &[]);
    let outcome = disk.run("chmod", &["0", "missing", "small"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("/missing: no such file or directory"), "{}", outcome.stderr);
    assert_eq!(stat(&disk, "small")["mode"], "0100000");
    let outcome = disk.run("truncate", &["-s", "0", "directory"]);
    assert!(outcome.code == 1 && outcome.stderr.contains("is a directory"), "{}", outcome.stderr);
    assert_eq!(disk.run("chmod", &["rw", "small"]).code, 2);
    assert_eq!(disk.run("chown", &["root", "small"]).code, 2);
    let outcome = disk.run("fallocate", &["-l", "100G", "small"]);
    assert!(outcome.code == 1 && outcome.stderr.contains("no space left"), "{}", outcome.stderr);
    assert_clean(&disk);
    let report = disk.run("recover", &["--json"]).json();
    assert_eq!(report["recovered"], false);
}

#[test]
fn filesystems_that_are_refused() {
    let disk = Disk::new(fill, &["-O", "inline_data"]);
    let before = fs::read(disk.image()).unwrap();
    let outcome = disk.run("chmod", &["0", "small"]);
    assert!(outcome.code == 1 && outcome.stderr.contains("inline_data"), "{}", outcome.stderr);
    assert!(fs::read(disk.image()).unwrap() == before);
}

#[test]
fn attributes_and_lists() {
    let disk = Disk::new(fill, &[]);
    disk.run("setfattr", &["-n", "user.text", "-v", "two words", "small", "/large"]).ok();
    disk.run("setfattr", &["--name", "user.hex", "--value", "0x00ff", "small"]).ok();
    disk.run("setfattr", &["-n", "trusted.base64", "-v", "0sSGVsbG8=", "directory"]).ok();
    disk.run("setfattr", &["-n", "user.empty", "small"]).ok();
    disk.run("setfattr", &["-x", "user.text", "large"]).ok();
    let list = "u::rw,u:1000:rwx,g::r,m::rx,o::-";
    disk.run("setfattr", &["-n", "system.posix_acl_access", "-v", list, "small"]).ok();
    assert_clean(&disk);
    let lines = disk.debugfs("ea_list /small");
    assert!(lines.contains("user.text (9) = \"two words\""), "{lines}");
    assert!(lines.contains("user.hex (2) = 00 ff"), "{lines}");
    assert!(lines.contains("user.empty (0)"), "{lines}");
    assert!(lines.contains("system.posix_acl_access (28)"), "{lines}");
    let lines = disk.debugfs("ea_list /directory");
    assert!(lines.contains("trusted.base64 (5) = \"Hello\""), "{lines}");
    assert!(!disk.debugfs("ea_list /large").contains("user.text"));
    assert_eq!(stat(&disk, "small")["mode"], "0100650");
    disk.run("chmod", &["g=w", "small"]).ok();
    assert_eq!(stat(&disk, "small")["mode"], "0100620", "the mask of the list");

    let outcome = disk.run("setfattr", &["-x", "user.text", "large", "small"]);
    assert!(outcome.code == 1 && outcome.stderr.contains("does not exist"), "{}", outcome.stderr);
    assert!(!disk.debugfs("ea_list /small").contains("user.text"), "the other path was changed");
    for (arguments, code) in [
        (&["-n", "other.name", "small"][..], 1),
        (&["-n", "user.x", "-v", "0xz", "small"], 1),
        (&["-v", "value", "small"], 2),
        (&["-n", "user.x", "-x", "user.x", "small"], 2),
        (&["small"], 2),
    ] {
        assert_eq!(disk.run("setfattr", arguments).code, code, "{arguments:?}");
    }
    assert_clean(&disk);
}
