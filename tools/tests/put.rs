//! `nvio put`: trees of this machine beside their copies, as the kernel and rsync see both.

use crate::common;

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use common::mount::Mount;
use common::{Disk, command, must, nvio, pattern};

/// A folder of this machine beside an empty filesystem.
fn empty() -> Disk {
    Disk::new(|_| {}, &[])
}

fn assert_clean(disk: &Disk) {
    must("e2fsck", &["-f".as_ref(), "-n".as_ref(), disk.image().as_ref()]);
}

/// `nvio put OPTIONS IMAGE NAMES... TARGET`, with names in the work folder.
fn put(disk: &Disk, options: &[&str], names: &[&str], target: &str) -> common::Outcome {
    let output = command(["put"])
        .args(options)
        .arg(disk.image())
        .args(names.iter().map(OsStr::new))
        .arg(target)
        .current_dir(disk.dir.path())
        .output()
        .unwrap();
    common::Outcome {
        code: output.status.code().unwrap(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Fills a folder with files of all kinds.
fn fill(folder: &Path) {
    let deep = folder.join("a/".repeat(300));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "deep").unwrap();
    fs::write(folder.join("empty"), "").unwrap();
    fs::write(folder.join("large"), pattern(3_000_001, 1)).unwrap();
    for name in [&b"\xff\xfe\n\t"[..], &[b'n'; 255], "ä漢".as_bytes(), b"-r", b"a\\b"] {
        fs::write(folder.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let sparse = File::create(folder.join("sparse")).unwrap();
    sparse.write_all_at(b"start", 0).unwrap();
    sparse.write_all_at(&pattern(50_000, 2), 5_000_001).unwrap();
    sparse.set_len(1 << 26).unwrap();
    File::create(folder.join("hole")).unwrap().set_len(70_001).unwrap();
    fs::create_dir(folder.join("many")).unwrap();
    for file in 0..1500 {
        fs::write(folder.join(format!("many/{file}")), pattern(file, 4)).unwrap();
    }
    fs::hard_link(folder.join("large"), folder.join("a/a/second")).unwrap();
    fs::hard_link(folder.join("many/7"), folder.join("third")).unwrap();
    symlink("a/a/second", folder.join("link")).unwrap();
    symlink("x".repeat(900), folder.join("long link")).unwrap();
    symlink("/", folder.join("root")).unwrap();
    must("mkfifo", &[folder.join("pipe").as_ref()]);
    std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    for (name, mode) in [("empty", 0), ("large", 0o4751), ("many", 0o2770), ("third", 0o640)] {
        fs::set_permissions(folder.join(name), Permissions::from_mode(mode)).unwrap();
    }
}

/// Adds metadata that needs root.
fn fill_as_root(folder: &Path) {
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {output:?}");
    };
    run("mknod", &["char", "c", "5", "300"]);
    run("mknod", &["block", "b", "260", "70000"]);
    run("chown", &["-h", "1000:70000", "large", "link", "many", "pipe"]);
    run("chmod", &["4751", "large"]);
    run("setfattr", &["-n", "user.text", "-v", "a value", "large", "many"]);
    run("setfattr", &["-n", "trusted.bytes", "-v", "0x00ff", "a"]);
    run("setfacl", &["-m", "u:7:rw,g:9:r", "third", "many"]);
    run("setfacl", &["-d", "-m", "u:8:rwx,o:-", "many"]);
    run("touch", &["-h", "-d", "2001-02-03T04:05:06.123456789Z", "link", "large", "a/a", "pipe"]);
    run("touch", &["-d", "1930-01-01T00:00:00Z", "many", "empty"]);
    run("touch", &["-a", "-d", "2100-01-01T00:00:00.5Z", "large"]);
}

/// Returns the entries below a folder: names, kinds, permissions, links and sizes, and with `full` owners,
/// times and the numbers of devices.
fn listing(folder: &Path, full: bool) -> Vec<Vec<u8>> {
    let format = match full {
        true => "%P\\t%y\\t%m\\t%U\\t%G\\t%n\\t%l\\t%T@\\0",
        false => "%P\\t%y\\t%n\\t%l\\0",
    };
    let output = Command::new("find").arg(folder).args(["-printf", format]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut lines: Vec<Vec<u8>> =
        output.stdout.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_tree_is_as_the_kernel_sees_its_source() {
    let disk = empty();
    let source = disk.path("source");
    fs::create_dir(&source).unwrap();
    fill(&source);
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        fill_as_root(&source);
    }
    put(&disk, &["-rp"], &["source"], "/").ok();
    put(&disk, &["-rp"], &["source"], "/second").ok();
    put(&disk, &["-r"], &["source"], "/plain").ok();
    assert_clean(&disk);
    // One block of the hole's file or the sparse file's would be more than this.
    for (name, most) in [("hole", 0), ("sparse", 200)] {
        let blocks = disk.run("stat", &["--json", &format!("source/{name}")]).json();
        assert!(blocks["blocks_512"].as_u64().unwrap() <= most, "{name}: {blocks}");
    }
    let Some(mount) = Mount::new(&disk) else { return };
    assert_eq!(listing(&mount.at.join("source"), true), listing(&source, true));
    assert_eq!(listing(&mount.at.join("second"), true), listing(&source, true));
    for copy in ["source", "second"] {
        let from = format!("{}/", source.display());
        let to = format!("{}/", mount.at.join(copy).display());
        let options = ["-aHAXxn", "--delete", "--checksum", "--itemize-changes"];
        let arguments: Vec<&OsStr> =
            options.iter().copied().chain([&*from, &*to]).map(OsStr::new).collect();
        assert_eq!(must("rsync", &arguments), "", "{copy}");
    }
    // Without -p, the names, the data and the permissions.
    assert_eq!(listing(&mount.at.join("plain"), false), listing(&source, false));
    must(
        "diff",
        &["-r", "--no-dereference", "--exclude=sparse"]
            .map(OsStr::new)
            .into_iter()
            .chain([source.join("many").as_ref(), mount.at.join("plain/many").as_ref()])
            .collect::<Vec<_>>(),
    );
    let shown = mount.shows("stat", &["-c", "%a %u %g", "plain/large", "plain/many"]);
    assert_eq!(String::from_utf8(shown).unwrap(), "751 0 0\n770 0 0\n");
}

#[test]
fn a_file_with_holes_is_put_by_its_data() {
    let disk = empty();
    let file = File::create(disk.path("file")).unwrap();
    let mut expected = vec![0; 1_000_000];
    // Ranges that begin and end inside of blocks.
    for (seed, range) in [(1, 4096..9000), (2, 300_001..300_002), (3, 700_000..900_123)] {
        let data = pattern(range.len(), seed);
        file.write_all_at(&data, range.start as u64).unwrap();
        expected[range].copy_from_slice(&data);
    }
    file.set_len(1_000_000).unwrap();
    put(&disk, &[], &["file"], "/copy").ok();
    put(&disk, &[], &["/proc/version"], "/").ok();
    assert!(disk.run("cat", &["copy"]).stdout == expected);
    assert_eq!(disk.run("cat", &["version"]).stdout, fs::read("/proc/version").unwrap());
    assert_clean(&disk);
}

#[test]
fn targets_that_exist() {
    let disk = empty();
    fs::create_dir_all(disk.path("tree/sub")).unwrap();
    fs::write(disk.path("tree/sub/file"), "new").unwrap();
    fs::write(disk.path("file"), "a file").unwrap();
    fs::hard_link(disk.path("file"), disk.path("tree/hard")).unwrap();
    disk.run("mkdir", &["-p", "tree/sub/file", "file", "other"]).ok();
    // A directory in the way of a file, and the rest is copied.
    put(&disk, &["-r"], &["tree"], "/").refused(&["/tree/sub/file exists and is a directory"]);
    assert_eq!(disk.run("cat", &["tree/hard"]).stdout, b"a file");
    put(&disk, &[], &["file"], "/").refused(&["/file exists and is a directory"]);
    disk.run("rm", &["-d", "tree/sub/file", "file"]).ok();
    // An existing file is replaced; its other name keeps the old contents.
    disk.run("ln", &["tree/hard", "old"]).ok();
    fs::write(disk.path("other"), "other contents").unwrap();
    put(&disk, &[], &["other"], "/tree/hard").ok();
    assert_eq!(disk.run("cat", &["old"]).stdout, b"a file");
    assert_eq!(disk.run("cat", &["tree/hard"]).stdout, b"other contents");
    // Entries are merged, and a file of two names is one file again.
    put(&disk, &["-r"], &["tree/.", "file"], "/tree").ok();
    put(&disk, &["-r"], &["tree/.", "file"], "/tree").ok();
    assert_eq!(disk.run("cat", &["tree/hard", "tree/file"]).stdout, b"a filea file");
    assert_eq!(disk.run("stat", &["--json", "tree/hard"]).json()["links"], 2);
    assert_eq!(disk.run("cat", &["tree/sub/file"]).stdout, b"new");
    // A directory is not put over a file.
    put(&disk, &["-r"], &["tree"], "/old").refused(&["/old exists and is not a directory"]);
    let names = disk.run("find", &["/", "--name", ".*"]).text();
    assert_eq!(names, "", "no temporary names");
    assert_clean(&disk);
}

#[test]
fn a_full_filesystem() {
    let disk = empty();
    fs::create_dir(disk.path("tree")).unwrap();
    fs::write(disk.path("tree/first"), pattern(1000, 1)).unwrap();
    let large = File::create(disk.path("tree/large")).unwrap();
    for mebibyte in 0..60 {
        large.write_all_at(&pattern(1 << 20, mebibyte), u64::from(mebibyte) << 20).unwrap();
    }
    fs::write(disk.path("tree/small"), pattern(100_000, 2)).unwrap();
    put(&disk, &["-r"], &["tree"], "/").refused(&["/tree/large: no space left"]);
    // The incomplete file is gone, and those after it have its space.
    assert_eq!(disk.run("ls", &["tree"]).text(), "first\nsmall\n");
    assert!(disk.run("cat", &["tree/small"]).stdout == pattern(100_000, 2));
    // An existing file stays as it was.
    put(&disk, &[], &["tree/large"], "/tree/small").refused(&["no space left"]);
    assert!(disk.run("cat", &["tree/small"]).stdout == pattern(100_000, 2));
    assert_eq!(disk.run("ls", &["-a", "tree"]).text(), ".\n..\nfirst\nsmall\n");
    assert_clean(&disk);
}

#[test]
fn sources_that_are_refused() {
    let disk = empty();
    fs::create_dir_all(disk.path("tree/x")).unwrap();
    fs::create_dir(disk.path("x")).unwrap();
    must("mkfifo", &[disk.path("pipe").as_ref()]);
    fs::write(disk.path("file"), "x").unwrap();
    put(&disk, &[], &["tree", "file"], "/").refused(&["tree is a directory; `nvio put -r`"]);
    assert_eq!(disk.run("cat", &["file"]).stdout, b"x", "the rest is copied");
    put(&disk, &[], &["pipe"], "/").refused(&["pipe is not a regular file", "`nvio put -r`"]);
    put(&disk, &[], &["none"], "/").refused(&["cannot read none", "No such file"]);
    put(&disk, &[], &["file"], "/new/").refused(&["/new/ does not exist; leave out the slash"]);
    put(&disk, &[], &["file", "pipe"], "/new").refused(&["/new does not exist", "nvio mkdir"]);
    put(&disk, &[], &["file"], "/none/new").refused(&["/none/: no such file"]);
    put(&disk, &["-r"], &["tree/x", "x"], "/").refused(&["will not overwrite just-created /x"]);
    put(&disk, &[], &["disk.img"], "/").refused(&["disk.img is not copied: it is the image"]);
    // Symbolic links are followed without -r.
    symlink("file", disk.path("link")).unwrap();
    put(&disk, &[], &["link"], "/").ok();
    assert_eq!(disk.run("stat", &["--json", "link"]).json()["kind"], "file");
    assert_eq!(nvio(["put", "disk.img", "one"]).code, 2);
    assert_clean(&disk);
}
