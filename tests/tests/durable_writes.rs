//! The commands and the time of durable writes: written through the cache, and buffered with a
//! sync. The clock is stepped, so the time is that of the modelled drive.

use std::fs::File;
use std::time::Duration;

use nvio_driver::Options;
use nvio_emulator::{Backing, Config, NamespaceConfig, Service};
use nvio_ext4::Filesystem;
use nvio_iomap::{DiskQueue, IoArgs, IoFlags, PageCache, WritableDisk};
use nvio_testkit::image;
use nvio_tests::power::record::{Event, Record, Recorded};
use nvio_tests::simulator::device::Device;

/// Time of a write and of a flush on the modelled drive.
const WRITE: Duration = Duration::from_micros(80);
const FLUSH: Duration = Duration::from_micros(20);

/// The commands of a call.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    writes: usize,
    bytes: usize,
    flushes: usize,
}

impl Cost {
    fn of(events: &[Event]) -> Self {
        let mut cost = Self { writes: 0, bytes: 0, flushes: 0 };
        for event in events {
            match event {
                Event::Write { data, .. } => {
                    cost.writes += 1;
                    cost.bytes += data.len();
                }
                Event::Flush => cost.flushes += 1,
                Event::Done(_) | Event::Durable(_) => {}
            }
        }
        cost
    }
}

#[test]
fn writing_through_is_one_round_and_buffered_with_sync_two() {
    let folder = image::work_folder("durable-writes");
    let (content, path) = (folder.path().join("content"), folder.path().join("disk.img"));
    std::fs::create_dir(&content).unwrap();
    std::fs::write(content.join("file"), vec![1; 4 << 20]).unwrap();
    image::mkfs_of_folder(&path, 16 << 20, &content, &["-b", "4096"]);
    let namespace = NamespaceConfig::new(Backing::image(&path, false));
    let service = Service::new().latency(WRITE).flush_latency(FLUSH);
    // Commands of at most 512 KiB, as those of many drives.
    let config = Config::new().namespace(namespace).mdts(Some(7)).write_cache(16 << 20);
    let mut device = Device::new(&config.service(service), 0, 1 << 32, false).unwrap();
    device.with(|machine| machine.count_device_time());
    let options = Options { writable: true, ..Options::default() };
    let controller = device.open(options).unwrap();
    let namespace = controller.writable_namespace(1).unwrap();
    let disk = WritableDisk::whole(&namespace);
    let record = Record::default();
    let queue = Recorded::new(DiskQueue::new(&controller, &disk, 32).unwrap(), &record);
    let cache = PageCache::new(queue, 8 << 20);
    let fs = Filesystem::open(File::open(&path).unwrap()).unwrap();
    let inode = fs.lookup("/file").unwrap();
    let mut file = fs.writable().unwrap().cached_file(&inode, &cache).unwrap();
    for bytes in [4096, 64 << 10, 1 << 20] {
        let data = vec![2; bytes];
        record.events().clear();
        let durably = IoFlags::WRITETHROUGH | IoFlags::DSYNC;
        let begin = device.now();
        file.write_from(IoArgs::at(0).flags(durably), &data[..]).unwrap();
        let (through, through_time) = (Cost::of(&record.events()), device.now() - begin);
        let fua = |event: &Event| !matches!(event, Event::Write { fua: false, .. });
        assert!(record.events().iter().all(fua));
        record.events().clear();
        let begin = device.now();
        file.write_at(2 << 20, &data[..]).unwrap();
        assert_eq!(record.events().len(), 0, "it is only in the cache");
        file.sync_data().unwrap();
        let (buffered, buffered_time) = (Cost::of(&record.events()), device.now() - begin);
        println!(
            "{bytes} bytes: {through:?} in {through_time:?}, {buffered:?} in {buffered_time:?}"
        );
        assert_eq!((through.bytes, buffered.bytes), (bytes, bytes));
        assert_eq!((through.flushes, buffered.flushes), (0, 1));
        assert!(through.writes <= 4 && buffered.writes <= 4);
        assert_eq!((through_time, buffered_time), (WRITE, WRITE + FLUSH));
    }
}
