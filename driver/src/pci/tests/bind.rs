//! Binding and unbinding on a fake tree.

use std::time::Duration;

use super::super::fake::Fake;
use super::super::{Error, PciAddress, Sysfs};

const DEVICE: &str = "0000:02:00.0";
const RECORD: &str = "run/nvio/0000:02:00.0";
const OVERRIDE: &str = "sys/bus/pci/devices/0000:02:00.0/driver_override";

fn address() -> PciAddress {
    DEVICE.parse().unwrap()
}

fn machine() -> (Fake, Sysfs) {
    let fake = Fake::new();
    fake.nvme(DEVICE, 0, Some("nvme"));
    fake.block(DEVICE, "nvme0", "nvme0n1", "259:0", 2048);
    fake.partition(DEVICE, "nvme0", "nvme0n1", "nvme0n1p1", "259:1", 1024);
    let sysfs = fake.sysfs();
    (fake, sysfs)
}

fn assert_untouched(fake: &Fake) {
    assert_eq!(fake.driver(DEVICE).as_deref(), Some("nvme"));
    assert_eq!(fake.read(OVERRIDE), "(null)\n");
    assert!(!fake.path(RECORD).exists());
}

#[test]
fn there_and_back() {
    let (fake, sysfs) = machine();
    let bound = sysfs.bind(address()).unwrap();
    assert_eq!((bound.group, bound.former.as_deref(), bound.already), (100, Some("nvme"), false));
    assert_eq!(fake.driver(DEVICE).as_deref(), Some("vfio-pci"));
    assert_eq!(fake.read(OVERRIDE), "(null)\n");
    assert_eq!(fake.read(RECORD), "driver=nvme\noverride=\n");
    let again = sysfs.bind(address()).unwrap();
    assert!(again.already && again.former.as_deref() == Some("nvme"));

    let unbound = sysfs.unbind(address()).unwrap();
    assert_eq!(unbound.driver.as_deref(), Some("nvme"));
    assert_eq!(unbound.devices, ["nvme0n1"]);
    assert_untouched(&fake);
    assert!(sysfs.unbind(address()).unwrap().already);
}

#[test]
fn a_former_override_and_driver_come_back() {
    let fake = Fake::new();
    fake.nvme(DEVICE, 0, Some("special"));
    fake.file(OVERRIDE, "special\n");
    let sysfs = fake.sysfs();
    sysfs.bind(address()).unwrap();
    assert_eq!(fake.driver(DEVICE).as_deref(), Some("vfio-pci"));
    assert_eq!(fake.read(OVERRIDE), "special\n");
    // The record must outlive the process.
    let sysfs = fake.sysfs();
    assert_eq!(sysfs.unbind(address()).unwrap().driver.as_deref(), Some("special"));
    assert_eq!(fake.driver(DEVICE).as_deref(), Some("special"));
    assert_eq!(fake.read(OVERRIDE), "special\n");
    assert!(!fake.path(RECORD).exists());
}

#[test]
fn without_a_note_nvme_takes_it() {
    let fake = Fake::new();
    fake.nvme(DEVICE, 0, Some("vfio-pci"));
    fake.file(OVERRIDE, "vfio-pci\n");
    assert_eq!(fake.sysfs().unbind(address()).unwrap().driver.as_deref(), Some("nvme"));
    assert_untouched(&fake);
}

#[test]
fn a_device_without_driver_is_left_without() {
    let fake = Fake::new();
    fake.nvme(DEVICE, 0, None);
    let sysfs = fake.sysfs();
    assert_eq!(sysfs.bind(address()).unwrap().former, None);
    assert_eq!(sysfs.unbind(address()).unwrap().driver, None);
    assert_eq!(fake.driver(DEVICE), None);
    assert!(!fake.path(RECORD).exists());
}

#[test]
fn whichever_write_fails_all_is_as_before() {
    let (fake, sysfs) = machine();
    sysfs.bind(address()).unwrap();
    let writes = fake.behaviour.lock().unwrap().writes.len();
    assert_eq!(writes, 4, "override, unbind, bind, override");
    for failing in 0..writes {
        let (fake, sysfs) = machine();
        fake.behaviour.lock().unwrap().failing = vec![failing];
        let error = sysfs.bind(address()).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{failing}: {error}");
        assert_untouched(&fake);
    }
}

#[test]
fn write_that_the_kernel_ignores_is_detected() {
    for ignored in [1, 2] {
        let (fake, sysfs) = machine();
        fake.behaviour.lock().unwrap().ignored = vec![ignored];
        let error = sysfs.bind(address()).unwrap_err();
        assert!(matches!(error, Error::BindTimeout { .. }), "{ignored}: {error}");
        assert_untouched(&fake);
    }
}

#[test]
fn a_failure_of_the_way_back_is_told_too_and_can_be_tried_again() {
    let (fake, sysfs) = machine();
    // The bind fails, and so does the bind to the former driver.
    fake.behaviour.lock().unwrap().failing = vec![2, 4];
    let error = sysfs.bind(address()).unwrap_err().to_string();
    assert!(
        error.contains("vfio-pci/bind") && error.contains("restoring the former state failed"),
        "{error}"
    );
    assert_eq!(fake.driver(DEVICE), None);
    assert_eq!(fake.read(OVERRIDE), "(null)\n");
    sysfs.unbind(address()).unwrap();
    assert_untouched(&fake);
}

