//! A tree with the files of sysfs, and a fake kernel that acts on writes to it.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use super::Sysfs;

/// The writes that the fake kernel received, and the faults that it injects.
#[derive(Default)]
pub(super) struct Behaviour {
    /// Every write: the last two components of its path, and the value.
    pub(super) writes: Vec<(String, String)>,
    /// Writes, by number from 0, that fail with EIO.
    pub(super) failing: Vec<usize>,
    /// Writes, by number from 0, that succeed without an effect.
    pub(super) ignored: Vec<usize>,
}

pub(super) struct Fake {
    pub(super) dir: TempDir,
    pub(super) behaviour: Arc<Mutex<Behaviour>>,
}

impl Fake {
    /// Creates a machine with an IOMMU, the drivers nvme and vfio-pci, and no devices.
    pub(super) fn new() -> Self {
        let fake =
            Self { dir: tempfile::tempdir().unwrap(), behaviour: Arc::new(Mutex::default()) };
        for dir in [
            "sys/bus/pci/devices",
            "sys/bus/pci/drivers/nvme",
            "sys/bus/pci/drivers/vfio-pci",
            "sys/class/iommu/dmar0",
            "sys/block",
            "dev",
            "run",
        ] {
            fs::create_dir_all(fake.path(dir)).unwrap();
        }
        fake.file("proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
        fake.file("proc/swaps", "Filename\t\t\tType\t\tSize\tUsed\tPriority\n");
        fake.file("proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\n");
        fake.file("proc/cmdline", "root=/dev/sda1 quiet\n");
        fake
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(super) fn file(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(super) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    pub(super) fn pci(&self, address: &str, class: &str, driver: Option<&str>) {
        let dir = format!("sys/bus/pci/devices/{address}");
        self.file(&format!("{dir}/class"), &format!("{class}\n"));
        self.file(&format!("{dir}/vendor"), "0x1b36\n");
        self.file(&format!("{dir}/device"), "0x0010\n");
        self.file(&format!("{dir}/driver_override"), "(null)\n");
        if let Some(driver) = driver {
            let target = self.path("sys/bus/pci/drivers").join(driver);
            fs::create_dir_all(&target).unwrap();
            symlink(target, self.path(&dir).join("driver")).unwrap();
        }
    }

    pub(super) fn group(&self, address: &str, group: u32) {
        let devices = self.path("sys/kernel/iommu_groups").join(group.to_string()).join("devices");
        fs::create_dir_all(&devices).unwrap();
        let dir = self.path("sys/bus/pci/devices").join(address);
        symlink(devices.parent().unwrap(), dir.join("iommu_group")).unwrap();
        symlink(&dir, devices.join(address)).unwrap();
    }

    /// Adds an NVMe controller in an IOMMU group of its own.
    pub(super) fn nvme(&self, address: &str, instance: u32, driver: Option<&str>) {
        self.pci(address, "0x010802", driver);
        self.group(address, 100 + instance);
        if driver == Some("nvme") {
            let dir = format!("sys/bus/pci/devices/{address}/nvme/nvme{instance}");
            self.file(&format!("{dir}/model"), "A Model                  \n");
            self.file(&format!("{dir}/serial"), "S1\n");
            self.file(&format!("{dir}/firmware_rev"), "1.0\n");
        }
    }

    pub(super) fn block(&self, address: &str, controller: &str, name: &str, dev: &str, size: u64) {
        let dir = format!("sys/bus/pci/devices/{address}/nvme/{controller}/{name}");
        self.file(&format!("{dir}/dev"), &format!("{dev}\n"));
        self.file(&format!("{dir}/size"), &format!("{size}\n"));
        self.file(&format!("{dir}/nsid"), "1\n");
        self.file(&format!("{dir}/queue/logical_block_size"), "512\n");
        symlink(self.path(&dir), self.path("sys/block").join(name)).unwrap();
    }

    pub(super) fn partition(
        &self,
        address: &str,
        controller: &str,
        disk: &str,
        name: &str,
        dev: &str,
        size: u64,
    ) {
        let dir = format!("sys/bus/pci/devices/{address}/nvme/{controller}/{disk}/{name}");
        self.file(&format!("{dir}/dev"), &format!("{dev}\n"));
        self.file(&format!("{dir}/size"), &format!("{size}\n"));
        self.file(&format!("{dir}/partition"), "1\n");
    }

    pub(super) fn driver(&self, address: &str) -> Option<String> {
        let link = fs::read_link(self.path("sys/bus/pci/devices").join(address).join("driver"));
        link.ok().map(|to| to.file_name().unwrap().to_str().unwrap().to_owned())
    }

    pub(super) fn sysfs(&self) -> Sysfs {
        let (root, behaviour) = (self.dir.path().to_owned(), Arc::clone(&self.behaviour));
        let mut sysfs = Sysfs::at(self.dir.path()).with_writer(move |path, value| {
            kernel(&root, &mut behaviour.lock().unwrap(), path, value)
        });
        sysfs.modprobe = vec!["nvio-test-no-such-program".to_owned()];
        sysfs.timeout = Duration::from_millis(50);
        sysfs
    }
}

/// Acts on a write to an attribute as the kernel does.
fn kernel(root: &Path, behaviour: &mut Behaviour, path: &Path, value: &[u8]) -> io::Result<()> {
    let value = std::str::from_utf8(value).unwrap();
    let attribute = path.file_name().unwrap().to_str().unwrap();
    let owner = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
    let number = behaviour.writes.len();
    behaviour.writes.push((format!("{owner}/{attribute}"), value.to_owned()));
    if behaviour.failing.contains(&number) {
        return Err(io::Error::from_raw_os_error(libc::EIO));
    }
    if behaviour.ignored.contains(&number) {
        return Ok(());
    }
    let device = |name: &str| root.join("sys/bus/pci/devices").join(name);
    let no_device = || io::Error::from_raw_os_error(libc::ENODEV);
    match attribute {
        "driver_override" => {
            let text = if value.trim().is_empty() { "(null)" } else { value.trim() };
            fs::write(path, format!("{text}\n"))
        }
        "unbind" => {
            let link = device(value).join("driver");
            let bound = fs::read_link(&link).map_err(|_| no_device())?;
            if bound.file_name().unwrap() != owner {
                return Err(no_device());
            }
            fs::remove_file(link)
        }
        "bind" => {
            let chosen = fs::read_to_string(device(value).join("driver_override"))?;
            let matches = match chosen.trim() {
                "(null)" => owner == "nvme",
                name => name == owner,
            };
            if !matches || !path.parent().unwrap().is_dir() {
                return Err(no_device());
            }
            symlink(path.parent().unwrap(), device(value).join("driver"))
        }
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}
