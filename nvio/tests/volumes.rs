//! Volumes on images, on the embedded controller and in memory: the same files from each.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nvio::emulator::{Backing, Emulator, NamespaceConfig, Service};
use nvio::iomap::IoArgs;
use nvio::{Error, Location, OpenOptions, Volume, WritableVolume};
use nvio_testkit::image;
use nvio_testkit::random::pattern;
use tempfile::TempDir;

const DATA_BYTES: usize = 300_001;

struct Disk {
    _work: TempDir,
    image: PathBuf,
}

fn disk() -> Disk {
    let work = image::work_folder("volumes");
    let folder = work.path().join("folder");
    fs::create_dir_all(folder.join("etc")).unwrap();
    fs::write(folder.join("etc/hostname"), "worker-7\n").unwrap();
    fs::write(folder.join("data"), pattern(1, DATA_BYTES)).unwrap();
    fs::write(folder.join("latin1"), b"caf\xe9").unwrap();
    std::os::unix::fs::symlink("etc/hostname", folder.join("link")).unwrap();
    let image = work.path().join("disk.img");
    image::mkfs_of_folder(&image, 8 << 20, &folder, &[]);
    Disk { _work: work, image }
}

/// The volume by each way to open it.
fn volumes(image: &Path) -> [Volume; 3] {
    [
        Volume::open(image).unwrap(),
        OpenOptions::new().emulate(true).open(image).unwrap(),
        Volume::from_bytes(fs::read(image).unwrap()).unwrap(),
    ]
}

fn kind(error: Error) -> ErrorKind {
    std::io::Error::from(error).kind()
}

#[test]
fn the_calls_of_std_fs() {
    let disk = disk();
    for volume in volumes(&disk.image) {
        assert_eq!(volume.read("/data").unwrap(), pattern(1, DATA_BYTES));
        assert_eq!(volume.read_to_string("etc/hostname").unwrap(), "worker-7\n");
        assert_eq!(volume.read(b"/link").unwrap(), b"worker-7\n");
        assert_eq!(volume.read_link("/link").unwrap(), b"etc/hostname");
        assert!(volume.symlink_metadata("/link").unwrap().is_symlink());
        assert_eq!(volume.metadata("/data").unwrap().size(), DATA_BYTES as u64);
        assert!(volume.exists("/etc").unwrap() && !volume.exists("/etc/none").unwrap());
        assert!(!volume.exists("/data/below").unwrap());
        let names = volume.read_dir("/").unwrap().map(|entry| entry.unwrap().name);
        let mut names: Vec<_> = names.collect();
        names.sort();
        let expected = ["data", "etc", "latin1", "link", "lost+found"];
        assert_eq!(names, expected.map(|name| name.as_bytes().to_vec()));

        assert_eq!(kind(volume.read("/none").unwrap_err()), ErrorKind::NotFound);
        assert_eq!(kind(volume.read("/etc").unwrap_err()), ErrorKind::IsADirectory);
        assert_eq!(kind(volume.read_dir("/data").unwrap_err()), ErrorKind::NotADirectory);
        assert_eq!(kind(volume.read_to_string("/latin1").unwrap_err()), ErrorKind::InvalidData);
    }
}

#[test]
fn files_are_streams() {
    let disk = disk();
    let data = pattern(1, DATA_BYTES);
    for volume in volumes(&disk.image) {
        let mut file = volume.open_file("/data").unwrap();
        let mut all = Vec::new();
        file.read_to_end(&mut all).unwrap();
        assert_eq!(all, data);
        file.seek(SeekFrom::End(-5)).unwrap();
        let mut tail = [0; 10];
        assert_eq!(file.read(&mut tail).unwrap(), 5);
        assert_eq!(tail[..5], data[DATA_BYTES - 5..]);
        assert!(file.seek(SeekFrom::Current(i64::MIN)).is_err());
        let mut middle = [0; 7001];
        file.read_exact_at(4095, &mut middle).unwrap();
        assert_eq!(middle[..], data[4095..4095 + 7001]);
        let error = file.read_exact_at(DATA_BYTES as u64 - 1, &mut middle).unwrap_err();
        assert_eq!(kind(error), ErrorKind::UnexpectedEof);
    }
}

