//! The syntax of GNU ls and find, with their output on a mount of the same image.

use crate::common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use common::mount::Mount;
use common::{Disk, command, must, nvio, pattern};

const FILES: [(&str, usize, &str); 7] = [
    ("one.gz", 10_138, "2001-02-03 04:05"),
    ("two.gz", 1, "2020-01-01 00:00"),
    ("Two.GZ", 2, "2020-01-01 00:00"),
    ("large.tar", 3_000_001, "2019-12-31 23:59"),
    ("sub/inner.gz", 0, "2022-02-02 02:02"),
    ("sub/program", 4096, "2021-01-01 01:01"),
    ("sub/deeper/last.txt", 70_001, "2010-10-10 10:10"),
];

fn fill(folder: &Path) {
    let path = |name: &str| folder.join(name);
    fs::create_dir_all(path("sub/deeper")).unwrap();
    fs::create_dir(path("empty")).unwrap();
    fs::create_dir(path("public")).unwrap();
    for (name, size, _) in FILES {
        fs::write(path(name), pattern(size, 3)).unwrap();
    }
    let sparse = File::create(path("-dash")).unwrap();
    sparse.write_all_at(&pattern(5000, 2), 1_000_000).unwrap();
    sparse.set_len(20_000_000).unwrap();
    symlink("one.gz", path("link")).unwrap();
    symlink("sub", path("to-sub")).unwrap();
    symlink("nowhere", path("orphan")).unwrap();
    fs::hard_link(path("two.gz"), path("sub/again.gz")).unwrap();
    for (name, mode) in
        [("sub/program", 0o755), ("one.gz", 0o4751), ("large.tar", 0o2644), ("public", 0o1777)]
    {
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let _ = Command::new("mkfifo").arg(path("pipe")).status();
    for (name, _, time) in FILES {
        must("touch", &["-d".as_ref(), time.as_ref(), path(name).as_ref()]);
    }
    for (name, time) in
        [("sub/deeper", "2005-05-05"), ("sub", "2006-06-06"), ("empty", "2030-01-01")]
    {
        must("touch", &["-d".as_ref(), time.as_ref(), path(name).as_ref()]);
    }
}

/// Words of each line, because the columns of `nvio ls` have fixed widths. Lines with the sum of
/// blocks are left out.
fn words(shown: &[u8]) -> Vec<Vec<String>> {
    let text = String::from_utf8(shown.to_vec()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("total "));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn flags_of_ls_show_what_ls_shows() {
    let disk = Disk::new(fill, &["-b", "1024"]);
    let Some(mount) = Mount::new(&disk) else { return };
    for flags in [
        "-1",
        "-a",
        "-d",
        "-t",
        "-S",
        "-ri",
        "-la",
        "-lA",
        "-ld",
        "-lh",
        "-lahi",
        "-ltr",
        "-lhSr",
        "-aR",
        "-lRtr",
        "-RS",
        "-tS",
        "-St",
        "-Aa",
        "-aA",
        "-ln",
        "--almost-all",
        "--directory",
    ] {
        let is_long = flags.contains('l') && !flags.starts_with("--");
        let theirs: &[&str] = match is_long {
            true => &[flags, "-n", "--time-style=+%Y-%m-%d %H:%M"],
            false => &[flags, "-1"],
        };
        let is_operand = ["-d", "-ld", "--directory"].contains(&flags);
        for paths in [&["."][..], &["./sub", "./large.tar", "./to-sub", "./two.gz"]] {
            let expected = words(&mount.shows("ls", &[theirs, paths].concat())).into_iter();
            let expected: Vec<_> = expected.map(|words| rooted(words, is_operand)).collect();
            let paths: Vec<&str> =
                paths.iter().map(|path| if *path == "." { "/" } else { &path[1..] }).collect();
            let shown = words(&disk.run("ls", &[&[flags][..], &paths].concat()).ok());
            // The parent of the root is outside of the image there.
            let without_parent = |mut lines: Vec<Vec<String>>| {
                lines.retain(|words| words.last().is_none_or(|name| name != ".."));
                lines
            };
            let [shown, expected] = [shown, expected].map(|lines| match paths[..] {
                ["/"] if is_long => without_parent(lines),
                _ => lines,
            });
            assert_eq!(shown, expected, "{flags} {paths:?}");
        }
    }
}

/// Paths of `nvio` begin with a slash instead of `./`.
fn rooted(mut words: Vec<String>, is_operand: bool) -> Vec<String> {
    for word in &mut words {
        if word == ".:" {
            *word = "/:".to_owned();
        } else if word == "." && is_operand {
            *word = "/".to_owned();
        } else if let Some(rest) = word.strip_prefix("./") {
            *word = format!("/{rest}");
        }
    }
    words
}

#[test]
fn h_is_human_readable_and_never_help() {
    let disk = Disk::new(fill, &[]);
    let long = disk.run("ls", &["-lh", "/one.gz"]).text();
    assert!(long.contains(" 10K "), "{long}");
    for verb in ["ls", "du", "df"] {
        let shown = disk.run(verb, &["-h"]).text();
        assert!(!shown.contains("Usage:"), "{shown}");
        assert!(nvio([verb, "--help"]).text().contains("-h, --human-readable"));
    }
}

#[test]
fn attributes_are_listed_as_text() {
    let disk = Disk::new(fill, &["-I", "256"]);
    disk.debugfs("ea_set one.gz user.origin here");
    let shown = disk.run("ls", &["-l", "--xattrs", "/one.gz", "/two.gz"]).text();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 3, "{shown}");
    assert_eq!(lines[1], "    Xattr: user.origin=\"here\"");
}

/// Expressions of find as they are typed; `nvio find` has an image before the paths.
const EXPRESSIONS: [&str; 34] = [
    "-name *.gz -type f",
    "-name *.gz -type f -print",
    "-iname two.*",
    "-type d -empty",
    "-empty",
    "-not -empty -type f",
    "! -name *.gz",
    "! -name *.gz -type f",
    "-name *.gz -o -name *.tar",
    "-type f -name *.gz -o -type d -name s*",
    "-type f ( -name *.gz -o -name *.tar )",
    "-type f -a ( -name *.gz -or -name *.tar )",
    "-not ( -name *.gz -or -type d )",
    "! ( ! -name *.gz )",
    "! ! -name *.gz",
    "-size +1M",
    "-size -2k",
    "-size 1",
    "-size 4096c",
    "-size +8w",
    "-perm -4000",
    "-perm /022",
    "-perm 755",
    "-mtime +30",
    "-mtime -30",
    "-mmin +60",
    "-mmin -60",
    "-newer ./two.gz",
    "-links +1 -type f",
    "-uid 0 -gid 0",
    "-path ./sub/*",
    "-ipath ./SUB/*",
    "-xdev -type l",
    "-name -dash",
];

#[test]
fn expressions_of_find_find_what_find_finds() {
    let disk = Disk::new(fill, &[]);
    let Some(mount) = Mount::new(&disk) else { return };
    for expression in EXPRESSIONS {
        let words: Vec<&str> = expression.split(' ').collect();
        let expected = mount.shows("find", &[&["."][..], &words].concat());
        let expected = String::from_utf8(expected).unwrap();
        let mut expected: Vec<&str> =
            expected.lines().map(|line| if line == "." { "/" } else { &line[1..] }).collect();
        // Names of tests that have a path in them.
        let words: Vec<&str> = words
            .iter()
            .map(|word| word.strip_prefix('.').filter(|rest| rest.starts_with('/')).unwrap_or(word))
            .collect();
        let shown = disk.run("find", &words).text();
        let mut shown: Vec<&str> = shown.lines().collect();
        expected.sort_unstable();
        shown.sort_unstable();
        assert_eq!(shown, expected, "{expression}");
        assert!(
            !shown.is_empty() || expression.starts_with("-mmin -"),
            "{expression} finds nothing"
        );
    }
    for depth in ["-maxdepth 1", "-mindepth 1 -maxdepth 2"] {
        let words: Vec<&str> = depth.split(' ').collect();
        let expected = mount.shows("find", &[&["."][..], &words].concat());
        let shown = disk.run("find", &words).ok();
        let lines = |bytes: &[u8]| bytes.split(|&byte| byte == b'\n').count();
        assert_eq!(lines(&shown), lines(&expected), "{depth}");
    }
}

/// Options of nvio, with one dash or two, go together with those of find, in any place.
#[test]
fn options_of_both_kinds_mix() {
    let disk = Disk::new(fill, &[]);
    let expected = disk.run("find", &["/sub", "--name", "*.gz"]).text();
    assert_eq!(expected, "/sub/again.gz\n/sub/inner.gz\n");
    let image = disk.image();
    let image = image.to_str().unwrap();
    for line in [
        &["find", "--name=*.gz", image, "/sub"][..],
        &["find", image, "-cache", "1M", "/sub", "-name", "*.gz"],
        &["--verbose", "find", image, "/sub", "-name", "*.gz"],
        &["find", image, "/sub", "-v", "-name", "*.gz"],
    ] {
        let outcome = nvio(line);
        assert_eq!(
            (outcome.code, String::from_utf8(outcome.stdout).unwrap()),
            (0, expected.clone())
        );
    }
    let deep = ["("; 1000];
    let outcome = disk.run("find", &deep);
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (2, 1), "{}", outcome.stderr);
}

