//! `smart`, `log`, `ns`, `reset` and `identify` on the embedded controller.

use crate::common;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use common::{Outcome, nvio};
use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_testkit::controller::{Watched, open};

const SIZES: [u64; 2] = [3 << 20, 8 << 20];

/// Namespace 1 with blocks of 512 bytes, 5 with 4096, the latter write protected.
struct Served {
    emulator: Emulator,
    _image: tempfile::NamedTempFile,
}

impl Served {
    fn new() -> Self {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(SIZES[1]).unwrap();
        let protected = Backing::image(image.path(), true);
        let emulator = Emulator::builder()
            .namespace(NamespaceConfig::new(Backing::memory(SIZES[0])))
            .namespace(NamespaceConfig::new(protected).block_size(4096).nsid(5))
            .serial("SN 7")
            .start()
            .unwrap();
        Self { emulator, _image: image }
    }

    fn run(&self, verb: &str, rest: &[&str]) -> Outcome {
        let device = format!("vfio-user:{}", self.emulator.socket().display());
        nvio([verb, &device].iter().chain(rest))
    }

    /// The same controller, opened by the driver in this process.
    fn controller(&self) -> Watched {
        open(&self.emulator)
    }

    /// Makes commands fail, because no log page BFh exists.
    fn fail(&self, times: usize) {
        for _ in 0..times {
            self.run("log", &["0xbf"]).refused(&["Get Log Page failed: INVALID_LOG_PAGE"]);
        }
    }
}

#[test]
fn smart_shows_every_field() {
    let served = Served::new();
    let before = served.run("smart", &["--json"]).json();
    assert_eq!(before["temperature_celsius"], 37);
    assert_eq!(before["critical_warnings"], serde_json::json!([]));
    assert_eq!(before["available_spare_percent"], 100);
    assert_eq!(before["percentage_used"], 0);
    served.fail(2);
    {
        let controller = served.controller();
        let namespace = controller.namespace(1).unwrap();
        let mut queue = controller.queue_pair(4).unwrap();
        let buf = controller.alloc(128 << 10).unwrap();
        queue.read(&namespace, 0, buf, ()).unwrap();
        queue.wait(|done| assert!(done.status.is_success())).unwrap();
    }
    let after = served.run("smart", &["--json"]).json();
    let grown = |key: &str| after[key].as_u64().unwrap() - before[key].as_u64().unwrap();
    assert_eq!((grown("host_read_commands"), grown("error_log_entries")), (1, 2));
    // One data unit, of which part was used.
    assert_eq!((grown("data_read_bytes"), grown("data_written_bytes")), (512_000, 0));
    let text = served.run("smart", &[]).text();
    for line in [
        "Critical warning          none",
        "Temperature               37 °C",
        "Available spare           100 % (threshold 10 %)",
        "Endurance used            0 %",
        "Data read                 512000 bytes (500.00 KiB)",
        "Read commands             1",
        "Error log entries         2",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
    }
    assert_eq!(served.run("log", &["smart", "--json"]).json(), after);
    served.run("smart", &["--namespace", "1"]).refused(&["health information of a namespace"]);
}