#[test]
fn threads_share_a_volume() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Volume>();
    is_shared::<WritableVolume>();
    let disk = disk();
    let data = pattern(1, DATA_BYTES);
    for volume in volumes(&disk.image) {
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (volume, data) = (&volume, &data);
                scope.spawn(move || {
                    let mut file = volume.open_file("/data").unwrap();
                    let mut out = [0; 1000];
                    for number in 0..50 {
                        let pos = (thread * 50 + number) * 1400;
                        file.read_exact_at(pos, &mut out).unwrap();
                        let at = usize::try_from(pos).unwrap();
                        assert_eq!(out[..], data[at..at + 1000]);
                    }
                });
            }
        });
    }
}

#[test]
fn queues_and_futures() {
    let disk = disk();
    let data = pattern(1, DATA_BYTES);
    for volume in volumes(&disk.image) {
        let mut file = volume.open_file("/data").unwrap();
        let mut queue = volume.queue().unwrap();
        // The volume and the file may be dropped before the queue.
        for token in 0..32 {
            let args = IoArgs::at(token * 5000 + 7).token(token);
            queue.submit_read_with(&mut file, args, vec![0; 4999].into()).unwrap();
        }
        let future = volume.open_file("/data").unwrap().into_async();
        let asynchronous = volume.async_queue().unwrap();
        drop((file, volume));
        let mut done = 0;
        while done < 32 {
            done += queue
                .wait(|read| {
                    let at = usize::try_from(read.token).unwrap() * 5000 + 7;
                    let bytes = read.memory.unwrap().into_bytes().unwrap();
                    assert_eq!((read.result.unwrap(), &bytes[..]), (4999, &data[at..at + 4999]));
                })
                .unwrap();
        }
        let read = future.read(&asynchronous, IoArgs::at(1), vec![0; 10]);
        let (memory, bytes) = asynchronous.block_on(read).unwrap();
        assert_eq!((bytes, &memory.into_bytes().unwrap()[..]), (10, &data[1..11]));
    }
}

/// A waiting thread leaves the processor to a controller in software.
#[test]
fn waiting_for_a_controller_in_software_sleeps() {
    let disk = disk();
    let slow = Service::new().latency(Duration::from_millis(20));
    let namespace = NamespaceConfig::new(Backing::image(&disk.image, true));
    let emulator = Emulator::builder().namespace(namespace).service(slow).start().unwrap();
    let device = format!("vfio-user:{}", emulator.socket().display());
    let volume = Volume::open(&device).unwrap();
    let mut file = volume.open_file("/data").unwrap();
    let mut queue = volume.queue().unwrap();
    for token in 0..4 {
        let buf = queue.alloc(4096).unwrap();
        queue.submit_read(&mut file, token * 4096, buf, token).unwrap();
        assert_eq!(queue.wait(|read| assert_eq!(read.result.unwrap(), 4096)).unwrap(), 1);
    }
    let pair = queue.device().as_disk().unwrap().pair();
    assert!(pair.counters().sleeps >= 4, "{:?}", pair.counters());
}

#[test]
fn parts_of_an_image() {
    let disk = disk();
    let filesystem = fs::read(&disk.image).unwrap();
    let (start, length) = (1 << 20, filesystem.len() as u64);
    // An MBR with one partition, of type 83h, from block 2048 on.
    let mut whole = vec![0; 1 << 20];
    let blocks = u32::try_from(length / 512).unwrap();
    whole[450] = 0x83;
    whole[454..458].copy_from_slice(&2048u32.to_le_bytes());
    whole[458..462].copy_from_slice(&blocks.to_le_bytes());
    whole[510..512].copy_from_slice(&[0x55, 0xaa]);
    whole.extend(filesystem);
    fs::write(&disk.image, whole).unwrap();
    for emulate in [false, true] {
        let options = OpenOptions::new().emulate(emulate);
        let image = || Location::new(disk.image.as_path());
        for part in [
            image().partition(1),
            image().bytes(start, length),
            image().namespace(1).partition(1),
            image().offset(start),
            image().bytes(512, start + length - 512).offset(start - 512),
        ] {
            let volume = options.open(part).unwrap();
            assert_eq!(volume.read("/etc/hostname").unwrap(), b"worker-7\n");
        }
        let error = options.open(image()).unwrap_err();
        let Error::NotExt4 { found, .. } = &error else { panic!("{error}") };
        let content = found.partitions.as_ref().unwrap().partitions[0].content.unwrap();
        assert_eq!((content.name, found.partition), ("ext4", None));
        assert_eq!(options.partitions(image()).unwrap().partitions.len(), 1);
        assert!(
            options.open(image().partition(2)).unwrap_err().to_string().contains("partition 2")
        );
        let error = options.open(image().namespace(2)).unwrap_err();
        assert!(matches!(error, Error::NoSuchNamespace { nsid: 2, .. }), "{error}");
        assert!(options.open(image().bytes(start, u64::MAX)).is_err());
        for past in [start + length, u64::MAX] {
            let error = options.open(image().offset(past)).unwrap_err();
            assert!(
                matches!(error, Error::Offset { size, .. } if size == start + length),
                "{error}"
            );
        }
    }
}

