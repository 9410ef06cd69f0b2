//! `tar --extract`: archives of GNU tar and of nvio, in images that the kernel mounts, beside the files that
//! GNU tar extracts.

use crate::common;
use crate::tar::{FIELDS, attributes, described, fill, fill_as_root, same_contents};

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{SeekFrom, seek};
use tar::{EntryType, Header};

use common::mount::Mount;
use common::{Disk, Outcome, command, must, nvio, pattern};

const GNU_METADATA: [&str; 3] = ["--xattrs", "--xattrs-include=*", "--acls"];

/// A folder of this machine beside an empty filesystem.
fn empty() -> Disk {
    Disk::new(|_| {}, &["-I", "256"])
}

fn assert_clean(disk: &Disk) {
    must("e2fsck", &["-f".as_ref(), "-n".as_ref(), disk.image().as_ref()]);
}

/// `nvio tar IMAGE -x -f ARCHIVE REST...`
fn extract(disk: &Disk, archive: &Path, rest: &[&str]) -> Outcome {
    let first = ["-x", "-f", archive.to_str().unwrap()];
    disk.run("tar", &[&first[..], rest].concat())
}

/// Runs GNU tar.
fn gnu_tar(args: &[&str]) {
    let mut tar = Command::new("tar");
    let output = tar.arg("--warning=no-timestamp").args(args).env("LC_ALL", "C").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {said}");
}

/// Returns the ranges of a file that have data.
fn data_of(path: &Path) -> Vec<(u64, u64)> {
    let file = File::open(path).unwrap();
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Ok(from) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(from)).unwrap();
        ranges.push((from, at));
    }
    ranges
}

/// Compares two folders as far as archives keep them.
fn assert_same(ours: &Path, theirs: &Path, fields: &str) {
    assert_eq!(described(ours, fields), described(theirs, fields));
    assert_eq!(attributes(ours), attributes(theirs));
    for entry in walk(theirs) {
        let (ours, theirs) = (ours.join(&entry), theirs.join(&entry));
        let metadata = fs::symlink_metadata(&theirs).unwrap();
        let ours_now = fs::symlink_metadata(&ours).unwrap();
        assert_eq!(ours_now.rdev(), metadata.rdev(), "{entry:?}");
        if metadata.is_file() {
            assert_eq!(data_of(&ours), data_of(&theirs), "{entry:?}");
            if metadata.len() < 1 << 25 {
                same_contents(&ours, &theirs);
            }
        }
    }
}

/// Returns the names below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            }
            found.push(entry.path().strip_prefix(folder).unwrap().to_owned());
        }
    }
    found
}

/// Returns the groups of names below a folder that are one file.
fn hard_links(folder: &Path) -> Vec<Vec<PathBuf>> {
    let mut groups = std::collections::BTreeMap::<u64, Vec<PathBuf>>::new();
    for entry in walk(folder) {
        let metadata = fs::symlink_metadata(folder.join(&entry)).unwrap();
        if !metadata.is_dir() && metadata.nlink() > 1 {
            groups.entry(metadata.ino()).or_default().push(entry);
        }
    }
    let sorted = groups.into_values().map(|mut names| {
        names.sort();
        names
    });
    let mut groups: Vec<Vec<PathBuf>> = sorted.collect();
    groups.sort();
    groups
}

/// Archives that GNU tar makes: name, options, and the paths if not all can be archived.
const ARCHIVES: [(&str, &[&str], &[&str]); 6] = [
    ("pax", &["--format=pax", "--sparse"], &[]),
    ("pax-0.1", &["--format=pax", "--sparse", "--sparse-version=0.1"], &[]),
    ("pax-0.0", &["--format=pax", "--sparse", "--sparse-version=0.0"], &[]),
    ("gnu", &["--format=gnu", "--sparse"], &[]),
    ("ustar", &["--format=ustar"], &USTAR),
    ("v7", &["--format=v7"], &["./a/b/block", "./a/large", "./a/link"]),
];

