//! The commands shown in the README, run as a user does: without root and without a device.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use nvio_testkit::image;
use nvio_testkit::random::Rng;
use nvio_tests::nvio;

#[test]
fn demo_ends_with_all_matched() {
    let output = nvio::run(["demo"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stdout}{stderr}", output.status);
    let last = stdout.lines().last().expect("a closing line").to_lowercase();
    assert!(last.contains("all") && last.contains("match"), "the closing line: {last}");
    for word in ["files", "bytes", "iops"] {
        assert!(stdout.to_lowercase().contains(word), "no {word} in:\n{stdout}");
    }
}

#[test]
fn demo_prints_json() {
    let output = nvio::run(["demo", "--json"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json.is_object(), "{json}");
}

#[test]
fn cat_reads_an_image_of_the_users_own() {
    let folder = tempfile::Builder::new().prefix("nvio-demo-").tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir_all(source.join("a/b")).unwrap();
    let content = Rng::new(11).bytes(2_345_678);
    fs::write(source.join("a/b/file"), &content).unwrap();
    let disk = folder.path().join("disk.img");
    for options in [&["-b", "1024"][..], &["-b", "4096"], &["-b", "4096", "-I", "128"]] {
        image::mkfs_of_folder(&disk, 16 << 20, &source, options);
        assert!(nvio::ok("cat", &disk, b"/a/b/file", &[]) == content);
        // Ranges that do not begin or end at a block boundary, and one that extends past the end of
        // the file.
        for (offset, length) in [(0, 1), (1023, 2), (999_999, 70_001), (2_345_600, 500)] {
            let (from, count) = (offset.to_string(), length.to_string());
            let flags = ["--offset", &from, "--length", &count];
            let found = nvio::ok("cat", &disk, b"/a/b/file", &flags);
            let end = (offset + length).min(content.len());
            assert!(found == content[offset..end], "{options:?}: {offset} +{length}");
        }
        let past = nvio::ok("cat", &disk, b"/a/b/file", &["--offset", "2345678"]);
        assert_eq!(past, b"", "{options:?}");
    }
}

#[test]
fn identify_and_list_tell_of_the_embedded_controller() {
    let folder = tempfile::Builder::new().prefix("nvio-demo-").tempdir().unwrap();
    let disk = folder.path().join("disk.img");
    image::mkfs(&disk, 16 << 20, &[]);
    for lba_size in ["512", "4096"] {
        let args = ["identify", image::text(&disk), "--lba-size", lba_size, "--json"];
        let output = nvio::run(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(json.to_string().contains(lba_size), "{json}");
    }
    let output = nvio::run(["list", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json.is_array(), "{json}");
}

#[test]
fn help_and_version_are_printed() {
    for flag in ["--help", "--version"] {
        let output = nvio::run([flag]);
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("nvio"));
    }
}
