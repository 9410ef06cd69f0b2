//! Boots the guest of `tests/guest` in QEMU and reads its report.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::image::{text, tool};
use crate::nvio;
use crate::sys::Extent;

/// Size in bytes of each namespace.
const NAMESPACE_SIZE: u64 = 640 << 20;
/// Longest time for one boot, with all its work.
const TIME_LIMIT: Duration = Duration::from_secs(420);

/// The machine that the guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// A translating IOMMU, and the script `scenario.sh`.
    Iommu,
    /// No IOMMU, and the script `no-iommu.sh`.
    NoIommu,
}

/// The texts that the guest's script reported, by name.
#[derive(Debug)]
pub struct Report {
    sections: BTreeMap<String, String>,
}

/// What one command of the guest did.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// Standard output.
    pub stdout: &'a str,
    /// Standard error.
    pub stderr: &'a str,
    /// Exit code.
    pub code: i32,
}

/// A process that ends with this value.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots `machine`, waits until its script is done, and returns what it reported.
pub fn boot(machine: Machine) -> Report {
    let work = tempfile::Builder::new().prefix("nvio-guest-").tempdir().expect("a work folder");
    let folder = work.path();
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/build");
    let nvio = nvio::binary();
    let ext4_tree = nvio.with_file_name("ext4-tree");
    tool(text(&build), &[text(&nvio), text(&ext4_tree), text(folder)]);

    let mut guest = Guard(command(machine, folder).spawn().expect("qemu-system-x86_64 starts"));
    let started = Instant::now();
    let status = loop {
        match guest.0.try_wait().expect("QEMU can be waited for") {
            Some(status) => break Some(status),
            None if started.elapsed() > TIME_LIMIT => break None,
            None => thread::sleep(Duration::from_millis(100)),
        }
    };
    let console = lossy(&folder.join("console"));
    if let Some(logs) = std::env::var_os("NVIO_TEST_LOGS") {
        for name in ["console", "report"] {
            let log = Path::new(&logs).join(format!("guest-{machine:?}.{name}"));
            fs::copy(folder.join(name), log).expect("a log folder");
        }
    }
    let report = Report::parse(&lossy(&folder.join("report")));
    if status.is_none_or(|status| !status.success()) || !report.sections.contains_key("done") {
        let lines: Vec<&str> = console.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        let last = report.sections.get("failed").map_or("", String::as_str);
        panic!("the guest ended with {status:?} before its script: {last}\n{tail}");
    }
    report
}

fn command(machine: Machine, folder: &Path) -> Command {
    let path = |name: &str| folder.join(name).to_str().expect("a path of UTF-8").to_owned();
    let drive = |name: &str| {
        let image = path(name);
        File::create(&image).and_then(|file| file.set_len(NAMESPACE_SIZE)).expect("a disk image");
        // The guest's own flushes matter, the host's do not: the image goes with the test.
        format!("if=none,id={name},format=raw,cache=unsafe,file={image}")
    };
    let script = match machine {
        Machine::Iommu => "scenario",
        Machine::NoIommu => "no-iommu",
    };
    let iommu = if machine == Machine::Iommu { "intel_iommu=on iommu.strict=1" } else { "" };
    // The kernel's check that timer interrupts arrive counts on time that a busy host has not.
    let append =
        format!("console=ttyS0 quiet panic=-1 no_timer_check {iommu} nvio.script={script}");
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args([
            "-machine",
            "q35,accel=tcg",
            "-cpu",
            "max,vendor=GenuineIntel",
            "-smp",
            "2",
            "-m",
            "1536",
        ])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-kernel", &path("vmlinuz"), "-initrd", &path("initramfs"), "-append", &append])
        .args(["-serial", &format!("file:{}", path("console"))])
        .args(["-serial", &format!("file:{}", path("report"))]);
    if machine == Machine::Iommu {
        command.args(["-device", "intel-iommu,intremap=on"]);
    }
    command
        .args(["-drive", &drive("a1"), "-drive", &drive("a3"), "-drive", &drive("b1")])
        .args(["-device", "nvme,id=a,serial=nvio-a,addr=0x10"])
        .args(["-device", "nvme-ns,bus=a,drive=a1,nsid=1,logical_block_size=512"])
        .args([
            "-device",
            "nvme-ns,bus=a,drive=a3,nsid=3,logical_block_size=4096,physical_block_size=4096",
        ])
        .args(["-device", "nvme,id=b,serial=nvio-b,addr=0x11,mdts=3"])
        .args(["-device", "nvme-ns,bus=b,drive=b1,nsid=1,logical_block_size=512"])
        .stdin(Stdio::null());
    command
}

