//! The commands and the time of durable writes: written through the cache, and buffered with a
//! sync. The clock is stepped, so the time is that of the modelled drive.

use std::fs::File;
use std::time::Duration;

use nvio_driver::{Options, WritableController};
use nvio_emulator::{Backing, Config, NamespaceConfig, Service};
use nvio_ext4::{
    Filesystem, InodeNumber, JournaledFile, JournaledFilesystem, NewFile, QueueDevice, RenameMode,
};
use nvio_iomap::{
    CachedFile, DiskQueue, DiskReader, DiskWriter, IoArgs, IoFlags, PageCache, WritableDisk,
};
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
fn writing_through_is_one_round_and_so_is_a_sync_of_a_few_blocks() {
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
        // One folio of dirty data is made durable by its commands.
        assert_eq!((through.flushes, buffered.flushes), (0, 0));
        assert!(through.writes <= 4 && buffered.writes <= 4);
        assert_eq!((through_time, buffered_time), (WRITE, WRITE));
    }
}

/// A filesystem that is open for changes, on a drive with the stepped clock.
struct Drive {
    device: Device,
    controller: WritableController,
    fs: JournaledFilesystem,
    cache: PageCache,
}

impl Drive {
    fn new(options: &[&str]) -> Self {
        let folder = image::work_folder("journaled-writes");
        let (content, path) = (folder.path().join("content"), folder.path().join("disk.img"));
        std::fs::create_dir(&content).unwrap();
        std::fs::write(content.join("file"), vec![1; 2 << 20]).unwrap();
        image::mkfs_of_folder(&path, 64 << 20, &content, options);
        let namespace = NamespaceConfig::new(Backing::image(&path, false));
        let service = Service::new().latency(WRITE).flush_latency(FLUSH);
        let config = Config::new().namespace(namespace).mdts(Some(7)).write_cache(64 << 20);
        let mut device = Device::new(&config.service(service), 0, 1 << 32, false).unwrap();
        device.with(|machine| machine.count_device_time());
        let options = Options { writable: true, ..Options::default() };
        let controller = device.open(options).unwrap();
        let disk = WritableDisk::whole(&controller.writable_namespace(1).unwrap());
        let reader = DiskReader::new(&controller, &disk, 32).unwrap();
        let writer = DiskWriter::new(&controller, &disk, 32).unwrap();
        let cache = PageCache::new(DiskQueue::new(&controller, &disk, 32).unwrap(), 8 << 20);
        let queues = QueueDevice::new(reader, writer);
        let fs = JournaledFilesystem::open(queues, nvio_ext4::Options::default()).unwrap();
        Self { device, controller, fs, cache }
    }

    /// Returns the number of write commands that the controller has counted, and the time.
    fn now(&self) -> (u128, Duration) {
        (self.controller.health(None).unwrap().host_writes.get(), self.device.now())
    }

    /// Returns the write commands and the time of `call`.
    fn cost(&mut self, call: impl FnOnce(&JournaledFilesystem, &PageCache)) -> (u128, Duration) {
        let (writes, _) = self.now();
        let begin = self.device.now();
        call(&self.fs, &self.cache);
        let time = self.device.now() - begin;
        (self.now().0 - writes, time)
    }
}

