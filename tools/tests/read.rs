//! `ls`, `stat`, `map`, `cat` and `identify` on images that mke2fs made.

use crate::common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use common::{Disk, command, must, nvio, pattern};

fn fill(folder: &Path) {
    fs::create_dir_all(folder.join("a/b")).unwrap();
    fs::write(folder.join("a/hello"), "hello\n").unwrap();
    fs::hard_link(folder.join("a/hello"), folder.join("a/second")).unwrap();
    symlink("../a/hello", folder.join("a/link")).unwrap();
    fs::write(folder.join("large"), pattern(3_000_001, 1)).unwrap();
    fs::write(folder.join(OsStr::from_bytes(b"odd\xff\nname")), "x").unwrap();
    let sparse = File::create(folder.join("sparse")).unwrap();
    sparse.write_all_at(&pattern(5000, 2), 100_000).unwrap();
    sparse.set_len(2_000_000).unwrap();
    fs::set_permissions(folder.join("a/hello"), fs::Permissions::from_mode(0o4751)).unwrap();
}

#[test]
fn files_are_read_whole_and_in_part_with_every_block_size() {
    for (block, inode, lba) in [
        ("1024", "256", "512"),
        ("4096", "256", "512"),
        ("4096", "256", "4096"),
        ("4096", "128", "512"),
    ] {
        let disk = Disk::new(fill, &["-b", block, "-I", inode]);
        for name in ["large", "sparse", "a/hello"] {
            let expected = fs::read(disk.folder().join(name)).unwrap();
            let read = disk.run("cat", &[name, "--lba-size", lba]).ok();
            assert!(read == expected, "{name} with blocks of {block} on LBAs of {lba}");
        }
        let large = fs::read(disk.folder().join("large")).unwrap();
        for (offset, length) in [(0, 1), (511, 2), (4095, 4098), (2_999_990, 100), (3_000_001, 5)] {
            let (from, upto) = (offset.to_string(), length.to_string());
            let flags = ["large", "--lba-size", lba, "--offset", &from, "--length", &upto];
            let end = (offset + length).min(large.len());
            assert!(disk.run("cat", &flags).ok() == large[offset..end], "{offset} + {length}");
        }
    }
}

#[test]
fn several_files_are_written_one_after_the_other() {
    let disk = Disk::new(fill, &[]);
    assert_eq!(disk.run("cat", &["/a/hello", "/a/link", "a/second"]).text(), "hello\n".repeat(3));
    assert_eq!(disk.run("cat", &["a/link", "a/hello", "--length", "2"]).text(), "hehe");
    assert_eq!(disk.run("cat", &["a/hello", "--offset", "1K", "--length", "1G"]).text(), "");
    // The files before the failure have been written.
    let outcome = disk.run("cat", &["a/hello", "none"]);
    assert_eq!((outcome.code, &*outcome.stdout), (1, &b"hello\n"[..]));
    assert_eq!(outcome.stderr, "nvio: /none: no such file or directory\n");
}

#[test]
fn the_paths_after_a_missing_one_are_shown() {
    let disk = Disk::new(fill, &[]);
    let outcome = disk.run("cat", &["/none", "a/hello", "a"]);
    assert_eq!((outcome.code, &*outcome.stdout), (1, &b"hello\n"[..]));
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(lines[0], "nvio: /none: no such file or directory");
    assert!(lines.len() == 2 && lines[1].starts_with("nvio: /a is a directory"), "{lines:?}");
    for verb in ["stat", "map"] {
        let outcome = disk.run(verb, &["--json", "/none", "a/hello"]);
        assert_eq!((outcome.code, outcome.stderr.lines().count()), (1, 1), "{verb}");
        let json: serde_json::Value = serde_json::from_slice(&outcome.stdout).unwrap();
        let paths: Vec<_> = json.as_array().unwrap().iter().map(|found| &found["path"]).collect();
        assert_eq!(paths, ["/a/hello"], "{verb}");
        disk.run(verb, &["--json", "/none"]).refused(&["/none: no such file or directory"]);
    }
}