const USTAR: [&str; 9] = [
    "./a/b/block",
    "./a/b/c",
    "./a/large",
    "./a/link",
    "./a/link-again",
    "./a/pipe",
    "./device",
    "./null",
    "./sparse-end",
];

#[test]
fn archives_of_gnu_tar_become_its_trees() {
    let [source, theirs, ours] = [empty(), empty(), empty()];
    let Some(mount) = Mount::with(&source, "loop,acl,user_xattr") else { return };
    fill(&mount.at);
    fill_as_root(&mount.at);
    // More segments than a header of the old format has.
    let many = File::create(mount.at.join("sparse-many")).unwrap();
    for at in 0..60 {
        std::os::unix::fs::FileExt::write_all_at(&many, &pattern(4096, at), u64::from(at) << 16)
            .unwrap();
    }
    drop(many);
    must("touch", &["-d".as_ref(), "1999-01-01".as_ref(), mount.at.join("a").as_ref()]);
    let folder = mount.at.to_str().unwrap();
    for (name, options, paths) in ARCHIVES {
        let archive = source.path(name);
        let archive = archive.to_str().unwrap();
        let metadata = if name.starts_with("pax") { &GNU_METADATA[..] } else { &[] };
        let paths = if paths.is_empty() { &["."][..] } else { paths };
        let args = [options, metadata, &["--exclude=./lost+found", "-C", folder, "-cf", archive]];
        gnu_tar(&[&args.concat()[..], paths].concat());
        ours.run("mkdir", &[name]).ok();
        let report = extract(&ours, Path::new(archive), &["-C", name, "--json"]).json();
        let bytes = fs::metadata(archive).unwrap().len();
        assert_eq!(report["bytes"].as_u64(), Some(bytes), "{name}");
    }
    drop(mount);
    assert_clean(&ours);
    let mount = Mount::with(&theirs, "loop,acl,user_xattr").unwrap();
    for (name, ..) in ARCHIVES {
        let folder = mount.at.join(name);
        fs::create_dir(&folder).unwrap();
        let archive = source.path(name);
        let into = ["-xpf", archive.to_str().unwrap(), "-C", folder.to_str().unwrap()];
        gnu_tar(&[&into[..], &GNU_METADATA, &["--same-owner", "--numeric-owner"]].concat());
    }
    let ours = Mount::new(&ours).unwrap();
    for (name, ..) in ARCHIVES {
        let (ours, theirs) = (ours.at.join(name), mount.at.join(name));
        assert_eq!(hard_links(&ours), hard_links(&theirs), "{name}");
        if name == "v7" {
            // The format has no other kinds of files, and the parent is created.
            same_contents(&ours.join("a/large"), &theirs.join("a/large"));
            assert_eq!(fs::read_link(ours.join("a/link")).unwrap(), Path::new("../a/one"));
            continue;
        }
        // A directory that the archive does not have gets its time from the extraction.
        let fields = if name == "ustar" { FIELDS.replace("%T@ ", "") } else { FIELDS.to_owned() };
        assert_same(&ours, &theirs, &fields.replace("%s ", ""));
    }
}