fn lossy(path: &PathBuf) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

impl Report {
    /// Lines of a section are indented by one space, so that no text can end it.
    fn parse(report: &str) -> Self {
        let mut sections = BTreeMap::new();
        let mut open: Option<(String, String)> = None;
        for line in report.lines() {
            if let Some(text) = line.strip_prefix(' ') {
                let (_, content) = open.as_mut().expect("text is inside a section");
                content.push_str(text);
                content.push('\n');
            } else if let Some(name) = line.strip_prefix("section ") {
                open = Some((name.to_owned(), String::new()));
            } else if line.starts_with("end ") {
                sections.extend(open.take());
            }
        }
        Self { sections }
    }

    /// The text `name`.
    pub fn text(&self, name: &str) -> &str {
        self.sections.get(name).unwrap_or_else(|| panic!("the guest reported no {name}"))
    }

    /// What the command `name` did.
    pub fn outcome(&self, name: &str) -> Outcome<'_> {
        let code = self.text(&format!("{name}.code")).trim().parse().expect("an exit code");
        Outcome { stdout: self.text(name), stderr: self.text(&format!("{name}.stderr")), code }
    }

    /// What each command did, by name.
    pub fn outcomes(&self) -> impl Iterator<Item = (&str, Outcome<'_>)> {
        self.sections
            .keys()
            .filter_map(|key| key.strip_suffix(".code"))
            .map(|name| (name, self.outcome(name)))
    }

    /// Standard output of the command `name`, which must have succeeded.
    pub fn stdout(&self, name: &str) -> &str {
        let outcome = self.outcome(name);
        assert_eq!(outcome.code, 0, "{name}: {}", outcome.stderr);
        outcome.stdout
    }

    /// The JSON that the command `name` printed.
    pub fn json(&self, name: &str) -> Value {
        let stdout = self.stdout(name);
        serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{name}: {error}: {stdout}"))
    }
}

/// The extents that `filefrag -v` shows of a file, which it counts in blocks.
pub fn filefrag(text: &str) -> Vec<Extent> {
    // "File size of FILE is N (N blocks of 4096 bytes)"
    let block = text.split(" of ").last().and_then(|rest| rest.split(' ').next());
    let block: u64 = block.and_then(|size| size.parse().ok()).expect("a block size");
    let mut extents = Vec::new();
    for line in text.lines() {
        // "ext: logical..end: physical..end: length: expected: flags"; "expected:" may be missing.
        let fields: Vec<&str> = line.split(':').map(str::trim).collect();
        if fields.len() < 5 || fields[0].parse::<u32>().is_err() {
            continue;
        }
        let start = |field: &str| -> u64 {
            field.split("..").next().and_then(|text| text.parse().ok()).expect("a block number")
        };
        let flags: Vec<&str> = fields[fields.len() - 1].split(',').collect();
        extents.push(Extent {
            logical: start(fields[1]) * block,
            physical: start(fields[2]) * block,
            length: fields[3].parse::<u64>().expect("a length") * block,
            unwritten: flags.contains(&"unwritten"),
            last: flags.contains(&"last"),
        });
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_taken_apart() {
        let report = Report::parse("section a\n one\n end a\nend a\nsection b\nend b\n");
        assert_eq!(report.text("a"), "one\nend a\n");
        assert_eq!(report.text("b"), "");
        assert!(!report.sections.contains_key("c"));
    }

    #[test]
    fn an_unfinished_section_is_no_section() {
        assert!(Report::parse("section a\n one\n").sections.is_empty());
    }

    #[test]
    fn filefrag_lines_are_read() {
        let text = "Filesystem type is: ef53\n\
            File size of f of mine is 163840 (40 blocks of 1024 bytes)\n \
            ext:     logical_offset:        physical_offset: length:   expected: flags:\n   \
            0:       16..      18:        112..       114:      3:         16:\n   \
            1:       40..      40:         36..        36:      1:             last,unwritten,eof\n\
            f: 2 extents found\n";
        let extent = |logical, physical, length, end| Extent {
            logical,
            physical,
            length,
            unwritten: end,
            last: end,
        };
        assert_eq!(
            filefrag(text),
            [
                extent(16 << 10, 112 << 10, 3 << 10, false),
                extent(40 << 10, 36 << 10, 1 << 10, true)
            ]
        );
    }
}