#[test]
fn the_listing_matches_the_folder() {
    let disk = Disk::new(fill, &["-I", "256"]);
    let listed = disk.run("ls", &["-lR", "--json"]).json();
    let listed = listed.as_array().unwrap();
    let find = |path: &str| {
        let of = |item: &&serde_json::Value| item["path"] == path;
        listed.iter().find(of).unwrap_or_else(|| panic!("no {path}"))
    };
    for (path, kind) in [
        ("/a", "directory"),
        ("/a/b", "directory"),
        ("/a/hello", "file"),
        ("/a/link", "symlink"),
        ("/large", "file"),
    ] {
        let (item, meta) = (find(path), disk.folder().join(&path[1..]).symlink_metadata().unwrap());
        assert_eq!(item["kind"], kind);
        assert_eq!(item["mode"], format!("{:07o}", meta.mode()), "{path}");
        assert_eq!(item["mtime"]["seconds"], meta.mtime(), "{path}");
        assert_eq!((&item["uid"], &item["gid"]), (&meta.uid().into(), &meta.gid().into()));
        if !meta.is_dir() {
            assert_eq!((&item["size"], &item["links"]), (&meta.len().into(), &meta.nlink().into()));
        }
    }
    assert_eq!(find("/a/link")["target"], "../a/hello");
    assert_eq!(find("/a/hello")["inode"], find("/a/second")["inode"]);
    let odd = find("/odd\u{fffd}\nname");
    assert_eq!(odd["path_hex"], "2f6f6464ff0a6e616d65");
    // a, b, hello, link, second, large, lost+found, odd, sparse
    assert_eq!(listed.len(), 9);
}

#[test]
fn the_listing_as_text() {
    let disk = Disk::new(fill, &[]);
    assert_eq!(disk.run("ls", &["a"]).text(), "b\nhello\nlink\nsecond\n");
    assert_eq!(disk.run("ls", &["a/hello", "a/b"]).text(), "/a/hello\n\n/a/b:\n");
    // In a pipe, names are not escaped.
    let names = disk.run("ls", &[]).ok();
    assert!(names.windows(9).any(|part| part == b"odd\xff\nname"));
    let long = disk.run("ls", &["-l", "a"]).text();
    let link = long.lines().find(|line| line.ends_with("link -> ../a/hello")).unwrap();
    assert!(link.starts_with("lrwxrwxrwx    1 "), "{link}");
    assert!(long.contains("-rwsr-x--x    2 "), "{long}");
    // A link is followed, unless its own details are shown.
    symlink_to_directory(&disk);
    assert_eq!(disk.run("ls", &["to-a"]).text(), "b\nhello\nlink\nsecond\n");
    assert!(disk.run("ls", &["-l", "to-a"]).text().ends_with("/to-a -> a\n"));
}

fn symlink_to_directory(disk: &Disk) {
    disk.debugfs("symlink to-a a");
}

#[test]
fn a_brief_json_listing_has_no_details() {
    let disk = Disk::new(fill, &[]);
    let listed = disk.run("ls", &["--json", "/a"]).json();
    assert_eq!(listed[1]["path"], "/a/hello");
    assert_eq!(listed[1]["kind"], "file");
    assert!(listed[1].get("mode").is_none());
    assert_eq!(disk.run("ls", &["--json", "/a/b"]).text(), "[]\n");
}

#[test]
fn stat_is_an_object_for_one_path_and_an_array_for_more() {
    let disk = Disk::new(fill, &["-I", "256"]);
    // Nanoseconds, and a time before 1970: neither comes through mke2fs -d.
    disk.debugfs("set_inode_field a/hello mtime_extra 0x1d6f3454");
    disk.debugfs("set_inode_field a/hello atime 0xffffffff");
    disk.debugfs("set_inode_field a/hello atime_extra 0");
    let one = disk.run("stat", &["--json", "a/hello"]).json();
    assert_eq!(one["mtime"]["nanoseconds"], 0x1d6f_3454 >> 2);
    assert_eq!(one["atime"]["seconds"], -1);
    assert_eq!(one["blocks_512"].as_u64().map(|blocks| blocks > 0), Some(true));
    let two = disk.run("stat", &["--json", "a/hello", "a/link"]).json();
    assert_eq!(two[0], one);
    assert_eq!(two[1]["target"], "../a/hello");
    let text = disk.run("stat", &["a/hello"]).text();
    assert!(text.contains("Mode: 4751 -rwsr-x--x"), "{text}");
    assert!(text.contains("Access: 1969-12-31 23:59:59.000000000 UTC"), "{text}");
}

