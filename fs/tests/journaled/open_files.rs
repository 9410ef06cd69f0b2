//! Files that are open while their blocks are changed.

use nvio_ext4::{BlockDevice, BlockSource, WriteRange};
use nvio_iomap::{FileQueue, ImageQueue};

use super::recorder::{Event, Recorder};
use super::{check, file, image, open};

/// A recorder as the image of a queue.
pub struct Disk(pub Recorder);

impl nvio_iomap::Image for Disk {
    fn size(&self) -> std::io::Result<u64> {
        Ok(BlockSource::size(&self.0))
    }

    fn read_at(&self, addr: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read(addr, buf).map_err(std::io::Error::other)
    }

    fn write_at(&mut self, addr: u64, data: &[u8]) -> std::io::Result<()> {
        let range = WriteRange { offset: addr, bytes: data };
        self.0.write_many(&[range], false).map_err(std::io::Error::other)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        BlockDevice::flush(&self.0).map_err(std::io::Error::other)
    }
}

impl nvio_iomap::WritableImage for Disk {}

#[test]
fn handles_see_each_change_of_the_map() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["-t ext4 -b 4096 -J size=4", "-t ext4 -b 1024 -J size=1"] {
        let device = Recorder::new(image(dir.path(), name));
        let fs = open(&device);
        let inode = file(&fs, 3);
        let number = inode.number();
        fs.write_at(number, 0, &[1; 40_000]).unwrap();
        let mut queue = FileQueue::new(ImageQueue::new(Disk(device.clone()), 8).unwrap());
        let mut handles = [fs.file(&inode).unwrap(), fs.file(&inode).unwrap()];
        let mut read = |model: &[u8], fast: bool| {
            for handle in &mut handles {
                // One page, by the path of pages if it can be, and all bytes.
                let buf = queue.alloc(4096).unwrap();
                let simple = queue.counters().simple;
                handle.submit_read(&mut queue, 4096, buf, 0).unwrap();
                queue.poll(1, |done| {
                    let n = done.result.unwrap();
                    let memory = done.memory.unwrap().into_dma().unwrap();
                    assert_eq!(memory[..n], model[4096.min(model.len())..8192.min(model.len())]);
                });
                assert_eq!(queue.counters().simple > simple, fast, "{name}");
                let mut bytes = vec![9; model.len() + 10];
                let n = handle.read_at(&mut queue, 0, &mut bytes).unwrap();
                assert!(bytes[..n] == *model, "{name}: {n} bytes of {}", model.len());
                assert_eq!(handle.size(), model.len() as u64);
            }
        };
        let mut model = vec![1; 40_000];
        let has_pages = fs.superblock().block_size() == 4096;
        read(&model, has_pages);
        fs.write_at(number, 50_000, &[2; 1000]).unwrap();
        model.resize(50_000, 0);
        model.resize(51_000, 2);
        read(&model, false);
        // Each handle has the map now.
        read(&model, has_pages);
        fs.punch_hole(number, 3000, 20_000).unwrap();
        model[3000..23_000].fill(0);
        read(&model, false);
        fs.allocate(number, 0, 60_000, false).unwrap();
        model.resize(60_000, 0);
        read(&model, false);
        fs.truncate(number, 5000).unwrap();
        model.truncate(5000);
        read(&model, false);
        fs.truncate(number, 0).unwrap();
        read(&[], false);
        drop(handles);
        fs.close().unwrap();
        check(dir.path(), &device.bytes());
    }
}

#[test]
fn blocks_that_a_request_may_read_are_not_reused() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), "-t ext4 -b 1024 -J size=1"));
    let fs = open(&device);
    let (inode, other) = (file(&fs, 1), file(&fs, 2).number());
    let data = vec![1; 100 << 10];
    fs.write_at(inode.number(), 0, &data).unwrap();
    let mut queue = FileQueue::new(ImageQueue::new(Disk(device.clone()), 8).unwrap());
    let mut handle = fs.file(&inode).unwrap();
    let buf = queue.alloc(1024).unwrap();
    handle.submit_read(&mut queue, 0, buf, 0).unwrap();
    // All other blocks are used.
    let free = |fs: &nvio_ext4::JournaledFilesystem| fs.statfs().unwrap().free_blocks;
    fs.allocate(other, 0, 1 << 30, true).unwrap_err();
    fs.truncate(inode.number(), 0).unwrap();
    fs.sync().unwrap();
    assert!(free(&fs) >= 100);
    let full = fs.write_at(other, 1 << 30, &[2; 1024]).unwrap_err();
    assert!(matches!(full, nvio_ext4::Error::NoSpace), "{full}");
    queue.poll(1, |done| {
        let memory = done.memory.unwrap().into_dma().unwrap();
        assert_eq!(memory[..], data[..1024]);
    });
    fs.write_at(other, 1 << 30, &[2; 1024]).unwrap();
    drop(handle);
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
}

/// A direct write to blocks that the file has changes no metadata, so that no commit flushes the device.
#[test]
fn direct_writes_are_durable_after_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let device = Recorder::new(image(dir.path(), "-t ext4 -b 1024 -J size=1"));
    let fs = open(&device);
    let (inode, other) = (file(&fs, 3), file(&fs, 4).number());
    fs.write_at(inode.number(), 0, &[1; 8192]).unwrap();
    fs.sync().unwrap();
    let mut queue = FileQueue::new(ImageQueue::new(Disk(device.clone()), 8).unwrap());
    let mut direct = fs.open_file(&inode).unwrap();
    let flushes = |call: &dyn Fn()| {
        let before = device.calls();
        call();
        let events = device.events();
        events[before..].iter().filter(|event| matches!(event, Event::Flush)).count()
    };
    let sync_data = || fs.sync_data(inode.number()).unwrap();
    let syncs: [&dyn Fn(); 3] =
        [&sync_data, &|| fs.sync_inode(inode.number()).unwrap(), &|| fs.sync().unwrap()];
    for sync in syncs {
        direct.write_at(&mut queue, 1024, &[2; 4096]).unwrap();
        assert_eq!(flushes(&|| fs.sync_data(other).unwrap()), 0, "another file");
        assert_eq!(flushes(sync), 1);
        assert_eq!(flushes(sync), 0, "durable already");
    }
    // The sync of a file that was closed meanwhile, and opened again.
    direct.write_at(&mut queue, 1024, &[3; 4096]).unwrap();
    drop(direct);
    assert_eq!(flushes(&sync_data), 1);
    drop(fs.open_file(&inode).unwrap());
    assert_eq!(flushes(&sync_data), 0, "durable already");
    fs.close().unwrap();
    check(dir.path(), &device.bytes());
}
