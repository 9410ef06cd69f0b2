//! Invalid input: each is one line on standard error, exit code 1 and no output.

use crate::common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use common::{Disk, nvio};
use nvio_testkit::image::edit_superblock;
use nvio_testkit::random;

/// Offset of s_feature_incompat in the superblock.
const FEATURE_INCOMPAT: usize = 0x60;
/// `needs_recovery`: the journal holds blocks that are not in the filesystem yet.
const INCOMPAT_RECOVER: u32 = 0x4;
/// First bytes of the superblock of a journal: its magic number, and its type.
const JOURNAL_SUPERBLOCK: [u8; 8] = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 4];

fn disk() -> Disk {
    disk_of(&[])
}

fn disk_of(options: &[&str]) -> Disk {
    Disk::new(
        |folder| {
            fs::create_dir_all(folder.join("a/b")).unwrap();
            fs::write(folder.join("a/hello"), "hello\n").unwrap();
            symlink("loop", folder.join("loop")).unwrap();
            symlink("gone", folder.join("dangling")).unwrap();
        },
        options,
    )
}

/// Each verb that opens a filesystem rejects `image`.
fn refused_by_all(image: &Path, parts: &[&str]) {
    nvio([OsStr::new("df"), image.as_ref()]).refused(parts);
    refused_by_all_but_df(image, parts);
}

fn refused_by_all_but_df(image: &Path, parts: &[&str]) {
    for (verb, path) in [
        ("ls", "/"),
        ("cat", "/a/hello"),
        ("stat", "/"),
        ("map", "/a/hello"),
        ("du", "/"),
        ("find", "/"),
        ("tree", "/"),
        ("write", "/a/hello"),
    ] {
        nvio([OsStr::new(verb), image.as_ref(), path.as_ref()]).refused(parts);
    }
}

#[test]
fn blocks_smaller_than_the_devices() {
    let disk = disk_of(&["-b", "1024"]);
    disk.run("ls", &["/", "--lba-size", "4096"]).refused(&["disk.img", "1024", "4096"]);
    assert_eq!(disk.run("cat", &["/a/hello"]).text(), "hello\n");
}

#[test]
fn paths_that_do_not_serve() {
    let disk = disk();
    for verb in ["cat", "ls", "stat", "map"] {
        disk.run(verb, &["/none"]).refused(&["/none"]);
        disk.run(verb, &["/a/none"]).refused(&["/a/none"]);
    }
    disk.run("cat", &["/none"]).refused(&["/none: no such file or directory"]);
    disk.run("cat", &["/a/hello/x"]).refused(&["/a/hello", "not a directory"]);
    disk.run("cat", &["/a"]).refused(&["/a is a directory"]);
    disk.run("cat", &["/"]).refused(&["/ is a directory"]);
    disk.run("cat", &["/dangling"]).refused(&["dangling"]);
    disk.run("cat", &["/loop"]).refused(&["loop"]);
    disk.run("cat", &[&format!("/{}", "n".repeat(256))]).refused(&[]);
    disk.run("cat", &["/bad\nname\u{1b}[2J"]).refused(&["/bad\\nname\\u{1b}[2J"]);
    let copy = disk.path("copy");
    let target = copy.to_str().unwrap();
    disk.run("cp", &["/none", target]).refused(&["/none"]);
    // A directory without -r.
    disk.run("cp", &["/a", target]).refused(&["directory"]);
    assert!(!copy.exists());
}

#[test]
fn namespaces_and_partitions_that_do_not_exist() {
    let disk = disk();
    disk.run("ls", &["--namespace", "2"]).refused(&["namespace 2", "has 1"]);
    disk.run("ls", &["/", "--namespace", "4294967295"]).refused(&["namespace"]);
    disk.run("ls", &["/", "--partition", "1"]).refused(&["partition"]);
    disk.run("identify", &["--namespace", "2"]).refused(&["namespace 2"]);
}