/// An offset inside of a block: an image needs no controller there, and a controller cannot.
#[test]
fn filesystems_between_blocks() {
    let disk = disk();
    let filesystem = fs::read(&disk.image).unwrap();
    for (header, block) in [(64, 512), (512, 4096), (1000, 4096)] {
        fs::write(&disk.image, [vec![0x27; header], filesystem.clone()].concat()).unwrap();
        for emulate in [false, true] {
            let options = OpenOptions::new().emulate(emulate).image_block_bytes(block);
            let location = Location::new(disk.image.as_path()).offset(header as u64);
            let volume = options.open(location.clone()).unwrap();
            assert_eq!(volume.read("/data").unwrap(), pattern(1, DATA_BYTES));
            let error = options.open_writable(location).unwrap_err();
            assert!(matches!(error, Error::Misaligned { block_bytes, .. } if block_bytes == block));
        }
    }
}

#[test]
fn overwriting_is_explicit_and_seen_by_readers() {
    let disk = disk();
    let volume = WritableVolume::open(disk.image.as_path()).unwrap();
    let mut file = volume.open_writable("/data").unwrap();
    file.write_at(4095, b"nvio").unwrap();
    file.write_durably_at(100_000, &[7; 10_000]).unwrap();
    let mut expected = pattern(1, DATA_BYTES);
    expected[4095..4099].copy_from_slice(b"nvio");
    expected[100_000..110_000].fill(7);
    assert_eq!(volume.read("/data").unwrap(), expected);
    let mut out = [0; 4];
    assert_eq!(file.read_at(4095, &mut out).unwrap(), 4);
    assert_eq!(&out, b"nvio");
    let error = file.write_at(DATA_BYTES as u64 - 1, b"ab").unwrap_err();
    assert_eq!(kind(error), ErrorKind::FileTooLarge);
    drop((file, volume));
    assert_eq!(Volume::open(disk.image.as_path()).unwrap().read("/data").unwrap(), expected);
}

#[test]
fn a_file_that_is_too_large_for_memory_is_refused() {
    let disk = disk();
    image::debugfs(&disk.image, &["set_inode_field data size 0x100000000000"]);
    let volume = Volume::open(disk.image.as_path()).unwrap();
    let error = volume.read("/data").unwrap_err();
    assert!(!error.to_string().is_empty());
    assert!(matches!(error, Error::TooLarge { .. } | Error::Path { .. }), "{error:?}");
}

#[test]
fn an_image_that_ends_early_is_an_error() {
    let disk = disk();
    File::options().write(true).open(&disk.image).unwrap().set_len(4 << 20).unwrap();
    for emulate in [false, true] {
        let opened = OpenOptions::new().emulate(emulate).open(disk.image.as_path());
        assert!(opened.unwrap_err().to_string().contains("truncated"));
    }
    assert!(Volume::from_bytes(vec![]).is_err());
    assert_eq!(kind(Volume::open("/nonexistent/disk.img").unwrap_err()), ErrorKind::NotFound);
    assert_eq!(kind(Volume::open("/").unwrap_err()), ErrorKind::InvalidInput);
}

#[test]
fn a_controller_with_one_pair_of_queues_is_read() {
    let disk = disk();
    let namespace = NamespaceConfig::new(Backing::image(&disk.image, true));
    let emulator = Emulator::builder().namespace(namespace).max_queues(1).start().unwrap();
    let device = format!("vfio-user:{}", emulator.socket().display());
    let volume = Volume::open(&*device).unwrap();
    assert_eq!(volume.read("/data").unwrap(), pattern(1, DATA_BYTES));
    let mut file = volume.open_file("/data").unwrap();
    let mut queue = volume.queue().unwrap();
    let buf = queue.alloc(4096).unwrap();
    queue.submit_read(&mut file, 8192, buf, 0).unwrap();
    queue.wait(|page| assert_eq!(page.result.unwrap(), 4096)).unwrap();
    // The identity of the device is known, and its queue is in use.
    let controller = volume.device().unwrap().controller();
    assert_eq!(controller.granted_queues(), 1);
    let refused = controller.queue_pair::<()>(1).err().unwrap();
    assert!(matches!(refused, nvio::driver::Error::NoQueue { granted: 1 }), "{refused}");
}
