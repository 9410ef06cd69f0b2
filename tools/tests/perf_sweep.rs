//! `nvio perf` with several loads by turns, and beside an earlier run. Numbers of requests and rounds,
//! never rates, are checked.

use crate::common;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::{Disk, Outcome, command, pattern};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Bytes of each file.
const SIZE: usize = 8 << 20;

fn disk() -> Disk {
    let fill = |folder: &Path| {
        fs::write(folder.join("file"), pattern(SIZE, 1)).unwrap();
        fs::write(folder.join("other"), pattern(SIZE, 2)).unwrap();
    };
    Disk::new(fill, &["-b", "4096"])
}

fn perf(disk: &Disk, args: &str) -> Outcome {
    disk.run("perf", &args.split_whitespace().collect::<Vec<_>>())
}

/// Wrong usage: exit code 2, and one line that has all of `parts`.
fn misused(run: &Outcome, parts: &[&str]) {
    assert_eq!((run.code, run.stderr.lines().count()), (2, 1), "{}", run.stderr);
    for part in parts {
        assert!(run.stderr.contains(part), "no {part:?} in {}", run.stderr);
    }
}

fn cells(run: &Value) -> &[Value] {
    assert_eq!((&run["schema"], &run["kind"]), (&1.into(), &"sweep".into()));
    run["cells"].as_array().unwrap()
}

/// Returns the lines of CSV as cells, and the document before them.
fn csv(path: &Path) -> (Value, Vec<Vec<String>>) {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let about = lines.next().unwrap().strip_prefix("# ").unwrap();
    let lines = lines.map(|line| line.split(',').map(str::to_owned).collect());
    (serde_json::from_str(about).unwrap(), lines.collect())
}

