//! Damaged filesystems and the options for rescuing their files. The oracle is debugfs or a second
//! image that is whole; `cp_kernel` and `kernel_ext4` compare with the kernel.

use crate::common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use common::{Disk, Outcome, must, pattern};

const BLOCK: usize = 1024;

fn fill(folder: &Path) {
    fs::write(folder.join("hello"), "hello\n").unwrap();
    fs::create_dir(folder.join("many")).unwrap();
    for number in 0..60 {
        let name = format!("many/a-file-with-a-rather-long-name-{number:02}");
        fs::write(folder.join(name), format!("{number}\n")).unwrap();
    }
}

fn disk(features: &str) -> Disk {
    Disk::new(fill, &["-b", "1024", "-O", features])
}

fn edit(disk: &Disk, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(disk.image()).unwrap();
    change(&mut bytes);
    fs::write(disk.image(), bytes).unwrap();
}

/// The blocks of a file.
fn blocks(disk: &Disk, path: &str) -> Vec<usize> {
    let said = disk.debugfs(&format!("blocks {path}"));
    said.split_whitespace().map(|block| block.parse().unwrap()).collect()
}

/// A partial success: exit code 1, and one line for each damage, which has `part`.
fn partial(outcome: &Outcome, part: &str) {
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(!outcome.stderr.is_empty());
    for line in outcome.stderr.lines() {
        assert!(line.starts_with("nvio: ") && line.contains(part), "{line}");
    }
}

#[test]
fn copies_of_the_superblock_are_named_and_read() {
    // The magic number, everything, the checksum.
    for (range, byte) in [(1080..1082, 0), (0..2048, 0), (2044..2048, 0x11)] {
        let disk = disk("^has_journal");
        edit(&disk, |bytes| bytes[range].fill(byte));
        let image = disk.image();
        // The oracle reads it by the same numbers.
        let of_debugfs = must(
            "debugfs",
            &["-c", "-s", "8193", "-b", "1024", "-R", "cat /hello"]
                .map(OsStr::new)
                .into_iter()
                .chain([image.as_ref()])
                .collect::<Vec<_>>(),
        );
        assert_eq!(of_debugfs, "hello\n");
        disk.run("cat", &["/hello"]).refused(&["superblock", "--superblock 8193"]);
        for options in [&["--superblock", "8193"][..], &["--superblock=24577", "--block-size=1K"]] {
            assert_eq!(disk.run("cat", &[&["/hello"], options].concat()).text(), "hello\n");
            assert_eq!(disk.run("ls", &[&["/many"], options].concat()).text().lines().count(), 60);
        }
        // A block without a copy; and nothing is written through one.
        disk.run("cat", &["/hello", "--superblock", "100"]).refused(&["superblock"]);
        let before = fs::read(&image).unwrap();
        assert_ne!(disk.run("write", &["/hello", "--superblock", "8193"]).code, 0);
        assert!(fs::read(&image).unwrap() == before);
    }
}

/// Damages the superblock of a journal that needs recovery.
fn damage_journal(disk: &Disk) {
    let journal = blocks(disk, "<8>")[0];
    edit(disk, |bytes| {
        bytes[1024 + 0x60] |= 4;
        bytes[journal * BLOCK..][..4].fill(0xff);
    });
}

#[test]
fn a_damaged_journal_is_left_out_on_request() {
    let disk = disk("^metadata_csum");
    damage_journal(&disk);
    for (verb, path) in [("cat", "/hello"), ("ls", "/"), ("du", "/"), ("stat", "/hello")] {
        disk.run(verb, &[path]).refused(&["journal", "--noload"]);
        disk.run(verb, &[path, "--noload"]).ok();
    }
    assert_eq!(disk.run("cat", &["/hello", "--noload"]).text(), "hello\n");
    let out = disk.path("out");
    disk.run("cp", &["-r", "--noload", "/", out.to_str().unwrap()]).ok();
    assert_eq!(
        fs::read_to_string(out.join("many/a-file-with-a-rather-long-name-59")).unwrap(),
        "59\n"
    );
    // A write is refused with and without `--noload`.
    let before = fs::read(disk.image()).unwrap();
    for options in [&["/hello"][..], &["/hello", "--noload"]] {
        assert_eq!(disk.run("write", options).code, 1);
    }
    assert!(fs::read(disk.image()).unwrap() == before);
}