/// debugfs is another reader of the same tree.
#[test]
fn the_map_is_where_debugfs_finds_the_blocks() {
    let disk = Disk::new(fill, &["-b", "1024"]);
    for name in ["large", "sparse", "a/hello"] {
        let map = disk.run("map", &["--json", name]).json();
        let block = map["block_size"].as_u64().unwrap();
        let number = |item: &serde_json::Value, key: &str| item[key].as_u64().unwrap();
        let mut blocks = Vec::new();
        for extent in map["extents"].as_array().unwrap() {
            assert_eq!(extent["unwritten"], false);
            let first = number(extent, "physical") / block;
            blocks.extend(first..first + number(extent, "length") / block);
        }
        let shown = disk.debugfs(&format!("blocks {name}"));
        let expected: Vec<u64> = shown.split_whitespace().map(|n| n.parse().unwrap()).collect();
        // debugfs also lists the blocks of the tree itself.
        let (data, tree): (Vec<u64>, Vec<u64>) = expected.iter().partition(|n| blocks.contains(n));
        assert_eq!(data, blocks, "{name}");
        assert!(tree.len() <= 1, "{name}: {tree:?}");
        let last = map["extents"].as_array().unwrap().last().unwrap();
        assert_eq!(last["last"], true);
    }
    let text = disk.run("map", &["sparse"]).text();
    assert!(text.starts_with("File size of /sparse is 2000000 (1954 blocks of 1024 bytes)\n"));
    assert!(text.ends_with("extent found\n") || text.ends_with("extents found\n"), "{text}");
}

#[test]
fn identify_shows_the_size_and_the_format_in_use() {
    let disk = Disk::new(|_| (), &[]);
    for lba in [512, 4096] {
        let report = disk.run("identify", &["--json", "--lba-size", &lba.to_string()]).json();
        let namespace = &report["namespaces"][0];
        assert_eq!((&namespace["size"], &namespace["lba_size"]), (&(48 << 20).into(), &lba.into()));
        let formats = namespace["lba_formats"].as_array().unwrap();
        let in_use: Vec<_> = formats.iter().filter(|format| format["in_use"] == true).collect();
        assert_eq!(in_use.len(), 1);
        assert_eq!(in_use[0]["lba_size"], lba);
        assert_eq!(report["active_namespaces"], serde_json::json!([1]));
    }
    let text = disk.run("identify", &[]).text();
    assert!(text.contains("50331648 bytes (48.00 MiB)") && text.contains("in use"), "{text}");
}

#[test]
fn partitions_of_both_kinds() {
    let disk = Disk::new(fill, &[]);
    let whole = disk.path("whole.img");
    let script = disk.path("script");
    for (label, number, script_text) in [
        ("gpt", "2", "start=2048,size=2048\nstart=8192,size=98304\n"),
        ("dos", "5", "start=2048,size=2048\nstart=4096,type=5\nstart=8192,size=98304\n"),
    ] {
        let file = File::create(&whole).unwrap();
        file.set_len(64 << 20).unwrap();
        fs::write(&script, script_text).unwrap();
        let shell = format!("sfdisk -q --label {label} \"$0\" < \"$1\"");
        must("sh", &["-c".as_ref(), shell.as_ref(), whole.as_ref(), script.as_ref()]);
        let file = File::options().write(true).open(&whole).unwrap();
        file.write_all_at(&fs::read(disk.image()).unwrap(), 8192 * 512).unwrap();

        let on = |verb: &str, rest: &[&str]| {
            let first = [OsStr::new(verb), whole.as_ref()];
            nvio(first.into_iter().chain(rest.iter().map(OsStr::new)))
        };
        assert_eq!(on("cat", &["--partition", number, "a/hello"]).text(), "hello\n");
        let large = fs::read(disk.folder().join("large")).unwrap();
        assert!(on("cat", &["--partition", number, "large"]).ok() == large);
        // Positions are from the start of the partition.
        let map = on("map", &["--json", "--partition", number, "large"]).json();
        assert_eq!(map, disk.run("map", &["--json", "large"]).json());
        on("ls", &["--partition", "9"]).refused(&[
            "there is no partition 9",
            label_name(label),
            "--partition N",
        ]);
        on("ls", &["--partition", "1"]).refused(&[
            "not an ext4 filesystem",
            label_name(label),
            "--partition N",
        ]);
        on("ls", &[]).refused(&["not an ext4 filesystem", label_name(label), "--partition N"]);
    }
    disk.run("ls", &["--partition", "1"]).refused(&["no partition table"]);
}

fn label_name(label: &str) -> &'static str {
    match label {
        "gpt" => {
            "the GPT has 1 (1M at 1M, Linux filesystem), 2 (48M at 4M, Linux filesystem, ext4)"
        }
        _ => "5 (48M at 4M, Linux, ext4)",
    }
}

/// A reader that closes the pipe causes neither an error nor a message.
#[test]
fn a_closed_pipe_ends_quietly() {
    let disk = Disk::new(fill, &[]);
    let image = disk.image();
    for args in [&["cat", "large"][..], &["ls", "-lR"], &["ls", "--json", "-R"]] {
        let (verb, rest) = args.split_first().unwrap();
        let first = [OsStr::new(verb), image.as_ref()];
        let mut command = command(first.into_iter().chain(rest.iter().map(OsStr::new)));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]), "{args:?}");
    }
}