#[test]
fn each_path_is_measured_at_each_depth_in_each_round() {
    let disk = disk();
    let (table, picture) = (disk.path("sweep.csv"), disk.path("sweep.svg"));
    let paths = ["raw", "simple", "generic", "bounce", "buffered"];
    let args = format!(
        "/file --sweep qd=1,2..8 --compare {} --rounds 3 --count 60 --csv {} --svg {} --json",
        paths.join(","),
        table.display(),
        picture.display()
    );
    let run = perf(&disk, &args).json();
    let shown = cells(&run)
        .iter()
        .map(|cell| (cell["qd"].as_u64().unwrap(), cell["path"].as_str().unwrap()));
    let expected =
        [1, 2, 4, 8].iter().flat_map(|&depth| paths.iter().map(move |&path| (depth, path)));
    assert_eq!(shown.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    for cell in cells(&run) {
        let rounds = cell["rounds"].as_array().unwrap();
        let ios: Vec<&Value> = rounds.iter().map(|round| &round["ios"]).collect();
        assert_eq!(ios, [60, 60, 60], "{cell}");
        assert_eq!((&cell["ratio"]["to"], &cell["ratio"]["samples"]), (&"raw".into(), &3.into()));
        assert_eq!(
            (&cell["settings"]["count"], &cell["settings"]["seed"]),
            (&60.into(), &1.into())
        );
        assert_eq!(cell["latency_ns"]["count"], 180);
        let counters = |name: &str| cell["counters"][name].as_u64().unwrap();
        let counted = [counters("simple"), counters("generic"), counters("bounced")];
        match cell["path"].as_str().unwrap() {
            // Cached data of an earlier cell would have kept requests off the simple path.
            "simple" => assert_eq!(counted, [180, 0, 0]),
            "generic" => assert_eq!(counted, [0, 180, 0]),
            "bounce" => assert_eq!(counted[2], 180),
            "raw" => assert_eq!((counted, &cell["ratio"]["median"]), ([0, 0, 0], &1.0.into())),
            _ => assert_eq!(counted[0], 0),
        }
    }
    let (about, lines) = csv(&table);
    assert_eq!((&about["command"], &about["rounds"]), (&run["command"], &3.into()));
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{lines:?}");
    let rounds: Vec<&str> = lines[1..].iter().map(|line| line[0].as_str()).collect();
    assert_eq!(rounds, [["1"; 20], ["2"; 20], ["3"; 20]].concat());
    let picture = fs::read_to_string(picture).unwrap();
    for part in ["(QD)", "(IOPS)", "/ raw", "mean latency", ">buffered<", "--sweep qd=1,2..8"] {
        assert!(picture.contains(part), "no {part:?} in the picture");
    }
}

#[test]
fn a_table_has_a_row_for_each_load_with_its_ratio_and_spread() {
    let disk = disk();
    let text =
        perf(&disk, "/file --sweep bs=4k..16k --compare simple,bounce --rounds 2 --count 50")
            .text();
    for part in ["median of 2 rounds by turns, each 50 requests; random, seed 1", "of simple", ".."]
    {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    // The notes have " QD ".
    let is_row = |line: &&str| line.starts_with("randread ") && !line.contains(" QD ");
    let rows = text.lines().filter(is_row);
    let rows: Vec<Vec<&str>> = rows.map(|line| line.split_whitespace().take(5).collect()).collect();
    let sizes = ["4k", "8k", "16k"];
    let expected = sizes
        .iter()
        .flat_map(|&size| ["simple", "bounce"].map(|path| vec!["randread", size, "32", "1", path]));
    assert_eq!(rows, expected.collect::<Vec<_>>());
    assert!(text.contains("8k QD 32 simple: not on the simple path: 100 length\n"), "{text}");
    assert!(!text.contains(" 4k QD 32 simple: ") && !text.contains("bounce: "), "{text}");
    // Without a comparison there is no ratio.
    let text = perf(&disk, "--raw --sweep qd=1,2 --rounds 1 --count 50 --latency none").text();
    assert!(!text.contains("spread") && text.contains("latency: not measured"), "{text}");
}

#[test]
fn several_files_are_one_figure() {
    let disk = disk();
    let run = perf(&disk, "/file /other --compare raw,simple --rounds 1 --count 70 --json").json();
    let ios: Vec<&Value> = cells(&run).iter().map(|cell| &cell["rounds"][0]["ios"]).collect();
    assert_eq!(ios, [140, 140]);
    let targets = run["targets"].as_array().unwrap();
    let names: Vec<&str> = targets.iter().map(|target| target["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names[1].ends_with(":/file") && names[2].ends_with(":/other"), "{names:?}");
    assert!(targets.iter().all(|target| target["range_bytes"] == SIZE), "{targets:?}");
}

#[test]
fn a_profile_has_the_known_loads() {
    let disk = disk();
    let shown = |run: &Value| -> Vec<String> {
        let of = |cell: &Value| {
            assert_eq!(cell["rounds"].as_array().unwrap().len(), 3);
            let words = ["rw", "bs", "qd", "threads"].map(|key| cell[key].to_string());
            words.join(" ").replace('"', "")
        };
        cells(run).iter().map(of).collect()
    };
    let reads = ["read 1M 8 1", "read 128k 32 1", "randread 4k 32 4", "randread 4k 1 1"];
    let writes = ["write 1M 8 1", "write 128k 32 1", "randwrite 4k 32 4", "randwrite 4k 1 1"];
    let run = perf(&disk, "--raw --profile quick --count 20 --json").json();
    assert_eq!(shown(&run), reads);
    let svg = disk.path("profile.svg");
    let args = format!("/file --profile quick --count 20 --write --json --svg {}", svg.display());
    let run = perf(&disk, &args).json();
    assert_eq!(shown(&run), [reads, writes].concat());
    let svg = fs::read_to_string(svg).unwrap();
    assert!(svg.contains(">randwrite 4k<") && svg.contains("MiB/s"), "{svg}");
    common::must("e2fsck", &["-f".as_ref(), "-n".as_ref(), disk.image().as_ref()]);
    assert!(disk.run("cat", &["/other"]).ok() == pattern(SIZE, 2));
}

#[test]
fn wrong_lists_are_refused_on_one_line() {
    let disk = disk();
    for (args, parts) in [
        ("/file --sweep threads=1,2", &["qd=LIST or bs=LIST", "qd=1,2,4..256"][..]),
        ("/file --sweep qd=8..4", &["\"8..4\"", "smaller value first"]),
        ("/file --sweep qd=0", &["from 1 to 4095"]),
        ("/file --sweep bs=4k:2", &["weight", "--bs"]),
        ("/file --compare simple,fast", &["\"fast\"", "raw, simple, generic"]),
        ("/file --compare raw,raw", &["twice"]),
        ("/file --compare simple --path bounce", &["--compare", "--path"]),
        ("--raw --compare raw,simple", &["--compare", "--raw"]),
        ("/file --profile medium", &["medium", "--profile"]),
        ("/file --profile quick --qd 4", &["--profile", "--qd"]),
        ("/file --profile quick --sweep qd=1", &["--profile", "--sweep"]),
        ("/file --rounds 3", &["--sweep", "--compare"]),
        ("/file --compare simple --rounds 0", &["from 1 to 1000"]),
        ("/file --compare simple --verify", &["--verify"]),
        ("/file --compare simple --format fio-json", &["--format"]),
    ] {
        misused(&perf(&disk, args), parts);
    }
    perf(&disk, "/file --sweep qd=1 --sweep qd=2").refused(&["once for qd and once for bs"]);
    perf(&disk, "/file --sweep qd=1 --qd 2").refused(&["--sweep replaces --qd"]);
    let raw = "/file --compare raw,simple --rw randwrite --write";
    perf(&disk, raw).refused(&["destroy the filesystem", "leave raw out"]);
    perf(&disk, "/file --sweep bs=4k..16M").refused(&["/file", "16777216"]);
}

/// The range is written once, also if no load writes.
#[test]
fn a_range_is_prepared_before_the_first_load() {
    let disk = disk();
    let args = "/file --sweep qd=1,4 --prepare --write --seed 9 --count 20 --rounds 2 --json";
    assert_eq!(cells(&perf(&disk, args).json()).len(), 2);
    let run = perf(&disk, "/file --verify --seed 9 --count 500 --json").json();
    assert_eq!(run["total"]["errors"], 0);
}

#[test]
fn a_signal_ends_a_sweep_with_the_rounds_so_far() {
    let disk = disk();
    let args = ["perf", disk.image().to_str().unwrap(), "/file", "--json"].map(str::to_owned);
    let more = ["--sweep", "qd=1..256", "--time", "20ms", "--rounds", "1000"].map(str::to_owned);
    let mut perf = command(args.into_iter().chain(more));
    let perf = perf.stdout(Stdio::piped()).spawn().unwrap();
    // The thread that measures is the fourth.
    let threads = || fs::read_dir(format!("/proc/{}/task", perf.id())).unwrap().count();
    while threads() < 4 {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    kill_process(Pid::from_child(&perf), Signal::INT).unwrap();
    let output = perf.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(run["interrupted"], true);
    assert!(cells(&run).iter().all(|cell| cell["rounds"].as_array().unwrap().len() < 1000));
}

#[test]
fn a_run_is_compared_with_an_earlier_one_of_the_same_settings() {
    let disk = disk();
    let base = disk.path("base.json");
    let args = "/file --compare simple,generic --rounds 3 --count 80 --json";
    let mut document = perf(&disk, args).json();
    let against = |document: &Value, args: &str| {
        fs::write(&base, document.to_string()).unwrap();
        perf(&disk, &format!("{args} --baseline {}", base.display()))
    };
    let noise = |run: &Value| -> Vec<Value> {
        cells(run).iter().map(|cell| cell["change"]["within_noise"].clone()).collect()
    };
    // All rounds of the first cell are slower than any machine, those of the second of any speed.
    let mut set = |cell: usize, rounds: [f64; 3]| {
        for (index, iops) in rounds.into_iter().enumerate() {
            document["cells"][cell]["rounds"][index]["iops"] = iops.into();
        }
    };
    set(0, [0.5, 0.6, 0.7]);
    set(1, [1e-3, 1.0, 1e15]);
    let run = against(&document, args).json();
    assert_eq!(noise(&run), [false, true]);
    let then = &cells(&run)[0]["change"]["baseline"];
    assert_eq!(
        (&then["min"], &then["median"], &then["max"]),
        (&0.5.into(), &0.6.into(), &0.7.into())
    );
    assert_eq!(
        (&run["baseline"]["measure"], &run["baseline"]["notes"]),
        (&"iops".into(), &Value::Array(vec![]))
    );
    let text = against(&document, args.trim_end_matches(" --json")).text();
    for part in ["since baseline", "% more than the noise", "% within the noise", "base.json"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    document["environment"]["nvio"] = "0.0.1".into();
    let text = against(&document, args.trim_end_matches(" --json")).text();
    assert!(text.contains("nvio was 0.0.1, is "), "{text}");
    for (args, parts) in [
        (
            "/file --compare simple,bounce --rounds 3 --count 80",
            &["path simple instead of bounce"][..],
        ),
        (
            "/file --compare simple --count 80 --qd 16 --bs 8k",
            &["qd 32 instead of 16", "bs 4k instead of 8k"],
        ),
        (
            "/file --count 80 --rw read --seed 2 --size 1M --qd 1 --bs 16k",
            &["qd 32 instead of 1", "and 2 more;"],
        ),
    ] {
        against(&document, args).refused(&[parts, &["base.json", "leave out --baseline"]].concat());
    }
}

#[test]
fn a_baseline_of_one_run_has_seconds() {
    let disk = disk();
    let base = disk.path("base.json");
    let args = "/file --count 500";
    let mut document = perf(&disk, &format!("{args} --json")).json();
    let against = |document: &Value, form: &str| {
        fs::write(&base, document.to_string()).unwrap();
        perf(&disk, &format!("{args} --baseline {}{form}", base.display()))
    };
    let text = against(&document, "").text();
    assert!(text.contains("noise unknown") && text.contains("needs 3 samples"), "{text}");
    // Three whole seconds, and a part of one that does not count.
    document["total"]["elapsed_ns"] = 3_600_000_000_u64.into();
    let second = |reads: u64| serde_json::json!({ "reads": reads, "writes": 0 });
    document["total"]["seconds"] = [10, 30, 20, 1].map(second).to_vec().into();
    let run = against(&document, " --json").json();
    let then = &run["change"]["baseline"];
    let shown = ["min", "median", "max", "samples"].map(|key| then[key].as_f64().unwrap());
    assert_eq!(shown, [10.0, 20.0, 30.0, 3.0]);
    assert_eq!(run["change"]["within_noise"], Value::Null);
    against(&serde_json::json!({ "a": 1 }), "").refused(&["base.json", "not a document"]);
    fs::write(&base, "x").unwrap();
    perf(&disk, &format!("{args} --baseline {}", base.display())).refused(&["not JSON", "--json"]);
    perf(&disk, &format!("{args} --baseline /nonexistent"))
        .refused(&["/nonexistent", "No such file"]);
}
