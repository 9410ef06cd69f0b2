//! Multi-mount protection: the block is taken, kept, given back, and left to another host. No test waits:
//! the device of the tests notes each pause, in which another host may write.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nvio_ext4::{
    BlockDevice, BlockSource, Error, Filesystem, InodeNumber, Inspection, JournaledFilesystem,
    MmpFields, NewFile, Options, SourceError, WriteRange,
};
use nvio_testkit::image::{crc32c_of, mkfs, text, tool, work_folder};
use tempfile::TempDir;

const CLEAN: u32 = 0xff4d_4d50;
const FSCK: u32 = 0xe24d_4d50;

/// The action of another host in the n-th pause.
type Other = Box<dyn Fn(usize) + Send + Sync>;

/// An image whose pauses take no time.
#[derive(Clone)]
struct Device {
    file: Arc<File>,
    pauses: Arc<Mutex<Vec<u64>>>,
    writes: Arc<Mutex<usize>>,
    other: Arc<Other>,
}

impl BlockSource for Device {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        self.file.read(offset, buf)
    }
}

impl BlockDevice for Device {
    fn write_many(&self, ranges: &[WriteRange<'_>], durable: bool) -> Result<(), SourceError> {
        *self.writes.lock().unwrap() += 1;
        self.file.write_many(ranges, durable)
    }

    fn flush(&self) -> Result<(), SourceError> {
        BlockDevice::flush(&*self.file)
    }

    fn pause(&self, time: Duration) {
        let mut pauses = self.pauses.lock().unwrap();
        pauses.push(time.as_secs());
        (self.other)(pauses.len());
    }
}

struct Image {
    _folder: TempDir,
    path: PathBuf,
}

impl Image {
    fn new(options: &[&str]) -> Self {
        let folder = work_folder("nvio-mmp");
        let path = folder.path().join("disk.img");
        mkfs(&path, 16 << 20, &[&["-b", "1024"], options].concat());
        Self { _folder: folder, path }
    }

    fn device(&self, other: impl Fn(usize) + Send + Sync + 'static) -> Device {
        let file = File::options().read(true).write(true).open(&self.path).unwrap();
        let other: Arc<Other> = Arc::new(Box::new(other));
        Device { file: Arc::new(file), pauses: Arc::default(), writes: Arc::default(), other }
    }

    fn block(&self) -> MmpFields {
        let file = File::open(&self.path).unwrap();
        Inspection::open(file).unwrap().mmp().unwrap().unwrap()
    }

    /// Returns what another host does.
    fn other_host(&self, sequence: u32) -> impl Fn() + Send + Sync + 'static {
        let path = self.path.clone();
        move || set(&path, sequence)
    }
}

/// Writes the block as another host does.
fn set(image: &Path, sequence: u32) {
    use std::os::unix::fs::FileExt;
    let file = File::options().read(true).write(true).open(image).unwrap();
    let (mut superblock, mut mmp) = ([0; 1024], [0; 1024]);
    file.read_exact_at(&mut superblock, 1024).unwrap();
    let offset = u64::from_le_bytes(superblock[0x168..0x170].try_into().unwrap()) * 1024;
    file.read_exact_at(&mut mmp, offset).unwrap();
    mmp[4..8].copy_from_slice(&sequence.to_le_bytes());
    mmp[16..26].copy_from_slice(b"storage-7\0");
    mmp[80..85].copy_from_slice(b"sdx1\0");
    let seed = crc32c_of(u32::MAX, &superblock[0x68..0x78]);
    let crc = crc32c_of(seed, &mmp[..1020]);
    mmp[1020..].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&mmp, offset).unwrap();
}

fn open(device: &Device) -> Result<JournaledFilesystem, Error> {
    JournaledFilesystem::open(device.clone(), Options::default())
}

#[track_caller]
fn assert_in_use(error: &Error, by: &str) {
    assert!(matches!(error, Error::InUse(_)) && error.to_string().contains(by), "{error}");
}

