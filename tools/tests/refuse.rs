//! Bad input: each is one line on standard error, exit code 1 and nothing else.

use crate::common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;

use common::{Disk, nvio};

fn disk() -> Disk {
    Disk::new(
        |folder| {
            fs::create_dir_all(folder.join("a/b")).unwrap();
            fs::write(folder.join("a/hello"), "hello\n").unwrap();
        },
        &[],
    )
}

#[test]
fn paths_that_do_not_serve() {
    let disk = disk();
    disk.run("cat", &["/none"]).refused(&["/none: no such file or directory"]);
    disk.run("cat", &["/a/hello/x"]).refused(&["not a directory"]);
    disk.run("cat", &["/a"]).refused(&["/a is a directory"]);
    disk.run("cat", &["/"]).refused(&["/ is a directory"]);
    disk.run("ls", &["/none"]).refused(&["/none"]);
    disk.run("stat", &["/none"]).refused(&["/none"]);
    disk.run("map", &["/none"]).refused(&["/none"]);
    disk.run("cat", &["/bad\nname\u{1b}[2J"]).refused(&["/bad\\nname\\u{1b}[2J"]);
    disk.run("ls", &["--namespace", "2"]).refused(&["namespace 2", "has 1"]);
    disk.run("identify", &["--namespace", "2"]).refused(&["namespace 2"]);
}

#[test]
fn images_that_are_none() {
    let disk = disk();
    let image = disk.path("bad.img");
    let refused = |content: &[u8], parts: &[&str]| {
        fs::write(&image, content).unwrap();
        for verb in ["ls", "cat"] {
            let args = [OsStr::new(verb), image.as_ref(), OsStr::new("/a")];
            nvio(args).refused(parts);
        }
    };
    let good = fs::read(disk.image()).unwrap();
    refused(&vec![0x5a; 1 << 20], &["bad.img", "not an ext4 filesystem", "0x5a5a"]);
    refused(b"", &["bad.img", "0 bytes"]);
    refused(b"short", &["bad.img", "5 bytes"]);
    for length in [1500, 2048, 3000, 4096, 1 << 20, good.len() - 1, good.len() - 4096] {
        refused(&good[..length], &["bad.img", "truncated"]);
    }
    let mut bad = good.clone();
    bad[1024 + 0x30] ^= 1;
    refused(&bad, &["bad.img", "superblock", "checksum"]);
    for other in ["/tmp", "/dev/null", "/nonexistent/x.img"] {
        nvio(["ls", other]).refused(&[other]);
    }
}

#[test]
fn unknown_features_are_named() {
    let disk = disk();
    disk.debugfs("set_super_value feature_incompat 0x800002c2");
    disk.run("ls", &[]).refused(&["disk.img", "0x80000000"]);
}

#[test]
fn devices_that_are_not_there() {
    nvio(["ls", "vfio-user:/nonexistent/socket"]).refused(&["/nonexistent/socket"]);
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    // Bound, and nobody behind it any more.
    drop(UnixListener::bind(&socket).unwrap());
    let device = format!("vfio-user:{}", socket.display());
    nvio(["identify", &device]).refused(&[&device, "start a vfio-user NVMe server"]);
    nvio(["ls", socket.to_str().unwrap()]).refused(&["vfio-user:SOCKET"]);
    for verb in ["bind", "unbind", "identify"] {
        nvio([verb, "fffff:ff:1f.7"]).refused(&["no PCI device fffff:ff:1f.7"]);
    }
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
    for args in [&["frob"][..], &[], &["cat"], &["bind", "disk.img"], &["ls", "x", "--offset", "1"]]
    {
        let outcome = nvio(args);
        assert_eq!((outcome.code, &*outcome.stdout), (2, &b""[..]), "{args:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert!(outcome.stderr.starts_with("nvio: "), "{}", outcome.stderr);
    }
    assert_eq!(nvio(["--help"]).code, 0);
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
    disk.run("cp", &["-r", "/", target.to_str().unwrap()]).refused(&["/a/b/again", "twice"]);
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
