//! `nvio df`, `du`, `find` and `tree` beside the system's own on a mount of the same image.

use crate::common;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use common::mount::Mount;
use common::{Disk, must, nvio, pattern};
use serde_json::json;

/// With files of several names, too.
fn fill(folder: &Path) {
    fill_plain(folder);
    let path = |name: &str| folder.join(name);
    fs::hard_link(path("large.bin"), path("a/b/again.bin")).unwrap();
    fs::hard_link(path("a/one"), path("a/b/c/one")).unwrap();
}

/// Names, sizes and modes of many kinds.
fn fill_plain(folder: &Path) {
    let path = |name: &str| folder.join(name);
    fs::create_dir_all(path("a/b/c/d")).unwrap();
    fs::create_dir(path("empty")).unwrap();
    fs::create_dir(path("full")).unwrap();
    for index in 0..300 {
        fs::write(path(&format!("full/{index:03}-a-name-of-some-length.txt")), "x").unwrap();
    }
    for (name, size) in [
        ("a/none", 0),
        ("a/one", 1),
        ("a/b/block", 4096),
        ("a/b/c/more", 70_001),
        ("large.bin", 3_000_001),
    ] {
        fs::write(path(name), pattern(size, 5)).unwrap();
    }
    symlink("../a/one", path("a/link")).unwrap();
    symlink("x".repeat(200), path("a/long-link")).unwrap();
    let sparse = File::create(path("a/b/sparse")).unwrap();
    sparse.write_all_at(&pattern(5000, 2), 1_000_000).unwrap();
    sparse.set_len(20_000_000).unwrap();
    fs::write(folder.join(OsStr::from_bytes(b"a/odd\xff [name]")), "x").unwrap();
    fs::set_permissions(path("a/one"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(path("a/b/block"), fs::Permissions::from_mode(0o600)).unwrap();
    let _ = Command::new("mkfifo").arg(path("a/pipe")).status();
    for (name, when) in
        [("a/none", "2001-02-03"), ("a/one", "40 days ago"), ("a/b/block", "3 days ago")]
    {
        must("touch", &["-d".as_ref(), when.as_ref(), path(name).as_ref()]);
    }
}

/// Lines in order.
fn sorted(bytes: &[u8], end: u8) -> Vec<OsString> {
    let lines = bytes.split(|&byte| byte == end).filter(|line| !line.is_empty());
    let mut lines: Vec<OsString> = lines.map(|line| OsString::from_vec(line.to_vec())).collect();
    lines.sort();
    lines
}

/// `./a` of a command that was run at the mount is `/a` here.
fn rooted(shown: &[u8]) -> Vec<u8> {
    let text = shown.split_inclusive(|&byte| byte == b'\n' || byte == 0);
    text.flat_map(|line| {
        let at = line.iter().position(|&byte| byte == b'.').unwrap_or(0);
        let (before, path) = line.split_at(at);
        let path = path.strip_prefix(b".").unwrap_or(path);
        let path = if path.first() == Some(&b'/') { path.to_vec() } else { [b"/", path].concat() };
        [before, &path].concat()
    })
    .collect()
}

#[test]
fn room_is_what_statvfs_tells() {
    for options in [
        &["-b", "1024"][..],
        &["-b", "4096"],
        &["-b", "1024", "-O", "meta_bg,^resize_inode"],
        &["-b", "4096", "-O", "meta_bg,^resize_inode,^64bit"],
        &["-b", "1024", "-O", "^flex_bg,^64bit,^metadata_csum,uninit_bg", "-g", "2048"],
        &["-b", "1024", "-O", "sparse_super2,^resize_inode", "-g", "2048"],
        &["-b", "1024", "-O", "^sparse_super,^resize_inode", "-g", "2048", "-m", "20"],
        &["-O", "bigalloc,^resize_inode", "-b", "4096", "-C", "16384"],
        &["-O", "bigalloc", "-b", "1024", "-C", "16384"],
        &["-O", "^has_journal", "-I", "128"],
        &["-O", "^extent,^64bit,^has_journal", "-m", "0"],
        &["-J", "size=8", "-N", "5000"],
        &["-O", "quota,project,orphan_file,mmp"],
    ] {
        let disk = Disk::new(fill, options);
        // mke2fs -d leaves descriptors of its own; those of the kernel count.
        let Some(mount) = Mount::new(&disk) else { return };
        let shown = mount.shows("stat", &["-f", "-c", "%S %b %f %a %c %d", "."]);
        let shown = String::from_utf8(shown).unwrap();
        let expected: Vec<u64> = shown.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let room = disk.run("df", &["--json"]).json();
        let keys =
            ["block_size", "blocks", "free_blocks", "available_blocks", "inodes", "free_inodes"];
        let found = keys.map(|key| room[key].as_u64().unwrap());
        assert_eq!(found[..], expected, "{options:?}");

        for flags in [&["-k"][..], &["-h"], &["-i"]] {
            let shown = String::from_utf8(mount.shows("df", &[flags, &["."]].concat())).unwrap();
            let cells = |text: &str| -> Vec<String> {
                let line = text.lines().nth(1).unwrap();
                line.split_whitespace().skip(1).take(4).map(str::to_owned).collect()
            };
            let flags = if flags == ["-k"] { &[] } else { flags };
            let text = disk.run("df", flags).text();
            assert_eq!(cells(&text), cells(&shown), "{options:?} {flags:?}");
        }
    }
}

/// Counts that only the journal has: those of the kernel after it has replayed it.
#[test]
fn room_of_one_that_was_not_unmounted() {
    let disk = Disk::new(|_| (), &["-b", "1024"]);
    let Some(mount) = Mount::with(&disk, "loop,commit=100") else { return };
    for index in 0..200 {
        fs::write(mount.at.join(format!("{index}")), pattern(5000, index)).unwrap();
    }
    fs::remove_file(mount.at.join("7")).unwrap();
    must("sync", &["-f".as_ref(), mount.at.as_ref()]);
    fs::create_dir(mount.at.join("last")).unwrap();
    File::open(mount.at.join("last")).unwrap().sync_all().unwrap();
    let dirty = disk.path("dirty.img");
    fs::copy(disk.image(), &dirty).unwrap();
    drop(mount);
    fs::rename(&dirty, disk.image()).unwrap();
    let before = fs::read(disk.image()).unwrap();
    let needs = disk.run("fsinfo", &[]).text();
    assert!(needs.contains(" needs_recovery "), "{needs}");
    let room = disk.run("df", &["--json"]).json();
    assert!(fs::read(disk.image()).unwrap() == before, "the image was written to");

    let mount = Mount::with(&disk, "loop").unwrap();
    let shown = mount.shows("stat", &["-f", "-c", "%b %f %a %c %d", "."]);
    let shown = String::from_utf8(shown).unwrap();
    let expected: Vec<u64> = shown.split_whitespace().map(|n| n.parse().unwrap()).collect();
    let keys = ["blocks", "free_blocks", "available_blocks", "inodes", "free_inodes"];
    assert_eq!(keys.map(|key| room[key].as_u64().unwrap())[..], expected);
}

#[test]
fn usage_is_what_du_shows() {
    for options in
        [&["-b", "1024"][..], &["-b", "4096", "-O", "^extent,^64bit"], &["-O", "inline_data"]]
    {
        let disk = Disk::new(fill_plain, options);
        let Some(mount) = Mount::new(&disk) else { return };
        for flags in [
            &[][..],
            &["-a"],
            &["-s"],
            &["-h"],
            &["-ah"],
            &["--apparent-size"],
            &["-ab"],
            &["-a", "-d", "1"],
            &["-d", "0"],
            &["-ac"],
        ] {
            same_usage(&disk, &mount, flags, &["/"]);
            same_usage(&disk, &mount, flags, &["/a"]);
            same_usage(&disk, &mount, flags, &["/a/b", "/a", "/full", "/large.bin", "/a/one"]);
        }
    }
    // In which directory a file with several names counts depends on the order.
    let disk = Disk::new(fill, &[]);
    let Some(mount) = Mount::new(&disk) else { return };
    for flags in [&["-s"][..], &["-sc"], &["-sb"]] {
        same_usage(&disk, &mount, flags, &["/"]);
        same_usage(&disk, &mount, flags, &["/large.bin", "/a", "/a/b/c/one", "/"]);
        same_usage(&disk, &mount, flags, &["/a/b/again.bin", "/large.bin"]);
    }
}

fn same_usage(disk: &Disk, mount: &Mount, flags: &[&str], paths: &[&str]) {
    let here: Vec<String> = paths.iter().map(|path| format!(".{path}")).collect();
    let args: Vec<&str> = flags.iter().copied().chain(here.iter().map(String::as_str)).collect();
    let lines = |shown: &[u8], dot: &str| {
        let lines = sorted(shown, b'\n').into_iter();
        let mut lines: Vec<String> =
            lines.map(|line| line.to_string_lossy().replace(&format!("\t{dot}/"), "\t/")).collect();
        lines.sort();
        lines
    };
    let expected = lines(&mount.shows("du", &args), ".");
    let shown = lines(&disk.run("du", &[flags, paths].concat()).ok(), "");
    assert_eq!(shown, expected, "{flags:?} {paths:?}");
}

#[test]
fn usage_as_json() {
    let disk = Disk::new(fill, &["-b", "1024"]);
    let report = disk.run("du", &["--json", "-a", "-c", "/a/b/c"]).json();
    let last = report.as_array().unwrap().len() - 1;
    assert_eq!(report[last]["total"], true);
    assert_eq!(report[last - 1]["path"], "/a/b/c");
    assert_eq!(report[last]["bytes"], report[last - 1]["bytes"]);
    let size = |path: &str| {
        let of = |item: &&serde_json::Value| item["path"] == path;
        report.as_array().unwrap().iter().find(of).unwrap()["bytes"].clone()
    };
    assert_eq!((size("/a/b/c/more"), size("/a/b/c/one")), (json!(69 * 1024), json!(1024)));
    assert_eq!(disk.run("du", &["-sb", "/a/one"]).text(), "1\t/a/one\n");
}

/// The condition of find and that of `nvio find`.
const CONDITIONS: [(&str, &str); 37] = [
    ("", ""),
    ("-name *.bin", "--name *.bin"),
    ("-name a", "--name a"),
    ("-name [ab]*", "--name [ab]*"),
    ("-name ?????", "--name ?????"),
    ("-name *\\[name\\]", "--name *\\[name\\]"),
    ("-path ./a/*/c*", "--path /a/*/c*"),
    ("-type f", "--type f"),
    ("-type d", "--type d"),
    ("-type l", "--type l"),
    ("-type f,l,p", "--type f,l,p"),
    ("-type p", "--type=p"),
    ("-type s,b,c", "--type s,b,c"),
    ("-size 0", "--size 0"),
    ("-size 1", "--size 1"),
    ("-size +8", "--size +8"),
    ("-size -2k", "--size -2k"),
    ("-size 4096c", "--size 4096c"),
    ("-size +1M -type f", "--size +1M --type f"),
    ("-size 3M", "--size 3M"),
    ("-size -1G", "--size -1G"),
    ("-mtime +30", "--mtime +30"),
    ("-mtime -5", "--mtime -5"),
    ("-mtime 3", "--mtime 3"),
    ("-newer ./a/b/block", "--newer /a/b/block"),
    ("-newer ./a/none -type f -name one", "--newer /a/none --type f --name one"),
    ("-uid 0", "--uid 0"),
    ("-uid +0", "--uid +0"),
    ("-gid -1", "--gid -1"),
    ("-perm 4751", "--perm 4751"),
    ("-perm -4000", "--perm -4000"),
    ("-perm /022", "--perm /022"),
    ("-perm 600", "--perm=600"),
    ("-links 2", "--links 2"),
    ("-links +2 -type d", "--links +2 --type d"),
    ("-maxdepth 0", "--maxdepth 0"),
    ("-mindepth 1 -maxdepth 2", "--mindepth 1 --maxdepth 2"),
];

#[test]
fn find_agrees_with_findutils() {
    let disk = Disk::new(fill, &["-b", "1024"]);
    let Some(mount) = Mount::new(&disk) else { return };
    let inode = String::from_utf8(mount.shows("stat", &["-c", "%i", "a/b"])).unwrap();
    let by_number = (format!("-inum {inode}"), format!("--inum {inode}"));
    let conditions = CONDITIONS.iter().map(|&(theirs, ours)| (theirs.to_owned(), ours.to_owned()));
    let mut found = 0;
    for (theirs, ours) in conditions.chain([by_number]) {
        for path in ["/", "/a", "/a/b/c"] {
            let here = format!(".{path}");
            let here = here.strip_suffix('/').unwrap_or(&here);
            // Options about depth come first there.
            let mut args = vec![here];
            args.extend(theirs.split_whitespace());
            args.push("-print0");
            let expected = sorted(&rooted(&mount.shows("find", &args)), 0);
            let mut args = vec![path, "--print0"];
            args.extend(ours.split_whitespace());
            let shown = sorted(&disk.run("find", &args).ok(), 0);
            assert_eq!(shown, expected, "{theirs} in {path}");
            found += shown.len();
        }
    }
    assert!(found > 1000, "{found}");
}

/// Without root: against the folder that the image is of.
#[test]
fn find_agrees_with_find_in_the_source_folder() {
    let disk = Disk::new(fill, &[]);
    let folder = disk.folder();
    let expected = must("find", &[folder.as_ref(), "-name".as_ref(), "*o*".as_ref()]);
    let prefix = folder.to_str().unwrap().to_owned();
    let expected = expected.replace(&prefix, "");
    let mut expected: Vec<&str> = expected.lines().filter(|line| !line.is_empty()).collect();
    expected.push("/lost+found");
    expected.sort_unstable();
    let shown = disk.run("find", &["--name", "*o*"]).ok();
    let shown = String::from_utf8_lossy(&shown).into_owned();
    let mut shown: Vec<&str> = shown.lines().collect();
    shown.sort_unstable();
    assert_eq!(shown, expected);
    // What comes in a directory comes behind it.
    assert_eq!(disk.run("find", &["/a/b", "--type", "d"]).text(), "/a/b\n/a/b/c\n/a/b/c/d\n");
    let report = disk.run("find", &["--json", "/a/link", "/empty"]).json();
    assert_eq!((&report[0]["path"], &report[0]["target"]), (&json!("/a/link"), &json!("../a/one")));
    assert_eq!((&report[1]["kind"], report[1]["blocks_512"].is_u64()), (&json!("directory"), true));
}

#[test]
fn trees() {
    let disk = Disk::new(
        |folder| {
            fs::create_dir_all(folder.join("a/b/c")).unwrap();
            fs::create_dir(folder.join("z")).unwrap();
            for name in ["a/b/c/deep", "a/b/x", "a/file", "z/last"] {
                fs::write(folder.join(name), name).unwrap();
            }
            symlink("file", folder.join("a/to")).unwrap();
        },
        &[],
    );
    let expected = "\
/
\u{251c}\u{2500}\u{2500} a
\u{2502}\u{a0}\u{a0} \u{251c}\u{2500}\u{2500} b
\u{2502}\u{a0}\u{a0} \u{2502}\u{a0}\u{a0} \u{251c}\u{2500}\u{2500} c
\u{2502}\u{a0}\u{a0} \u{2502}\u{a0}\u{a0} \u{2502}\u{a0}\u{a0} \u{2514}\u{2500}\u{2500} deep
\u{2502}\u{a0}\u{a0} \u{2502}\u{a0}\u{a0} \u{2514}\u{2500}\u{2500} x
\u{2502}\u{a0}\u{a0} \u{251c}\u{2500}\u{2500} file
\u{2502}\u{a0}\u{a0} \u{2514}\u{2500}\u{2500} to -> file
\u{251c}\u{2500}\u{2500} lost+found
\u{2514}\u{2500}\u{2500} z
    \u{2514}\u{2500}\u{2500} last

5 directories, 5 files
";
    assert_eq!(disk.run("tree", &[]).text(), expected);
    let shallow = disk.run("tree", &["/a", "-L", "1"]).text();
    assert!(shallow.starts_with("/a\n\u{251c}\u{2500}\u{2500} b\n\u{251c}"), "{shallow}");
    assert!(shallow.ends_with("\n\n1 directory, 2 files\n"), "{shallow}");
    let report = disk.run("tree", &["--json", "/a"]).json();
    let paths: Vec<&str> =
        report.as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/a/b", "/a/b/c", "/a/b/c/deep", "/a/b/x", "/a/file", "/a/to"]);
    assert_eq!((&report[2]["depth"], &report[5]["target"]), (&json!(3), &json!("file")));
    disk.run("tree", &["/none"]).refused(&["/none: no such file or directory"]);
}

/// One inode that cannot be read is told of; the rest is shown, and the exit code is 1.
#[test]
fn unreadable_paths_are_left_out() {
    let disk = Disk::new(fill, &["-I", "256"]);
    disk.debugfs("set_inode_field a/b/c/more mode 0");
    disk.debugfs("set_inode_field a/b/c/d mode 0");
    // debugfs makes checksums right: the mode itself is what is wrong.
    for (verb, flags) in [("du", &["-a", "/a"][..]), ("find", &["/a"]), ("tree", &["/a"])] {
        let outcome = disk.run(verb, flags);
        assert_eq!(outcome.code, 1, "{verb}");
        let lines: Vec<&str> = outcome.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{verb}: {}", outcome.stderr);
        assert!(lines[0].starts_with("nvio: /a/b/c/d: "), "{}", lines[0]);
        assert!(lines[1].starts_with("nvio: /a/b/c/more: "), "{}", lines[1]);
        let shown = String::from_utf8_lossy(&outcome.stdout).into_owned();
        assert!(shown.contains("again.bin") && shown.contains("none"), "{verb}: {shown}");
        assert_eq!(shown.contains("more [cannot be read]"), verb == "tree");
    }
    // Of several paths, those that are there are shown.
    for verb in ["du", "find"] {
        let outcome = disk.run(verb, &["/none", "/empty"]);
        assert_eq!((outcome.code, outcome.stderr.lines().count()), (1, 1));
        assert!(String::from_utf8_lossy(&outcome.stdout).contains("/empty\n"));
        disk.run(verb, &["/none"]).refused(&["/none: no such file or directory"]);
    }
    disk.run("find", &["--newer", "/none"]).refused(&["/none: no such file or directory"]);
}

#[test]
fn conditions_that_are_none() {
    for args in [
        &["--size", "5x"][..],
        &["--type", "x"],
        &["--perm", "9"],
        &["--mtime", "a"],
        &["--uid", "-"],
        &["--maxdepth", "-1"],
        &["--print0", "--json"],
        &["--frob"],
    ] {
        let outcome = nvio(["find", "disk.img", "/"].iter().chain(args));
        assert_eq!((outcome.code, &*outcome.stdout), (2, &b""[..]), "{args:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
    for args in [&["du", "x", "-as"][..], &["du", "x", "-hb"], &["tree", "x", "-L", "0"], &["df"]] {
        assert_eq!(nvio(args).code, 2, "{args:?}");
    }
    for verb in ["df", "du"] {
        assert!(nvio([verb, "--help"]).text().contains("-h, --human-readable"));
    }
}
