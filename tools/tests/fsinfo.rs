//! `nvio fsinfo` beside `dumpe2fs -h`, line by line.

use crate::common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Outcome, command, must, nvio};
use serde_json::json;
use tempfile::TempDir;

/// A folder for images.
struct Images(TempDir);

impl Images {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// An image of 32 MiB by mke2fs.
    fn make(&self, options: &str) -> PathBuf {
        let image = self.path("disk.img");
        let _ = fs::remove_file(&image);
        File::create(&image).unwrap().set_len(32 << 20).unwrap();
        let mut args: Vec<&OsStr> = ["-q", "-F"].map(OsStr::new).to_vec();
        args.extend(options.split_whitespace().map(OsStr::new));
        args.push(image.as_ref());
        must("mke2fs", &args);
        image
    }
}

fn dumpe2fs(image: &Path, zone: &str) -> Vec<u8> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("dumpe2fs");
    command.arg("-h").arg(image).env("PATH", path).env("TZ", zone).env("LC_ALL", "C");
    let output = command.output().expect("dumpe2fs (e2fsprogs)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn fsinfo(image: &Path, zone: &str) -> Outcome {
    let output = command([OsStr::new("fsinfo"), image.as_ref()]).env("TZ", zone).output().unwrap();
    Outcome {
        code: output.status.code().unwrap(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Checks that all lines are equal, except empty ones.
fn same(image: &Path, about: &str) {
    let lines = |bytes: &[u8]| -> Vec<String> {
        let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| line.escape_ascii().to_string()).collect()
    };
    let expected = lines(&dumpe2fs(image, "UTC0"));
    let shown = lines(&fsinfo(image, "UTC0").ok());
    for (at, (shown, expected)) in shown.iter().zip(&expected).enumerate() {
        assert_eq!(shown, expected, "{about}: line {}", at + 1);
    }
    assert_eq!(shown.len(), expected.len(), "{about}: {shown:?} {expected:?}");
    assert!(shown.len() > 25, "{about}: dumpe2fs has shown nothing");
}

/// Writes into the superblock of an image without checksums.
fn poke(image: &Path, edits: &[(u64, &[u8])]) {
    let file = File::options().write(true).open(image).unwrap();
    for (offset, bytes) in edits {
        file.write_all_at(bytes, 1024 + offset).unwrap();
    }
}

#[test]
fn every_kind_of_filesystem() {
    let images = Images::new();
    for options in [
        "-t ext2",
        "-t ext2 -r 0 -O none -b 1024",
        "-t ext3 -b 1024",
        "-t ext3 -J size=8 -I 128",
        "-t ext4",
        "-t ext4 -b 1024 -L a-label -M /mnt/somewhere -m 3",
        "-t ext4 -b 65536 -N 64",
        "-t ext4 -O ^metadata_csum,uninit_bg,^64bit -E stride=4,stripe-width=16",
        "-t ext4 -O bigalloc,^resize_inode -C 16384",
        "-t ext4 -O meta_bg,^resize_inode,sparse_super2 -b 1024 -g 1024",
        "-t ext4 -O mmp,metadata_csum_seed -E mmp_update_interval=7",
        "-t ext4 -O quota,project",
        "-t ext4 -O fast_commit,orphan_file -J size=8,fast_commit_size=256",
        "-t ext4 -O fast_commit -J size=4",
        "-t ext4 -O encrypt,verity,casefold -E encoding=utf8",
        "-t ext4 -O ea_inode,large_dir,inline_data -e remount-ro -E test_fs",
        "-t ext4 -O ^has_journal -e panic -o freebsd",
        "-O journal_dev -b 1024",
        "-O journal_dev -b 4096",
    ] {
        same(&images.make(options), options);
    }
}

#[test]
fn fields_that_tools_and_kernel_write_later() {
    let images = Images::new();
    let image = images.make("-t ext4 -O ^metadata_csum");
    let tune = |options: &str| {
        let options = options.split_whitespace().map(OsStr::new);
        must("tune2fs", &options.chain([image.as_os_str()]).collect::<Vec<_>>());
        same(&image, "tune2fs");
    };
    tune("-c 20 -i 3w -u 1 -g 8 -r 99");
    tune("-o journal_data_writeback,discard,nodelalloc -E mount_opts=nodiscard");
    tune("-i 1m -C 5 -T 20000229123456");
    tune("-L \u{e4}\u{f6} -U random -e panic");

    let four = |n: u32| n.to_le_bytes();
    let eight = |n: u64| n.to_le_bytes();
    poke(&image, &[(0x194, &four(9)), (0x27a, &[3, 4]), (0x198, &four(100)), (0x1cc, &four(200))]);
    same(&image, "errors without details");
    poke(&image, &[(0x19c, &four(7)), (0x1a0, &eight(1 << 40 | 5)), (0x1c8, &four(99))]);
    poke(&image, &[(0x1a8, &[b'A'; 32]), (0x1d0, &four(8)), (0x1d4, &four(88))]);
    poke(&image, &[(0x1d8, &eight(6)), (0x1e0, b"ext4_lookup\0")]);
    same(&image, "errors with details");
    for code in 0..20 {
        poke(&image, &[(0x27a, &[code, 20 - code])]);
        same(&image, "codes of errors");
    }
    for (at, values) in [
        (0x3a, &[0, 2, 3, 7, 0xffff][..]),
        (0x3c, &[0, 1, 2, 3, 4]),
        (0x48, &[0, 1, 2, 3, 4, 5]),
        (0xfc, &[0x100, 0x101, 0x102, 0x103, 0x1ff, 1, 0x201]),
        (0x100, &[0, 0xf, 0x1f, 0x20, 0x40, 0x60, 0xffff]),
        (0x160, &[0, 1, 2, 3, 4, 7, 8]),
        (0x50, &[0, 1, 8, 65_535]),
        (0x52, &[0, 1, 8, 65_535]),
        (0x36, &[0, 1, 0x7fff, 0x8000, 0xffff]),
        (0x178, &[0, 8191, 8192, 0xffff]),
        (0x17c, &[0, 2, 3, 0x1000]),
    ] {
        for &value in values {
            let value: u16 = value;
            poke(&image, &[(at, &value.to_le_bytes())]);
            same(&image, &format!("{value:#x} at {at:#x}"));
        }
    }
    poke(&image, &[(0xd0, b"0123456789abcdef"), (0xe4, &four(0x801)), (0xe8, &four(14))]);
    poke(&image, &[(0x104, &four(3)), (0x180, &four(5)), (0x184, &four(6)), (0x188, &eight(7))]);
    poke(&image, &[(0x190, &four(8)), (0x240, &four(3)), (0x244, &four(4)), (0x26c, &four(12))]);
    poke(&image, &[(0x24c, &four(1)), (0x250, &four(3)), (0x258, b"fedcba9876543210")]);
    poke(&image, &[(0x78, b"sixteen bytes ok"), (0x88, &[b'm'; 64]), (0x200, &[b'o'; 64])]);
    same(&image, "all that is seldom");
    poke(
        &image,
        &[(0x180, &four(0)), (0x24c, &four(0)), (0x68, &[0; 16]), (0x78, b"\xff\x1b\n\0")],
    );
    same(&image, "a label that is no text, no UUID");
    for bit in 0..32 {
        // Checksums and clusters only where the filesystem has them.
        if ![4, 9, 10].contains(&bit) {
            poke(&image, &[(0x64, &(0x6b | 1u32 << bit).to_le_bytes())]);
            same(&image, &format!("ro_compat bit {bit}"));
        }
        poke(&image, &[(0x64, &four(0x6b)), (0x5c, &(0x3c | 1u32 << bit).to_le_bytes())]);
        same(&image, &format!("compat bit {bit}"));
        poke(&image, &[(0x5c, &four(0x3c))]);
    }
}

#[test]
fn journals_in_every_state() {
    let images = Images::new();
    let image = images.make("-t ext4 -b 1024 -O ^metadata_csum");
    let blocks = must("debugfs", &["-R".as_ref(), "blocks <8>".as_ref(), image.as_ref()]);
    let first: u64 = blocks.split_whitespace().next().unwrap().parse().unwrap();
    let file = File::options().write(true).open(&image).unwrap();
    let put = |offset: u64, value: u32| {
        file.write_all_at(&value.to_be_bytes(), first * 1024 + offset).unwrap();
    };
    same(&image, "as it was made");
    for (offset, value) in [
        (0x4, 3),
        (0x10, 1025),
        (0x10, 8193),
        (0x14, 2),
        (0x18, 0xfeed_beef),
        (0x1c, 77),
        (0x20, 5),
        (0x20, -5i32 as u32),
        (0x24, 0xffff_ffff),
        (0x2c, 0x8000_0001),
        (0x28, 0xffff_ffe7),
        (0x40, 2),
        (0x40, 100),
        (0x40, 1),
        (0x100, 0x0102_0304),
        (0x40, 0),
    ] {
        put(offset, value);
        same(&image, &format!("{value:#x} at {offset:#x} of the journal"));
    }
    // needs_recovery, and a filesystem that is mounted.
    poke(&image, &[(0x60, &0x2c6u32.to_le_bytes())]);
    same(&image, "needs recovery");

    put(0, 1);
    let outcome = fsinfo(&image, "UTC0");
    assert_eq!(outcome.code, 1);
    assert!(outcome.stdout.starts_with(b"Filesystem volume name:"));
    assert!(!outcome.stdout.windows(9).any(|part| part == b"Journal f"));
    assert!(outcome.stderr.contains("corrupt superblock of the journal: its magic number is 0x1"));
    assert_eq!(outcome.stderr.lines().count(), 1);
}

#[test]
fn times_are_those_of_the_machines_zone() {
    let images = Images::new();
    let image = images.make("-t ext4");
    for zone in ["UTC0", "EST5EDT", "Asia/Kathmandu", "XXX-14", ":Europe/Berlin"] {
        let times = |bytes: &[u8]| -> Vec<String> {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let has = |line: &&str| line.contains("created") || line.contains("Last ");
            text.lines().filter(has).map(str::to_owned).collect()
        };
        let shown = times(&fsinfo(&image, zone).ok());
        assert_eq!(shown, times(&dumpe2fs(&image, zone)), "{zone}");
    }
}

#[test]
fn a_filesystem_in_use_or_truncated() {
    let images = Images::new();
    let image = images.make("-t ext4 -O mmp,^metadata_csum -b 4096");
    let info = |args: &[&str]| {
        let first = [OsStr::new("fsinfo"), image.as_ref()];
        nvio(first.into_iter().chain(args.iter().map(OsStr::new)))
    };
    let report = info(&["--json"]).json();
    let block = report["mmp_block_number"].as_u64().unwrap();
    assert_eq!(report["mmp_block"]["mmp_sequence"], "0xff4d4d50");
    let file = File::options().write(true).open(&image).unwrap();
    for sequence in [1u32, 0xe24d_4d50, 0] {
        file.write_all_at(&sequence.to_le_bytes(), block * 4096 + 4).unwrap();
        file.write_all_at(b"a-host", block * 4096 + 16).unwrap();
        same(&image, "in use");
    }
    nvio([OsStr::new("ls"), image.as_ref()]).refused(&["in use by host 'a-host"]);
    // The image is truncated, but its superblock is complete.
    file.set_len(16 << 20).unwrap();
    assert_eq!(info(&["--json"]).json()["block_count"], 8192);
}

#[test]
fn as_json() {
    let images = Images::new();
    let image = images.make("-t ext4 -O ^resize_inode -b 4096 -L data -E stride=8");
    let report = nvio([OsStr::new("fsinfo"), OsStr::new("--json"), image.as_ref()]).json();
    assert_eq!(report["filesystem_volume_name"], "data");
    assert_eq!(report["last_mounted_on"], "");
    assert_eq!(report["filesystem_revision"], 1);
    assert_eq!((&report["block_size"], &report["block_count"]), (&json!(4096), &json!(8192)));
    assert_eq!(report["default_mount_options"], json!(["user_xattr", "acl"]));
    assert!(report["filesystem_features"].as_array().unwrap().contains(&json!("extent")));
    assert_eq!(report["last_mount_time"], json!(null));
    assert_eq!(report["filesystem_created"]["nanoseconds"], 0);
    assert_eq!(
        (&report["raid_stride"], &report["total_journal_size"]),
        (&json!(8), &json!(4 << 20))
    );
    assert!(report.get("raid_stripe_width").is_none());
}

#[test]
fn images_without_a_filesystem() {
    let images = Images::new();
    let image = images.make("-t ext4");
    let refused = |parts: &[&str]| nvio([OsStr::new("fsinfo"), image.as_ref()]).refused(parts);
    poke(&image, &[(0x78, b"changed")]);
    refused(&["disk.img", "superblock", "checksum"]);
    poke(&image, &[(0x38, &[0, 0])]);
    refused(&["not an ext4 filesystem"]);
    let image = images.make("-t ext4 -O ^metadata_csum");
    poke(&image, &[(0x60, &0x8000_02c2u32.to_le_bytes())]);
    nvio([OsStr::new("fsinfo"), image.as_ref()]).refused(&["0x80000000"]);
    fs::write(&image, [0; 1536]).unwrap();
    nvio([OsStr::new("fsinfo"), image.as_ref()]).refused(&["truncated", "1536"]);
    // A journal's device without a journal.
    let image = images.make("-O journal_dev -b 1024");
    File::options().write(true).open(&image).unwrap().write_all_at(&[0; 4], 2048).unwrap();
    assert_eq!(nvio([OsStr::new("fsinfo"), image.as_ref()]).code, 1);
}
