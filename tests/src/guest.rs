//! Boots the guest of `tests/guest` in QEMU and reads its report.

mod machine;
mod qmp;
mod report;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub use machine::{CHECK, COMPARE, IOMMU, Machine, NO_IOMMU, TURNS};
pub use report::{Outcome, Report, filefrag};

use crate::nvio;
use nvio_testkit::image::{text, tool};
use qmp::Monitor;

/// Longest time for one boot with its script, after which it hangs.
const TIME_LIMIT: Duration = Duration::from_secs(3600);

/// A process that is killed on drop.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // This fails only if the process has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the number of turns of [`TURNS`]: 3, or 50 with `NVIO_LONG`.
pub fn turns() -> u32 {
    if std::env::var_os("NVIO_LONG").is_some() { 50 } else { 3 }
}

/// Boots `machine`, waits until its script is done, and returns its report.
///
/// QEMU that ends by a signal has a fault of its own (7.2 sometimes does when a controller with
/// commands is reset, which a killed process causes), so the machine is then booted once more.
pub fn boot(machine: &Machine) -> Report {
    let mut ran = Run::new(machine);
    if let Some(signal) = ran.status.and_then(|status| status.signal()) {
        eprintln!("QEMU ended with signal {signal}: the guest `{}` boots again", machine.name);
        ran = Run::new(machine);
    }
    let Run { status, console, report } = ran;
    if status.is_none_or(|status| !status.success()) || !report.has("done") {
        let lines: Vec<&str> = console.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        let last = if report.has("failed") { report.text("failed") } else { "" };
        panic!("the guest ended with {status:?} before its script: {last}\n{tail}");
    }
    report
}

/// One boot of a machine, to its end.
struct Run {
    /// `None` if the guest did not end in time.
    status: Option<ExitStatus>,
    console: String,
    report: Report,
}

impl Run {
    fn new(machine: &Machine) -> Self {
        let work = tempfile::Builder::new().prefix("nvio-guest-").tempdir().expect("a folder");
        let folder = work.path();
        let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/build");
        let nvio = nvio::binary();
        tool(text(&build), &[text(nvio.parent().expect("a build folder")), text(folder)]);

        let status = wait(command(machine, folder), folder);
        if let Some(logs) = std::env::var_os("NVIO_TEST_LOGS") {
            for name in ["console", "report"] {
                let log = Path::new(&logs).join(format!("guest-{}.{name}", machine.name));
                fs::copy(folder.join(name), log).expect("a log folder");
            }
        }
        let mut report = Report::parse(&lossy(&folder.join("report")));
        report.add("trace", lossy(&folder.join("trace")));
        Self { status, console: lossy(&folder.join("console")), report }
    }
}

/// Serves the guest's requests until QEMU ends, or the time is over.
fn wait(mut qemu: Command, folder: &Path) -> Option<ExitStatus> {
    let mut guest = Guard(qemu.spawn().expect("qemu-system-x86_64 starts"));
    let started = Instant::now();
    let mut requests = Requests::default();
    while started.elapsed() < TIME_LIMIT {
        if let Some(status) = guest.0.try_wait().expect("QEMU can be waited for") {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(50));
        requests.serve(folder);
    }
    None
}

/// Requests of the guest to the host: lines `host device_del ID` of its report.
#[derive(Default)]
struct Requests {
    served: usize,
}

impl Requests {
    fn serve(&mut self, folder: &Path) {
        let report = lossy(&folder.join("report"));
        // The last line may be incomplete.
        let whole = report.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let asked = whole.lines().filter_map(|line| line.strip_prefix("host device_del "));
        let asked: Vec<&str> = asked.collect();
        for id in &asked[self.served..] {
            Monitor::connect(&folder.join("monitor")).device_del(id);
        }
        self.served = asked.len();
    }
}

fn command(machine: &Machine, folder: &Path) -> Command {
    let path = |name: &str| folder.join(name).to_str().expect("a path of UTF-8").to_owned();
    let (parameters, script) = (machine.parameters, machine.script);
    // The kernel's check of timer interrupts fails on a busy host.
    let kernel = "console=ttyS0 quiet panic=-1 no_timer_check";
    let rounds = turns();
    let append = format!("{kernel} {parameters} nvio.script={script} nvio.turns={rounds}");
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-machine", "q35,accel=tcg", "-cpu", "max,vendor=GenuineIntel"])
        .args(["-smp", "2", "-m", "1536"])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        // The kernel's own hot-plug driver instead of ACPI, because servers use it.
        .args(["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"])
        .args(["-kernel", &path("vmlinuz"), "-initrd", &path("initramfs"), "-append", &append])
        .args(["-serial", &format!("file:{}", path("console"))])
        .args(["-serial", &format!("file:{}", path("report"))])
        .args(["-qmp", &format!("unix:{},server=on,wait=off", path("monitor"))]);
    if machine.iommu {
        command.args(["-device", "intel-iommu,intremap=on"]);
    }
    for event in machine.traced {
        command.args(["-trace", event]);
    }
    command.args(["-D", &path("trace")]).args(machine.devices(folder)).stdin(Stdio::null());
    command
}

fn lossy(path: &PathBuf) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
