//! `nvio` on QEMU's NVMe device, through the kernel's VFIO and a translating IOMMU.
//!
//! The guest boots once a machine; its script (`tests/guest/scenario.sh`, `no-iommu.sh`) does all
//! the work and reports, and each test here judges a part of the report. The kernel of the guest
//! makes the filesystems and says what they hold. Needs QEMU: `tests/run guest`.

use std::sync::LazyLock;

use nvio_tests::guest::{self, Report};
use nvio_tests::view;
use serde_json::{Value, json};

static IOMMU: LazyLock<Report> = LazyLock::new(|| guest::boot(&guest::IOMMU));
static NO_IOMMU: LazyLock<Report> = LazyLock::new(|| guest::boot(&guest::NO_IOMMU));
static TURNS: LazyLock<Report> = LazyLock::new(|| guest::boot(&guest::TURNS));

const DEVICE_A: &str = "0000:00:10.0";
const DEVICE_B: &str = "0000:00:11.0";
/// The files of the scenario whose extents are compared, with the minimum number of extents.
const MAPPED: [(&str, usize); 11] = [
    ("large", 1),
    ("sparse/every-kind", 2),
    ("sparse/only-a-hole", 0),
    ("sparse/one-block-in-three", 100),
    ("sparse/far", 2),
    ("preallocated/whole", 1),
    ("preallocated/written-inside", 3),
    ("preallocated/tail-past-the-end", 2),
    ("fragmented/scattered", 1_001),
    ("sizes/medium", 1),
    ("sizes/0-bytes", 0),
];

/// The namespaces of device A, with their block sizes.
const NAMESPACES: [(u32, u64); 2] = [(1, 512), (3, 4096)];
/// Size of each namespace, bytes.
const NAMESPACE_BYTES: u64 = 640 << 20;

/// Checks model, serial number and firmware, which is QEMU's version.
fn check_identity(found: &Value) {
    assert_eq!((&found["model"], &found["serial"]), (&json!("QEMU NVMe Ctrl"), &json!("nvio-a")));
    let firmware = found["firmware"].as_str().unwrap();
    assert!(firmware.starts_with(|first: char| first.is_ascii_digit()), "{firmware}");
}

/// Compares `nvio ls -lR --json` with the kernel's stat of each path.
fn check_listing(tag: &str, listing: &str) {
    let kernel = view::of_json(&serde_json::from_str(IOMMU.text(&format!("{tag}.view"))).unwrap());
    let nvio = view::of_json(&IOMMU.json(listing));
    assert!(kernel.len() > 200, "{} paths only", kernel.len());
    let differences = view::differences(&kernel, &nvio);
    let shown = &differences[..differences.len().min(10)];
    assert!(shown.is_empty(), "{} paths differ:\n{}", differences.len(), shown.join("\n"));
}

/// Compares `nvio stat --json` with the kernel's stat.
fn check_stat(tag: &str) {
    let kernel = view::of_json(&serde_json::from_str(IOMMU.text(&format!("{tag}.view"))).unwrap());
    let found = view::entry_of_json(&IOMMU.json(&format!("{tag}.stat")));
    assert_eq!(Some(&found), kernel.get(&b"large"[..]));
}

/// Compares two lists of checksums, one per file, in the order of `{tag}.list`.
fn check_sums(tag: &str, kernel: &str, nvio: &str) {
    let names: Vec<&str> = IOMMU.text(&format!("{tag}.list")).lines().collect();
    let kernel: Vec<&str> = IOMMU.text(kernel).lines().collect();
    let nvio: Vec<&str> = IOMMU.text(nvio).lines().collect();
    assert!(names.len() > 140, "{} files only", names.len());
    assert_eq!(names.len(), kernel.len(), "a sum a file");
    assert_eq!(names.len(), nvio.len(), "a sum a file");
    let wrong: Vec<&str> = (0..names.len())
        .filter(|&index| kernel[index] != nvio[index])
        .map(|index| names[index])
        .collect();
    assert!(wrong.is_empty(), "{} of {} files differ: {wrong:?}", wrong.len(), names.len());
}

