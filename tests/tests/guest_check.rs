//! The test program `nvme-check` on QEMU's NVMe controllers, through the kernel's VFIO and a
//! translating IOMMU.
//!
//! The guest boots once; its script (`tests/guest/check.sh`) runs the program on one controller
//! after the other, and each test here judges one role. Needs QEMU: `tests/run guest-check`.

use std::sync::LazyLock;

use nvio_tests::guest::{self, Report};
use serde_json::{Value, json};

static CHECK: LazyLock<Report> = LazyLock::new(|| guest::boot(&guest::CHECK));

/// Checks that exactly the checks `names` ran for `role`, and succeeded.
fn checks(role: &str, names: &[&str]) {
    let outcome = CHECK.outcome(role);
    let expected: Vec<String> = names.iter().map(|name| format!("ok {role}/{name}")).collect();
    // Lines that begin with # are remarks.
    let found: Vec<&str> = outcome.stdout.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(found, expected, "{}", outcome.stderr);
    assert_eq!((outcome.code, outcome.stderr), (0, ""), "{role}");
}

/// Checks that `nvio` failed: exit code 1, nothing on standard output, one line that contains
/// `words`.
fn refused(name: &str, words: &[&str]) {
    let outcome = CHECK.outcome(name);
    assert_eq!((outcome.code, outcome.stdout), (1, ""), "{name}: {}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), 1, "{name}: {}", outcome.stderr);
    for word in words {
        assert!(outcome.stderr.contains(word), "{name}: no {word} in: {}", outcome.stderr);
    }
}

/// Returns the controller at `address` in the output of `nvio list --json`.
fn of_address<'a>(list: &'a Value, address: &str) -> &'a Value {
    let found = list.as_array().unwrap().iter().find(|found| found["address"] == address);
    found.unwrap_or_else(|| panic!("no {address} in {list}"))
}

macro_rules! guest_tests {
    ($($name:ident $body:block)*) => {
        $(
            #[test]
            #[ignore = "needs QEMU and a kernel package: tests/run guest-check"]
            fn $name() $body
        )*
    };
}

/// The checks of a protected namespace.
const PROTECTED: [&str; 8] = [
    "identify",
    "read",
    "write",
    "bios",
    "wrong-guard-of-the-host",
    "wrong-tags-of-the-host",
    "write-with-a-wrong-guard",
    "verify",
];