/// A number of `dumpe2fs -h`, which fails at a damaged journal after it has printed the superblock.
fn dumped(disk: &Disk, key: &str) -> u64 {
    let dumpe2fs = Command::new("dumpe2fs").arg("-h").arg(disk.image()).output().unwrap();
    let said = String::from_utf8(dumpe2fs.stdout).unwrap();
    let line = said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in {said}")).trim().parse().unwrap()
}

#[test]
fn space_is_counted_without_a_damaged_journal() {
    for needs_recovery in [true, false] {
        for features in ["^metadata_csum", "metadata_csum"] {
            let disk = disk(features);
            let whole = disk.run("df", &["--json"]).json();
            let journal = blocks(&disk, "<8>")[0];
            if needs_recovery {
                disk.debugfs("feature needs_recovery");
            }
            edit(&disk, |bytes| bytes[journal * BLOCK..][..1024].fill(0xff));
            for options in [&[][..], &["-i"]] {
                let df = disk.run("df", options);
                assert_eq!((df.code, df.stderr.lines().count()), (0, 1), "{}", df.stderr);
                let warned =
                    ["nvio: warning: ", "journal"].iter().all(|part| df.stderr.contains(part));
                assert!(warned && !df.stderr.contains("--noload"), "{}", df.stderr);
                assert_eq!(df.stdout, disk.run("df", &[options, &["--noload"]].concat()).ok());
            }
            let df = disk.run("df", &["--json"]);
            let df: serde_json::Value = serde_json::from_slice(&df.stdout).unwrap();
            assert_eq!(df, whole, "{features}");
            for (field, key) in [
                ("free_blocks", "Free blocks"),
                ("inodes", "Inode count"),
                ("free_inodes", "Free inodes"),
                ("block_size", "Block size"),
            ] {
                assert_eq!(df[field], dumped(&disk, key), "{key}");
            }
            let overhead = dumped(&disk, "Block count") - df["blocks"].as_u64().unwrap();
            assert_eq!(overhead, dumped(&disk, "Overhead clusters"));
        }
    }
}

#[test]
fn errors_that_the_kernel_recorded_are_a_warning() {
    let disk = disk("^has_journal");
    let silent = disk.run("cat", &["/hello"]).ok();
    disk.debugfs("set_super_value state 3");
    let cat = disk.run("cat", &["/hello"]);
    assert_eq!((cat.code, &cat.stdout), (0, &silent));
    assert!(cat.stderr.contains("warning: ") && cat.stderr.contains("e2fsck -f"), "{}", cat.stderr);
    let function = "ext4_lookup";
    for (field, value) in [
        ("error_count", "3"),
        ("last_error_time", "20240229123456"),
        ("last_error_ino", "77"),
        ("last_error_line", "1855"),
        ("last_error_func", function),
        ("last_error_block", "4321"),
    ] {
        disk.debugfs(&format!("set_super_value {field} {value}"));
    }
    // The oracle reads the same.
    let numbers = [
        (dumped(&disk, "FS Error count"), "3 errors"),
        (dumped(&disk, "Last error line #"), "ext4_lookup:1855"),
        (dumped(&disk, "Last error inode #"), "inode 77"),
        (dumped(&disk, "Last error block #"), "block 4321"),
    ];
    let out = disk.path("out");
    let out = out.to_str().unwrap();
    for (verb, args) in [
        ("cat", &["/hello"][..]),
        ("ls", &["-l", "/", "/many"]),
        ("stat", &["/hello"]),
        ("df", &[]),
        ("cp", &["-r", "/", out]),
        ("sha256", &["/hello"]),
    ] {
        let outcome = disk.run(verb, args);
        assert_eq!((outcome.code, outcome.stderr.lines().count()), (0, 1), "{}", outcome.stderr);
        for (number, part) in numbers {
            assert!(part.contains(&number.to_string()));
            assert!(outcome.stderr.contains(part), "no {part:?} in {}", outcome.stderr);
        }
        assert!(outcome.stderr.contains("2024-02-29 12:34:56"), "{}", outcome.stderr);
    }
    // `fsinfo` shows the fields and needs no warning.
    let fields = disk.run("fsinfo", &["--json"]).json();
    assert_eq!(fields["fs_error_count"], 3);
    assert_eq!(fields["filesystem_state"], "clean with errors");
    assert_eq!(fields["last_error_function"], function);
}

