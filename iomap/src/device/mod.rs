//! Devices: bios, disks and partitions, the queues that take bios, and end-to-end protection.

pub(crate) mod bio;
pub(crate) mod disk;
pub(crate) mod disk_queue;
pub(crate) mod image_queue;
pub(crate) mod protection;
