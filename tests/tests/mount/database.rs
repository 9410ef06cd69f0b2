//! SQLite's test of speed on a writable mount, with each kind of journal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nvio_testkit::image;
use nvio_tests::nvio;

use super::{Mounted, assert_same, by_kernel, check, listing, mkfs, run, run_in};

/// A database of the test.
struct Kind {
    name: &'static str,
    /// Options of speedtest1.
    options: &'static [&'static str],
}

const KINDS: &[Kind] = &[
    Kind { name: "delete", options: &["--journal", "delete"] },
    Kind { name: "truncate", options: &["--journal", "truncate"] },
    Kind { name: "persist", options: &["--journal", "persist", "--autovacuum"] },
    // The index of the log is memory that processes share, mapped through the mount.
    Kind { name: "wal", options: &["--journal", "wal"] },
    Kind { name: "checkpoints", options: &["--journal", "wal", "--checkpoint"] },
    // Pages of the database are read through a mapping, and written by calls.
    Kind { name: "mapped", options: &["--journal", "delete", "--mmap", "268435456"] },
    Kind { name: "both", options: &["--journal", "wal", "--mmap", "268435456"] },
    Kind { name: "small", options: &["--journal", "delete", "--pagesize", "512"] },
    Kind { name: "large", options: &["--journal", "wal", "--pagesize", "65536"] },
];

/// Returns speedtest1, which is built beside the other judges.
fn speedtest1() -> PathBuf {
    let folder = nvio::binary().parent().unwrap().join("judges/bin");
    let program = folder.join("speedtest1");
    if !program.exists() {
        fs::create_dir_all(&folder).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("speedtest1");
        run("tests/speedtest1", Command::new(script).arg(&program));
    }
    program
}

/// Runs the test in a directory. Returns the hash of what its queries found.
fn speedtest(directory: &Path, kind: &Kind, set: &str, size: &str) -> String {
    let what = format!("speedtest1, {}, {set}, in {}", kind.name, directory.display());
    let mut command = Command::new(speedtest1());
    command.args(["--verify", "--testset", set, "--size", size]).args(kind.options);
    let output = run(&what, command.arg(kind.name).current_dir(directory));
    let output = String::from_utf8_lossy(&output).into_owned();
    let hash = output.lines().find(|line| line.starts_with("Verification Hash:"));
    hash.unwrap_or_else(|| panic!("{what}: {output}")).to_owned()
}

/// Runs a statement.
fn sqlite(directory: &Path, kind: &Kind, statement: &str) -> String {
    let output = run_in(directory, "sqlite3", &[kind.name, statement]);
    String::from_utf8_lossy(&output).into_owned()
}

#[test]
#[ignore = "needs root and FUSE; in the suite mount"]
fn sqlites_test_of_speed_makes_the_databases_that_it_makes_elsewhere() {
    let (sets, size) = match std::env::var_os("NVIO_LONG") {
        Some(_) => (&["main", "orm", "rtree"][..], "50"),
        None => (&["main"][..], "2"),
    };
    let work = image::work_folder("nvio-database");
    let (image, host) = (work.path().join("image"), work.path().join("host"));
    fs::create_dir(&host).unwrap();
    for set in sets {
        // The contents depend neither on the journal nor on the filesystem.
        KINDS.iter().for_each(|kind| drop(fs::remove_file(host.join(kind.name))));
        let expected: Vec<_> = KINDS.iter().map(|kind| speedtest(&host, kind, set, size)).collect();
        for options in [&["--writable"][..], &["--writable", "--direct"]] {
            mkfs(&image, 512, &[]);
            let mounted = Mounted::new(&image, &work.path().join("mnt"), options);
            for (kind, expected) in KINDS.iter().zip(&expected) {
                let what = format!("{}, {set}, {options:?}", kind.name);
                assert_eq!(&speedtest(&mounted.path, kind, set, size), expected, "{what}");
                assert_eq!(sqlite(&mounted.path, kind, "pragma integrity_check"), "ok\n", "{what}");
                let [ours, theirs] =
                    [&mounted.path, &host].map(|directory| sqlite(directory, kind, ".dump"));
                let different =
                    ours.lines().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs);
                assert_eq!((different, ours.len()), (None, theirs.len()), "{what}");
            }
            let ours = listing(&mounted.path);
            mounted.unmount();
            check(&image);
            let theirs = by_kernel(&image, &work.path().join("kernel"));
            assert_same(&format!("{options:?}"), &ours, &theirs);
        }
    }
}
