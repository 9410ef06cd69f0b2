//! Files written by the kernel, overwritten by the library, and read by the kernel again: the bytes
//! are the new ones, and sizes, times, maps and all other properties are unchanged.
//!
//! Needs root and loop devices: `tests/run kernel-ext4`.

use std::collections::BTreeMap;
use std::fs::{self, File as HostFile};
use std::future::poll_fn;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::task::Poll;

use nvio_emulator::{Backing, NamespaceConfig};
use nvio_ext4::{
    AsyncFile, AsyncFileQueue, Error, FileQueue, Filesystem, NotWritable, Protected, QueueSource,
    WritableFile,
};
use nvio_iomap::{DiskQueue, DiskReader, IoArgs, IoFlags, WritableDisk};
use nvio_testkit::controller;
use nvio_testkit::image::{self, Mount};
use nvio_testkit::random::Rng;
use nvio_tests::sys::{self, Extent};
use nvio_tests::view;

const MIB: u64 = 1 << 20;
/// Number of writes to each filesystem.
const WRITES: u64 = 1500;

/// Properties of a file, according to the kernel.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    size: u64,
    blocks: u64,
    times: [(i64, i64); 2],
    extents: Vec<Extent>,
}

fn seen(path: &Path) -> Seen {
    let metadata = fs::metadata(path).unwrap();
    let file = HostFile::open(path).unwrap();
    Seen {
        size: metadata.size(),
        blocks: metadata.blocks(),
        times: [
            (metadata.mtime(), metadata.mtime_nsec()),
            (metadata.ctime(), metadata.ctime_nsec()),
        ],
        extents: view::joined(&sys::fiemap(&file).unwrap()),
    }
}

/// Creates files of many shapes through the kernel, and returns their names.
fn populate(top: &Path) -> Vec<String> {
    let mut rng = Rng::new(77);
    let mut names = Vec::new();
    for size in [1, 500, 512, 4095, 4096, 12_345, 1_000_000, 20_000_003] {
        let name = format!("size-{size}");
        fs::write(top.join(&name), rng.bytes(size)).unwrap();
        names.push(name);
    }
    // Two files that grow in turns have interleaved blocks.
    let turns: Vec<_> = ["turn-a", "turn-b"]
        .map(|name| (HostFile::create(top.join(name)).unwrap(), name.to_owned()))
        .into();
    for round in 0..40 {
        for (file, _) in &turns {
            file.write_all_at(&rng.bytes(20_000), round * 20_000).unwrap();
            file.sync_data().unwrap();
        }
    }
    names.extend(turns.into_iter().map(|(_, name)| name));
    // A file with data in about every third block, for maps of several levels.
    let sparse = HostFile::create(top.join("sparse")).unwrap();
    for index in 0..1500 {
        let bytes = rng.range(1, 6000);
        sparse.write_all_at(&rng.bytes(bytes), index * 12_288).unwrap();
    }
    names.push("sparse".to_owned());
    // Data at positions for which a block map needs three levels.
    let far = HostFile::create(top.join("far")).unwrap();
    for pos in [0, 5 * MIB, 80 * MIB, 300 * MIB] {
        far.write_all_at(&rng.bytes(100_000), pos).unwrap();
    }
    names.push("far".to_owned());
    names
}

/// A filesystem on the embedded controller.
struct Served {
    fs: Filesystem,
    device: controller::Served,
    disk: WritableDisk,
}

impl Served {
    fn new(image: &Path, block: u32) -> Self {
        let namespace = NamespaceConfig::new(Backing::image(image, false)).block_size(block);
        let device = controller::Served::writable(namespace);
        let disk = WritableDisk::whole(&device.writable_namespace());
        let reader = DiskReader::new(&device.controller, &disk, 16).unwrap();
        let fs = Filesystem::open(QueueSource::new(reader)).unwrap();
        Self { fs, device, disk }
    }

    fn queue(&self) -> FileQueue<WritableDisk> {
        FileQueue::new(DiskQueue::new(&self.device.controller, &self.disk, 64).unwrap())
    }
}

/// The expected contents of a file.
struct Model {
    file: WritableFile,
    bytes: Vec<u8>,
    /// Ranges with data, according to the kernel.
    runs: Vec<Range<u64>>,
}

impl Model {
    fn new(served: &Served, top: &Path, name: &str) -> Self {
        let bytes = fs::read(top.join(name)).unwrap();
        let size = bytes.len() as u64;
        let mut runs: Vec<Range<u64>> = Vec::new();
        for extent in seen(&top.join(name)).extents.iter().filter(|extent| !extent.unwritten) {
            let (start, end) = (extent.logical, (extent.logical + extent.length).min(size));
            match runs.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ if start < end => runs.push(start..end),
                _ => {}
            }
        }
        let inode = served.fs.lookup(format!("/{name}").as_bytes()).unwrap();
        let file = served.fs.writable().unwrap().writable_file(&inode).unwrap();
        Self { file, bytes, runs }
    }

    /// Draws a range without holes.
    fn range(&self, rng: &mut Rng) -> Range<u64> {
        let run = rng.pick(&self.runs).clone();
        let most = (run.end - run.start).min(if rng.range(0, 10) == 0 { 3 * MIB } else { 20_000 });
        let length = rng.range(1, most + 1);
        let start = rng.range(run.start, run.end - length + 1);
        start..start + length
    }

    fn place(&mut self, pos: u64, data: &[u8]) {
        self.bytes[pos as usize..][..data.len()].copy_from_slice(data);
    }
}