#[test]
fn an_archive_of_nvio_becomes_its_tree() {
    let source = Disk::new(fill, &["-b", "1024", "-I", "256"]);
    let archives = [source.path("first.tar"), source.path("second.tar")];
    source.run("tar", &["-o", archives[0].to_str().unwrap()]).ok();
    let copy = empty();
    assert!(extract(&copy, &archives[0], &[]).ok().is_empty());
    assert_clean(&copy);
    copy.run("tar", &["-o", archives[1].to_str().unwrap()]).ok();
    let [first, second] = archives.map(|archive| fs::read(archive).unwrap());
    assert!(first == second, "another archive");
    // A pipe, into a tree that exists.
    let mut child = command(["tar", copy.image().to_str().unwrap(), "-x"]);
    let child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    child.stdin.take().unwrap().write_all(&first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_clean(&copy);
    assert!(copy.run("tar", &[]).ok() == first, "another archive after the second extraction");
}

/// Everything that the kernel can store, for root.
#[test]
fn a_round_trip_keeps_what_the_kernel_shows() {
    let source = Disk::new(|_| {}, &["-I", "256"]);
    let Some(mount) = Mount::with(&source, "loop,acl,user_xattr") else { return };
    fill(&mount.at);
    fill_as_root(&mount.at);
    // Names that are no text, and lists of many entries.
    let odd = OsStr::from_bytes(b"user.\xff%=41");
    let file = mount.at.join("a/large");
    must("setfattr", &["-n".as_ref(), odd, "-v".as_ref(), "odd".as_ref(), file.as_ref()]);
    let entries: Vec<String> = (1..90).map(|user| format!("u:{user}:rw")).collect();
    must("setfacl", &["-m".as_ref(), entries.join(",").as_ref(), mount.at.join("a/b").as_ref()]);
    drop(mount);
    let archive = source.path("out.tar");
    source.run("tar", &["-o", archive.to_str().unwrap()]).ok();
    let copy = empty();
    extract(&copy, &archive, &["/"]).ok();
    assert_clean(&copy);
    let mounts = [Mount::new(&copy).unwrap(), Mount::new(&source).unwrap()];
    let [ours, theirs] = [&mounts[0].at, &mounts[1].at];
    assert_eq!(hard_links(ours), hard_links(theirs));
    assert_same(ours, theirs, &FIELDS.replace("%s ", "%A@ "));
}

/// Adds a member to an archive.
fn add(archive: &mut Vec<u8>, name: &str, kind: EntryType, link: &str, data: &[u8]) {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_cksum();
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

/// Writes the members and an end mark to a file.
fn archive(disk: &Disk, members: &[(&str, EntryType, &str, &[u8])]) -> PathBuf {
    let mut bytes = Vec::new();
    members.iter().for_each(|(name, kind, link, data)| add(&mut bytes, name, *kind, link, data));
    bytes.resize(bytes.len() + 1024, 0);
    let path = disk.path("made.tar");
    fs::write(&path, bytes).unwrap();
    path
}

const FILE: EntryType = EntryType::Regular;

#[test]
fn devices_that_no_inode_has_room_for() {
    let disk = empty();
    let mut bytes = Vec::new();
    for (name, major, minor) in
        [("largest", 4095, 1_048_575), ("major", 4096, 0), ("minor", 0, 1 << 20)]
    {
        let start = bytes.len();
        add(&mut bytes, name, EntryType::Block, "", b"");
        let mut header = Header::new_ustar();
        header.as_mut_bytes().copy_from_slice(&bytes[start..]);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        header.set_cksum();
        bytes[start..].copy_from_slice(header.as_bytes());
    }
    bytes.resize(bytes.len() + 1024, 0);
    let made = disk.path("made.tar");
    fs::write(&made, bytes).unwrap();
    let outcome = extract(&disk, &made, &[]);
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (1, 2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("minor is not extracted: the device 0:1048576 is above"));
    assert_eq!(disk.run("ls", &["-A"]).text(), "largest\nlost+found\n");
    let rdev = &disk.run("stat", &["--json", "largest"]).json()["rdev"];
    assert_eq!((&rdev["major"], &rdev["minor"]), (&4095.into(), &1_048_575.into()));
    assert_clean(&disk);
}

#[test]
fn names_do_not_lead_out_of_the_directory() {
    let disk = empty();
    disk.run("mkdir", &["in", "out"]).ok();
    fs::write(disk.path("secret"), "secret").unwrap();
    disk.run("ln", &["-s", "/out", "in/existing"]).ok();
    let (link, symlink) = (EntryType::Link, EntryType::Symlink);
    let made = archive(
        &disk,
        &[
            ("/absolute/", EntryType::Directory, "", b""),
            ("//absolute/file", FILE, "", b"1"),
            ("../up", FILE, "", b"2"),
            ("absolute/../../up", FILE, "", b"3"),
            ("to-out", symlink, "/out", b""),
            ("to-out/file", FILE, "", b"4"),
            ("existing/file", FILE, "", b"5"),
            ("existing/", EntryType::Directory, "", b""),
            ("existing/inside", FILE, "", b"6"),
            ("hard-up", link, "../out", b""),
            ("hard-through", link, "to-out/x", b""),
            ("hard-dir", link, "absolute", b""),
            ("hard-none", link, "none", b""),
            ("hard-symlink", link, "/to-out", b""),
            ("hard", link, "/absolute/file", b""),
            ("replaced", symlink, "/out/made", b""),
            ("replaced", FILE, "", b"0"),
            ("unknown", EntryType::new(b'Q'), "", b"data"),
            ("absolute/file/below", FILE, "", b"7"),
            (".", FILE, "", b"8"),
            ("last", FILE, "", b"9"),
        ],
    );
    let outcome = extract(&disk, &made, &["/in"]);
    assert_eq!(outcome.code, 1);
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    let parts = [
        ("../up is not extracted", "`..`"),
        ("absolute/../../up is not extracted", "`..`"),
        ("to-out/file is not extracted", "/in/to-out is a symbolic link"),
        ("existing/file is not extracted", "/in/existing is a symbolic link"),
        ("hard-up is not extracted", "`..`"),
        ("hard-through is not extracted", "/in/to-out is a symbolic link"),
        ("hard-dir is not extracted", "is a directory"),
        ("hard-none is not extracted", "no file has the name of its target none"),
        ("unknown is not extracted", "type Q"),
        ("/in/absolute/file exists and is not a directory", "remove it first"),
        (". is not extracted", "no name"),
    ];
    assert_eq!(lines.len(), parts.len(), "{}", outcome.stderr);
    for (line, (begin, part)) in lines.iter().zip(parts) {
        assert!(line.starts_with(&format!("nvio: {begin}")) && line.contains(part), "{line}");
    }
    let found = "/ /in /in/absolute /in/absolute/file /in/existing /in/existing/inside /in/hard \
                 /in/hard-symlink /in/last /in/replaced /in/to-out /lost+found /out";
    let names = disk.run("find", &["/"]).text();
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names.join(" "), found);
    assert_eq!(disk.run("cat", &["in/hard", "in/last"]).text(), "19");
    assert_eq!(disk.run("stat", &["--json", "in/hard-symlink"]).json()["target"], "/out");
    assert_clean(&disk);
}

#[test]
fn existing_files_are_replaced_and_directories_merged() {
    let disk = empty();
    disk.run("mkdir", &["-p", "dir/sub", "empty", "full/entry"]).ok();
    fs::write(disk.path("old"), "old").unwrap();
    for target in ["dir/file", "dir/kept", "in-the-way"] {
        let put = nvio([
            "put",
            disk.image().to_str().unwrap(),
            disk.path("old").to_str().unwrap(),
            target,
        ]);
        put.ok();
    }
    disk.run("ln", &["dir/file", "other-name"]).ok();
    let made = archive(
        &disk,
        &[
            ("dir/", EntryType::Directory, "", b""),
            ("dir/file", FILE, "", b"new"),
            ("in-the-way/", EntryType::Directory, "", b""),
            ("in-the-way/file", FILE, "", b"new"),
            ("empty", FILE, "", b"new"),
            ("full", FILE, "", b"new"),
            ("dir/file2", FILE, "", b"first"),
            ("dir/file2", FILE, "", b"second"),
            ("replaced/", EntryType::Directory, "", b""),
            ("replaced", FILE, "", b"a file"),
        ],
    );
    extract(&disk, &made, &[]).refused(&["/full exists and is a directory with entries"]);
    let text = |path: &str| disk.run("cat", &[path]).text();
    for path in ["dir/file", "in-the-way/file", "empty"] {
        assert_eq!(text(path), "new");
    }
    assert_eq!((text("dir/kept"), text("other-name")), ("old".into(), "old".into()));
    assert_eq!((text("dir/file2"), text("replaced")), ("second".into(), "a file".into()));
    // The time of a directory that was replaced is not that of the file.
    for path in ["dir", "in-the-way", "replaced"] {
        let mtime = &disk.run("stat", &["--json", path]).json()["mtime"]["seconds"];
        assert_eq!(mtime, 1, "{path}");
    }
    assert_eq!(disk.run("find", &["/", "--name", ".*"]).text(), "", "no temporary names");
    assert_clean(&disk);
}

#[test]
fn damaged_archives_are_extracted_up_to_the_damage() {
    let disk = empty();
    let large = pattern(3_000_000, 1);
    let made = archive(
        &disk,
        &[
            ("dir/", EntryType::Directory, "", b""),
            ("dir/first", FILE, "", b"1"),
            ("dir/large", FILE, "", &large),
            ("dir/last", FILE, "", b"2"),
        ],
    );
    let whole = fs::read(&made).unwrap();
    let cut = disk.path("cut.tar");
    fs::write(&cut, &whole[..2_000_000]).unwrap();
    extract(&disk, &cut, &[]).refused(&[
        "cut.tar: at byte 2000000, in dir/large",
        "ends without its end mark",
        "2 members are extracted",
        "copy the archive again",
    ]);
    assert_eq!(disk.run("ls", &["dir"]).text(), "first\n");
    // The directory has its time, and a file that exists stays as it was.
    assert_eq!(disk.run("stat", &["--json", "dir"]).json()["mtime"]["seconds"], 1);
    extract(&disk, &made, &[]).ok();
    extract(&disk, &cut, &[]).refused(&["in dir/large"]);
    assert!(disk.run("cat", &["dir/large"]).stdout == large);
    let mut damaged = whole.clone();
    damaged[2 * 512 + 512 + 20] ^= 1;
    fs::write(&cut, &damaged).unwrap();
    let bad = extract(&disk, &cut, &[]);
    bad.refused(&["at byte 1536, after dir/first", "not a header of a member, by its checksum"]);
    fs::write(&cut, &whole[..whole.len() - 1024]).unwrap();
    extract(&disk, &cut, &[]).refused(&["after dir/last", "without its end mark", "4 members"]);
    fs::write(&cut, [b"\x1f\x8b\x08".as_slice(), &[0; 1000]].concat()).unwrap();
    extract(&disk, &cut, &[]).refused(&["compressed by gzip", "pipe it through `gzip -dc`"]);
    fs::write(&cut, "").unwrap();
    extract(&disk, &cut, &[]).refused(&["at byte 0, before the first member"]);
    extract(&disk, &disk.path("none"), &[]).refused(&["cannot open", "none", "No such file"]);
    extract(&disk, &made, &["/none"]).refused(&["/none: no such file"]);
    extract(&disk, &made, &["/dir/first"]).refused(&["/dir/first is not a directory", "mkdir"]);
    for args in [
        &["-x", "/a", "/b"][..],
        &["-f", "x"],
        &["-C", "/"],
        &["-x", "-o", "x"],
        &["-x", "--inode", "2"],
        &["-x", "-C", "/a", "/b"],
    ] {
        let outcome = disk.run("tar", args);
        assert_eq!(outcome.code, 2, "{args:?}");
        assert!(outcome.stderr.contains("nvio tar"), "{}", outcome.stderr);
    }
    assert_clean(&disk);
}

#[test]
fn a_full_filesystem_keeps_what_fits() {
    let disk = empty();
    let large = vec![7; 60 << 20];
    let made = archive(
        &disk,
        &[
            ("first", FILE, "", &pattern(1000, 1)),
            ("large", FILE, "", &large),
            ("small", FILE, "", &pattern(100_000, 2)),
        ],
    );
    extract(&disk, &made, &[]).refused(&["/large: no space left"]);
    let names = disk.run("ls", &["-A"]).text();
    assert_eq!(names, "first\nlost+found\nsmall\n");
    assert!(disk.run("cat", &["small"]).stdout == pattern(100_000, 2));
    assert_clean(&disk);
}

#[test]
fn a_batch_does_not_extract() {
    let disk = empty();
    let mut child = command([OsStr::new("batch"), disk.image().as_ref()]);
    let child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    child.stdin.take().unwrap().write_all(b"tar -x -f none\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("\"tar --extract\" is not a verb of a batch"), "{said}");
}
