//! `tar`: the archive, extracted by GNU tar, beside the folder that the image is made of and, for root,
//! beside the kernel's mount of the image.

use crate::common;
use crate::emulate::Server;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::mount::Mount;
use common::{Disk, must, nvio, pattern};

/// The fields of an entry that tar keeps.
pub const FIELDS: &str = "%P %y %m %U %G %s %n %T@ %l\\0";

pub fn fill(folder: &Path) {
    let path = |name: &str| folder.join(name);
    fs::create_dir_all(path("a/b/c")).unwrap();
    for (name, size) in [("a/none", 0), ("a/one", 1), ("a/b/block", 4096), ("a/large", 3_000_001)] {
        fs::write(path(name), pattern(size, 5)).unwrap();
    }
    fs::hard_link(path("a/one"), path("a/b/again")).unwrap();
    symlink("../a/one", path("a/link")).unwrap();
    symlink("x".repeat(200), path("a/long-link")).unwrap();
    fs::hard_link(path("a/link"), path("a/link-again")).unwrap();
    let deep = format!("a/{}/{}", "d".repeat(150), "e".repeat(200));
    fs::create_dir_all(path(&deep)).unwrap();
    fs::write(path(&format!("{deep}/{}", "f".repeat(250))), "deep").unwrap();
    fs::hard_link(path(&format!("{deep}/{}", "f".repeat(250))), path("a/short")).unwrap();
    fs::write(folder.join(OsStr::from_bytes(b"a/odd\xff\n [name]\\")), "x").unwrap();
    fs::set_permissions(path("a/none"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(path("a/b"), fs::Permissions::from_mode(0o1577)).unwrap();
    must("mkfifo", &[path("a/pipe").as_ref()]);
    let sparse = |name: &str, size: u64, data: &[u64]| {
        let file = File::create(path(name)).unwrap();
        data.iter().for_each(|&at| file.write_all_at(&pattern(5000, 2), at).unwrap());
        file.set_len(size).unwrap();
    };
    sparse("sparse-middle", 20_000_000, &[1_000_000, 9_000_000]);
    sparse("sparse-end", 8_195_000, &[0, 8_190_000]);
    sparse("sparse-huge", 9 << 30, &[(8 << 30) + 4096]);
    sparse("sparse-empty", 1 << 20, &[]);
    sparse(&format!("{}-sparse", "s".repeat(120)), 1 << 20, &[70_000]);
    for (name, when) in
        [("a/none", "1965-02-03 04:05:06.25"), ("a/one", "2033-01-01 00:00:00.123456789")]
    {
        must("touch", &["-d".as_ref(), when.as_ref(), path(name).as_ref()]);
    }
}

/// Adds metadata that needs root.
pub fn fill_as_root(folder: &Path) {
    let at = |name: &str| folder.join(name);
    let set = |program: &str, args: &[&str], name: &str| {
        let path = at(name);
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).chain([path.as_os_str()]).collect();
        must(program, &args);
    };
    set("setfattr", &["-n", "user.plain", "-v", "text"], "a/one");
    set("setfattr", &["-n", "user.odd=%name", "-v", "0x00ff0a3d"], "a/one");
    set("setfattr", &["-n", "trusted.dir", "-v", "x"], "a/b");
    set("setfattr", &["-n", "security.test", "-v", "y"], "a/large");
    set("setfacl", &["-m", "u:1234:rw,g:99:r"], "a/large");
    set("setfacl", &["-d", "-m", "u:77:rx"], "a/b/c");
    set("chown", &["3000000:70000"], "a/one");
    set("chown", &["4294967294:4294967294"], "a/none");
    let owner = |args: &[&str]| must("mknod", &args.iter().map(OsStr::new).collect::<Vec<_>>());
    owner(&[at("device").to_str().unwrap(), "b", "259", "70000"]);
    owner(&[at("null").to_str().unwrap(), "c", "1", "3"]);
}

/// Extracts an archive by GNU tar into a new folder.
fn extract(disk: &Disk, archive: &Path, flags: &[&str]) -> PathBuf {
    let out = disk.path("extracted");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir(&out).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--warning=no-timestamp", "-xpf"])
        .arg(archive)
        .args(flags)
        .arg("-C")
        .arg(&out)
        .env("LC_ALL", "C");
    let output = tar.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
    out
}

/// Describes the entries below a folder, sorted.
pub fn described(folder: &Path, fields: &str) -> Vec<String> {
    let mut find = Command::new("find");
    let output = find.args([".", "-mindepth", "1", "-printf", fields]).current_dir(folder).output();
    let output = output.unwrap().stdout;
    let entries = output.split(|&byte| byte == 0).filter(|entry| !entry.is_empty());
    let mut entries: Vec<String> = entries.map(|entry| entry.escape_ascii().to_string()).collect();
    entries.sort();
    assert!(entries.len() > 10, "{entries:?}");
    entries
}

/// Returns the extended attributes and the access control lists below a folder, for root.
pub fn attributes(folder: &Path) -> Vec<String> {
    let dump = |program: &str, flags: &[&str]| {
        let mut command = Command::new(program);
        let output = command.args(flags).arg(".").current_dir(folder).output().unwrap();
        // Names of attributes need not be text.
        let text = output.stdout.escape_ascii().to_string().replace("\\n", "\n");
        let mut files: Vec<String> = text.split("\n\n").map(str::to_owned).collect();
        files.retain(|file| !file.starts_with("# file: socket\n"));
        files.sort();
        files
    };
    let mut all = dump("getfattr", &["-R", "-h", "-d", "-m", "-", "-e", "hex"]);
    all.extend(dump("getfacl", &["-R", "-n", "-p", "-s"]));
    all
}

pub fn same_contents(a: &Path, b: &Path) {
    let flags = ["-r", "--no-dereference"].map(OsStr::new);
    let mut diff = Command::new("diff");
    let output = diff.args(flags).arg("--exclude=pipe").arg(a).arg(b).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn archived(disk: &Disk, args: &[&str]) -> PathBuf {
    let archive = disk.path("out.tar");
    fs::write(&archive, disk.run("tar", args).ok()).unwrap();
    archive
}

#[test]
fn gnu_tar_extracts_the_folder() {
    let disk = Disk::new(fill, &["-b", "1024", "-I", "256"]);
    fs::remove_dir_all(disk.folder().join("lost+found")).ok();
    let archive = archived(&disk, &[]);
    assert!(fs::metadata(&archive).unwrap().len() < 8 << 20, "holes take no space");
    let out = extract(&disk, &archive, &[]);
    fs::remove_dir(out.join("lost+found")).unwrap();
    // mke2fs -d copies a symbolic link for each of its names.
    let fields = FIELDS.replace("%n %T@ ", "");
    // Sizes of directories depend on the filesystem.
    let sizes = |entries: Vec<String>| {
        let plain = |entry: &String| !entry.contains(" d ");
        entries.into_iter().filter(plain).collect::<Vec<_>>()
    };
    assert_eq!(sizes(described(&out, &fields)), sizes(described(&disk.folder(), &fields)));
    for name in ["sparse-middle", "sparse-end", "sparse-empty"] {
        let [copy, original] =
            [&out, &disk.folder()].map(|folder| fs::read(folder.join(name)).unwrap());
        assert!(copy == original, "{name}");
    }
    assert!(fs::metadata(out.join("sparse-huge")).unwrap().blocks() < 1000);
    assert_eq!(
        fs::metadata(out.join("a/one")).unwrap().ino(),
        fs::metadata(out.join("a/b/again")).unwrap().ino()
    );
    assert_eq!(fs::metadata(&archive).unwrap().len() % 10_240, 0);
}

#[test]
fn paths_and_patterns_become_members() {
    let disk = Disk::new(fill, &[]);
    let members = |args: &[&str]| {
        let archive = archived(&disk, args);
        must("tar", &["-tf".as_ref(), archive.as_ref()])
    };
    assert_eq!(members(&["/a/b", "a/none"]), "a/b/\na/b/again\na/b/block\na/b/c/\na/none\n");
    assert_eq!(members(&["/a/[no]*e", "/a/b/../one"]), "a/none\na/one\none\n");
    assert!(members(&[]).starts_with("./\na/\na/b/\n"));
    let target = disk.path("file.tar");
    let report = disk.run("tar", &["/a/b", "--json", "-o", target.to_str().unwrap()]).json();
    assert_eq!(
        (&report["members"], &report["bytes"]),
        (&4.into(), &fs::metadata(&target).unwrap().len().into())
    );
    disk.run("tar", &["/a/b", "-o", target.to_str().unwrap()])
        .refused(&["cannot create", "file.tar"]);
    assert_eq!(nvio(["tar", "x", "--json"]).code, 2);
}

#[test]
fn unreadable_files_are_reported_and_the_rest_is_archived() {
    let disk = Disk::new(fill, &["-I", "256"]);
    disk.debugfs("set_inode_field a/b/block mode 0");
    let outcome = disk.run("tar", &["/none", "/a/b"]);
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (1, 2), "{}", outcome.stderr);
    fs::write(disk.path("out.tar"), outcome.stdout).unwrap();
    let archive = disk.path("out.tar");
    let members = must("tar", &["-tf".as_ref(), archive.as_ref()]);
    assert_eq!(members, "a/b/\na/b/again\na/b/c/\n");
    // A device that cannot read a block of a file: zeroes, so that the members after it are whole.
    let disk = Disk::new(fill, &[]);
    let first = disk.run("map", &["--json", "/a/large"]).json()["extents"][0]["physical"].as_u64();
    let socket = disk.path("nvme.sock");
    let fault = format!("status=unrecovered-read-error,op=read,lba={}", first.unwrap() / 512 + 8);
    let image = disk.image();
    let server = Server::start(&socket, [image.to_str().unwrap(), "--fault", &fault]);
    let outcome = server.run("tar", &["/a/large", "/a/one"]);
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (1, 1), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("/a/large") && outcome.stderr.contains("zeroes"),
        "{}",
        outcome.stderr
    );
    fs::write(&archive, outcome.stdout).unwrap();
    let out = extract(&disk, &archive, &[]);
    assert_eq!(
        fs::read(out.join("a/one")).unwrap(),
        fs::read(disk.folder().join("a/one")).unwrap()
    );
    assert_eq!(fs::metadata(out.join("a/large")).unwrap().len(), 3_000_001);
}