guest_tests! {
    list_asks_what_is_bound_to_vfio {
        let list = CHECK.json("list-json");
        let plain = of_address(&list, "0000:00:10.0");
        assert_eq!(plain["model"], "QEMU NVMe Ctrl");
        assert_eq!((&plain["serial"], &plain["driver"]), (&json!("nvio-plain"), &json!("vfio-pci")));
        assert!(plain["firmware"].as_str().unwrap().contains('.'), "{plain}");
        assert!(plain["iommu_group"].is_u64() && plain["unknown"].is_null(), "{plain}");
        assert_eq!(plain["in_use_by"], json!([]));
        let namespaces = plain["namespaces"].as_array().unwrap();
        let shown: Vec<(u64, u64, u64)> = namespaces
            .iter()
            .map(|found| {
                let number = |key: &str| found[key].as_u64().unwrap();
                (number("nsid"), number("size"), number("lba_size"))
            })
            .collect();
        assert_eq!(shown, [(1, 32 << 20, 512), (2, 32 << 20, 4096)]);
        let pi = of_address(&list, "0000:00:12.0");
        assert_eq!(pi["namespaces"][1]["metadata_size"], 8);
        let text = CHECK.stdout("list");
        let line = text.lines().find(|line| line.starts_with("0000:00:12.0")).unwrap();
        for word in ["QEMU NVMe Ctrl", "nvio-pi", "vfio-pci", "nsid 1", "2.00 MiB", "512+8"] {
            assert!(line.contains(word), "no {word} in {text}");
        }
    }

    list_names_the_process_that_drives {
        let list = CHECK.json("list-busy");
        let plain = of_address(&list, "0000:00:10.0");
        assert_eq!(plain["in_use_by"][0]["kind"], "driven");
        let text = plain["in_use_by"][0]["text"].as_str().unwrap();
        assert!(text.starts_with("driven by process "), "{text}");
        let faulty = of_address(&list, "0000:00:13.0");
        assert_eq!(faulty["serial"], "nvio-faulty");
        refused("open-busy", &[CHECK.text("group").trim(), "another process"]);
    }

    a_user_without_permission_is_told_the_file {
        let group = CHECK.text("group").trim();
        refused("user-without-permission", &[group, "chown"]);
        refused("user-without-container", &["/dev/vfio/vfio", "chown"]);
        refused("without-vfio", &["/dev/vfio", "modprobe", "container"]);
        let list = CHECK.json("user-list");
        let plain = of_address(&list, "0000:00:10.0");
        assert!(plain["unknown"].as_str().unwrap().contains(group), "{plain}");
    }

    a_user_who_may_lock_too_little_is_told_the_limit {
        refused("user-locks-64k", &["RLIMIT_MEMLOCK", "65536", "ulimit -l"]);
        let json = CHECK.json("user-locks-8m");
        assert_eq!(json["serial"], "nvio-plain");
    }

    no_large_pages_were_there {
        assert_eq!(CHECK.text("hugepages").trim(), "0");
    }

    plain {
        checks("plain", &[
            "identify", "opened-again", "log-pages", "every-block", "every-size", "odd-buffers",
            "out-of-range", "flush", "fewer-queues", "random-reads",
            "not-writable", "write-and-read", "write-through", "write-zeroes", "deallocate",
            "compare", "copy", "verify", "random-writes", "first-half-as-it-was",
        ]);
    }

    resets {
        checks("cmb", &[
            "reads", "reads-with-shadow-doorbells", "reads-with-queues-inside",
            "reset", "reset-with-shadow-doorbells", "reset-with-queues-inside",
        ]);
    }

    queues_are_in_the_controllers_memory {
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
        let remark = CHECK.text("cmb").lines().find_map(|line| line.strip_prefix("# arena "));
        let (begin, end) = remark.unwrap().split_once(' ').unwrap();
        let arena = number(begin)..number(end);
        // "create submission queue, addr=0x..., sqid=..., cqid=..., qsize=511, qflags=..."
        let trace = CHECK.text("trace").lines();
        let queues: Vec<&str> = trace.filter(|line| line.contains("qsize=511,")).collect();
        assert!(!queues.is_empty(), "no queue of 512 entries was made");
        for line in queues {
            let at = line.split("addr=").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
            assert!(!arena.contains(&number(at)), "a queue in host memory: {line}");
        }
    }

    doorbells_are_in_memory {
        let trace = CHECK.text("trace");
        let count = |event: &str| trace.lines().filter(|line| line.contains(event)).count();
        // Configured again after each of five resets.
        assert!(count("pci_nvme_dbbuf_config") >= 6, "{}", count("pci_nvme_dbbuf_config"));
        assert!(count("pci_nvme_shadow_doorbell_sq") > 1_000);
    }

    protection_information {
        let mut names = Vec::new();
        for (namespace, more) in [
            ("type1-separate", &["controller-makes-it", "plain-read-and-write"][..]),
            ("type2-extended", &["controller-makes-it", "plain-read-and-write"]),
            ("type3-separate", &["controller-makes-it", "plain-read-and-write"]),
            ("type1-first-separate", &["controller-makes-it"]),
            ("type1-64-separate", &[]),
        ] {
            names.extend(PROTECTED.iter().chain(more).map(|name| format!("{namespace}/{name}")));
        }
        let plain = ["identify", "read", "write", "bios"];
        names.extend(plain.map(|name| format!("plain-extended/{name}")));
        checks("pi", &names.iter().map(String::as_str).collect::<Vec<_>>());
    }

    injected_errors {
        checks("faulty", &["readable-again", "unreadable", "unreadable-among-others",
            "unwritable"]);
    }

    interrupts {
        checks("idle", &["gaps", "none-is-lost"]);
        eprintln!("{}", CHECK.stdout("idle"));
    }

    a_device_that_is_asked_back { checks("asked-back", &["ends-with-an-error"]); }

    a_device_that_is_pulled { checks("pulled", &["ends-with-an-error"]); }

    no_dma_fault_was_logged {
        assert_eq!(CHECK.text("faults"), "");
    }
}
