//! `read-blocks` and `write-blocks`, compared with the bytes of the image.

use crate::common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;

use common::{Disk, Outcome, command, must, nvio, pattern};
use tempfile::TempDir;

const BYTES: usize = 5 << 20;

/// A folder with an image of random bytes.
fn image() -> (TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let contents = pattern(BYTES, 1);
    fs::write(dir.path().join("disk.img"), &contents).unwrap();
    (dir, contents)
}

fn run(verb: &str, image: &Path, rest: &[&str], input: &[u8]) -> Outcome {
    let first = [OsStr::new(verb), image.as_ref()];
    let mut command = command(first.into_iter().chain(rest.iter().map(OsStr::new)));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A verb that refuses does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code().unwrap(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn any_range_is_read() {
    let (dir, contents) = image();
    let disk = &dir.path().join("disk.img");
    assert!(run("read-blocks", disk, &[], b"").ok() == contents);
    for (range, bytes) in [
        (&["--offset", "1M", "--length", "3M"][..], 1 << 20..4 << 20),
        (&["--offset", "1000", "--length", "7"], 1000..1007),
        (&["--offset", "5242879"], BYTES - 1..BYTES),
        (&["--lba", "3", "--blocks", "0x10"], 3 * 512..19 * 512),
        (&["--lba", "3", "--blocks", "1", "--lba-size", "4096"], 3 * 4096..4 * 4096),
        (&["--offset", "5M"], BYTES..BYTES),
    ] {
        assert!(run("read-blocks", disk, range, b"").ok() == contents[bytes], "{range:?}");
    }
    let copy = dir.path().join("copy");
    let args = ["--output", copy.to_str().unwrap(), "--json", "--lba", "1", "--length", "100"];
    let report = run("read-blocks", disk, &args, b"").json();
    let expected = r#"{"namespace":1,"offset":512,"bytes":100,"block_size":512}"#;
    assert_eq!(
        report.to_string(),
        serde_json::from_str::<serde_json::Value>(expected).unwrap().to_string()
    );
    assert_eq!(fs::read(&copy).unwrap(), contents[512..612]);
    run("read-blocks", disk, &args, b"").refused(&["cannot create", "copy", "exists"]);
    for (range, part) in [
        (&["--offset", "5242881"][..], "5242880 bytes"),
        (&["--offset", "1", "--length", "5M"], "5242880 bytes at byte 1 are not inside"),
        (&["--lba", "18446744073709551615"], "64 bits"),
        (&["--partition", "1"], "partition"),
    ] {
        run("read-blocks", disk, range, b"").refused(&[part]);
    }
    assert_eq!(nvio(["read-blocks", "x", "--lba", "1", "--offset", "1"]).code, 2);
    assert_eq!(nvio(["read-blocks", "x", "--json"]).code, 2);
}

#[test]
fn blocks_are_overwritten_and_nothing_else() {
    for lba_size in ["512", "4096"] {
        let (dir, mut contents) = image();
        let disk = &dir.path().join("disk.img");
        let data = pattern(2 << 20, 7);
        let flags = ["--lba-size", lba_size, "--yes-destroy-data", "--json", "--offset"];
        for (offset, length) in [(0, 4096), (8192, 2 << 20), (BYTES - 4096, 4096), (4096, 0)] {
            let from = offset.to_string();
            let args = [&flags[..], &[&from]].concat();
            let report = run("write-blocks", disk, &args, &data[..length]).json();
            assert_eq!((&report["bytes"], &report["offset"]), (&length.into(), &offset.into()));
            contents[offset..offset + length].copy_from_slice(&data[..length]);
            assert!(fs::read(disk).unwrap() == contents, "{lba_size} {offset} {length}");
        }
        // Input from a file, limited by --blocks.
        fs::write(dir.path().join("input"), &data).unwrap();
        let args = ["--lba", "8", "--blocks", "1", "--lba-size", lba_size, "--yes-destroy-data"];
        let mut limited = command(["write-blocks".as_ref(), disk.as_os_str()]);
        let input = File::open(dir.path().join("input")).unwrap();
        assert!(limited.args(args).stdin(input).status().unwrap().success());
        let block: usize = lba_size.parse().unwrap();
        contents[8 * block..9 * block].copy_from_slice(&data[..block]);
        assert!(fs::read(disk).unwrap() == contents);
    }
}

#[test]
fn writes_that_could_do_harm_are_refused() {
    let (dir, contents) = image();
    let disk = &dir.path().join("disk.img");
    run("write-blocks", disk, &[], &[1; 512]).refused(&["disk.img", "--yes-destroy-data"]);
    let yes = "--yes-destroy-data";
    run("write-blocks", disk, &[yes, "--offset", "7"], &[1; 512]).refused(&["7 bytes", "512"]);
    run("write-blocks", disk, &[yes, "--length", "7"], &[1; 512]).refused(&["7 bytes", "512"]);
    run("write-blocks", disk, &[yes], &[1; 513]).refused(&["0 bytes were written", "513", "pad"]);
    // The length of a file is known before its first byte is written.
    fs::write(dir.path().join("input"), vec![1; BYTES]).unwrap();
    let mut large = command(["write-blocks".as_ref(), disk.as_os_str()]);
    large.args([yes, "--lba", "1"]).stdin(File::open(dir.path().join("input")).unwrap());
    let output = large.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("not inside"));
    assert!(fs::read(disk).unwrap() == contents);
    // The length of a pipe is not known before the write.
    let outcome = run("write-blocks", disk, &[yes, "--lba", "1"], &contents);
    outcome.refused(&["bytes were written", "not inside"]);
}

#[test]
fn contents_are_overwritten_by_force_only() {
    let disk = Disk::new(|folder| fs::write(folder.join("a"), "x").unwrap(), &[]);
    let image = &disk.image();
    let before = fs::read(image).unwrap();
    let yes = "--yes-destroy-data";
    run("write-blocks", image, &[yes], &[1; 512]).refused(&["an ext4 filesystem", "--force"]);
    assert!(fs::read(image).unwrap() == before);
    run("write-blocks", image, &[yes, "--force"], &[1; 512]).ok();
    assert_eq!(fs::read(image).unwrap()[..512], [1; 512]);
    // A partition table, and one of the partitions.
    let parted = disk.path("parted.img");
    File::create(&parted).unwrap().set_len(16 << 20).unwrap();
    let script = "echo ',2M\n,4M' | sfdisk -q \"$0\"";
    must("sh", &["-c".as_ref(), script.as_ref(), parted.as_ref()]);
    run("write-blocks", &parted, &[yes], &[1; 512]).refused(&["partitions (MBR)", "--force"]);
    let table = run("read-blocks", &parted, &["--length", "512"], b"").ok();
    let start =
        usize::try_from(u32::from_le_bytes(table[470..474].try_into().unwrap())).unwrap() * 512;
    let input = pattern(4096, 3);
    run("write-blocks", &parted, &[yes, "--partition", "2", "--lba", "2"], &input).ok();
    let bytes = fs::read(&parted).unwrap();
    assert!(bytes[start + 1024..start + 1024 + 4096] == input);
    let read = ["--partition", "2", "--lba", "2", "--length", "4K"];
    assert!(run("read-blocks", &parted, &read, b"").ok() == input);
    run("read-blocks", &parted, &["--partition", "2", "--length", "5M"], b"")
        .refused(&["4194304 bytes"]);
}

/// An image that another process writes to, or that is attached to a loop device.
#[test]
fn an_image_in_use_is_refused() {
    let (dir, contents) = image();
    let disk = &dir.path().join("disk.img");
    let mut user = std::process::Command::new("sh");
    user.args(["-c", "exec 3<>\"$0\"; echo; read x"]).arg(disk);
    let mut user = user.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(user.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let yes = "--yes-destroy-data";
    run("write-blocks", disk, &[yes, "--force"], &[1; 512]).refused(&["in use", "(sh)"]);
    drop(user.stdin.take());
    user.wait().unwrap();
    assert!(fs::read(disk).unwrap() == contents);
    let file = File::options().write(true).open(disk).unwrap();
    file.write_all_at(&contents[..512], 0).unwrap();
    drop(file);
    let mounted = Disk::new(|_| {}, &[]);
    if let Some(_mount) = common::mount::Mount::new(&mounted) {
        let image = mounted.image();
        run("write-blocks", &image, &[yes, "--force"], &[1; 512]).refused(&["in use", "loop"]);
    }
}