#[test]
fn the_block_is_taken_and_given_back() {
    for options in [["-O", "mmp"], ["-O", "mmp,^metadata_csum"]] {
        let image = Image::new(&options);
        let device = image.device(|_| ());
        let fs = open(&device).unwrap();
        // Twice the interval of checks, and a second, so that a host that opens it now is noticed.
        assert_eq!(*device.pauses.lock().unwrap(), [11]);
        let taken = image.block();
        let taken_as = taken.sequence;
        assert!((1..FSCK).contains(&taken_as), "{taken:?}");
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!((taken.node, taken.device), (host.trim().as_bytes().into(), b"nvio"[..].into()));
        assert_eq!(taken.check_interval, 10);
        // Readers are refused.
        let error = Filesystem::open(File::open(&image.path).unwrap()).unwrap_err();
        assert_in_use(&error, host.trim());

        fs.renew_mmp().unwrap();
        assert_eq!(image.block().sequence, taken_as % (FSCK - 1) + 1);
        fs.create_file(InodeNumber::ROOT, "file", NewFile::with_permissions(0o644)).unwrap();
        fs.close().unwrap();
        assert_eq!(image.block().sequence, CLEAN);
        tool("e2fsck", &["-f", "-n", text(&image.path)]);
        Filesystem::open(File::open(&image.path).unwrap()).unwrap();
    }
}

#[test]
fn a_host_that_is_gone_is_waited_for() {
    let image = Image::new(&["-O", "mmp", "-E", "mmp_update_interval=7"]);
    set(&image.path, 0x77);
    let device = image.device(|_| ());
    drop(open(&device).unwrap());
    assert_eq!(*device.pauses.lock().unwrap(), [15, 15]);
    assert_eq!(image.block().sequence, CLEAN);
    assert_eq!(image.block().check_interval, 14);
}

#[test]
fn a_host_that_is_alive_keeps_the_filesystem() {
    let image = Image::new(&["-O", "mmp"]);
    // The other host writes the block while this one waits, or while this one takes it.
    for (before, writes_in) in [(0x77, 1), (0x77, 2), (CLEAN, 1)] {
        set(&image.path, before);
        let other = image.other_host(0x1234);
        let device = image.device(move |pause| {
            if pause == writes_in {
                other()
            }
        });
        let error = open(&device).unwrap_err();
        assert_in_use(&error, "in use by host 'storage-7', device 'sdx1' (sequence 0x1234)");
        // At most the block was written.
        let taken = usize::from(before == CLEAN || writes_in == 2);
        assert_eq!(*device.writes.lock().unwrap(), taken);
        assert_eq!(image.block().sequence, 0x1234, "it is not given back");
    }
}

#[test]
fn e2fsck_is_not_waited_for() {
    let image = Image::new(&["-O", "mmp"]);
    set(&image.path, FSCK);
    let device = image.device(|_| ());
    assert_in_use(&open(&device).unwrap_err(), "e2fsck is running");
    assert!(device.pauses.lock().unwrap().is_empty() && *device.writes.lock().unwrap() == 0);
}

#[test]
fn a_filesystem_that_another_host_has_taken_is_not_changed_any_more() {
    let image = Image::new(&["-O", "mmp"]);
    let device = image.device(|_| ());
    let fs = open(&device).unwrap();
    let new = NewFile::with_permissions(0o644);
    fs.create_file(InodeNumber::ROOT, "before", new).unwrap();
    set(&image.path, 0x1234);
    assert_in_use(&fs.renew_mmp().unwrap_err(), "storage-7");
    let writes = *device.writes.lock().unwrap();
    let refused = fs.create_file(InodeNumber::ROOT, "after", new).unwrap_err();
    assert_in_use(&refused, "storage-7");
    assert_in_use(&fs.sync().unwrap_err(), "storage-7");
    assert_in_use(&fs.renew_mmp().unwrap_err(), "storage-7");
    assert!(fs.lookup(b"/before").is_ok(), "it can be read");
    assert_in_use(&fs.close().unwrap_err(), "storage-7");
    assert_eq!(*device.writes.lock().unwrap(), writes, "nothing was written");
    assert_eq!(image.block().sequence, 0x1234);
}
