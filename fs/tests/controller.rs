//! Files on the emulator, read across extents and holes with all block sizes.

use std::fs;

use nvio_driver::Options;
use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_ext4::{FileQueue, Filesystem, QueueSource};
use nvio_iomap::{Disk, DiskQueue, DiskReader};
use nvio_testkit::controller::Served;
use nvio_testkit::image;
use nvio_testkit::random::Rng;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Returns the content of a file of many extents: holes and data alternate, with odd sizes.
fn holes_and_data(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..150 {
        bytes.extend(vec![0; 4096 * rng.range(1, 5) as usize]);
        let blocks = rng.range(1, 9);
        bytes.extend(rng.bytes(4096 * blocks));
    }
    bytes.extend(rng.bytes(777));
    bytes
}

#[test]
fn files_are_read_across_extents_and_holes() {
    let folder = tempfile::Builder::new().prefix("nvio-embedded-").tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir_all(source.join("a/b")).unwrap();
    let mut rng = Rng::new(16);
    let content = holes_and_data(&mut rng);
    fs::write(source.join("a/b/sparse"), &content).unwrap();
    fs::write(source.join("empty"), "").unwrap();
    let disk = folder.path().join("disk.img");
    for block in ["1024", "2048", "4096"] {
        image::mkfs_of_folder(&disk, 32 * MIB as u64, &source, &["-b", block]);
        for (lba, mdts) in [(512, 1), (512, 5), (4096, 1), (4096, 5)] {
            let backing = Backing::image(&disk, true);
            let namespace = NamespaceConfig::new(backing).block_size(lba);
            let builder = Emulator::builder().namespace(namespace).mdts(Some(mdts));
            let served = Served::start(builder, Options::default());
            let controller = &served.controller;
            let whole = Disk::whole(&controller.namespace(1).unwrap());
            let metadata = DiskReader::new(controller, &whole, 16).unwrap();
            let queue = DiskQueue::new(controller, &whole, 16).unwrap();
            let mut queue = FileQueue::new(queue);
            let filesystem = Filesystem::open(QueueSource::new(metadata));
            // As for the kernel: a filesystem's block is no smaller than the device's.
            if block.parse::<u32>().unwrap() < lba {
                assert!(matches!(filesystem, Err(nvio_ext4::Error::BlockTooSmall { .. })));
                continue;
            }
            let filesystem = filesystem.unwrap();
            let inode = filesystem.lookup(b"/a/b/sparse").unwrap();
            let mut file = filesystem.file(&inode).unwrap();
            assert!(file.extents().count() > 100, "mke2fs keeps holes");
            let mut out = vec![0xee; content.len() + 100];
            assert_eq!(file.read_at(&mut queue, 0, &mut out).unwrap(), content.len());
            assert!(out[..content.len()] == content[..], "block {block} lba {lba} mdts {mdts}");
            for _ in 0..100 {
                let pos = rng.range(0, content.len() as u64 + 1000) as usize;
                let length = rng.range(0, 200_000) as usize;
                let end = (pos + length).min(content.len());
                let expected = &content[pos.min(end)..end];
                let got = file.read_at(&mut queue, pos as u64, &mut out[..length]).unwrap();
                assert!(out[..got] == *expected, "{pos} +{length}: {got} bytes");
            }
            // Straight into DMA memory, aligned.
            let buf = controller.alloc(256 * KIB).unwrap();
            let at = nvio_iomap::IoArgs::at(8 * KIB as u64);
            let (memory, got) = file.read_with(&mut queue, at, buf).unwrap();
            let buf = memory.into_dma().unwrap();
            assert!(buf[..got] == content[8 * KIB..8 * KIB + got]);
            assert_eq!(got, 256 * KIB);
            let inode = filesystem.lookup(b"/empty").unwrap();
            let mut empty = filesystem.file(&inode).unwrap();
            assert_eq!(empty.read_at(&mut queue, 0, &mut out).unwrap(), 0);
        }
    }
}
