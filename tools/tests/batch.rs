//! `batch`: the output is that of the verbs, one after the other.

use crate::common;
use crate::emulate::Server;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::{Disk, Outcome, command, pattern};
use serde_json::Value;

fn fill(folder: &Path) {
    fs::create_dir(folder.join("a b")).unwrap();
    fs::write(folder.join("a b/it's"), "quoted\n").unwrap();
    fs::write(folder.join("large"), pattern(300_000, 1)).unwrap();
}

/// `nvio VERB DEVICE REST...` with this on standard input.
fn batch(device: &str, rest: &[&str], lines: &str) -> Outcome {
    let mut child = command(["batch", device].iter().chain(rest))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code().unwrap(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn lines_are_run_in_order_on_one_device() {
    let disk = Disk::new(fill, &[]);
    let socket = disk.path("nvme");
    // The server has one client at a time: the device is opened once.
    let server = Server::start(&socket, [disk.image()]);
    let device = format!("vfio-user:{}", socket.display());
    let lines = "ls\n# a comment\n\n  ls -l '/a b'\ncat \"a b/it's\" large\nstat --json /large\n\
                 find / -name 'it*'\nns --json\nread-blocks --length 512\nsha256 /large\nsmart";
    let shown = batch(&device, &[], lines).ok();
    let mut expected = Vec::new();
    for line in [
        &["ls"][..],
        &["ls", "-l", "/a b"],
        &["cat", "a b/it's", "large"],
        &["stat", "--json", "/large"],
        &["find", "/", "-name", "it*"],
        &["ns", "--json"],
        &["read-blocks", "--length", "512"],
        &["sha256", "/large"],
        &["smart"],
    ] {
        expected.push((line[0], server.run(line[0], &line[1..]).ok()));
    }
    let mut rest = &shown[..];
    for (verb, output) in expected {
        if verb == "smart" {
            // The counters change with each command.
            assert!(rest.starts_with(b"Critical warning"));
            break;
        }
        assert!(rest.starts_with(&output), "{verb}");
        rest = &rest[output.len()..];
    }
    // From a file, with the log of nvio.
    fs::write(disk.path("lines"), "df\ncat large\nsmart\n").unwrap();
    let outcome = batch(&device, &["-v", disk.path("lines").to_str().unwrap()], "");
    assert_eq!(outcome.stderr.matches("opened the controller").count(), 1, "{}", outcome.stderr);
    assert_eq!(outcome.code, 0);
}

#[test]
fn a_line_that_fails_does_not_stop_the_next() {
    let disk = Disk::new(fill, &[]);
    let image = disk.image();
    let lines = "cat /none\nfrob\nls --frob\ncat 'open\nwrite /large\nbatch\ncat \"/a b/it's\"\ncat /none /large\n";
    let outcome = batch(image.to_str().unwrap(), &[], lines);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stdout.starts_with(b"quoted\n"));
    assert_eq!(outcome.stdout.len(), 7 + 300_000);
    let told: Vec<&str> = outcome.stderr.lines().collect();
    let parts = [
        "nvio: /none: no such file",
        "nvio: line 2: \"frob\" is not a verb of a batch; `nvio help batch`",
        "nvio: line 3: unexpected argument '--frob'",
        "nvio: line 4: a quote is not closed",
        "nvio: line 5: \"write\" is not",
        "nvio: line 6: \"batch\" is not",
        "nvio: /none: no such file",
    ];
    assert_eq!(told.len(), parts.len(), "{told:#?}");
    for (line, part) in told.iter().zip(parts) {
        assert!(line.starts_with(part), "{line}");
    }
    batch(image.to_str().unwrap(), &["/none"], "").refused(&["cannot open", "/none"]);
    batch(disk.path("none").to_str().unwrap(), &[], "ls").refused(&["none"]);
}

#[test]
fn json_is_an_object_a_line() {
    let disk = Disk::new(fill, &[]);
    let image = disk.image();
    let copy = disk.path("copy");
    let lines = format!(
        "ls\nstat /large '/a b'\n# comment\nstat /none\ncat /large\ncp /large {}\nfind -name none\nns --json\ntree",
        copy.display()
    );
    let outcome = batch(image.to_str().unwrap(), &["--json"], &lines);
    assert_eq!(outcome.code, 1);
    let text = String::from_utf8(outcome.stdout).unwrap();
    let objects: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<u64> = objects.iter().map(|object| object["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 4, 5, 6, 7, 8, 9]);
    let good: Vec<bool> = objects.iter().map(|object| object["ok"].as_bool().unwrap()).collect();
    assert_eq!(good, [true, true, false, false, true, true, true, true]);
    assert_eq!(objects[1]["command"], "stat /large '/a b'");
    let alone = |verb: &str, rest: &[&str]| disk.run(verb, &[rest, &["--json"]].concat()).json();
    assert_eq!(objects[0]["output"], alone("ls", &[]));
    assert_eq!(objects[1]["output"], alone("stat", &["/large", "/a b"]));
    assert_eq!((&objects[2]["output"], &objects[4]["output"]), (&Value::Null, &Value::Null));
    assert!(objects[3]["error"].as_str().unwrap().contains("cat has no JSON"));
    assert_eq!(objects[5]["output"], serde_json::json!([]));
    assert_eq!(objects[6]["output"], alone("ns", &[]));
    assert_eq!(objects[7]["output"], alone("tree", &[]));
    assert!(fs::read(copy).unwrap() == fs::read(disk.folder().join("large")).unwrap());
}

/// Lines inherit the partition of the batch, also those that read blocks.
#[test]
fn the_partition_of_the_batch_is_that_of_its_lines() {
    let disk = Disk::new(fill, &[]);
    let parted = disk.path("parted.img");
    let mut bytes = vec![0; 1 << 20];
    bytes.extend(fs::read(disk.image()).unwrap());
    bytes.extend(vec![0; 1 << 20]);
    fs::write(&parted, bytes).unwrap();
    let script = "echo '2048,96K' | sed s/96K/48M/ | sfdisk -q \"$0\"";
    common::must("sh", &["-c".as_ref(), script.as_ref(), parted.as_ref()]);
    let lines = "cat \"a b/it's\"\nread-blocks --offset 1024 --length 1K\n";
    let shown = batch(parted.to_str().unwrap(), &["--partition", "1"], lines).ok();
    let superblock = &fs::read(disk.image()).unwrap()[1024..2048];
    assert_eq!(shown, [b"quoted\n", superblock].concat());
}