/// Everything that the kernel can store, for root.
#[test]
fn an_extracted_archive_is_what_the_kernel_shows() {
    let disk = Disk::new(|_| {}, &["-O", "metadata_csum", "-I", "256"]);
    let Some(mount) = Mount::with(&disk, "loop,acl,user_xattr") else { return };
    fill(&mount.at);
    fill_as_root(&mount.at);
    let at = |name: &str| mount.at.join(name);
    let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    must("sync", &["-f".as_ref(), mount.at.as_ref()]);
    drop((socket, mount));
    let outcome = disk.run("tar", &[]);
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.stderr, "nvio: /socket is not archived: archives have no sockets\n");
    fs::write(disk.path("out.tar"), outcome.stdout).unwrap();
    let flags = ["--xattrs", "--xattrs-include=*", "--acls", "--same-owner", "--numeric-owner"];
    let out = extract(&disk, &disk.path("out.tar"), &flags);
    let mount = Mount::new(&disk).unwrap();
    let fields = FIELDS.replace("%s ", "");
    let without = |entries: Vec<String>| {
        entries.into_iter().filter(|entry| !entry.starts_with("socket ")).collect::<Vec<_>>()
    };
    assert_eq!(described(&out, &fields), without(described(&mount.at, &fields)));
    assert_eq!(attributes(&out), attributes(&mount.at));
    for name in ["device", "null"] {
        let [copy, original] =
            [&out, &mount.at].map(|folder| fs::metadata(folder.join(name)).unwrap().rdev());
        assert_eq!(copy, original, "{name}");
    }
    fs::remove_file(out.join("sparse-huge")).unwrap();
    for name in ["a", "sparse-middle", "sparse-end", "sparse-empty"] {
        same_contents(&out.join(name), &mount.at.join(name));
    }
}
