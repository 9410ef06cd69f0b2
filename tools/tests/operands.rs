//! Paths, shell patterns and inode numbers. The oracles are a shell in the folder that the image is
//! made of, and debugfs.

use crate::common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use common::{Disk, pattern};

fn fill(folder: &Path) {
    for name in ["var/log/old", "var/log/.hidden", "var/lib/a/b", "other"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    for name in [
        "var/log/a.gz",
        "var/log/b.gz",
        "var/log/c.log",
        "var/log/.dot.gz",
        "var/log/\u{e4}.gz",
        "var/log/old/d.gz",
        "var/log/.hidden/e.gz",
        "var/lib/a/b/f.gz",
        "star*",
        "star1",
        "[x]",
        "x",
        "<12>",
    ] {
        fs::write(folder.join(name), name).unwrap();
    }
    fs::write(folder.join(OsStr::from_bytes(b"var/log/\xff.gz")), "odd").unwrap();
    fs::write(folder.join("large"), pattern(300_000, 1)).unwrap();
    symlink("log", folder.join("var/to-log")).unwrap();
    symlink("nowhere", folder.join("var/broken")).unwrap();
}

/// The patterns that a shell and `nvio ls -d` must agree on.
const PATTERNS: [&str; 16] = [
    "/var/log/*.gz",
    "/var/*/*.gz",
    "/var/log/?.gz",
    "/var/log/[ab]*",
    "/var/log/[!a]*.gz",
    "/var/log/.*.gz",
    "/*",
    "/*/",
    "/v*/l*/",
    "/var/log/**.gz",
    "/var/**",
    "/var/lib/**/*.gz",
    "/**/f.gz",
    "/var/b*",
    "//var//log///*.log",
    "/none/*",
];

#[test]
fn patterns_match_as_in_a_shell() {
    let disk = Disk::new(fill, &[]);
    // The shell prefixes each pattern with the folder. LC_ALL=C sorts by bytes.
    let script = "shopt -s globstar nullglob; for p; do printf '== %s\\n' \"$p\"; eval \"for f in \\\"\\$D\\\"$p\
                  ; do printf '%s\\n' \\\"\\${f#\\$D}\\\"; done\"; done";
    let mut shell = Command::new("bash");
    shell.args(["-c", script, "bash"]).args(PATTERNS).env("LC_ALL", "C.UTF-8");
    let output = shell.env("D", disk.folder()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut sections: Vec<(&[u8], Vec<Vec<u8>>)> = Vec::new();
    for line in output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match line.strip_prefix(b"== ") {
            Some(pattern) => sections.push((pattern, Vec::new())),
            None => sections.last_mut().unwrap().1.push(line.to_vec()),
        }
    }
    let normal = |path: &[u8]| {
        let parts: Vec<&[u8]> =
            path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).collect();
        parts.join(&b'/')
    };
    for (pattern, mut expected) in sections {
        let pattern = std::str::from_utf8(pattern).unwrap();
        let outcome = disk.run("ls", &["-d", pattern]);
        expected.retain(|path| !path.is_empty() && path != b"/");
        if pattern == "/*" || pattern == "/*/" {
            // The folder has no such directory.
            expected.push(b"/lost+found".to_vec());
        }
        if expected.is_empty() {
            outcome.refused(&["no name matches the pattern"]);
            continue;
        }
        let mut expected: Vec<_> = expected.iter().map(|path| normal(path)).collect();
        expected.sort();
        expected.dedup();
        let shown = outcome.ok();
        let mut shown: Vec<_> = shown
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(normal)
            .collect();
        shown.sort();
        let text = |list: &[Vec<u8>]| {
            list.iter().map(|name| name.escape_ascii().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(text(&shown), text(&expected), "{pattern}");
    }
}

#[test]
fn a_path_that_exists_is_no_pattern() {
    let disk = Disk::new(fill, &[]);
    assert_eq!(disk.run("cat", &["/star*"]).text(), "star*");
    assert_eq!(disk.run("cat", &["/star?"]).text(), "star*star1");
    assert_eq!(disk.run("cat", &["[x]"]).text(), "[x]");
    assert_eq!(disk.run("cat", &["[wx]"]).text(), "x");
    assert_eq!(disk.run("cat", &["<12>"]).text(), "<12>");
    // `**` does not follow links.
    assert_eq!(disk.run("ls", &["/var/**/c*.log"]).text(), "/var/log/c.log\n");
}

#[test]
fn each_verb_with_paths_takes_patterns() {
    let disk = Disk::new(fill, &[]);
    let logs = "/var/log/[ab].gz";
    assert_eq!(disk.run("cat", &[logs]).text(), "var/log/a.gzvar/log/b.gz");
    // A pattern makes an array of one match, too.
    for (verb, pattern, found) in [("stat", logs, 2), ("map", logs, 2), ("sha256", "/large*", 1)] {
        let report = disk.run(verb, &["--json", pattern]).json();
        assert_eq!(report.as_array().unwrap().len(), found, "{verb}");
    }
    let found = disk.run("find", &["/v*/l?g", "-name", "?.gz", "-print0"]).ok();
    assert_eq!(found.iter().filter(|&&byte| byte == 0).count(), 6);
    assert_eq!(
        disk.run("du", &["/var/l*"]).text().lines().last().unwrap().split('\t').nth(1),
        Some("/var/log")
    );
    assert!(disk.run("tree", &["var/lib", "v*/l?g/old"]).text().contains("\nvar/log/old\n"));
    assert!(disk.run("sha256", &["var/log/a*"]).text().ends_with("  var/log/a.gz\n"));
    let target = disk.path("out");
    fs::create_dir(&target).unwrap();
    disk.run("cp", &["/var/log/?.gz", "/large", target.to_str().unwrap()]).ok();
    let folder = disk.folder();
    for name in ["a.gz", "b.gz", "\u{e4}.gz"] {
        assert_eq!(
            fs::read(target.join(name)).unwrap(),
            fs::read(folder.join("var/log").join(name)).unwrap()
        );
    }
    // The three above, the name that is not UTF-8, and the file that was named.
    assert_eq!(fs::read_dir(&target).unwrap().count(), 5);
    disk.run("cp", &["/var/log/?.gz", disk.path("none").to_str().unwrap()])
        .refused(&["does not exist; several paths"]);
    let outcome = disk.run("cat", &["/none*", "/x"]);
    assert_eq!((outcome.code, &*outcome.stdout), (1, &b"x"[..]));
    assert_eq!(
        outcome.stderr,
        "nvio: /none*: no name matches the pattern; `nvio ls` lists the names of a directory\n"
    );
}

#[test]
fn inodes_are_named_by_number() {
    let disk = Disk::new(fill, &[]);
    let number = |path: &str| disk.run("stat", &["--json", path]).json()["inode"].to_string();
    let (large, log) = (number("/large"), number("/var/log"));
    let contents = fs::read(disk.folder().join("large")).unwrap();
    assert!(disk.run("cat", &["--inode", &large]).ok() == contents);
    assert!(disk.run("cat", &["/x", "--inode", &large]).ok() == [b"x", &*contents].concat());
    let named = format!("<{large}>");
    // debugfs has the same syntax.
    assert!(disk.run("cat", &[&named]).ok() == contents);
    let blocks = |path: &str| disk.run("map", &["--json", path]).json()["extents"].clone();
    assert_eq!(blocks(&named), blocks("/large"));
    let first = blocks(&named)[0]["physical"].as_u64().unwrap();
    let shown = disk.debugfs(&format!("bmap {named} 0"));
    let block_size = disk.run("map", &["--json", &named]).json()["block_size"].as_u64().unwrap();
    assert_eq!(shown.trim(), (first / block_size).to_string());
    let stat = disk.run("stat", &["--json", "--inode", &large]).json();
    assert_eq!((&stat["path"], &stat["size"]), (&named.clone().into(), &300_000.into()));
    let directory = format!("<{log}>");
    assert!(disk.run("ls", &[&directory]).ok().starts_with(b".dot.gz\n.hidden\na.gz\n"));
    let found = disk.run("find", &["--inode", &log, "-name", "d.gz"]).text();
    assert_eq!(found, format!("{directory}/old/d.gz\n"));
    for verb in ["du", "tree", "find"] {
        let shown = disk.run(verb, &["--inode", &log]).ok();
        assert!(String::from_utf8_lossy(&shown).contains(&directory), "{verb}");
    }
    let copy = disk.path("copy");
    disk.run("cp", &["--inode", &large, copy.to_str().unwrap()]).ok();
    assert!(fs::read(&copy).unwrap() == contents);
    disk.run("cp", &["-r", &directory, disk.path("tree").to_str().unwrap()]).ok();
    let copied = fs::metadata(disk.path("tree/old/d.gz")).unwrap();
    assert_eq!(copied.len(), fs::metadata(disk.folder().join("var/log/old/d.gz")).unwrap().size());
    disk.run("cat", &["--inode", "4000000000"]).refused(&["<4000000000>"]);
    disk.run("stat", &["<0>"]).refused(&["<0>"]);
    assert_eq!(disk.run("cat", &["--inode", "0"]).code, 2);
}
