//! `write` on images that mke2fs made, looked at with `cat` and e2fsprogs.

use crate::common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;

use common::{Disk, Outcome, command, must, pattern};

fn fill(folder: &Path) {
    fs::write(folder.join("large"), pattern(3_000_001, 1)).unwrap();
    fs::write(folder.join("small"), "hello, world\n").unwrap();
    let sparse = File::create(folder.join("sparse")).unwrap();
    sparse.write_all_at(&pattern(8192, 2), 0).unwrap();
    sparse.set_len(2_000_000).unwrap();
    // A hole after 2 MiB.
    let holey = File::create(folder.join("holey")).unwrap();
    holey.write_all_at(&pattern(2 << 20, 3), 0).unwrap();
    holey.write_all_at(&pattern(8192, 4), (2 << 20) + 65_536).unwrap();
}

/// `nvio write IMAGE REST...` with this on standard input.
fn write(disk: &Disk, rest: &[&str], input: &[u8]) -> Outcome {
    let image = disk.image();
    let first = [OsStr::new("write"), image.as_ref()];
    let mut child = command(first.into_iter().chain(rest.iter().map(OsStr::new)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that refuses does not read.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code().unwrap(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn assert_clean(disk: &Disk) {
    must("e2fsck", &["-f".as_ref(), "-n".as_ref(), disk.image().as_ref()]);
}

#[test]
fn bytes_are_replaced_and_nothing_else() {
    for (block, lba) in [("1024", "512"), ("4096", "512"), ("4096", "4096")] {
        let disk = Disk::new(fill, &["-b", block]);
        let mut large = fs::read(disk.folder().join("large")).unwrap();
        let stat = disk.run("stat", &["--json", "large"]).json();
        for (seed, (offset, length)) in
            (10..).zip([(0, 1), (511, 2), (4096, 8192), (1_000_000, 1_500_001), (3_000_000, 1)])
        {
            let data = pattern(length, seed);
            let from = offset.to_string();
            let flags = ["/large", "--lba-size", lba, "--offset", &from];
            let modes = ["--direct", "--buffered", "--writethrough"];
            let mode = modes[seed as usize % 3];
            let sync = [&["--dsync"][..], &["--sync"], &[]][offset % 3];
            let flags = [&flags[..], &[mode], sync].concat();
            assert_eq!(write(&disk, &flags, &data).text(), "");
            large[offset..offset + length].copy_from_slice(&data);
        }
        assert!(disk.run("cat", &["large"]).ok() == large, "{block} {lba}");
        assert_eq!(disk.run("stat", &["--json", "large"]).json(), stat, "also its times");
        assert_eq!(disk.run("cat", &["small"]).text(), "hello, world\n");
        assert_clean(&disk);
    }
}

#[test]
fn empty_and_partial_writes_of_a_small_file() {
    let disk = Disk::new(fill, &[]);
    write(&disk, &["small"], b"").ok();
    write(&disk, &["/small", "--offset", "7"], b"nvio!").ok();
    assert_eq!(disk.run("cat", &["small"]).text(), "hello, nvio!\n");
    let dumped = disk.debugfs("cat /small");
    assert_eq!(dumped, "hello, nvio!\n");
}

#[test]
fn refusals_say_what_to_do() {
    let disk = Disk::new(fill, &[]);
    let before = fs::read(disk.image()).unwrap();
    let refused = |rest: &[&str], input: &[u8], parts: &[&str]| {
        write(&disk, rest, input).refused(parts);
    };
    refused(&["none"], b"", &["/none", "no such file"]);
    refused(&["/"], b"", &["is a directory"]);
    refused(
        &["small", "--offset", "9"],
        b"12345",
        &["0 bytes were written", "13 bytes", "write less"],
    );
    refused(&["small", "--buffered", "--offset", "9"], b"12345", &["0 bytes were written"]);
    assert_eq!(write(&disk, &["small", "--direct", "--buffered"], b"").code, 2);
    refused(&["small", "--offset", "18446744073709551615"], b"1", &["cannot grow"]);
    refused(&["sparse", "--offset", "8191"], b"12", &["/sparse", "position 8192", "`nvio map`"]);
    assert!(fs::read(disk.image()).unwrap() == before);
    // The first MiB fits, what follows does not.
    let data = vec![b'x'; 4 << 20];
    refused(&["large"], &data, &["0 bytes were written", "3000001 bytes"]);
    refused(&["large", "--offset", "1000000"], &data[..2_000_002], &["0 bytes were written"]);
    refused(&["holey"], &data[..(2 << 20) + 70_000], &["0 bytes were written", "position 2097152"]);
    refused(&["holey", "--offset", "5"], &data[..(2 << 20) - 4], &["position 2097152"]);
    let mut file = fs::File::create(disk.path("input")).unwrap();
    file.write_all(&data).unwrap();
    let mut from_file = command([OsStr::new("write"), disk.image().as_ref(), "/large".as_ref()]);
    let output = from_file.stdin(File::open(disk.path("input")).unwrap()).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("0 bytes were written"));
    assert!(fs::read(disk.image()).unwrap() == before);
    // The part before the hole, from a file that is read from its middle.
    let mut input = File::open(disk.path("input")).unwrap();
    input.seek(SeekFrom::Start(2 << 20)).unwrap();
    let mut from_file = command([OsStr::new("write"), disk.image().as_ref(), "/holey".as_ref()]);
    assert!(from_file.stdin(input).status().unwrap().success());
    let holey = disk.run("cat", &["/holey"]).ok();
    assert!(holey[..2 << 20] == data[..2 << 20]);
    assert_clean(&disk);
    disk.debugfs("sif /small flags 0x80010");
    refused(&["small"], b"x", &["/small", "immutable", "chattr -i"]);
    disk.debugfs("ssv state 2");
    refused(&["small"], b"x", &["disk.img", "e2fsck"]);
    disk.debugfs("feature needs_recovery");
    refused(&["small"], b"x", &["disk.img", "mount the filesystem once"]);
}

#[test]
fn files_that_cannot_be_written_to_are_refused() {
    let disk = Disk::new(fill, &[]);
    let folder = disk.folder();
    let run = |device: &Path| {
        let args = [OsStr::new("write"), device.as_ref(), OsStr::new("/small")];
        common::nvio(args)
    };
    run(&folder).refused(&["is a directory"]);
    run(&disk.path("none.img")).refused(&["none.img"]);
    run(Path::new("/dev/null")).refused(&["character device"]);
}

/// An image that another process writes to, or has locked.
#[test]
fn an_image_in_use_is_refused() {
    let disk = Disk::new(fill, &[]);
    let before = fs::read(disk.image()).unwrap();
    fs::hard_link(disk.image(), disk.path("other-name")).unwrap();
    for (script, part) in [
        ("exec 3<>\"$0\"; echo; read x", "has it open for writing"),
        ("exec 3>>\"$0\"; echo; read x", "has it open for writing"),
    ] {
        let mut user = std::process::Command::new("sh");
        user.args(["-c", script]).arg(disk.path("other-name"));
        let mut user = user.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Read::read_exact(user.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let outcome = write(&disk, &["small"], b"x");
        assert_eq!(outcome.stderr.matches("disk.img").count(), 1, "{}", outcome.stderr);
        outcome.refused(&["disk.img is in use", part, "(sh)"]);
        // Reading is not refused.
        assert_eq!(disk.run("cat", &["small"]).text(), "hello, world\n");
        drop(user.stdin.take());
        user.wait().unwrap();
    }
    assert!(fs::read(disk.image()).unwrap() == before);
    write(&disk, &["small"], b"H").ok();
}
