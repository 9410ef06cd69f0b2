//! Reads of a disk that are larger than a transfer of its controller.

use nvio_driver::{Error, Options, QueuePair};
use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_iomap::{Disk, DiskReader};
use nvio_testkit::controller::Served;
use nvio_testkit::random;

const KIB: usize = 1 << 10;
/// Size of the disk in bytes.
const SIZE: usize = 4 << 20;

#[test]
fn reads_larger_than_mdts_are_split() {
    let folder = tempfile::tempdir().unwrap();
    let (path, content) = (folder.path().join("disk.img"), random::pattern(5, SIZE));
    std::fs::write(&path, &content).unwrap();
    for (power, limit) in [(1, 8 * KIB), (3, 32 * KIB), (5, 128 * KIB)] {
        let namespace = NamespaceConfig::new(Backing::image(&path, true));
        let builder = Emulator::builder().namespace(namespace).mdts(Some(power));
        let served = Served::start(builder, Options::default());
        let controller = &served.controller;
        assert_eq!(controller.max_transfer(), limit);
        let namespace = controller.namespace(1).unwrap();
        // The driver rejects a command that is too large.
        let mut queue: QueuePair<u64> = controller.queue_pair(4).unwrap();
        let refused = queue.read(&namespace, 0, controller.alloc(limit + 512).unwrap(), 0);
        assert!(matches!(refused.unwrap_err().error, Error::TransferSize { .. }));
        // A reader of the disk splits, at any offset and length.
        let mut reader = DiskReader::new(controller, &Disk::whole(&namespace), 8).unwrap();
        for (offset, length) in [(0, SIZE), (1, SIZE - 1), (511, 3 * limit + 2), (7, limit)] {
            let mut out = vec![0; length];
            reader.read_at(offset as u64, &mut out).unwrap();
            assert!(out == content[offset..offset + length], "{offset} +{length}");
        }
    }
}
