//! The programs of `examples/`, each run on an image that this makes, and its output.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::ffi::OsStr;
use std::fs;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nvio_testkit::image;
use nvio_testkit::random::Rng;
use tempfile::TempDir;

/// The files of `loader`, their size in bytes, and the records in them.
const FILES: u64 = 200;
const FILE_BYTES: u64 = 300_000;
const RECORDS: u64 = 50_000;

/// Runs an example. Cargo builds examples beside the folder of this test.
fn run<A: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = A>) -> Output {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    Command::new(&program).args(arguments).output().unwrap_or_else(|error| {
        panic!("{}: {error}: cargo build -p nvio --examples makes it", program.display())
    })
}

/// Runs an example with `input` as its standard input.
fn run_with<A: AsRef<OsStr>>(
    name: &str,
    arguments: impl IntoIterator<Item = A>,
    input: fs::File,
) -> Output {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    Command::new(&program).args(arguments).stdin(input).output().unwrap()
}

/// A file without a name that contains `text`.
fn file_of(text: &str) -> fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

/// The standard output of an example that succeeds.
fn output<A: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = A>) -> String {
    let output = run(name, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}: {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// An image of a folder that `fill` fills.
fn image_of(mebibytes: u64, fill: impl FnOnce(&Path)) -> (TempDir, String) {
    let work = image::work_folder("examples");
    let folder = work.path().join("folder");
    fs::create_dir(&folder).unwrap();
    fill(&folder);
    let path: PathBuf = work.path().join("disk.img");
    image::mkfs_of_folder(&path, mebibytes << 20, &folder, &[]);
    let text = image::text(&path).to_owned();
    (work, text)
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&byte| u64::from(byte)).sum()
}

#[test]
#[ignore = "in the suite examples"]
fn cat() {
    let (_work, image) = image_of(8, |folder| {
        fs::create_dir(folder.join("etc")).unwrap();
        fs::write(folder.join("etc/hostname"), "worker-7\n").unwrap();
    });
    assert_eq!(output("cat", [&*image, "/etc/hostname"]), "worker-7\n");
    let missing = run("cat", [&*image, "/none"]);
    assert!(!missing.status.success());
    let stderr = String::from_utf8(missing.stderr).unwrap();
    assert!(stderr.contains("NotFound"), "{stderr}");
}

#[test]
#[ignore = "in the suite examples"]
fn random_read() {
    let data = Rng::new(1).bytes(1_000_000);
    let (_work, image) = image_of(8, |folder| fs::write(folder.join("data"), &data).unwrap());
    let blocks = data.len() as u64 / 4096;
    let (mut random, mut expected) = (0x9e37_79b9_7f4a_7c15_u64, 0u64);
    for _ in 0..5000 {
        let block = random % blocks;
        let start = usize::try_from(block).unwrap() * 4096;
        let bytes = sum(&data[start..start + 4096]);
        expected = expected.wrapping_add(bytes.wrapping_mul(block + 1));
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
    }
    assert_eq!(
        output("random_read", [&*image, "/data", "5000"]),
        format!("5000 reads of 4096 bytes, sum {expected:#018x}\n")
    );
}

#[test]
#[ignore = "in the suite examples"]
fn futures() {
    let data = Rng::new(2).bytes(500_000);
    let (_work, image) = image_of(8, |folder| fs::write(folder.join("data"), &data).unwrap());
    let blocks: Vec<&[u8]> = data.chunks(4096).collect();
    let (mut bytes, mut expected) = (0, 0);
    for number in 0..256 {
        let block = blocks[number % blocks.len()];
        bytes += block.len();
        expected += sum(block);
    }
    let line = format!("256 reads, {bytes} bytes, sum {expected}\n");
    for example in ["async_read", "async_fd"] {
        assert_eq!(output(example, [&*image, "/data"]), line);
    }
}

#[test]
#[ignore = "in the suite examples"]
fn overwrite() {
    let (_work, image) = image_of(8, |folder| {
        fs::write(folder.join("greeting"), "Hello, world\n").unwrap();
    });
    let line = output("overwrite", [&*image, "/greeting", "7", "there"]);
    assert_eq!(line, "bytes 7 to 12: \"there\"\n");
    assert_eq!(output("cat", [&*image, "/greeting"]), "Hello, there\n");
    assert!(!run("overwrite", [&*image, "/greeting", "10", "too long"]).status.success());
}

#[test]
#[ignore = "in the suite examples"]
fn append() {
    let (_work, image) = image_of(16, |folder| {
        fs::write(folder.join("log"), "first\n").unwrap();
    });
    let lines = file_of("second\nand a third\n");
    let output = run_with("append", [&*image, "/log"], lines);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said, "7 bytes at 6 are durable\n12 bytes at 13 are durable\n");
    assert_eq!(self::output("cat", [&*image, "/log"]), "first\nsecond\nand a third\n");
}

#[test]
#[ignore = "in the suite examples"]
fn loader() {
    let mut random = Rng::new(3);
    let mut total = 0;
    let (_work, image) = image_of(96, |folder| {
        let files: Vec<Vec<u8>> = (0..FILES).map(|_| random.bytes(FILE_BYTES)).collect();
        for (number, data) in files.iter().enumerate() {
            fs::write(folder.join(format!("file-{number}")), data).unwrap();
        }
        let mut records = String::new();
        for _ in 0..RECORDS {
            let (file, length) = (random.below(FILES), random.range(4 << 10, 64 << 10));
            let pos = random.below(FILE_BYTES - length);
            let start = usize::try_from(pos).unwrap();
            let data = &files[usize::try_from(file).unwrap()][start..];
            let hash = data[..usize::try_from(length).unwrap()]
                .iter()
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
                });
            records += &format!("/file-{file} {pos} {length} {hash:x}\n");
            total += length;
        }
        fs::write(folder.join("records"), records).unwrap();
    });
    let line = format!("{RECORDS} records, {total} bytes: all checksums match\n");
    assert_eq!(output("loader", [&*image]), line);
}

#[test]
#[ignore = "in the suite examples"]
fn sqlite() {
    let (_work, image) = image_of(16, |folder| {
        let database = rusqlite::Connection::open(folder.join("table.db")).unwrap();
        let rows = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT);
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
            INSERT INTO t SELECT i, 'name ' || i FROM n;";
        database.execute_batch(rows).unwrap();
    });
    let rows = output("sqlite", [&*image, "/table.db", "SELECT count(*), max(name) FROM t"]);
    assert_eq!(rows, "20000|name 9999\n");
    let row = output("sqlite", [&*image, "/table.db", "SELECT name FROM t WHERE id = 12345"]);
    assert_eq!(row, "name 12345\n");
    assert!(!run("sqlite", [&*image, "/table.db", "DELETE FROM t"]).status.success());
    assert!(!run("sqlite", [&*image, "/none.db", "SELECT 1 FROM t"]).status.success());
}

#[test]
#[ignore = "in the suite examples"]
fn emulate() {
    let (_work, image) = image_of(8, |folder| fs::write(folder.join("hello"), "Hello").unwrap());
    let names = output("emulate", [&*image]);
    assert_eq!(names.lines().collect::<Vec<_>>(), ["lost+found", "hello"]);
}