fn check(name: &str, mkfs: &str, block: u32) {
    let work = tempfile::Builder::new().prefix("nvio-kernel-overwrite-").tempdir().unwrap();
    let (disk, mount_point) = (work.path().join("disk.img"), work.path().join("mnt"));
    image::mkfs(&disk, 256 * MIB, &mkfs.split_whitespace().collect::<Vec<_>>());
    let mount = Mount::new(&disk, &mount_point, "noatime");
    let names = populate(mount.path());
    mount.unmount().unwrap();

    let mount = Mount::new(&disk, &mount_point, "ro,noatime");
    let before: BTreeMap<&String, Seen> =
        names.iter().map(|name| (name, seen(&mount.path().join(name)))).collect();
    let served = Served::new(&disk, block);
    let mut models: Vec<Model> =
        names.iter().map(|name| Model::new(&served, mount.path(), name)).collect();
    mount.unmount().unwrap();

    let mut rng = Rng::new(name.len() as u64);
    let mut queue = served.queue();
    for _ in 0..WRITES {
        let at = rng.range(0, models.len() as u64) as usize;
        let model = &mut models[at];
        let range = model.range(&mut rng);
        let data = rng.bytes(range.end - range.start);
        let align = u64::from(block);
        let (start, end) = (range.start.next_multiple_of(align), range.end / align * align);
        if start < end && rng.range(0, 2) == 0 {
            let data = &data[..(end - start) as usize];
            let mut buf = served.device.controller.alloc(data.len()).unwrap();
            buf.copy_from_slice(data);
            let flags = *rng.pick(&[IoFlags::empty(), IoFlags::DSYNC, IoFlags::BOUNCE]);
            let io = IoArgs::at(start).flags(flags);
            let (_, n) = model.file.write_with(&mut queue, io, buf).unwrap();
            assert_eq!(n, data.len());
            model.place(start, data);
        } else {
            assert_eq!(model.file.write_at(&mut queue, range.start, &data).unwrap(), data.len());
            model.place(range.start, &data);
        }
    }
    drop(queue);
    let bytes = futures(&served, models, u64::from(block), &mut rng);
    assert_eq!(served.fs.io_errors(), 0);
    drop(served);

    image::tool("e2fsck", &["-f", "-n", image::text(&disk)]);
    let mount = Mount::new(&disk, &mount_point, "ro,noatime");
    for (file, bytes) in names.iter().zip(&bytes) {
        let path = mount.path().join(file);
        assert!(fs::read(&path).unwrap() == *bytes, "{name}: {file}: contents");
        assert_eq!(seen(&path), before[file], "{name}: {file}");
    }
    mount.unmount().unwrap();
}

/// Overwrites the first whole block of each range in all files as concurrent futures. Returns the
/// expected contents of the files.
fn futures(served: &Served, models: Vec<Model>, align: u64, rng: &mut Rng) -> Vec<Vec<u8>> {
    let queue = AsyncFileQueue::new(served.queue());
    let (mut contents, mut files) = (Vec::new(), Vec::new());
    for Model { file, bytes, runs } in models {
        contents.push(bytes);
        files.push((AsyncFile::new(file), runs));
    }
    let mut writes = Vec::new();
    for (bytes, (file, runs)) in contents.iter_mut().zip(&files) {
        for run in runs {
            let pos = run.start.next_multiple_of(align);
            if pos + align <= run.end {
                let data = rng.bytes(align);
                bytes[pos as usize..][..data.len()].copy_from_slice(&data);
                writes.push(Box::pin(file.write(&queue, IoArgs::at(pos), data)));
            }
        }
    }
    assert!(writes.len() > 500, "{} futures", writes.len());
    queue.block_on(poll_fn(|context| {
        writes.retain_mut(|write| match write.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(done) => {
                assert_eq!(done.unwrap().1 as u64, align);
                false
            }
        });
        if writes.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }));
    contents
}

macro_rules! variants {
    ($($name:ident: $mkfs:literal, $lba:literal;)*) => {
        $(
            #[test]
            #[ignore = "needs root and loop devices: tests/run kernel-ext4"]
            fn $name() {
                check(stringify!($name), $mkfs, $lba);
            }
        )*
    };
}

