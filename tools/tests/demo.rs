//! `demo`: it finds that all matches, and it would find if it did not.

use crate::common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{Outcome, command, pattern};

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/victim"), pattern(200_000, 5)).unwrap();
    fs::write(folder.path().join("other"), pattern(3000, 6)).unwrap();
    std::os::unix::fs::symlink("other", folder.path().join("link")).unwrap();
    folder
}

fn outcome(mut command: std::process::Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        code: output.status.code().unwrap(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn demo(folder: &Path, args: &[&str], path: Option<&str>) -> Outcome {
    let mut command = command(["demo"]);
    command.arg(folder).args(args);
    path.iter().for_each(|path| {
        command.env("PATH", path);
    });
    outcome(command)
}

#[test]
fn a_sample_matches_without_a_folder() {
    let text = common::nvio(["demo"]).text().to_lowercase();
    let last = text.lines().last().unwrap();
    assert!(last.contains("all") && last.contains("match"), "the closing line: {last}");
    for word in ["files", "bytes", "iops"] {
        assert!(text.contains(word), "no {word} in:\n{text}");
    }
    assert!(common::nvio(["demo", "--json"]).json().is_object());
}

#[test]
fn a_folder_of_the_users_own_matches() {
    let folder = folder();
    let text = demo(folder.path(), &[], None).text();
    let last = text.lines().last().unwrap();
    assert_eq!(
        last,
        "All 2 files (198.24 KiB) match, and so do 1 directories and 1 symbolic links."
    );
    for lba in ["512", "4096"] {
        let json = demo(folder.path(), &["--json", "--lba-size", lba], None).json();
        assert_eq!((&json["matched"], &json["total"]["files"]), (&true.into(), &2.into()));
        assert_eq!(json["total"]["bytes"], 203_000);
        assert!(json["total"]["commands"].as_u64().unwrap() >= 3);
        assert_eq!(json["image"], serde_json::Value::Null);
    }
}

#[test]
fn the_image_is_kept_on_request() {
    let folder = folder();
    let json = demo(folder.path(), &["--json", "--keep"], None).json();
    let image = Path::new(json["image"].as_str().unwrap()).to_owned();
    let read = common::nvio(["cat".as_ref(), image.as_os_str(), "/sub/victim".as_ref()]).ok();
    assert!(read == pattern(200_000, 5));
    assert!(folder.path().join("other").exists());
    fs::remove_dir_all(image.parent().unwrap()).unwrap();
}

/// A mke2fs that spoils what the real one made.
#[test]
fn differing_contents_are_found() {
    for (spoil, what) in [
        // One byte in the middle of a file.
        (
            "b=$(debugfs -R 'bmap /sub/victim 20' \"$image\" 2>/dev/null); \
             printf '\\377\\376' | dd of=\"$image\" bs=1 seek=$((b * 4096 + 17)) conv=notrunc 2>/dev/null",
            "/sub/victim: byte 81937 differs",
        ),
        ("debugfs -w -R 'rm /other' \"$image\" 2>/dev/null", "/other: is not on the device"),
        (
            "debugfs -w -R 'write /dev/null /extra' \"$image\" >/dev/null 2>&1",
            "/extra: is only on the device",
        ),
        (
            "debugfs -w -R 'set_inode_field /other size 2999' \"$image\" 2>/dev/null",
            "/other: has 2999 bytes on the device, 3000 here",
        ),
        (
            "debugfs -w -R 'set_inode_field /other mode 0100600' \"$image\" 2>/dev/null",
            "/other: has mode 0600 on the device",
        ),
    ] {
        let folder = folder();
        let tools = tempfile::tempdir().unwrap();
        let script = tools.path().join("mke2fs");
        let text = format!(
            "#!/bin/sh\nset -e\nPATH=/usr/sbin:/sbin:/usr/bin:/bin\nmke2fs \"$@\"\n\
             for image; do :; done\n{spoil}\n"
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", tools.path().display());
        let outcome = demo(folder.path(), &[], Some(&path));
        let text = String::from_utf8(outcome.stdout).unwrap();
        assert_eq!((outcome.code, &*outcome.stderr), (1, ""), "{what}");
        let last = text.lines().last().unwrap();
        assert_eq!(last, format!("MISMATCH: 1 paths differ; the first is {what}"));
    }
}

#[test]
fn a_folder_that_is_none() {
    demo(Path::new("/nonexistent/folder"), &[], None).refused(&["/nonexistent/folder"]);
    demo(Path::new("/dev/null"), &[], None).refused(&["/dev/null"]);
}