#[test]
fn images_that_are_none() {
    let disk = disk();
    let image = disk.path("bad.img");
    let refused = |content: &[u8], parts: &[&str]| {
        fs::write(&image, content).unwrap();
        refused_by_all(&image, parts);
    };
    let good = fs::read(disk.image()).unwrap();
    refused(&vec![0x5a; 1 << 20], &["bad.img", "not an ext4 filesystem", "0x5a5a"]);
    refused(&random::pattern(7, 4 << 20), &["bad.img", "ext4"]);
    refused(&vec![0; 4 << 20], &["bad.img", "ext4"]);
    refused(b"", &["bad.img", "0 bytes"]);
    refused(b"short", &["bad.img", "5 bytes"]);
    refused(&good[..1024], &["bad.img"]);
    for length in [1500, 2048, 3000, 4096, 1 << 20, good.len() - 1, good.len() - 4096] {
        refused(&good[..length], &["bad.img", "truncated"]);
    }
    // The size of the filesystem and that of the device.
    let sizes = [good.len(), good.len() - 4096].map(|size| size.to_string());
    refused(&good[..good.len() - 4096], &sizes.each_ref().map(String::as_str));
    for other in ["/tmp", "/dev/null", "/nonexistent/x.img"] {
        nvio(["ls", other]).refused(&[other]);
    }
}

#[test]
fn a_superblock_with_a_wrong_checksum() {
    let disk = disk();
    edit_superblock(&disk.image(), |_| ());
    disk.run("ls", &["/"]).ok();
    // The volume's name: no other check covers it.
    for at in [0x30, 0x78] {
        let mut bytes = fs::read(disk.image()).unwrap();
        bytes[1024 + at] ^= 1;
        fs::write(disk.path("bad.img"), bytes).unwrap();
        refused_by_all(&disk.path("bad.img"), &["bad.img", "superblock", "checksum"]);
    }
}

#[test]
fn features_without_support_are_named() {
    for (byte, bit, name) in [(3, 0x80, "0x80000000"), (1, 0x10, "dirdata")] {
        let disk = disk();
        edit_superblock(&disk.image(), |block| block[FEATURE_INCOMPAT + byte] |= bit);
        refused_by_all(&disk.image(), &["disk.img", name]);
    }
}

#[test]
fn a_damaged_journal_that_needs_recovery_is_named() {
    let disk = disk();
    edit_superblock(&disk.image(), |block| {
        let bytes = &mut block[FEATURE_INCOMPAT..FEATURE_INCOMPAT + 4];
        let features = u32::from_le_bytes(bytes.try_into().unwrap()) | INCOMPAT_RECOVER;
        bytes.copy_from_slice(&features.to_le_bytes());
    });
    // Recovery of an empty log changes no block.
    disk.run("ls", &["/"]).ok();
    let mut bytes = fs::read(disk.image()).unwrap();
    let is_journal = |block: &[u8]| block.starts_with(&JOURNAL_SUPERBLOCK);
    let journal = bytes.chunks_exact_mut(1024).find(|block| is_journal(block)).unwrap();
    // Its block size.
    journal[0xc] ^= 1;
    fs::write(disk.image(), bytes).unwrap();
    refused_by_all_but_df(&disk.image(), &["journal"]);
    // `df` counts without the journal.
    assert_eq!(disk.run("df", &[]).code, 0);
}