#[test]
fn damaged_group_descriptors_name_a_copy_that_is_sound() {
    for features in ["metadata_csum,^has_journal", "^metadata_csum,^uninit_bg,^has_journal"] {
        let disk = disk(features);
        // The inode table of the first group.
        edit(&disk, |bytes| bytes[2 * BLOCK + 8..][..4].fill(0xff));
        for copy in [8193, 24_577, 40_961] {
            let named = format!("--superblock {copy}");
            disk.run("cat", &["/hello"]).refused(&["group", &named]);
            let cat = disk.run("cat", &["/hello", "--superblock", &copy.to_string()]);
            assert_eq!(cat.text(), "hello\n");
            // This copy is damaged, too: the next one is named.
            edit(&disk, |bytes| bytes[(copy + 1) * BLOCK + 8..][..4].fill(0xff));
        }
        let cat = disk.run("cat", &["/hello"]);
        assert!(!cat.stderr.contains("--superblock"), "{}", cat.stderr);
        cat.refused(&["group"]);
    }
}

#[test]
fn groups_with_wrong_checksums_are_read() {
    for features in ["uninit_bg,^metadata_csum,^has_journal", "metadata_csum,^has_journal"] {
        let disk = disk(features);
        // The checksum of the first descriptor.
        edit(&disk, |bytes| bytes[2 * BLOCK + 0x1e..][..2].fill(0xa5));
        let cat = disk.run("cat", &["/hello"]);
        assert_eq!(cat.stdout, b"hello\n");
        partial(&cat, "checksum");
        let before = fs::read(disk.image()).unwrap();
        assert_eq!(disk.run("write", &["/hello"]).code, 1);
        assert!(fs::read(disk.image()).unwrap() == before);
    }
}

#[test]
fn other_blocks_of_a_damaged_directory_are_listed_and_copied() {
    for features in ["^dir_index,^metadata_csum", "^dir_index,metadata_csum"] {
        let disk = disk(features);
        let second = blocks(&disk, "/many")[1];
        edit(&disk, |bytes| bytes[second * BLOCK..][..BLOCK].fill(0));
        let of_debugfs = disk.debugfs("ls -p /many");
        let seen = of_debugfs.matches("a-file-with").count();
        let ls = disk.run("ls", &["/many"]);
        partial(&ls, "/many");
        let listed = ls.stdout.split(|&byte| byte == b'\n').count() - 1;
        assert!(listed >= seen && (20..60).contains(&listed), "{listed}, by debugfs {seen}");
        let out = disk.path("out");
        partial(&disk.run("cp", &["-r", "/", out.to_str().unwrap()]), "/many");
        assert_eq!(fs::read_dir(out.join("many")).unwrap().count(), listed);
        assert_eq!(fs::read_to_string(out.join("hello")).unwrap(), "hello\n");
    }
}