/// Compares `nvio cat` of a single file.
fn check_single_file(tag: &str, path: &str) {
    let mut names = IOMMU.text(&format!("{tag}.list")).lines();
    let index = names.position(|name| name == path).unwrap_or_else(|| panic!("no {path}"));
    let sum = IOMMU.text(&format!("{tag}.sums")).lines().nth(index);
    assert_eq!(IOMMU.text(&format!("{tag}.cat.{path}")).lines().next(), sum, "{tag}: {path}");
}

fn check_single_files(tag: &str) {
    for (path, _) in MAPPED.into_iter().filter(|(path, _)| *path != "sparse/far") {
        check_single_file(tag, path);
    }
}

/// Compares `nvio map --json` with filefrag.
fn check_maps(tag: &str) {
    let maps = IOMMU.json(&format!("{tag}.maps"));
    assert_eq!(maps.as_array().unwrap().len(), MAPPED.len());
    for (index, (path, least)) in MAPPED.into_iter().enumerate() {
        let shown = IOMMU.text(&format!("{tag}.filefrag.{path}"));
        let kernel = guest::filefrag(shown);
        assert!(kernel.len() >= least, "{path} has {} extents: {shown}", kernel.len());
        let nvio = view::extents_of_json(&maps[index]);
        assert_eq!(view::joined(&nvio), view::joined(&kernel), "{tag}: {path}");
    }
}

/// Checks that the copy by `nvio cp -r` has the kernel's sizes, modes, times and link targets.
fn check_copy(tag: &str) {
    IOMMU.stdout(&format!("{tag}.cp"));
    let parse = |name: &str| {
        view::of_json(&serde_json::from_str(IOMMU.text(&format!("{tag}.{name}"))).unwrap())
    };
    let (kernel, copy) = (parse("view"), parse("copy-view"));
    for (path, entry) in &kernel {
        let name = path.escape_ascii();
        let found = copy.get(path).unwrap_or_else(|| panic!("{name} was not copied"));
        assert_eq!(found.mode, entry.mode, "mode of {name}");
        assert_eq!(found.mtime, entry.mtime, "mtime of {name}");
        assert_eq!(found.target, entry.target, "target of {name}");
        if entry.is_file() {
            assert_eq!(found.size, entry.size, "size of {name}");
        }
    }
}

/// Checks that `nvio` failed: exit code 1, nothing on standard output, one line that contains
/// `words`.
fn check_refusal(report: &Report, name: &str, words: &[&str]) {
    let outcome = report.outcome(name);
    assert_eq!(outcome.code, 1, "{name}: {outcome:?}");
    assert_eq!(outcome.stdout, "", "{name}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{name}: {}", outcome.stderr);
    assert!(outcome.stderr.starts_with("nvio: "), "{name}: {}", outcome.stderr);
    for word in words {
        assert!(outcome.stderr.contains(word), "{name}: no {word} in: {}", outcome.stderr);
    }
}

/// Checks that `nvio perf --kernel` has used `interface` of the kernel, and read or written without an
/// error or a wrong byte.
fn check_kernel_load(name: &str, interface: &str) {
    let run = IOMMU.json(name);
    assert_eq!(run["environment"]["devices"][0]["kernel"], interface, "{name}");
    assert_eq!(
        (&run["total"]["ios"], &run["total"]["errors"]),
        (&json!(1500), &json!(0)),
        "{name}"
    );
}

macro_rules! guest_tests {
    ($($name:ident $body:block)*) => {
        $(
            #[test]
            #[ignore = "needs QEMU and a kernel package: tests/run guest"]
            fn $name() $body
        )*
    };
}