#[test]
fn names_have_the_colours_of_ls() {
    let disk = Disk::new(fill, &["-b", "1024"]);
    let Some(mount) = Mount::new(&disk) else { return };
    let image = disk.image();
    for colors in [
        "",
        "di=01;34:ln=01;36:ex=01;32:*.gz=01;31:*.tar=04;33:pi=33:or=40;31;01:mi=05:su=37;41:tw=30;42",
        "di=0:*.gz=38;5;202:sg=0:su=0:ow=34;42:st=37;44:mh=35",
        "ln=target:di=01:or=31",
    ] {
        for flags in ["-a", "-l", "-R"] {
            let mut theirs = Command::new("ls");
            theirs.args(["-1", "--color=always", flags]).current_dir(&mount.at);
            let mut ours = command(["ls", "--color=always", flags]);
            ours.arg(&image);
            for command in [&mut theirs, &mut ours] {
                command.env("LS_COLORS", colors).env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
            }
            let names = |mut command: Command| {
                let output = command.output().unwrap();
                let text = String::from_utf8(output.stdout).unwrap();
                // The beginning of all output, and the end of a coloured line.
                let text = text.replace("\u{1b}[K", "").replace("\u{1b}[m", "\u{1b}[0m");
                colored(&text)
            };
            assert_eq!(names(ours), names(theirs), "{colors} {flags}");
        }
    }
}

