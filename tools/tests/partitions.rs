//! `nvio partitions`, `--partition` and `--fs-offset` on whole disks.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::common::{Disk, Outcome, must, nvio};

const MIB: u64 = 1 << 20;

fn small() -> Disk {
    Disk::new(|folder| fs::write(folder.join("hello"), "hello\n").unwrap(), &["-b", "1024"])
}

/// A boot record: type, first block and blocks of each record.
fn record(entries: &[(u8, u32, u32)]) -> Vec<u8> {
    let mut sector = vec![0; 512];
    for (index, (kind, first, blocks)) in entries.iter().enumerate() {
        let at = 446 + 16 * index;
        sector[at + 4] = *kind;
        sector[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
        sector[at + 12..at + 16].copy_from_slice(&blocks.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// Makes a whole disk of `size` bytes with pieces at some bytes.
fn whole(disk: &Disk, size: u64, pieces: &[(u64, &[u8])]) -> PathBuf {
    let path = disk.path("whole.img");
    let file = File::create(&path).unwrap();
    file.set_len(size).unwrap();
    for (at, bytes) in pieces {
        file.write_all_at(bytes, *at).unwrap();
    }
    path
}

fn on(image: &Path, verb: &str, rest: &[&str]) -> Outcome {
    let first = [OsStr::new(verb), image.as_ref()];
    nvio(first.into_iter().chain(rest.iter().map(OsStr::new)))
}

#[test]
fn logical_partitions_of_two_extended_ones() {
    let disk = small();
    let filesystem = fs::read(disk.image()).unwrap();
    let image = whole(
        &disk,
        80 * MIB,
        &[
            (0, &record(&[(0x05, 2048, 8192), (0x0f, 12_288, 110_000), (0x00, 150_000, 64)])),
            // An empty boot record, with a link in its first slot.
            (MIB, &record(&[(0x85, 4096, 4096)])),
            (3 * MIB, &record(&[(0, 0, 0), (0, 0, 0), (0x83, 64, 1000)])),
            (6 * MIB, &record(&[(0x83, 64, 98_304)])),
            (6 * MIB + 64 * 512, &filesystem),
        ],
    );
    assert_eq!(on(&image, "cat", &["hello", "--partition", "6"]).text(), "hello\n");
    let text = on(&image, "partitions", &[]).text();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NUMBER", "START", "SIZE", "TYPE", "NAME", "CONTENT"]);
    assert_eq!(rows[1][..3], ["1", "1048576", "4194304"]);
    assert_eq!(rows[3], ["3", "76800000", "32768", "empty", "-", "-"]);
    assert_eq!(rows[4], ["5", "3178496", "512000", "Linux", "-", "-"]);
    assert_eq!(rows[5], ["6", "6324224", "50331648", "Linux", "-", "ext4"]);
    let listed = on(&image, "partitions", &["--json"]).json();
    assert_eq!((&listed["table"], &listed["block_size"]), (&json!("MBR"), &json!(512)));
    assert_eq!(
        listed["partitions"][4],
        json!({
            "number": 6, "start": 6_324_224, "size": 50_331_648, "table_size": 50_331_648,
            "type": "0x83", "type_name": "Linux", "name": "", "content": "ext4"
        })
    );
    on(&image, "ls", &["--partition", "2"]).refused(&["extended", "6 (48M at 6176K, Linux, ext4)"]);
}

#[test]
fn names_of_a_gpt_are_shown_and_escaped() {
    let disk = small();
    let image = whole(&disk, 64 * MIB, &[]);
    let script = disk.path("script");
    fs::write(&script, "start=2048,size=2048,name=\"a\u{1b}[2J\"\nsize=100000,name=root\n")
        .unwrap();
    let shell = "sfdisk -q --label gpt \"$0\" < \"$1\"";
    must("sh", &["-c".as_ref(), shell.as_ref(), image.as_ref(), script.as_ref()]);
    let filesystem = fs::read(disk.image()).unwrap();
    File::options().write(true).open(&image).unwrap().write_all_at(&filesystem, 2 * MIB).unwrap();
    let text = on(&image, "partitions", &[]).text();
    assert!(!text.contains('\u{1b}') && text.contains("root        ext4"), "{text}");
    let listed = on(&image, "partitions", &["--json"]).json();
    assert_eq!(listed["partitions"][1]["name"], "root");
    assert_eq!(listed["partitions"][1]["type"], "0fc63daf-8483-4772-8e79-3d69d8477de4");
    let message = on(&image, "ls", &[]);
    assert!(message.stderr.contains("\"root\", ext4)") && !message.stderr.contains('\u{1b}'));

    // The primary is damaged: the listing says so, on standard error.
    let file = File::options().write(true).open(&image).unwrap();
    file.write_all_at(b"x", 512).unwrap();
    let damaged = on(&image, "partitions", &[]);
    assert_eq!((damaged.code, damaged.stderr.lines().count()), (0, 1), "{}", damaged.stderr);
    assert!(damaged.stderr.contains("the primary GPT is damaged"), "{}", damaged.stderr);
    assert_eq!(String::from_utf8(damaged.stdout).unwrap(), text);
    assert_eq!(on(&image, "cat", &["hello", "--partition", "2"]).text(), "hello\n");
}

#[test]
fn a_card_that_was_copied_up_to_the_end_of_the_filesystem() {
    let disk = small();
    let filesystem = fs::read(disk.image()).unwrap();
    let table = record(&[(0x83, 2048, 1_000_000), (0x83, 1_002_048, 1000)]);
    let image = whole(&disk, 49 * MIB, &[(0, &table), (MIB, &filesystem)]);
    assert_eq!(on(&image, "cat", &["hello", "--partition", "1"]).text(), "hello\n");
    on(&image, "ls", &["--partition", "2"]).refused(&["partition 2 begins at byte 513048576"]);
    let listed = on(&image, "partitions", &["--json"]);
    let value: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(value["partitions"][0]["size"], 48 * MIB);
    assert_eq!(value["partitions"][0]["table_size"], 512_000_000);
    assert_eq!(value["partitions"][1]["size"], 0);
    assert_eq!(listed.stderr.lines().count(), 2, "{}", listed.stderr);
    // The image ends before the filesystem does.
    File::options().write(true).open(&image).unwrap().set_len(20 * MIB).unwrap();
    on(&image, "ls", &["--partition", "1"]).refused(&["truncated", "copy it again"]);
}

#[test]
fn a_disk_that_was_partitioned_in_other_blocks() {
    let disk =
        Disk::new(|folder| fs::write(folder.join("hello"), "hello\n").unwrap(), &["-b", "4096"]);
    let filesystem = fs::read(disk.image()).unwrap();
    let table = record(&[(0x83, 256, 12_288)]);
    let image = whole(&disk, 64 * MIB, &[(0, &table), (MIB, &filesystem)]);
    let said = "the MBR was written for 4096-byte blocks, but the device has 512-byte blocks";
    on(&image, "ls", &["--partition", "1"]).refused(&[said, "--lba-size 4096", "--fs-offset"]);
    on(&image, "ls", &[]).refused(&[said, "1 (48M at 1M, Linux, ext4)"]);
    let listed = on(&image, "partitions", &[]);
    assert_eq!(listed.code, 0);
    assert!(listed.stderr.contains(said), "{}", listed.stderr);
    for how in [&["--partition", "1", "--lba-size", "4096"][..], &["--fs-offset", "1M"]] {
        assert_eq!(on(&image, "cat", &[&["hello"], how].concat()).text(), "hello\n");
    }
}

#[test]
fn offsets_accept_suffixes_and_any_byte() {
    let disk = small();
    let filesystem = fs::read(disk.image()).unwrap();
    for (at, texts) in
        [(MIB, &["1048576", "1M", "1024K", "1MiB"][..]), (64, &["64"]), (1000, &["1kB"])]
    {
        let image = whole(&disk, at + 50 * MIB, &[(at, &filesystem)]);
        for text in texts {
            assert_eq!(on(&image, "cat", &["/hello", "--fs-offset", text]).text(), "hello\n");
            for verb in ["ls", "fsinfo", "df", "du", "find", "tree"] {
                on(&image, verb, &["--fs-offset", text]).ok();
            }
        }
        on(&image, "ls", &["--fs-offset", "1T"]).refused(&["not inside of the"]);
    }
    // From the start of a partition.
    let table = record(&[(0x83, 2048, 110_000)]);
    let image = whole(&disk, 60 * MIB, &[(0, &table), (2 * MIB, &filesystem)]);
    let both = ["hello", "--partition", "1", "--fs-offset", "1M"];
    assert_eq!(on(&image, "cat", &both).text(), "hello\n");
}

#[test]
fn a_device_without_a_table() {
    let disk = small();
    disk.run("partitions", &[]).refused(&["no partition table", "the whole device is an ext4"]);
    let image = whole(&disk, MIB, &[]);
    on(&image, "partitions", &["--json"]).refused(&["no partition table"]);
}