#[test]
fn devices_that_are_not_there() {
    nvio(["ls", "vfio-user:/nonexistent/socket"]).refused(&["/nonexistent/socket"]);
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let device = format!("vfio-user:{}", socket.display());
    nvio(["identify", &device]).refused(&[socket.to_str().unwrap()]);
    // The socket of a server that has ended.
    drop(UnixListener::bind(&socket).unwrap());
    nvio(["identify", &device]).refused(&[&device, "start a vfio-user NVMe server"]);
    nvio(["cat", &device, "/a/hello"]).refused(&[socket.to_str().unwrap()]);
    nvio(["ls", socket.to_str().unwrap()]).refused(&["vfio-user:SOCKET"]);
    // A socket that is a file.
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    nvio(["identify", &format!("vfio-user:{file}")]).refused(&[file]);
    for verb in ["bind", "unbind", "identify"] {
        nvio([verb, "fffff:ff:1f.7"]).refused(&["no PCI device fffff:ff:1f.7"]);
        nvio([verb, "ffff:ff:1f.7"]).refused(&["ffff:ff:1f.7"]);
    }
    // The host bridge on most machines, and no device on a machine without PCI.
    for args in [&["identify"][..], &["bind"], &["unbind"]] {
        nvio([args[0], "0000:00:00.0"]).refused(&["0000:00:00.0"]);
    }
    nvio(["ls", "0000:00:00.0", "/"]).refused(&["0000:00:00.0"]);
    assert!(nvio(["list", "--json"]).json().is_array());
}

