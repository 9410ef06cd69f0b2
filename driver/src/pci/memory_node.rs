//! The memory node that is nearest to a device.

use std::path::PathBuf;

use super::address::PciAddress;
use super::sysfs::Sysfs;

impl Sysfs {
    /// Returns the memory node that is nearest to a device. `None` if the machine has one node, if
    /// its firmware does not say which is near, and if sysfs cannot be read.
    pub(crate) fn memory_node(&self, address: PciAddress) -> Option<u32> {
        let read = |path: PathBuf| self.attribute(&path).ok().flatten();
        let nodes = read(self.path("sys/devices/system/node/online"))?;
        // One number, or a list such as 0-1,3.
        if nodes.parse::<u32>().is_ok() {
            return None;
        }
        // -1 is unknown.
        read(self.device_dir(address).join("numa_node"))?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use crate::pci::fake::Fake;

    #[test]
    fn only_a_machine_of_several_nodes_has_a_near_one() {
        const DEVICE: &str = "0000:02:00.0";
        let fake = Fake::new();
        fake.nvme(DEVICE, 0, Some("vfio-pci"));
        let node = || fake.sysfs().memory_node(DEVICE.parse().unwrap());
        assert_eq!(node(), None);
        fake.file("sys/devices/system/node/online", "0-1\n");
        assert_eq!(node(), None);
        let own = format!("sys/bus/pci/devices/{DEVICE}/numa_node");
        for (text, expected) in [("1\n", Some(1)), ("-1\n", None), ("", None)] {
            fake.file(&own, text);
            assert_eq!(node(), expected, "{text:?}");
        }
        fake.file(&own, "0\n");
        for (nodes, expected) in [("0\n", None), ("0,2\n", Some(0)), ("0-3\n", Some(0))] {
            fake.file("sys/devices/system/node/online", nodes);
            assert_eq!(node(), expected, "{nodes:?}");
        }
    }
}
