//! `cp` beside GNU `cp -a` from the kernel's mount, and `write` beside mounts and loop devices.

use crate::common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Stdio;

use common::{Disk, Outcome, command, must, pattern};
use nvio_testkit::image::{Loop, Mount};

fn fill(folder: &Path) {
    fs::create_dir_all(folder.join("dir/sub")).unwrap();
    for (name, length) in [("plain", 10), ("large", 3_000_000), ("dir/listed", 100)] {
        fs::write(folder.join(name), pattern(length, 1)).unwrap();
    }
    fs::hard_link(folder.join("plain"), folder.join("dir/second")).unwrap();
    symlink("plain", folder.join("link")).unwrap();
    must("mkfifo", &[folder.join("dir/pipe").as_ref()]);
    fs::write(folder.join("small"), "small").unwrap();
}

/// A directory in which some of the names exist.
fn existing(target: &Path) {
    fs::create_dir_all(target.join("dir/sub")).unwrap();
    fs::write(target.join("old"), "old").unwrap();
    // Names that the source does not link, and a file outside of the copy.
    fs::hard_link(target.join("old"), target.join("large")).unwrap();
    fs::hard_link(target.join("old"), target.join("small")).unwrap();
    fs::write(target.join("plain"), vec![b'x'; 5000]).unwrap();
    fs::write(target.join("dir/second"), "of its own").unwrap();
    fs::write(target.join("dir/listed"), "listed").unwrap();
    symlink("elsewhere", target.join("link")).unwrap();
    let acl = |options: &[&str], path: &str| {
        let path = target.join(path);
        let args = options.iter().map(OsStr::new).chain([path.as_os_str()]);
        must("setfacl", &args.collect::<Vec<_>>());
    };
    acl(&["-m", "u:1234:rwx"], "dir/listed");
    acl(&["-m", "g:1234:rwx"], "dir");
    acl(&["-d", "-m", "u:1234:rwx"], "dir");
}

/// Type, mode, owners, links, size, time, lists and contents of everything below a directory.
pub fn seen(top: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let data = path.symlink_metadata().unwrap();
            let size = if data.is_dir() { 0 } else { data.len() };
            let links = if data.is_dir() { 0 } else { data.nlink() };
            let time = (data.mtime(), data.mtime_nsec());
            let mut text = format!("{:o} {} {}", data.mode(), data.uid(), data.gid());
            text += &format!(" {links} {size} {time:?}");
            if data.is_dir() {
                folders.push(path.clone());
            } else if data.is_symlink() {
                text += &format!(" {:?}", fs::read_link(&path).unwrap());
            } else if data.is_file() {
                text += &format!(
                    " {:?}",
                    fs::read(&path).unwrap().iter().map(|&b| u64::from(b)).sum::<u64>()
                );
            }
            if !data.is_symlink() {
                text += &must("getfacl", &["-cnp".as_ref(), path.as_ref()]);
            }
            let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
            // The kernel and mke2fs date its time.
            if name != "old" {
                all.insert(name, text);
            }
        }
    }
    all
}

#[test]
#[ignore = "needs root and loop devices; in the suite kernel-ext4"]
fn copies_are_those_of_gnu_cp() {
    let disk = Disk::new(fill, &[]);
    let (ours, theirs) = (disk.path("ours"), disk.path("theirs"));
    for again in [false, true] {
        for target in [&ours, &theirs] {
            if !again {
                fs::create_dir(target).unwrap();
                existing(target);
            }
        }
        disk.run("cp", &["-r", "/", ours.to_str().unwrap()]).ok();
        let mount = Mount::new(&disk.image(), &disk.path("mnt"), "ro");
        let from = format!("{}/.", mount.path().display());
        must("cp", &["-a".as_ref(), from.as_ref(), theirs.as_ref()]);
        mount.unmount().unwrap();
        assert_eq!(seen(&ours), seen(&theirs), "again: {again}");
        assert_eq!(fs::read_to_string(ours.join("old")).unwrap(), "old");
    }
}

/// `nvio write DEVICE /small` of a byte.
fn write(device: &Path) -> Outcome {
    let args = [OsStr::new("write"), device.as_ref(), OsStr::new("/small")];
    let mut child = command(args);
    let child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    // A command that refuses does not read.
    let _ = child.stdin.take().unwrap().write_all(b"S");
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    Outcome { code: output.status.code().unwrap(), stdout: output.stdout, stderr }
}

#[test]
#[ignore = "needs root and loop devices; in the suite kernel-ext4"]
fn only_images_and_devices_without_users_are_written_to() {
    let disk = Disk::new(fill, &[]);
    let before = fs::read(disk.image()).unwrap();
    for options in ["ro", "rw", "ro,noload"] {
        let mount = Mount::new(&disk.image(), &disk.path("mnt"), options);
        let outcome = write(&disk.image());
        assert_eq!(outcome.stderr.matches("in use").count(), 1, "{options}: {}", outcome.stderr);
        outcome.refused(&["disk.img is in use", "attached to /dev/loop"]);
        mount.unmount().unwrap();
    }
    fs::write(disk.image(), &before).unwrap();
    let attached = Loop::new(&disk.image());
    let device = Path::new(attached.device());
    write(&disk.image()).refused(&["attached to", attached.device()]);
    // By another name of the image.
    fs::hard_link(disk.image(), disk.path("other")).unwrap();
    write(&disk.path("other")).refused(&["attached to", attached.device()]);
    let mount = disk.path("mnt");
    must("mount", &["-o".as_ref(), "ro".as_ref(), device.as_ref(), mount.as_ref()]);
    let outcome = write(device);
    must("umount", &[mount.as_ref()]);
    outcome.refused(&["is in use: it is mounted"]);
    // A loop device on the device.
    let above = Loop::new(device);
    write(device).refused(&["attached to", above.device()]);
    drop(above);
    write(device).ok();
    let args = [OsStr::new("cat"), device.as_ref(), OsStr::new("/small")];
    assert_eq!(common::nvio(args).text(), "Small");
}