/// The commands of each call are those of the table in ARCHITECTURE.md. No flush: the time is that of the
/// writes, one after the other.
#[test]
fn calls_of_a_journaled_file_have_few_commands_and_no_flush() {
    let kinds: [(&[&str], u32); 2] = [
        (&["-b", "4096", "-J", "size=8"], 3),
        (&["-b", "4096", "-J", "size=8", "-O", "fast_commit"], 2),
    ];
    for (options, most) in kinds {
        let mut drive = Drive::new(options);
        let inode = drive.fs.lookup("/file").unwrap();
        let number = inode.number();
        let mut file = drive.fs.cached_file(&inode, &drive.cache).unwrap();
        let page = [7; 4096];
        let size = |file: &CachedFile<JournaledFile>| file.size();
        let mut least = [u128::MAX; 3];
        for round in 0..4 {
            let append = drive.cost(|_, _| {
                let end = size(&file);
                file.write_at(end, &page[..]).unwrap();
                file.sync_all().unwrap();
            });
            let overwrite = drive.cost(|_, _| {
                file.write_at(4096, &page[..]).unwrap();
                file.sync_data().unwrap();
            });
            drive.fs.allocate(number, 4 << 20, 1 << 20, false).unwrap();
            drive.fs.sync().unwrap();
            let prealloc = drive.cost(|_, _| {
                file.write_at((4 << 20) + 65_536 * (round + 1), &page[..]).unwrap();
                file.sync_data().unwrap();
            });
            println!("{options:?}: append {append:?}, overwrite {overwrite:?}, {prealloc:?}");
            if round == 0 {
                // The metadata is read.
                continue;
            }
            let times = [append.1, overwrite.1, prealloc.1];
            assert_eq!(times, [WRITE * most, WRITE, WRITE * most]);
            let counts = [append.0, overwrite.0, prealloc.0];
            least.iter_mut().zip(counts).for_each(|(least, count)| *least = count.min(*least));
            // A write to the log has two commands where the journal's file has another extent.
            assert!(counts.iter().all(|&count| count <= u128::from(most) + 1), "{counts:?}");
        }
        assert_eq!(least, [most.into(), 1, most.into()]);
    }
}

/// As above, for names: the log and the commit block.
#[test]
fn calls_that_change_names_have_few_commands_and_no_flush() {
    let new = NewFile::with_permissions(0o644);
    let root = InodeNumber::ROOT;
    let mut drive = Drive::new(&["-b", "4096", "-J", "size=8"]);
    let mut least = [u128::MAX; 5];
    for round in 0..8 {
        let name = |what: &str| format!("{what}-{round}");
        let costs = [
            drive.cost(|fs, _| {
                let inode = fs.create_file(root, name("file"), new).unwrap();
                fs.sync_inode(inode.number()).unwrap();
            }),
            drive.cost(|fs, _| {
                fs.rename(root, name("file"), root, name("moved"), RenameMode::Replace).unwrap();
                fs.sync_inode(root).unwrap();
            }),
            drive.cost(|fs, _| {
                fs.remove_file(root, name("moved")).unwrap();
                fs.sync_inode(root).unwrap();
            }),
            drive.cost(|fs, _| {
                fs.create_dir(root, name("directory"), new).unwrap();
                fs.sync_inode(root).unwrap();
            }),
            drive.cost(|fs, _| {
                let inode = fs.create_file(root, "new", new).unwrap().number();
                fs.write_at(inode, 0, &[7; 4096]).unwrap();
                fs.sync_inode(inode).unwrap();
                fs.rename(root, "new", root, "old", RenameMode::Replace).unwrap();
                fs.sync_inode(root).unwrap();
            }),
        ];
        println!("{costs:?}");
        if round == 0 {
            // The metadata is read.
            continue;
        }
        let expected = [2, 2, 2, 2, 5];
        assert_eq!(costs.map(|(_, time)| time), expected.map(|writes| WRITE * writes));
        least.iter_mut().zip(costs).for_each(|(least, (count, _))| *least = count.min(*least));
    }
    assert_eq!(least, [2, 2, 2, 2, 5]);
}

/// A record that is written through is durable after one command; with buffered I/O, an fsync also commits
/// the time of the change.
#[test]
fn writing_through_is_faster_than_a_write_and_fsync() {
    let mut drive = Drive::new(&["-b", "4096", "-J", "size=4"]);
    let inode = drive.fs.lookup("/file").unwrap();
    let mut file = drive.fs.cached_file(&inode, &drive.cache).unwrap();
    for bytes in [4096, 64 << 10, 1 << 20] {
        let data = vec![2; bytes];
        let durably = IoFlags::WRITETHROUGH | IoFlags::DSYNC;
        let through = drive.cost(|_, _| {
            file.write_from(IoArgs::at(0).flags(durably), &data[..]).unwrap();
        });
        let buffered = drive.cost(|_, _| {
            file.write_at(0, &data[..]).unwrap();
            file.sync_all().unwrap();
        });
        println!("{bytes} bytes: {through:?} written through, {buffered:?} with fsync");
        assert_eq!(through.1, WRITE);
        assert!(buffered.1 >= through.1 * 18 / 10 && buffered.0 <= through.0 + 2);
    }
}