guest_tests! {
    list_shows_what_the_kernel_knows {
        for report in [IOMMU.stdout("list-text"), IOMMU.stdout("list-before")] {
            assert!(report.contains(DEVICE_A) && report.contains(DEVICE_B), "{report}");
        }
        let list = IOMMU.json("list-before");
        let a = list.as_array().unwrap().iter().find(|found| found["address"] == DEVICE_A).unwrap();
        check_identity(a);
        assert_eq!((&a["vendor_id"], &a["device_id"]), (&json!("0x1b36"), &json!("0x0010")));
        assert_eq!((&a["driver"], &a["in_use_by"]), (&json!("nvme"), &json!([])));
        assert!(a["iommu_group"].is_u64(), "{a}");
        let text = IOMMU.stdout("list-text");
        let line = text.lines().find(|line| line.starts_with(DEVICE_A)).unwrap();
        for word in ["QEMU NVMe Ctrl", "nvio-a", " nvme ", "n1", "640.00 MiB", " 512 "] {
            assert!(line.contains(word), "no {word} in {text}");
        }
    }

    list_asks_a_controller_that_is_bound_to_vfio {
        let bound = IOMMU.json("list-bound");
        let devices = bound.as_array().unwrap();
        let a = devices.iter().find(|found| found["address"] == DEVICE_A).unwrap();
        check_identity(a);
        assert_eq!((&a["driver"], &a["name"]), (&json!("vfio-pci"), &Value::Null));
        assert_eq!((&a["unknown"], &a["in_use_by"]), (&Value::Null, &json!([])));
    }

    bind_gives_the_device_to_vfio {
        IOMMU.stdout("bind");
        assert_eq!(IOMMU.text("bind.driver").trim(), "vfio-pci");
    }

    identify_shows_every_field {
        let text = IOMMU.stdout("identify");
        for word in ["nvio-a", "QEMU NVMe Ctrl", "ONCS", "Write Zeroes", "NSZE", "25.0000"] {
            assert!(text.contains(word), "no {word} in {text}");
        }
        let json = IOMMU.json("identify-json");
        check_identity(&json);
        // Values from QEMU's documentation and properties of the device.
        let value = |name: &str| &json["identify_controller"][name]["value"];
        assert_eq!((value("vid"), value("ssvid")), (&json!(0x1b36), &json!(0x1af4)));
        assert_eq!((value("mdts"), &json["max_data_transfer_bytes"]), (&json!(7), &json!(512 << 10)));
        assert_eq!((value("sqes"), value("cqes")), (&json!(0x66), &json!(0x44)));
        assert_eq!((value("wctemp"), value("cctemp")), (&json!(343), &json!(373)));
        assert_eq!(value("subnqn"), "nqn.2019-08.org.qemu:nvio-a");
        let meaning = json["identify_controller"]["oncs"]["meaning"].to_string();
        for command in ["Compare", "Write Zeroes", "Dataset Management", "Copy"] {
            assert!(meaning.contains(command), "no {command} in {meaning}");
        }
        let meaning = json["identify_controller"]["oacs"]["meaning"].to_string();
        assert!(meaning.contains("Doorbell Buffer Config"), "{meaning}");
        assert_eq!(json["power_states"][0]["max_microwatts"], 25_000_000);
        let namespaces = json["namespaces"].as_array().unwrap();
        for (namespace, (nsid, lba)) in namespaces.iter().zip(NAMESPACES) {
            assert_eq!(namespace["nsid"], nsid);
            let blocks = &namespace["identify_namespace"]["nsze"]["value"];
            assert_eq!(blocks, NAMESPACE_BYTES / lba, "namespace {nsid}");
        }
    }

    smart_shows_how_the_drive_is {
        let json = IOMMU.json("smart-json");
        // 323 K and no wear are QEMU's fixed values.
        assert_eq!(json["temperature_celsius"], 50);
        assert_eq!(json["warning_temperature_celsius"], 70);
        assert_eq!(json["critical_temperature_celsius"], 100);
        assert_eq!((&json["critical_warning"], &json["percentage_used"]), (&json!(0), &json!(0)));
        assert_eq!(json["available_spare_threshold_percent"], 0);
        // The kernel has written a file of 16 MiB to each of its two filesystems.
        assert!(json["data_written_bytes"].as_u64().unwrap() > 32 << 20, "{json}");
        assert!(json["host_read_commands"].as_u64().unwrap() > 100, "{json}");
        assert_eq!(json, IOMMU.json("log-smart-json"), "nvio log smart");
        let text = IOMMU.stdout("smart");
        for line in ["Critical warning          none", "Temperature               50 °C"] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
    }

    ns_shows_the_namespaces {
        let json = IOMMU.json("ns-json");
        assert_eq!(json.as_array().unwrap().len(), NAMESPACES.len());
        for (namespace, (nsid, lba)) in json.as_array().unwrap().iter().zip(NAMESPACES) {
            assert_eq!((&namespace["nsid"], &namespace["lba_size"]), (&json!(nsid), &json!(lba)));
            assert_eq!(namespace["size"], NAMESPACE_BYTES);
            assert_eq!((&namespace["metadata_size"], &namespace["protection_type"]), (&json!(0), &json!(0)));
            assert_eq!((&namespace["write_protected"], &namespace["unusable"]), (&json!(false), &Value::Null));
        }
        assert_eq!(IOMMU.stdout("ns").lines().count(), 1 + NAMESPACES.len());
    }

    log_shows_its_pages {
        let pages = IOMMU.json("log-json");
        let text = pages.to_string();
        for page in ["error", "smart", "firmware", "effects"] {
            assert!(text.contains(page), "no {page} in {text}");
            assert!(!IOMMU.stdout(&format!("log-{page}")).is_empty());
        }
        assert_eq!(IOMMU.json("log-error-json"), json!([]));
        assert_eq!(IOMMU.json("log-firmware-json")["active_slot"], 1);
        assert_eq!(IOMMU.json("log-changed-ns-json")["overflowed"], false);
        let effects = IOMMU.stdout("log-effects");
        for command in ["Identify", "Read", "Write", "Flush"] {
            assert!(effects.contains(command), "no {command} in {effects}");
        }
        // Byte 0: no critical warning; bytes 1 and 2: 323 K.
        assert!(IOMMU.stdout("log-raw").contains("00 43 01"), "{}", IOMMU.stdout("log-raw"));
        check_refusal(&IOMMU, "log-unknown", &["Get Log Page"]);
    }

    reset_leaves_a_working_controller {
        assert!(IOMMU.stdout("reset").contains("2 active namespaces"), "{}", IOMMU.stdout("reset"));
        let json = IOMMU.json("reset-json");
        check_identity(&json);
        assert_eq!(json["active_namespaces"], 2);
    }

    large_pages_were_used {
        // The second half of the scenario needs these pages, which the kernel has allocated.
        assert_eq!(IOMMU.text("hugepages").trim(), "64");
    }

    huge_pages_that_a_cgroup_forbids_are_not_used {
        for limit in ["huge-max", "huge-rsvd.max"] {
            assert!(IOMMU.stdout(limit).contains("QEMU NVMe Ctrl"), "{limit}");
            // The number of times that the kernel refused a page.
            assert_ne!(IOMMU.text(&format!("{limit}.events")).trim(), "max 0", "{limit}");
        }
    }

    success_leaves_standard_error_empty {
        let noisy: Vec<String> = IOMMU
            .outcomes()
            .filter(|(_, outcome)| outcome.code == 0 && !outcome.stderr.is_empty())
            .filter(|(name, _)| !name.ends_with(".e2fsck"))
            .map(|(name, outcome)| format!("{name}: {}", outcome.stderr))
            .collect();
        assert!(noisy.is_empty(), "{} commands:\n{}", noisy.len(), noisy[0]);
    }

    no_dma_fault_was_logged {
        assert_eq!(IOMMU.text("faults"), "");
    }

    lba512_listing { check_listing("lba512", "lba512.ls") }
    lba512_cat_of_every_file { check_sums("lba512", "lba512.sums", "lba512.nvio-sums") }
    lba512_cat_of_a_range {
        assert_eq!(IOMMU.text("lba512.nvio-range"), IOMMU.text("lba512.range"));
    }
    lba512_maps { check_maps("lba512") }
    lba512_copy_content { check_sums("lba512", "lba512.sums", "lba512.copy-sums") }
    lba512_copy_attributes { check_copy("lba512") }
    lba512_cat_of_single_files { check_single_files("lba512") }
    lba512_stat { check_stat("lba512") }
    lba512_kernel_reads_it_again { check_sums("lba512", "lba512.sums", "lba512.sums-again") }
    lba512_e2fsck_is_clean { IOMMU.stdout("lba512.e2fsck"); }

    lba4096_listing { check_listing("lba4096", "lba4096.ls") }
    lba4096_cat_of_every_file { check_sums("lba4096", "lba4096.sums", "lba4096.nvio-sums") }
    lba4096_cat_of_a_range {
        assert_eq!(IOMMU.text("lba4096.nvio-range"), IOMMU.text("lba4096.range"));
    }
    lba4096_maps { check_maps("lba4096") }
    lba4096_copy_content { check_sums("lba4096", "lba4096.sums", "lba4096.copy-sums") }
    lba4096_copy_attributes { check_copy("lba4096") }
    lba4096_cat_of_single_files { check_single_files("lba4096") }
    lba4096_stat { check_stat("lba4096") }
    lba4096_kernel_reads_it_again { check_sums("lba4096", "lba4096.sums", "lba4096.sums-again") }
    lba4096_e2fsck_is_clean { IOMMU.stdout("lba4096.e2fsck"); }

    names_are_folded_as_the_kernel_does {
        let counts: Vec<u32> =
            IOMMU.stdout("folded").split_whitespace().map(|count| count.parse().unwrap()).collect();
        assert!(counts[0] > 6_000 && counts[1] > 100, "found and not: {counts:?}");
        IOMMU.stdout("folded.e2fsck");
    }

    encrypted_names_that_are_folded_are_as_the_kernel_shows_them {
        assert_eq!(IOMMU.stdout("folded-encrypted").trim(), "2540");
    }

    ls_prints_a_line_for_each_path {
        let text = IOMMU.stdout("lba512.ls-text");
        for name in ["large", "scattered", "tail-past-the-end", "-> ../sizes/medium"] {
            assert!(text.lines().any(|line| line.ends_with(name)), "no {name} in:\n{text}");
        }
    }

    unbind_gives_the_device_back {
        assert_eq!(IOMMU.text("bind.driver").trim(), "vfio-pci");
        IOMMU.stdout("unbind");
        assert_eq!(IOMMU.text("unbind.driver").trim(), "nvme");
    }

    perf_reads_and_overwrites_a_file_of_the_kernel {
        check_kernel_load("perf-file", "io_uring, by interrupts");
    }

    perf_reads_what_nvio_has_written_by_io_uring_and_by_passthrough {
        for (nsid, _) in NAMESPACES {
            assert_eq!(IOMMU.json(&format!("perf-raw.{nsid}"))["total"]["errors"], 0);
            for (polled, how) in [(0, "by interrupts"), (1, "polled")] {
                let run = |name| format!("{name}.{nsid}.{polled}");
                check_kernel_load(&run("perf-block"), &format!("io_uring, {how}"));
                let passthrough = format!("io_uring passthrough, {how}");
                check_kernel_load(&run("perf-passthrough"), &passthrough);
                check_kernel_load(&run("perf-passthrough-large"), &passthrough);
            }
        }
    }

    perf_sleeps_between_the_starts_of_a_rate {
        for name in ["perf-rate", "perf-rate-kernel"] {
            let total = &IOMMU.json(name)["total"];
            assert_eq!((&total["ios"], &total["errors"]), (&json!(100), &json!(0)), "{name}");
            // A thread that does not sleep polls thousands of times between two starts.
            let polls = total["counters"]["polls"].as_u64().unwrap();
            assert!(polls < 100 * 20, "{name}: {polls} polls");
        }
        assert!(IOMMU.json("perf-rate")["total"]["counters"]["sleeps"].as_u64().unwrap() > 0);
    }

    bind_refuses_a_mounted_partition {
        let disk = IOMMU.text("b.disk").trim();
        check_refusal(&IOMMU, "bind-mounted", &[&format!("{disk}p2"), "mounted", "/mnt"]);
        assert_eq!(IOMMU.text("bind-mounted.driver").trim(), "nvme");
    }

    bind_refuses_swap {
        let disk = IOMMU.text("b.disk").trim();
        check_refusal(&IOMMU, "bind-swap", &[&format!("{disk}p1"), "swap"]);
    }

    bind_refuses_a_device_with_holders {
        let disk = IOMMU.text("b.disk").trim();
        check_refusal(&IOMMU, "bind-holder", &[&format!("{disk}p2"), "dm-0"]);
        assert_eq!(IOMMU.text("bind-refused.driver").trim(), "nvme");
    }

    partition_listing { check_listing("partition", "partition.ls") }
    partition_maps { check_maps("partition") }
    partition_cat { check_single_file("partition", "sizes/medium"); }
    partition_copy_content {
        IOMMU.stdout("partition.cp");
        check_sums("partition", "partition.sums", "partition.copy-sums");
    }

    partition_is_overwritten_in_every_mode {
        let wanted = IOMMU.text("write.sum");
        for mode in ["direct", "buffered", "writethrough"] {
            IOMMU.stdout(&format!("write-{mode}"));
            assert_eq!(IOMMU.text(&format!("write-{mode}.sum")), wanted, "{mode}");
        }
        IOMMU.stdout("write.e2fsck");
    }
    writer_that_is_killed_leaves_blocks_old_or_new {
        let counts = IOMMU.stdout("killed");
        let (_, torn) = counts.trim().split_once(' ').unwrap();
        assert_eq!(torn, "0", "{counts}");
        IOMMU.stdout("write.e2fsck");
    }
    partition_that_is_no_filesystem_is_refused {
        check_refusal(&IOMMU, "partition-swap", &[]);
        check_refusal(&IOMMU, "partition-none", &["7"]);
    }

    bind_and_unbind_once_nothing_uses_it {
        IOMMU.stdout("bind-free");
        assert_eq!(IOMMU.text("bind-free.driver").trim(), "vfio-pci");
        IOMMU.stdout("unbind-free");
        assert_eq!(IOMMU.text("unbind-free.driver").trim(), "nvme");
    }

    not_nvme_is_refused {
        check_refusal(&IOMMU, "not-nvme", &["0000:00:00.0", "NVMe"]);
        check_refusal(&IOMMU, "not-nvme-bind", &["0000:00:00.0", "NVMe"]);
        check_refusal(&IOMMU, "not-there", &["0000:00:1e.7"]);
    }

    missing_namespaces_and_files_are_refused {
        check_refusal(&IOMMU, "no-namespace", &["2"]);
        check_refusal(&IOMMU, "no-file", &["/no/such/file"]);
    }

    nvio_and_the_kernel_change_one_filesystem_by_turns {
        let sums = |name: &str| -> Vec<String> {
            let text = TURNS.text(name);
            text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
        };
        for round in 1..=guest::turns() {
            for change in ["write", "truncate", "punch", "allocate", "zero", "collapse", "insert"] {
                TURNS.stdout(&format!("{change}.{round}"));
            }
            TURNS.stdout(&format!("setfattr.{round}"));
            let model = sums(&format!("nvio.{round}.model"));
            assert_eq!(model.len(), 4);
            assert_eq!(sums(&format!("nvio.{round}")), model, "round {round}: nvio");
            TURNS.stdout(&format!("nvio.{round}.e2fsck"));
            assert_eq!(sums(&format!("seen.{round}")), model, "round {round}: the kernel");
            let model = sums(&format!("kernel.{round}.model"));
            TURNS.stdout(&format!("kernel.{round}"));
            assert_eq!(sums(&format!("kernel.{round}")), model, "round {round}: after the kernel");
            // The device was taken away from the kernel.
            let recovered = &TURNS.json(&format!("recover.{round}"))["recovered"];
            assert_eq!(recovered, &json!(round % 2 == 1), "round {round}");
            let stat = TURNS.stdout(&format!("stat.{round}"));
            assert!(stat.contains(&format!("nvio {round}")), "{stat}");
        }
        TURNS.stdout("e2fsck");
        assert_eq!(TURNS.text("faults"), "");
    }

    without_an_iommu_bind_says_what_to_do {
        check_refusal(&NO_IOMMU, "bind", &["intel_iommu=on"]);
        assert_eq!(NO_IOMMU.text("bind.driver").trim(), "nvme");
        check_refusal(&NO_IOMMU, "ls", &[]);
    }
}