#[test]
fn without_vfio_pci_the_error_says_modprobe() {
    let (fake, mut sysfs) = machine();
    std::fs::remove_dir(fake.path("sys/bus/pci/drivers/vfio-pci")).unwrap();
    let error = sysfs.bind(address()).unwrap_err();
    assert!(error.to_string().ends_with("run `modprobe vfio-pci`"), "{error}");
    assert_untouched(&fake);

    // The module's name is the script's $0.
    let script = |text: &str| ["sh", "-c", text].map(str::to_owned).to_vec();
    // A shell may start slowly on a busy machine.
    let (long, short) = (Duration::from_secs(60), Duration::from_millis(50));
    sysfs.timeout = long;
    sysfs.modprobe = script("echo not in this kernel >&2; exit 1");
    let error = sysfs.bind(address()).unwrap_err();
    assert!(error.to_string().contains("(not in this kernel)"), "{error}");
    sysfs.timeout = short;
    sysfs.modprobe = script("exec sleep 60");
    let error = sysfs.bind(address()).unwrap_err();
    assert!(error.to_string().contains("did not end within"), "{error}");
    sysfs.timeout = long;
    sysfs.modprobe = script(&format!("mkdir {}/sys/bus/pci/drivers/$0", fake.dir.path().display()));
    sysfs.bind(address()).unwrap();
    assert_eq!(fake.driver(DEVICE).as_deref(), Some("vfio-pci"));
}

#[test]
fn a_group_shared_with_other_drivers_is_refused_by_name() {
    let (fake, sysfs) = machine();
    for (neighbour, class, driver) in [
        ("0000:00:1c.0", "0x060400", Some("pcieport")),
        ("0000:02:00.1", "0x010802", Some("vfio-pci")),
        ("0000:02:00.2", "0x010802", None),
        ("0000:02:00.3", "0x0c0330", Some("xhci_hcd")),
    ] {
        fake.pci(neighbour, class, driver);
        fake.group(neighbour, 100);
    }
    let error = sysfs.bind(address()).unwrap_err();
    let Error::GroupShared { others, group: 100, .. } = &error else { panic!("{error}") };
    assert_eq!(others.len(), 1);
    assert!(error.to_string().contains("0000:02:00.3 (bound to xhci_hcd)"), "{error}");
    assert_untouched(&fake);
    std::fs::remove_file(fake.path("sys/bus/pci/devices/0000:02:00.3/driver")).unwrap();
    sysfs.bind(address()).unwrap();
}

#[test]
fn without_iommu_the_error_says_what_to_do() {
    let (fake, sysfs) = machine();
    std::fs::remove_file(fake.path("sys/bus/pci/devices").join(DEVICE).join("iommu_group"))
        .unwrap();
    let advice = || sysfs.bind(address()).unwrap_err().to_string();
    assert!(advice().contains("does not cover this slot"), "{}", advice());
    std::fs::remove_dir(fake.path("sys/class/iommu/dmar0")).unwrap();
    let all = advice();
    assert!(all.contains("put `intel_iommu=on iommu=pt` on the kernel command line"), "{all}");
    assert!(all.contains("turn on Intel VT-d in the firmware's setup, and reboot"), "{all}");
    fake.file("proc/cmdline", "quiet intel_iommu=on\n");
    assert!(advice().contains(": turn on Intel VT-d in the firmware's setup"), "{}", advice());
    fake.file("sys/firmware/acpi/tables/DMAR", "");
    assert!(advice().contains("dmesg"), "{}", advice());
    // The firmware's table decides, not the processor.
    fake.file("proc/cpuinfo", "vendor_id : AuthenticAMD\n");
    fake.file("proc/cmdline", "quiet\n");
    let switch_only = "(GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub), and reboot";
    assert!(advice().contains("put `intel_iommu=on iommu=pt`"), "{}", advice());
    assert!(advice().ends_with(switch_only), "{}", advice());
    std::fs::remove_file(fake.path("sys/firmware/acpi/tables/DMAR")).unwrap();
    assert!(advice().contains("put `amd_iommu=on iommu=pt`"), "{}", advice());
    assert!(advice().contains("AMD-Vi"), "{}", advice());
    // The processor does not decide in a virtual machine either.
    fake.file("proc/cpuinfo", "vendor_id : AuthenticAMD\nflags : fpu hypervisor sse\n");
    assert!(advice().contains("-device intel-iommu") && advice().contains("intel_iommu=on"));
    fake.file("proc/cpuinfo", "Features : fp asimd\n");
    assert!(advice().contains("SMMU"), "{}", advice());
    assert!(!advice().contains('\n'));
    assert_untouched(&fake);
}

#[test]
fn a_note_that_was_tampered_with_is_refused() {
    for text in ["driver=../../../etc\noverride=\n", "driver=a/b\n", "nonsense", "colour=red\n"] {
        let fake = Fake::new();
        fake.nvme(DEVICE, 0, Some("vfio-pci"));
        fake.file(RECORD, text);
        let error = fake.sysfs().unbind(address()).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error}");
        assert_eq!(fake.driver(DEVICE).as_deref(), Some("vfio-pci"));
    }
}