/// A file whose attributes are in a block of their own, which is damaged.
fn damaged_attributes() -> Disk {
    let disk = Disk::new(
        |folder| {
            fill(folder);
            fs::write(folder.join("other"), "other\n").unwrap();
        },
        &["-b", "1024", "-I", "128", "-O", "^has_journal,^metadata_csum"],
    );
    disk.debugfs(&format!("ea_set /hello user.a {}", "x".repeat(100)));
    disk.debugfs("ea_set /other user.b whole");
    disk.debugfs("set_inode_field /hello mode 0100751");
    disk.debugfs("set_inode_field /hello mtime @1000000000");
    let stat = disk.debugfs("stat /hello");
    let block = stat.split("File ACL: ").nth(1).unwrap().split_whitespace().next().unwrap();
    let block: usize = block.parse().unwrap();
    assert_ne!(block, 0);
    edit(&disk, |bytes| bytes[block * BLOCK..][..4].fill(0));
    disk
}

#[test]
fn damaged_attributes_cost_nothing_else() {
    let disk = damaged_attributes();
    assert_eq!(disk.run("cat", &["/hello"]).text(), "hello\n");
    for options in [&["-l"][..], &["-l", "--xattrs"]] {
        let ls = disk.run("ls", &[options, &["/hello", "/other"]].concat());
        partial(&ls, "/hello");
        assert_eq!(ls.stderr.lines().count(), 1, "{}", ls.stderr);
        let listed = String::from_utf8(ls.stdout).unwrap();
        assert!(listed.contains("-rwxr-x--x") && listed.contains("/other"), "{listed}");
        assert_eq!(listed.contains("user.b"), options.len() == 2, "{listed}");
    }
    let json = |verb: &str, options: &[&str]| {
        let outcome = disk.run(verb, &[options, &["--json", "/hello", "/other"]].concat());
        partial(&outcome, "/hello");
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        serde_json::from_slice::<serde_json::Value>(&outcome.stdout).unwrap()
    };
    for shown in [json("stat", &[]), json("ls", &["-l", "--xattrs"])] {
        assert_eq!(shown[0]["size"], 6);
        assert_eq!(shown[0]["xattrs"], serde_json::json!([]));
        assert_eq!(shown[1]["xattrs"][0]["name"], "user.b");
    }
    let stat = disk.run("stat", &["/hello"]);
    partial(&stat, "/hello");
    assert!(String::from_utf8(stat.stdout).unwrap().contains("Mode: 0751"));
    let out = disk.path("out");
    partial(&disk.run("cp", &["-r", "/", out.to_str().unwrap()]), "/hello");
    let copied = fs::metadata(out.join("hello")).unwrap();
    assert_eq!((copied.mode() & 0o7777, copied.mtime()), (0o751, 1_000_000_000));
    assert_eq!(fs::read_to_string(out.join("hello")).unwrap(), "hello\n");
}

#[test]
fn a_file_with_a_damaged_map_is_left_out_of_a_copy() {
    let fill = |folder: &Path| {
        fill(folder);
        // Enough extents for a leaf outside of the inode.
        let file = fs::File::create(folder.join("pieces")).unwrap();
        for piece in 0..20_u64 {
            let data = pattern(BLOCK, piece as u32);
            std::os::unix::fs::FileExt::write_all_at(&file, &data, piece * 8 * BLOCK as u64)
                .unwrap();
        }
    };
    let disk = Disk::new(fill, &["-b", "1024", "-O", "^has_journal"]);
    let said = disk.debugfs("ex /pieces");
    // The first line below the headings is the index entry, whose physical block is the leaf.
    let leaf = said.lines().nth(1).unwrap().split_whitespace();
    let numbers: Vec<&str> = leaf.collect();
    let leaf: usize = numbers[numbers.len() - 2].parse().unwrap();
    edit(&disk, |bytes| bytes[leaf * BLOCK..][..2].fill(0));
    disk.run("cat", &["/pieces"]).refused(&["/pieces"]);
    let out = disk.path("out");
    let cp = disk.run("cp", &["-r", "/", out.to_str().unwrap()]);
    partial(&cp, "/pieces");
    assert_eq!(cp.stderr.lines().count(), 1, "{}", cp.stderr);
    assert!(!out.join("pieces").exists(), "no half file");
    assert_eq!(fs::read_to_string(out.join("hello")).unwrap(), "hello\n");
    assert_eq!(fs::read_dir(out.join("many")).unwrap().count(), 60);
}