variants! {
    block_4k: "-b 4096", 512;
    block_4k_lba_4k: "-b 4096", 4096;
    block_2k: "-b 2048", 512;
    block_1k: "-b 1024", 512;
    no_64bit_no_checksums: "-b 4096 -O ^64bit,^metadata_csum", 512;
    bigalloc: "-b 4096 -C 65536 -O bigalloc", 512;
    bigalloc_1k: "-b 1024 -C 16384 -O bigalloc", 1024;
    block_maps: "-b 4096 -O ^extent,^64bit,^flex_bg,^metadata_csum", 512;
    block_maps_1k: "-b 1024 -O ^extent,^64bit,^flex_bg,^metadata_csum", 512;
    no_journal: "-b 4096 -O ^has_journal", 512;
}

#[test]
#[ignore = "needs root and loop devices: tests/run kernel-ext4"]
fn mounted_filesystem_is_not_written_to() {
    let work = tempfile::Builder::new().prefix("nvio-kernel-overwrite-").tempdir().unwrap();
    let (disk, mount_point) = (work.path().join("disk.img"), work.path().join("mnt"));
    for (options, journal) in [("-b 4096", true), ("-b 4096 -O ^has_journal", false)] {
        image::mkfs(&disk, 64 * MIB, &options.split_whitespace().collect::<Vec<_>>());
        let served = Served::new(&disk, 512);
        served.fs.writable().unwrap();
        let mount = Mount::new(&disk, &mount_point, "noatime");
        fs::write(mount.path().join("file"), [1; 4096]).unwrap();
        HostFile::open(mount.path().join("file")).unwrap().sync_all().unwrap();
        match (served.fs.writable().unwrap_err(), journal) {
            (Error::NeedsRecovery, true) => {}
            (Error::NotWritable(NotWritable::Changed | NotWritable::NotClean), false) => {}
            (other, _) => panic!("{options}: {other}"),
        }
        mount.unmount().unwrap();
        // The superblock was read before the mount.
        let stale = served.fs.writable().unwrap_err();
        assert!(matches!(stale, Error::NotWritable(NotWritable::Changed)), "{stale}");
        drop(served);
        Served::new(&disk, 512).fs.writable().unwrap();
    }
}

#[test]
#[ignore = "needs root and loop devices: tests/run kernel-ext4"]
fn files_that_the_kernel_protects_are_not_written_to() {
    let work = tempfile::Builder::new().prefix("nvio-kernel-overwrite-").tempdir().unwrap();
    let (disk, mount_point) = (work.path().join("disk.img"), work.path().join("mnt"));
    image::mkfs(&disk, 64 * MIB, &["-b", "4096"]);
    let mount = Mount::new(&disk, &mount_point, "noatime");
    let cases = [("+i", Protected::Immutable), ("+a", Protected::AppendOnly)];
    for (flag, _) in cases {
        let path = mount.path().join(flag);
        fs::write(&path, [7; 5000]).unwrap();
        let changed = Command::new("chattr").arg(flag).arg(&path).status().unwrap();
        assert!(changed.success(), "{flag}");
    }
    // A file preallocated by the kernel and partly written.
    let file = HostFile::create(mount.path().join("preallocated")).unwrap();
    image::tool("fallocate", &["-l", "65536", image::text(&mount.path().join("preallocated"))]);
    file.write_all_at(&[9; 8192], 16_384).unwrap();
    file.sync_all().unwrap();
    drop(file);
    mount.unmount().unwrap();

    let served = Served::new(&disk, 512);
    let fs = served.fs.writable().unwrap();
    for (flag, expected) in cases {
        let inode = fs.lookup(format!("/{flag}").as_bytes()).unwrap();
        match fs.writable_file(&inode).unwrap_err() {
            Error::Protected { why, .. } => assert_eq!(why, expected),
            other => panic!("{flag}: {other}"),
        }
    }
    let mut queue = served.queue();
    let mut file = fs.writable_file(&fs.lookup(b"/preallocated").unwrap()).unwrap();
    for (pos, length, good) in
        [(16_384, 8192, true), (20_000, 100, true), (0, 512, false), (24_000, 600, false)]
    {
        match file.write_at(&mut queue, pos, &vec![8; length]) {
            Ok(n) => assert!(good && n == length, "{pos}"),
            Err(Error::Unwritten { .. }) => assert!(!good, "{pos}"),
            Err(other) => panic!("{pos}: {other}"),
        }
    }
    drop((queue, file, fs, served));
    image::tool("e2fsck", &["-f", "-n", image::text(&disk)]);
    let mount = Mount::new(&disk, &mount_point, "noatime");
    let bytes = fs::read(mount.path().join("preallocated")).unwrap();
    let expected: Vec<u8> = [vec![0; 16_384], vec![8; 8192], vec![0; 40_960]].concat();
    assert!(bytes == expected, "rejected writes changed nothing");
    for (flag, _) in cases {
        let undo = flag.replace('+', "-");
        let path = mount.path().join(flag);
        assert!(Command::new("chattr").arg(undo).arg(path).status().unwrap().success());
    }
    mount.unmount().unwrap();
}