/// Every machine has PCI devices that are no NVMe controllers, or no PCI at all.
#[test]
fn pci_devices_of_another_class() {
    let Ok(devices) = fs::read_dir("/sys/bus/pci/devices") else { return };
    for entry in devices {
        let entry = entry.unwrap();
        let class = fs::read_to_string(entry.path().join("class")).unwrap();
        if class.trim() != "0x010802" {
            let address = entry.file_name().into_string().unwrap();
            nvio(["ls", &address]).refused(&["is not an NVMe controller", class.trim()]);
            return nvio(["bind", &address]).refused(&["is not an NVMe controller"]);
        }
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let disk = disk();
    let image = disk.image();
    let image = image.to_str().unwrap();
    let wrong: [&[&str]; 14] = [
        &[],
        &["frob"],
        &["cat"],
        &["cat", image],
        &["ls", image, "/", "--no-such-option"],
        &["ls", image, "/", "--offset", "1"],
        &["ls", image, "/", "--lba-size", "513"],
        &["ls", image, "/", "--namespace", "one"],
        &["ls", image, "/", "--namespace", "0"],
        &["ls", image, "/", "--partition", "0"],
        &["bind", image],
        &["bind", "disk.img"],
        &["cat", image, "/a/hello", "--offset", "-1"],
        &["cat", image, "/a/hello", "--length", "many"],
    ];
    for args in wrong {
        let outcome = nvio(args);
        assert_eq!((outcome.code, &*outcome.stdout), (2, &b""[..]), "{args:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert!(outcome.stderr.starts_with("nvio: "), "{}", outcome.stderr);
    }
    assert!(nvio(["--help"]).text().contains("nvio"));
    assert!(nvio(["--version"]).text().starts_with("nvio "));
}

#[test]
fn directories_in_a_circle_end() {
    let disk = disk();
    // A second name for a directory, inside itself.
    disk.debugfs("link a a/b/again");
    for args in [&["-lR"][..], &["-R", "--json"]] {
        let outcome = disk.run("ls", args);
        assert_eq!(outcome.code, 1);
        assert!(
            outcome.stderr.contains("a second entry for directory inode"),
            "{}",
            outcome.stderr
        );
    }
    let target = disk.path("copy");
    disk.run("cp", &["-r", "/", target.to_str().unwrap()])
        .refused(&["/a/b/again", "a second entry for directory inode"]);
}

/// What cannot be read is one line of standard error each; the rest is listed and copied.
#[test]
fn one_bad_inode_is_no_reason_to_stop() {
    let disk = Disk::new(
        |folder| {
            fs::create_dir_all(folder.join("a/bad-directory/below")).unwrap();
            fs::create_dir(folder.join("z")).unwrap();
            for name in ["a/bad", "a/good", "a/bad-directory/lost", "z/last"] {
                fs::write(folder.join(name), name).unwrap();
            }
            fs::hard_link(folder.join("a/good"), folder.join("z/second")).unwrap();
        },
        &[],
    );
    disk.debugfs("set_inode_field a/bad mode 0");
    disk.debugfs("set_inode_field a/bad-directory mode 0");
    let told = |stderr: &str| {
        let lines: Vec<&str> = stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{stderr}");
        assert!(lines[0].starts_with("nvio: /a/bad: "), "{stderr}");
        assert!(lines[1].starts_with("nvio: /a/bad-directory: "), "{stderr}");
    };
    let outcome = disk.run("ls", &["-R", "/a", "/z"]);
    told(&outcome.stderr);
    let listed = String::from_utf8(outcome.stdout).unwrap();
    assert_eq!(
        (outcome.code, &*listed),
        (1, "/a:\nbad\nbad-directory\ngood\n\n/z:\nlast\nsecond\n")
    );
    let outcome = disk.run("ls", &["-lR"]);
    told(&outcome.stderr);
    let listed = String::from_utf8(outcome.stdout).unwrap();
    let line = listed.lines().find(|line| line.ends_with(" bad")).unwrap();
    assert!(line.starts_with("??????????    ?"), "{line}");
    // The columns are those of the others.
    let good = listed.lines().find(|line| line.ends_with(" good")).unwrap();
    assert_eq!(line.len() - "bad".len(), good.len() - "good".len());
    let outcome = disk.run("ls", &["-lR", "--json"]);
    told(&outcome.stderr);
    let listed: serde_json::Value = serde_json::from_slice(&outcome.stdout).unwrap();
    assert_eq!((outcome.code, listed.as_array().unwrap().len()), (1, 6));

    let target = disk.path("copy");
    let outcome = disk.run("cp", &["-r", "/", "/none", target.to_str().unwrap()]);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    fs::create_dir(&target).unwrap();
    let outcome = disk.run("cp", &["-r", "/none", "/a", "/z", target.to_str().unwrap()]);
    let (first, rest) = outcome.stderr.split_once('\n').unwrap();
    assert_eq!((outcome.code, first), (1, "nvio: /none: no such file or directory"));
    told(rest);
    assert_eq!(fs::read(target.join("z/second")).unwrap(), b"a/good");
    assert_eq!(fs::read(target.join("z/last")).unwrap(), b"z/last");
    assert!(!target.join("a/bad").exists());
    // A directory of this machine that is in the way: what is beside it is copied.
    fs::remove_dir_all(&target).unwrap();
    fs::create_dir_all(&target).unwrap();
    fs::write(target.join("z"), "in the way").unwrap();
    let outcome = disk.run("cp", &["-r", "/z", "/a/good", target.to_str().unwrap()]);
    assert!(outcome.stderr.contains("is a file; remove it first"), "{}", outcome.stderr);
    assert_eq!((outcome.code, fs::read(target.join("good")).unwrap()), (1, b"a/good".to_vec()));
}

/// Damage anywhere in the metadata is an error or is not seen, but never a crash or a hang.
#[test]
fn damage_is_survived() {
    let disk = disk();
    let good = fs::read(disk.image()).unwrap();
    let used: Vec<usize> = (0..good.len())
        .step_by(512)
        .filter(|&at| good[at..at + 512].iter().any(|&b| b != 0))
        .collect();
    let stride = (used.len() / 40).max(1);
    for (index, &at) in used.iter().step_by(stride).enumerate() {
        let mut sector = good[at..at + 512].to_vec();
        sector[(index * 37) % 512] ^= 0xff;
        sector[(index * 101 + 4) % 512] ^= 0x81;
        let file = File::options().write(true).open(disk.image()).unwrap();
        file.write_all_at(&sector, at as u64).unwrap();
        let outcome = disk.run("ls", &["-lR"]);
        assert!(matches!(outcome.code, 0 | 1), "sector {}: {outcome:?}", at / 512);
        assert!(!outcome.stderr.contains("panicked"), "sector {}: {}", at / 512, outcome.stderr);
        file.write_all_at(&good[at..at + 512], at as u64).unwrap();
    }
}