#[test]
fn errors_are_shown_newest_first() {
    let served = Served::new();
    assert_eq!(served.run("log", &["error"]).text(), "no errors\n");
    assert_eq!(served.run("log", &["error", "--json"]).text(), "[]\n");
    served.fail(3);
    let entries = served.run("log", &["error", "--json"]).json();
    let counts: Vec<u64> =
        entries.as_array().unwrap().iter().map(|e| e["error_count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [3, 2, 1]);
    assert_eq!(
        (&entries[0]["status_code_type"], &entries[0]["status_code"]),
        (&1.into(), &9.into())
    );
    let text = served.run("log", &["0x01"]).text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[1].trim_start().starts_with("3 ") && lines[1].contains("INVALID_LOG_PAGE"));
}

#[test]
fn firmware_and_effects_are_those_of_the_driver() {
    let served = Served::new();
    let firmware = served.run("log", &["firmware", "--json"]).json();
    let effects = served.run("log", &["effects", "--json"]).json();
    let text = served.run("log", &["effects"]).text();
    let controller = served.controller();
    let revision = controller.identify().firmware();
    assert_eq!(firmware["active_slot"], 1);
    assert_eq!(firmware["slots"], serde_json::json!([{ "slot": 1, "revision": revision }]));
    let log = controller.command_effects().unwrap();
    for (kind, entries) in [("admin", &log.admin), ("io", &log.io)] {
        let supported: Vec<usize> = (0..256).filter(|&at| entries[at].get() & 1 != 0).collect();
        let shown = effects[kind].as_array().unwrap();
        let shown: Vec<u64> = shown.iter().map(|c| c["opcode"].as_u64().unwrap()).collect();
        assert_eq!(shown, supported.iter().map(|&at| at as u64).collect::<Vec<_>>());
    }
    let write = text.lines().find(|line| line.contains(" Write ")).unwrap();
    assert!(write.starts_with("I/O") && write.contains("0x01") && write.contains("changes blocks"));
}

#[test]
fn the_list_of_pages_is_true() {
    let served = Served::new();
    let listed = served.run("log", &["--json"]).json();
    let text = served.run("log", &[]).text();
    for page in listed["pages"].as_array().unwrap() {
        let id = page["id"].as_u64().unwrap().to_string();
        served.run("log", &[&id, "--length", "512"]).ok();
        assert!(text.contains(page["title"].as_str().unwrap()), "{text}");
    }
    for id in ["0x01", "0x02", "0x03", "0x05"] {
        assert!(text.lines().any(|line| line.starts_with(id)), "{text}");
    }
}

#[test]
fn bytes_of_a_page_are_shown_as_they_are() {
    let served = Served::new();
    let whole = served.run("log", &["firmware", "--length", "512", "--json"]).json();
    let hex = whole["hex"].as_str().unwrap();
    assert_eq!((hex.len(), &hex[..4]), (1024, "0100"));
    let part = served.run("log", &["3", "--offset", "8", "--length", "5", "--json"]).json();
    assert_eq!((&part["offset"], part["hex"].as_str().unwrap()), (&8.into(), &hex[16..26]));
    let text = served.run("log", &["3", "--offset", "8"]).text();
    assert!(text.starts_with("00000008  "), "{text}");
    assert!(text.lines().next().unwrap().contains(&served.controller().identify().firmware()));
    served.run("log", &["3", "--offset", "2"]).refused(&["2 bytes is not a multiple of 4"]);
    served.run("log", &["3", "--offset", "1099511627776"]).refused(&["Get Log Page failed"]);
}

#[test]
fn namespaces_are_listed_with_their_formats() {
    let served = Served::new();
    let all = served.run("ns", &["--json"]).json();
    let of = |index: usize, key: &str| all[index][key].clone();
    for (index, (nsid, lba)) in [(1, 512), (5, 4096)].into_iter().enumerate() {
        assert_eq!((of(index, "nsid"), of(index, "lba_size")), (nsid.into(), lba.into()));
        assert_eq!(of(index, "size"), SIZES[index]);
        assert_eq!(
            (of(index, "metadata_size"), of(index, "protection_type")),
            (0.into(), 0.into())
        );
        assert_eq!(of(index, "write_protected"), index == 1);
        assert!(of(index, "unusable").is_null());
    }
    let text = served.run("ns", &[]).text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("NSID") && lines[0].contains("PROTECTION"), "{text}");
    assert!(lines[2].trim_start().starts_with("5 ") && lines[2].contains("4096"), "{text}");
    assert!(lines[2].contains("write protected") && !lines[1].contains("write protected"));
    let one = served.run("ns", &["--namespace", "5", "--json"]).json();
    assert_eq!((one.as_array().unwrap().len(), &one[0]), (1, &all[1]));
    served.run("ns", &["--namespace", "2"]).refused(&["namespace 2 is not active", "1, 5"]);
}

#[test]
fn a_reset_is_reported_and_leaves_a_working_controller() {
    let served = Served::new();
    for _ in 0..3 {
        let text = served.run("reset", &[]).text();
        assert!(text.contains("function reset, controller ready after"), "{text}");
        assert!(text.contains("serial SN 7") && text.contains("2 active namespaces"), "{text}");
    }
    let said = served.run("reset", &["--json"]).json();
    assert_eq!((&said["serial"], &said["active_namespaces"]), (&"SN 7".into(), &2.into()));
    assert_eq!(served.run("smart", &["--json"]).json()["unsafe_shutdowns"], 0);
}

#[test]
fn an_image_cannot_be_reset() {
    let image = tempfile::NamedTempFile::new().unwrap();
    let path: PathBuf = image.path().into();
    nvio([OsStr::new("reset"), path.as_ref()]).refused(&["is an image"]);
    nvio(["reset", "fffff:ff:1f.7"]).refused(&["no PCI device fffff:ff:1f.7"]);
    nvio(["reset", "vfio-user:/nonexistent"]).refused(&["/nonexistent"]);
    assert!(Path::new(&path).exists());
}
