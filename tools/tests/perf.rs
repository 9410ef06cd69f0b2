//! `nvio perf` on images and on an emulator with faults. Numbers of requests, never rates, are checked.

use crate::common;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use common::{Disk, Outcome, command, nvio, pattern};
use rustix::process::{Pid, Signal, kill_process};

/// Bytes of the file.
const SIZE: usize = 8 << 20;

fn disk() -> Disk {
    let fill = |folder: &std::path::Path| {
        fs::write(folder.join("file"), pattern(SIZE, 1)).unwrap();
        fs::write(folder.join("other"), pattern(SIZE, 2)).unwrap();
        fs::write(folder.join("tiny"), "x").unwrap();
    };
    Disk::new(fill, &["-b", "4096"])
}

/// A controller in another process.
struct Server {
    child: Child,
    device: String,
}

impl Server {
    fn start(disk: &Disk, args: &[&str]) -> Self {
        let (socket, image) = (disk.path("nvme"), disk.image());
        let first = ["emulate".as_ref(), image.as_os_str(), "--writable".as_ref()];
        let mut server = command(first);
        let server = server.arg("--socket").arg(socket).args(args).stdout(Stdio::piped());
        let mut server = Self { child: server.spawn().unwrap(), device: String::new() };
        let mut said = String::new();
        BufReader::new(server.child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        server.device = said.trim_end().rsplit(' ').next().unwrap().to_owned();
        server
    }

    fn perf(&self, args: &str) -> Outcome {
        nvio(["perf", &self.device].into_iter().chain(args.split_whitespace()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn perf(disk: &Disk, args: &str) -> Outcome {
    disk.run("perf", &args.split_whitespace().collect::<Vec<_>>())
}

#[test]
fn files_and_the_device_are_read() {
    let disk = disk();
    let run = perf(&disk, "/file --count 5000 --qd 8 --json").json();
    assert_eq!((&run["schema"], &run["rows"][0]["path"]), (&1.into(), &"/file".into()));
    let row = &run["rows"][0];
    assert_eq!((&row["ios"], &row["bytes"]), (&5000.into(), &(5000_u64 * 4096).into()));
    assert_eq!((&row["reads"]["ios"], &row["writes"]["ios"]), (&5000.into(), &0.into()));
    assert_eq!(row["latency_ns"]["count"], 5000);
    assert_eq!((&row["counters"]["simple"], &row["errors"]), (&5000.into(), &0.into()));
    assert!(row["latency_ns"]["percentiles"]["p99"].is_u64());
    assert!(row["latency_ns"]["percentiles"].get("p99.99").is_none(), "fewer than ten above it");
    let run = perf(&disk, "--raw --count 999 --threads 2 --bs 16k --latency none --json").json();
    let row = &run["rows"][0];
    assert_eq!((&row["ios"], &row["bytes"]), (&999.into(), &(999_u64 * 16384).into()));
    assert!(row["latency_ns"].is_null() && row["path"].is_null());
    assert_eq!(
        (&run["settings"]["latency"], &run["settings"]["path"]),
        (&"none".into(), &().into())
    );
    assert_eq!(run["environment"]["devices"][0]["model"], "nvio embedded controller");
}

#[test]
fn each_path_is_taken() {
    let disk = disk();
    for (path, counter) in [("simple", "simple"), ("generic", "generic"), ("bounce", "bounced")] {
        let run = perf(&disk, &format!("/file --count 500 --path {path} --json")).json();
        assert_eq!(run["rows"][0]["counters"][counter], 500, "{path}");
    }
    for path in ["buffered", "writethrough"] {
        let load = "--count 2000 --qd 16 --rw randrw --write --verify --bs 512:2,4k:1,12k:1";
        let run = perf(&disk, &format!("/file --path {path} --json {load}")).json();
        assert_eq!((&run["total"]["ios"], &run["total"]["errors"]), (&2000.into(), &0.into()));
        assert_eq!(run["rows"][0]["qd_granted"], 16, "{path}");
    }
}

/// The embedded controller takes commands of 128 KiB.
#[test]
fn requests_to_the_device_may_be_larger_than_a_command() {
    let disk = disk();
    let run = perf(&disk, "--raw --rw read --bs 1M --qd 8 --count 100 --json").json();
    let row = &run["rows"][0];
    assert_eq!((&row["ios"], &row["bytes"]), (&100.into(), &(100_u64 << 20).into()));
    assert_eq!((&row["qd_granted"], &row["latency_ns"]["count"]), (&8.into(), &100.into()));
    let run = perf(&disk, "--raw --rw read --bs 1M --qd 2 --count 20 --interrupt --json").json();
    assert_eq!(run["total"]["ios"], 20);
    // Each part has the data of its own place.
    let args =
        "--raw --write --force --rw randrw --bs 4k:2,300k:1,1M:1 --verify --count 400 --json";
    let run = perf(&disk, args).json();
    assert_eq!((&run["total"]["ios"], &run["total"]["errors"]), (&400.into(), &0.into()));
    let image = disk.image();
    fs::write(&image, vec![0; 48 << 20]).unwrap();
    let server = Server::start(
        &disk,
        &["--lba-size", "512", "--fault", "status=unrecovered-read-error,op=read,lba=300"],
    );
    let args = "--raw --rw read --bs 1M --qd 4 --count 48 --retries 0 --continue --json";
    let run = server.perf(args);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&run["total"]["errors"], &run["total"]["ios"]), (&1.into(), &47.into()));
}

#[test]
fn several_files_have_a_row_each_and_a_total() {
    let disk = disk();
    let run = perf(&disk, "/file /other --count 600 --threads 2 --json").json();
    let ios = |row: &serde_json::Value| row["ios"].as_u64().unwrap();
    let rows = run["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(ios).collect::<Vec<_>>(), [600, 600]);
    assert_eq!(ios(&run["total"]), 1200);
    let text = perf(&disk, "/file /other --count 600").text();
    assert!(text.contains(":/file ") && text.contains(":/other ") && text.contains("\ntotal "));
    assert!(text.contains("once for each batch"), "{text}");
}

#[test]
fn writes_need_a_word_and_replace_only_the_file() {
    let disk = disk();
    let before = fs::read(disk.image()).unwrap();
    perf(&disk, "/file --rw randwrite").refused(&["--rw randwrite overwrites", "--write"]);
    perf(&disk, "/file --prepare").refused(&["--write"]);
    perf(&disk, "--raw --rw write --write").refused(&["holds", "--force"]);
    perf(&disk, "/tiny").refused(&["/tiny", "1 bytes", "4096"]);
    assert!(before == fs::read(disk.image()).unwrap(), "refusals have written");
    let run = perf(&disk, "/file --rw write --write --prepare --count 100 --json").json();
    assert_eq!(run["total"]["writes"]["ios"], 100);
    assert!(disk.run("cat", &["/other"]).ok() == pattern(SIZE, 2));
    assert!(disk.run("cat", &["/file"]).ok() != pattern(SIZE, 1));
    common::must("e2fsck", &["-f".as_ref(), "-n".as_ref(), disk.image().as_ref()]);
}

#[test]
fn verification_passes_on_a_sound_device() {
    let disk = disk();
    for args in [
        "/file --rw randrw --write --verify --count 3000 --bs 4k:3,16k:1",
        "/file --rw randrw --write --verify --prepare --count 3000 --threads 3",
        "/file --rw readwrite --write --verify --count 3000 --bs 12k",
        "/file --rw randread --verify --count 3000",
    ] {
        let prepared = if args.contains("randread") { "--write --prepare" } else { "" };
        let run = perf(&disk, &format!("{args} {prepared} --json")).json();
        assert_eq!((&run["total"]["ios"], &run["total"]["errors"]), (&3000.into(), &0.into()));
    }
    // Another seed did not write this.
    let run = perf(&disk, "/file --verify --seed 2 --count 100");
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("no data of this seed; --prepare"), "{}", run.stderr);
}

/// A controller that reports success and does nothing drops a write, and returns the data that the
/// buffer had before for a read: another block. A block is written once after it was prepared, because
/// a later write would hide a lost one. Only the verification notices it.
#[test]
fn verification_finds_a_controller_that_lies_once() {
    for (fault, rw, part) in [
        ("old-version,op=write,nth=500", "randrw", "a write that was lost or is old"),
        ("status=success,op=write,nth=500", "readwrite", "a write that was lost or is old"),
        ("status=success,op=write,nth=1500", "write", "a write that was lost or is old"),
        ("status=success,op=read,nth=100000", "randread", "the wrong block"),
    ] {
        let disk = disk();
        let server = Server::start(&disk, &["--lba-size", "4096", "--fault", fault]);
        let count = if rw == "randread" { 120_000 } else { SIZE / 4096 };
        let args = format!("/file --write --prepare --seed 77 --qd 16 --rw {rw} --count {count}");
        let run = server.perf(&format!("{args} --latency none --verify"));
        assert_eq!(run.code, 1, "{fault}: {}", run.stderr);
        for part in [part, ":/file: wrong data at offset ", "LBA ", "seed 77"] {
            assert!(run.stderr.contains(part), "{fault}: no {part:?} in {}", run.stderr);
        }
        drop(server);
        let server = Server::start(&disk, &["--lba-size", "4096", "--fault", fault]);
        assert_eq!(server.perf(&args).code, 0, "{fault}: without verification");
    }
}

/// The pass that reads all blocks back has large requests, of which one block is wrong.
#[test]
fn the_block_that_is_wrong_is_named_and_not_the_request() {
    let disk = disk();
    let fault = "old-version,op=write,lba=1001";
    let server = Server::start(&disk, &["--lba-size", "4096", "--fault", fault]);
    let args = "--raw --force --size 8M --rw write --bs 4k --write --verify --count 2048 --qd 1";
    let run = server.perf(args);
    assert_eq!(run.code, 1);
    let offset = format!("offset {}:", 1001 * 4096);
    assert!(run.stderr.contains("LBA 1001: ") && run.stderr.contains(&offset), "{}", run.stderr);
}

#[test]
fn an_error_ends_the_run_or_is_counted_apart() {
    let disk = disk();
    let fault = "status=unrecovered-read-error,op=read,lba=8000-8100";
    let server = Server::start(&disk, &["--lba-size", "512", "--fault", fault]);
    let run = server.perf("--raw --rw read --bs 4k --count 4000 --retries 0");
    assert_eq!(run.code, 1, "{}", run.stderr);
    for part in ["LBA 8000", "read of 4096 bytes at offset 4096000", "unrecovered_read_error"] {
        assert!(run.stderr.to_lowercase().contains(&part.to_lowercase()), "{}", run.stderr);
    }
    let args = "--raw --rw read --bs 4k --count 4000 --retries 0 --continue --json";
    let run = server.perf(args);
    assert_eq!(run.code, 0);
    let run: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    // 101 blocks of 512 bytes are in 13 requests.
    assert_eq!((&run["total"]["errors"], &run["total"]["ios"]), (&13.into(), &3987.into()));
    // By turns: the first error ends all rounds, or each round counts its errors.
    let args = "--raw --rw read --sweep qd=2,4 --rounds 2 --count 4000 --retries 0 --json";
    let run = server.perf(args);
    assert_eq!((run.code, run.stderr.lines().count()), (1, 1), "{}", run.stderr);
    assert!(run.stderr.contains("LBA 8000: read of 4096 bytes"), "{}", run.stderr);
    let document: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let rounds = |of: &serde_json::Value| -> Vec<usize> {
        let cells = of["cells"].as_array().unwrap().iter();
        cells.map(|cell| cell["rounds"].as_array().unwrap().len()).collect()
    };
    assert_eq!(rounds(&document), [1, 0]);
    let run = server.perf(&format!("{args} --continue"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let document: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(rounds(&document), [2, 2]);
    assert!(document["cells"].as_array().unwrap().iter().all(|cell| cell["errors"] == 26));
}

#[test]
fn a_signal_ends_the_run_with_the_result_so_far() {
    let disk = disk();
    let image = disk.image();
    let args = ["perf".as_ref(), image.as_os_str(), OsStr::new("/file")];
    let mut perf = command(args);
    let perf = perf.args(["--time", "1h", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    // The embedded controller has read more than is needed to open the filesystem.
    let read = || {
        let counts = fs::read_to_string(format!("/proc/{}/io", perf.id())).unwrap();
        counts.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok()).unwrap_or(0)
    };
    while read() < 100_u64 << 20 {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&perf), Signal::INT).unwrap();
    let output = perf.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let run: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(run["interrupted"], true);
    assert!(run["total"]["ios"].as_u64().unwrap() > 0);
}

#[test]
fn a_rate_is_kept_and_counted_from_the_intended_start() {
    let disk = disk();
    let args = "/file --rate 2000 --arrival even --count 1000 --json";
    let run = perf(&disk, args).json();
    // 999 gaps of 500 microseconds, whatever the machine does.
    let elapsed = run["total"]["elapsed_ns"].as_u64().unwrap();
    assert!(elapsed >= 499_000_000, "{elapsed}");
    assert_eq!(run["settings"]["arrival"], "even");
    assert_eq!(run["total"]["ios"], 1000);
    // Asleep until the next start: a few polls for each, where a thread that polls has thousands.
    let run = perf(&disk, "/file --rate 1000 --arrival even --count 200 --interrupt --json").json();
    assert_eq!(
        (&run["total"]["ios"], &run["settings"]["wait"]),
        (&200.into(), &"interrupt".into())
    );
    let counter = |name: &str| run["total"]["counters"][name].as_u64().unwrap();
    assert!(counter("sleeps") > 0 && counter("polls") < 200 * 20, "{run}");
    perf(&disk, "/file --rate 5k --latency none").refused(&["--rate needs the clock"]);
}

/// The script of fio makes a table of a document, and compares the two.
#[test]
fn fio_reads_its_schema() {
    let disk = disk();
    let args = "/file /other --rw randrw --write --count 4000 --format fio-json";
    let run = perf(&disk, args).ok();
    let document: serde_json::Value = serde_json::from_slice(&run).unwrap();
    assert_eq!(document["jobs"].as_array().unwrap().len(), 2);
    let job = &document["jobs"][0];
    let ios = |side: &str| job[side]["total_ios"].as_u64().unwrap();
    assert_eq!(ios("read") + ios("write"), 4000);
    assert_eq!(job["read"]["clat_ns"]["N"].as_u64(), Some(ios("read")));
    assert!(job["read"]["clat_ns"]["percentile"]["99.000000"].is_u64());
    assert_eq!(document["nvio"]["schema"], 1);
    let (json, csv) = (disk.path("fio.json"), disk.path("fio.csv"));
    fs::write(&json, run).unwrap();
    let args = [json.as_os_str(), csv.as_os_str()];
    common::must("fio_jsonplus_clat2csv", &args);
    let said = common::must("fio_jsonplus_clat2csv", &[args[0], args[1], "--validate".as_ref()]);
    assert_eq!(said.matches("validated").count(), 2, "{said}");
    let table = fs::read_to_string(disk.path("fio_job1.csv")).unwrap();
    assert!(table.lines().count() > 10, "{table}");
}

#[test]
fn seconds_and_pictures_are_files() {
    let disk = disk();
    let (csv, svg) = (disk.path("run.csv"), disk.path("run.svg"));
    let args = format!("/file /other --time 2s --csv {} --svg {}", csv.display(), svg.display());
    perf(&disk, &args).text();
    let csv = fs::read_to_string(csv).unwrap();
    let mut lines = csv.lines();
    let about = lines.next().unwrap().strip_prefix("# ").unwrap();
    let about: serde_json::Value = serde_json::from_str(about).unwrap();
    assert_eq!((&about["tool"], &about["settings"]["seed"]), (&"nvio perf".into(), &1.into()));
    assert!(lines.next().unwrap().starts_with("second,name,read_iops"));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    let firsts: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert!(firsts.starts_with(&["1", "1", "2", "2"]), "{firsts:?}");
    assert!(rows.iter().all(|row| row.len() == 9 && row[2].parse::<u64>().unwrap() > 0));
    let svg = fs::read_to_string(svg).unwrap();
    for part in ["<svg ", "99.9", "percentile of requests", "time (s)", ":/other", "--time 2s"] {
        assert!(svg.contains(part), "no {part:?} in the picture");
    }
    let refused = perf(&disk, "/file --count 1 --csv /nonexistent/x");
    refused.refused(&["/nonexistent/x", "No such file"]);
}

#[test]
fn files_of_the_kernel_are_read_and_overwritten_in_place() {
    // On a disk: some memory filesystems have no O_DIRECT.
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    fs::write(file.path(), pattern(1 << 20, 3)).unwrap();
    let path = file.path().to_str().unwrap();
    let run =
        |args: &str| nvio(["perf", "--kernel", path].into_iter().chain(args.split_whitespace()));
    let read = run("--count 500 --qd 8 --json");
    if read.stderr.contains("io_uring") {
        return eprintln!("skipped: {}", read.stderr);
    }
    let read = read.json();
    assert_eq!((&read["rows"][0]["ios"], &read["total"]["errors"]), (&500.into(), &0.into()));
    let kernel = read["environment"]["devices"][0]["kernel"].as_str().unwrap();
    assert!(kernel.starts_with("io_uring, "), "{kernel}");
    let sweep = run("--sweep qd=1,4 --rounds 2 --count 30 --json").json();
    let cell = &sweep["cells"][1];
    assert_eq!((&cell["path"], &cell["rounds"][1]["ios"]), (&"kernel".into(), &30.into()));
    let written = run("--rw randwrite --write --verify --count 300 --qd 4 --json").json();
    assert_eq!(written["total"]["errors"], 0);
    assert_eq!(fs::metadata(file.path()).unwrap().len(), 1 << 20);
    assert!(fs::read(file.path()).unwrap() != pattern(1 << 20, 3));
    for refused in ["/file", "--raw", "--path bounce"] {
        assert_ne!(run(refused).code, 0, "{refused}");
    }
}