/// Each line from its first colour on, without the resets, and with the numbers of a colour sorted.
fn colored(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.replace("\u{1b}[0m", ""));
    let lines = lines.filter(|line| !line.starts_with("total ") && !line.ends_with(':'));
    let sorted = |part: &str| match part.split_once('m').filter(|_| part.starts_with('[')) {
        Some((numbers, rest)) => {
            let mut numbers: Vec<&str> = numbers[1..].split(';').collect();
            numbers.sort_unstable();
            format!("[{}m{rest}", numbers.join(";"))
        }
        None => part.split_whitespace().last().unwrap_or_default().to_owned(),
    };
    let line = |line: String| match line.split_once('\u{1b}') {
        Some((_, colored)) => colored.split('\u{1b}').map(sorted).collect::<Vec<_>>().concat(),
        None => sorted(&line),
    };
    lines.map(line).collect()
}

#[test]
fn colours_are_for_terminals_and_can_be_refused() {
    let disk = Disk::new(fill, &[]);
    let image = disk.image();
    let shown = |verb: &str, flags: &[&str], variables: &[(&str, &str)], terminal: bool| {
        let mut line = vec![env!("CARGO_BIN_EXE_nvio"), verb, image.to_str().unwrap()];
        line.extend(flags);
        let quoted: Vec<String> = line.iter().map(|word| format!("'{word}'")).collect();
        let mut shell = Command::new("sh");
        // `script` runs a command on a terminal of its own.
        match terminal {
            true => shell.args(["-c", &format!("script -qec \"{}\" /dev/null", quoted.join(" "))]),
            false => shell.args(["-c", &quoted.join(" ")]),
        };
        shell.env_remove("NO_COLOR").env("TERM", "xterm").env("LS_COLORS", "di=01;34");
        let output = shell.envs(variables.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).contains("\u{1b}[01;34m")
    };
    for verb in ["ls", "tree"] {
        assert!(shown(verb, &[], &[], true), "{verb}");
        assert!(!shown(verb, &[], &[], false), "{verb}");
        assert!(!shown(verb, &[], &[("NO_COLOR", "1")], true), "{verb}");
        assert!(shown(verb, &[], &[("NO_COLOR", "")], true), "{verb}");
        assert!(!shown(verb, &[], &[("TERM", "dumb")], true), "{verb}");
        assert!(!shown(verb, &["--color=never"], &[], true), "{verb}");
        assert!(shown(verb, &["--color"], &[("NO_COLOR", "1")], false), "{verb}");
    }
}

/// The help has a line for each verb, below headings.
#[test]
fn the_help_groups_the_verbs() {
    let help = nvio(["--help"]).text();
    for heading in ["Read files:", "Write files:", "Controllers:", "Options:"] {
        assert!(help.lines().any(|line| line == heading), "no {heading} in {help}");
    }
    for verb in ["ls", "find", "write", "identify", "emulate", "completions"] {
        let lines = help.lines().filter(|line| line.starts_with(&format!("  {verb} "))).count();
        assert_eq!(lines, 1, "{verb}: {help}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    assert_eq!(nvio(["help", "ls"]).text(), nvio(["ls", "--help"]).text());
}

#[test]
fn verbose_logs_the_steps_of_nvio() {
    let disk = Disk::new(fill, &[]);
    let [quiet, verbose, more] = ["", "-v", "-vv"].map(|flag| {
        disk.run(
            "cat",
            &["/two.gz"]
                .iter()
                .chain(Some(&flag).filter(|flag| !flag.is_empty()))
                .copied()
                .collect::<Vec<_>>(),
        )
    });
    assert_eq!(quiet.stderr, "");
    let image = disk.image().display().to_string();
    for part in [&*image, "namespace 1", "ext4"] {
        assert!(verbose.stderr.contains(part), "no {part} in {}", verbose.stderr);
    }
    assert!(more.stderr.lines().count() > verbose.stderr.lines().count());
    assert!(more.stderr.contains("/two.gz"), "{}", more.stderr);
    assert_eq!((verbose.code, more.code, quiet.stdout), (0, 0, verbose.stdout));
}
