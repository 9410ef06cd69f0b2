//! Overwrites in every form on the embedded controller: the data is written, no other byte has
//! changed, and e2fsprogs agrees. Also requests that must be rejected without a change.

use crate::common;

use std::fs::{self, File as HostFile};
use std::io::IoSlice;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Rng, assert_clean, debugfs, mke2fs, pattern, run};
use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_ext4::{
    Error, FileQueue, Filesystem, NotWritable, Protected, QueueSource, WritableFile,
    WritableFilesystem,
};
use nvio_iomap::{DiskQueue, DiskReader, IoArgs, IoFlags, Memory, WritableDisk};
use nvio_testkit::controller;
use tempfile::TempDir;

/// An image served by a controller of its own.
struct Served {
    device: controller::Served,
    disk: WritableDisk,
}

impl Served {
    fn new(image: &Path, block: u32) -> Self {
        let namespace = NamespaceConfig::new(Backing::image(image, false)).block_size(block);
        let emulator =
            Emulator::builder().namespace(namespace).write_cache(1 << 20).atomic_writes(15, 15);
        let device = controller::Served::start(emulator, controller::writable());
        let disk = WritableDisk::whole(&device.writable_namespace());
        Self { device, disk }
    }

    fn open(&self) -> Filesystem {
        let reader = DiskReader::new(&self.device.controller, &self.disk, 16).unwrap();
        Filesystem::open(QueueSource::new(reader)).unwrap_or_else(|error| panic!("{error}"))
    }

    fn writable(&self) -> WritableFilesystem {
        self.open().writable().unwrap_or_else(|error| panic!("{error}"))
    }

    fn queue(&self) -> FileQueue<WritableDisk> {
        FileQueue::new(DiskQueue::new(&self.device.controller, &self.disk, 32).unwrap())
    }
}

/// An image created from a folder.
struct Image {
    dir: TempDir,
}

impl Image {
    fn new(options: &str, fill: impl FnOnce(&Path)) -> Self {
        Self::of_size("64M", options, fill)
    }

    fn of_size(size: &str, options: &str, fill: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        fill(&source);
        let image = Self { dir };
        let options: Vec<&str> = options.split(' ').collect();
        mke2fs(&image.path(), size, &options, Some(&source));
        image
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    /// Returns a file's contents as read by debugfs.
    fn dump(&self, name: &str) -> Vec<u8> {
        let out = self.dir.path().join("dump");
        run(
            "debugfs",
            &["-R", &format!("dump /{name} {}", out.display()), self.path().to_str().unwrap()],
        );
        fs::read(out).unwrap()
    }
}

const SIZES: [usize; 7] = [1, 511, 4096, 10_000, 65_537, 700_000, 3_000_000];

fn fill(source: &Path) {
    for size in SIZES {
        fs::write(source.join(format!("size-{size}")), pattern(size as u64, size)).unwrap();
    }
    let fragmented = HostFile::create(source.join("fragmented")).unwrap();
    for index in 0..600 {
        // Runs of one to five blocks of 4 KiB, with a hole of one block after each.
        let blocks = 1 + index % 5;
        let data = pattern(index, blocks as usize * 4096);
        fragmented.write_all_at(&data, index * 6 * 4096).unwrap();
    }
}

/// The expected state of a file: its bytes and their places.
struct Model {
    name: String,
    file: WritableFile,
    bytes: Vec<u8>,
    /// Byte offset in the file, byte offset on the device, length.
    extents: Vec<(u64, u64, u64)>,
}

impl Model {
    fn new(fs: &WritableFilesystem, image: &Image, name: String) -> Self {
        let inode = fs.lookup(format!("/{name}").as_bytes()).unwrap();
        let file = fs.writable_file(&inode).unwrap();
        let extents = file.extents().map(Result::unwrap);
        let extents = extents.map(|extent| (extent.logical, extent.physical, extent.length));
        Self { extents: extents.collect(), bytes: image.dump(&name), name, file }
    }

    /// Returns the ranges without holes, up to the end of the file.
    fn runs(&self) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for &(logical, _, length) in &self.extents {
            let end = (logical + length).min(self.bytes.len() as u64);
            match runs.last_mut() {
                Some(last) if last.end == logical => last.end = end,
                _ => runs.push(logical..end),
            }
        }
        runs
    }

    /// Applies a write to the expected bytes of the file and of the image.
    fn write(&mut self, device: &mut [u8], pos: u64, data: &[u8]) {
        self.bytes[pos as usize..][..data.len()].copy_from_slice(data);
        let mut moved = 0;
        for &(logical, physical, length) in &self.extents {
            let from = (pos + moved as u64).max(logical);
            let to = (pos + data.len() as u64).min(logical + length);
            if from < to {
                let part = &data[(from - pos) as usize..(to - pos) as usize];
                device[(physical + from - logical) as usize..][..part.len()].copy_from_slice(part);
                moved += part.len();
            }
        }
        assert_eq!(moved, data.len(), "{}: all of it has blocks", self.name);
    }
}

/// Makes one write in a random form. Returns the position and the data.
fn write_one(
    served: &Served,
    queue: &mut FileQueue<WritableDisk>,
    model: &mut Model,
    random: &mut Rng,
    seed: u64,
) -> (u64, Vec<u8>) {
    let runs = model.runs();
    let run = runs[random.below(runs.len() as u64) as usize].clone();
    let block = u64::from(served.disk.namespace().block_size());
    let most = (run.end - run.start).min(if random.below(8) == 0 { 2 << 20 } else { 40_000 });
    let length = 1 + random.below(most);
    let pos = run.start + random.below(run.end - run.start - length + 1);
    let file = &mut model.file;
    let mut form = random.below(8);
    let (start, end) = (pos.next_multiple_of(block), (pos + length) / block * block);
    if start >= end {
        form %= 2;
    }
    let (pos, length) = if form < 2 { (pos, length) } else { (start, end - start) };
    let data = pattern(seed, length as usize);
    let dma = |data: &[u8]| {
        let mut buf = served.device.controller.alloc(data.len()).unwrap();
        buf.copy_from_slice(data);
        buf
    };
    let sync = if random.below(2) == 0 { IoFlags::DSYNC } else { IoFlags::empty() };
    let bounce = if random.below(2) == 0 { IoFlags::BOUNCE } else { IoFlags::empty() };
    let io = IoArgs::at(pos).token(seed).flags(sync | bounce);
    let n = match form {
        0 => file.write_at(queue, pos, &data).unwrap(),
        1 => {
            let (a, b) = data.split_at(random.below(length) as usize);
            let slices = [a, &[], b].map(IoSlice::new);
            file.write_vectored_at(queue, pos, &slices).unwrap()
        }
        2 => {
            let (memory, n) = file.write_with(queue, IoArgs::at(pos), dma(&data)).unwrap();
            assert!(*memory.into_dma().unwrap() == *data, "the memory is returned unchanged");
            n
        }
        3 => file.write_with(queue, io, data.clone()).unwrap().1,
        4 => {
            let middle = (length / 2 / block * block) as usize;
            let (a, b) = data.split_at(middle);
            file.write_with(queue, io, vec![dma(a), dma(b)]).unwrap().1
        }
        5 => file.write_with(queue, io, dma(&data)).unwrap().1,
        6 => {
            // One request for every few blocks, all in flight at the same time.
            let mut sum = 0;
            for (at, part) in (0..).step_by(3 * block as usize).zip(data.chunks(3 * block as usize))
            {
                let io = IoArgs { pos: pos + at, ..io };
                let mut memory = Memory::from(dma(part));
                while let Err(rejected) = file.submit_write_with(queue, io, memory) {
                    assert!(nvio_iomap::FileError::is_again(&rejected.error), "{rejected}");
                    memory = rejected.payload;
                    queue.wait(|done| sum += done.result.unwrap()).unwrap();
                }
            }
            while file.in_flight() > 0 {
                queue.wait(|done| sum += done.result.unwrap()).unwrap();
            }
            queue.poll(usize::MAX, |done| sum += done.result.unwrap());
            sum
        }
        _ => {
            let io = IoArgs { flags: io.flags | IoFlags::ATOMIC, ..io };
            match file.write_with(queue, io, dma(&data)) {
                Ok((_, n)) => n,
                // The write spans several extents, or exceeds the drive's limit for atomic writes.
                Err(failed) => {
                    let error = failed.error.to_string();
                    assert!(error.starts_with("an atomic write of"), "{error}");
                    return (pos, Vec::new());
                }
            }
        }
    };
    assert_eq!(n, data.len(), "form {form}");
    (pos, data)
}

fn overwrite(options: &str, block: u32) {
    println!("{options}, {block}");
    let image = Image::new(options, fill);
    if options.contains("quota") {
        // The quota of mke2fs does not include the files that it adds.
        let fsck = Command::new("e2fsck").args(["-f", "-y"]).arg(image.path()).output().unwrap();
        assert_eq!(fsck.status.code(), Some(1), "repaired");
    }
    assert_clean(&image.path());
    let before = image.bytes();
    let mut expected = before.clone();
    let served = Served::new(&image.path(), block);
    let fs = served.writable();
    let names = SIZES.map(|size| format!("size-{size}"));
    let mut models: Vec<Model> = names
        .into_iter()
        .chain(["fragmented".to_owned()])
        .map(|name| Model::new(&fs, &image, name))
        .collect();
    let mut queue = served.queue();
    let mut random = Rng::new(options.len() as u64 * 7919 + u64::from(block));
    for seed in 0..400 {
        let at = random.below(models.len() as u64) as usize;
        let (pos, data) = write_one(&served, &mut queue, &mut models[at], &mut random, 1000 + seed);
        models[at].write(&mut expected, pos, &data);
    }
    for model in &mut models {
        let mut all = vec![0; model.bytes.len()];
        assert_eq!(model.file.read_at(&mut queue, 0, &mut all).unwrap(), all.len());
        assert!(all == model.bytes, "{options}: {}: by this crate", model.name);
    }
    assert_eq!(fs.io_errors(), 0);
    let sizes: Vec<u64> = models.iter().map(|model| model.file.size()).collect();
    let contents: Vec<(String, Vec<u8>)> =
        models.into_iter().map(|model| (model.name, model.bytes)).collect();
    drop((queue, fs, served));
    let after = image.bytes();
    assert!(after != before, "something was written");
    let wrong = after.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(wrong, None, "{options}: the first wrong byte");
    assert_clean(&image.path());
    for ((name, bytes), size) in contents.iter().zip(sizes) {
        let dumped = image.dump(name);
        assert_eq!(dumped.len() as u64, size, "{options}: {name}: size");
        assert!(dumped == *bytes, "{options}: {name}: by e2fsprogs");
    }
}

#[test]
fn of_extents() {
    overwrite("-t ext4 -b 4096", 512);
    overwrite("-t ext4 -b 4096", 4096);
    overwrite("-t ext4 -b 1024", 512);
    overwrite("-t ext4 -b 2048 -O ^metadata_csum,^64bit", 2048);
}

#[test]
fn of_clusters_and_of_groups_that_are_spread() {
    overwrite("-t ext4 -b 4096 -C 65536 -O bigalloc", 512);
    overwrite("-t ext4 -b 1024 -C 4096 -O bigalloc,meta_bg,^resize_inode", 512);
    overwrite("-t ext4 -b 1024 -g 1024 -O ^flex_bg,quota,project", 1024);
    overwrite("-t ext4 -b 4096 -O orphan_file,fast_commit,mmp,sparse_super2", 4096);
}

#[test]
fn of_block_maps() {
    overwrite("-t ext2 -b 1024", 512);
    overwrite("-t ext2 -b 4096 -r 0 -O none", 4096);
    overwrite("-t ext3 -b 2048", 512);
}

/// Creates a file with data, a hole, preallocated blocks, and data that ends within a block.
fn with_gaps() -> Image {
    let image = Image::new("-t ext4 -b 4096", |source| {
        let file = HostFile::create(source.join("gaps")).unwrap();
        file.write_all_at(&pattern(1, 16_384), 0).unwrap();
        file.write_all_at(&pattern(2, 10_000), 32_768).unwrap();
        let file = HostFile::create(source.join("preallocated")).unwrap();
        file.write_all_at(&pattern(3, 8192), 0).unwrap();
        file.set_len(65_536).unwrap();
    });
    debugfs(&image.path(), &["fallocate /preallocated 2 15"]);
    image
}

#[test]
fn unallocated_range_is_refused_before_any_write() {
    let image = with_gaps();
    let before = image.bytes();
    let served = Served::new(&image.path(), 512);
    let fs = served.writable();
    let mut queue = served.queue();
    let open = |name: &str| fs.writable_file(&fs.lookup(name.as_bytes()).unwrap()).unwrap();
    let mut gaps = open("/gaps");
    let mut preallocated = open("/preallocated");
    let size = 42_768;
    assert_eq!(gaps.size(), size);
    let mut check = |file: &mut WritableFile, pos: u64, length: usize, expected: &str| {
        let data = vec![0xab; length];
        let told = |error: Error| {
            let told = format!("{error:?}");
            assert!(told.starts_with(expected), "{pos} {length}: {told}");
        };
        told(file.write_at(&mut queue, pos, &data).unwrap_err());
        if pos.is_multiple_of(512) && length.is_multiple_of(512) {
            let mut buf = served.device.controller.alloc(length).unwrap();
            buf.fill(0xcd);
            let failed = file.write_with(&mut queue, IoArgs::at(pos), buf).unwrap_err();
            told(failed.error);
            let buf = failed.payload.unwrap();
            let io = IoArgs::at(pos).flags(IoFlags::BOUNCE | IoFlags::DSYNC);
            let rejected = file.submit_write_with(&mut queue, io, buf).unwrap_err();
            told(rejected.error);
            assert_eq!(rejected.payload.len(), length);
        }
    };
    check(&mut gaps, 16_384, 512, "Hole { inode: 12, pos: 16384 }");
    check(&mut gaps, 20_000, 1, "Hole { inode: 12, pos: 19968 }");
    check(&mut gaps, 0, 32_768, "Hole { inode: 12, pos: 16384 }");
    check(&mut gaps, 3, 40_000, "Hole { inode: 12, pos: 16384 }");
    check(&mut gaps, size - 1, 2, "PastEnd { inode: 12, end: 42769, size: 42768 }");
    check(&mut gaps, 42_496, 512, "PastEnd { inode: 12, end: 43008, size: 42768 }");
    check(&mut gaps, size, 1, "PastEnd");
    check(&mut gaps, u64::MAX, 1, "PastEnd");
    check(&mut gaps, u64::MAX - 511, 512, "Iomap(Misaligned");
    check(&mut gaps, u64::MAX - 1023, 512, "PastEnd");
    check(&mut preallocated, 8192, 512, "Unwritten { inode: 13, pos: 8192 }");
    check(&mut preallocated, 0, 8193, "Unwritten { inode: 13, pos: 8192 }");
    check(&mut preallocated, 0, 65_536, "Unwritten { inode: 13, pos: 8192 }");
    // An empty write succeeds, and a NOWAIT write fails if the mapping is not cached.
    assert_eq!(gaps.write_at(&mut queue, 20_000, &[]).unwrap(), 0);
    let io = IoArgs::at(0).flags(IoFlags::NOWAIT);
    let buf = served.device.controller.alloc(512).unwrap();
    let failed = fs.writable_file(gaps.inode()).unwrap().write_with(&mut queue, io, buf);
    assert!(
        matches!(failed.unwrap_err().error, Error::WouldBlock { inode, pos: 0 } if inode == 12)
    );
    // A file that was opened for reading.
    let mut reader = fs.file(gaps.inode()).unwrap();
    let refused = queue.write_at(&mut reader, 0, &[0; 512]);
    assert!(matches!(refused.unwrap_err(), Error::ReadOnly { inode } if inode == 12));
    // A file that was opened for reading, in place of one opened for writing.
    *preallocated = fs.file(gaps.inode()).unwrap();
    let refused = preallocated.write_at(&mut queue, 0, &[0; 512]).unwrap_err();
    assert!(
        matches!(refused, Error::Protected { inode, why: Protected::NotOpened } if inode == 12)
    );
    assert_eq!(fs.io_errors(), 0, "rejected requests are not counted");
    drop((queue, gaps, preallocated, reader, fs, served));
    assert!(image.bytes() == before);
    assert_clean(&image.path());
}

#[test]
fn a_queue_to_another_device_is_refused() {
    let image = with_gaps();
    let other = with_gaps();
    HostFile::options().write(true).open(other.path()).unwrap().set_len(65 << 20).unwrap();
    let before = other.bytes();
    let (served, elsewhere) = (Served::new(&image.path(), 512), Served::new(&other.path(), 512));
    let fs = served.writable();
    let mut file = fs.writable_file(&fs.lookup(b"/gaps").unwrap()).unwrap();
    let mut queue = elsewhere.queue();
    let buf = || elsewhere.device.controller.alloc(512).unwrap();
    let refused = |error: Error| assert!(matches!(error, Error::OtherDevice { .. }), "{error}");
    refused(file.write_at(&mut queue, 0, b"x").unwrap_err());
    refused(file.write_with(&mut queue, IoArgs::at(0), buf()).unwrap_err().error);
    refused(file.write_with(&mut queue, IoArgs::at(0), buf()).unwrap_err().error);
    refused(file.submit_write_with(&mut queue, IoArgs::at(0), buf()).unwrap_err().error);
    drop((queue, elsewhere));
    assert!(other.bytes() == before);
}

#[test]
fn handles_share_the_count_of_what_is_in_flight() {
    let image = with_gaps();
    let served = Served::new(&image.path(), 512);
    let fs = served.writable();
    let inode = fs.lookup(b"/gaps").unwrap();
    let (mut writer, mut reader) = (fs.writable_file(&inode).unwrap(), fs.file(&inode).unwrap());
    let mut queue = served.queue();
    let buf = || served.device.controller.alloc(4096).unwrap();
    writer.submit_write_with(&mut queue, IoArgs::at(0), buf()).unwrap();
    reader.submit_read(&mut queue, 4096, buf(), 1).unwrap();
    assert_eq!((writer.in_flight(), reader.in_flight()), (2, 2));
    drop((writer, reader));
    let again = fs.file(&inode).unwrap();
    assert_eq!(again.in_flight(), 2, "no handle was left, but requests");
    let mut done = 0;
    while done < 2 {
        done += queue.wait(|done| assert_eq!(done.result.unwrap(), 4096)).unwrap();
    }
    assert_eq!((again.in_flight(), queue.counters().simple), (0, 1));
}

#[test]
fn filesystems_that_are_not_written_to() {
    let image = with_gaps();
    let good = image.bytes();
    let refused = |lines: &[&str]| {
        fs::write(image.path(), &good).unwrap();
        debugfs(&image.path(), lines);
        common::open(&image.path()).writable().unwrap_err()
    };
    let cases: [(&str, NotWritable); 6] = [
        ("ssv state 0", NotWritable::NotClean),
        ("ssv state 3", NotWritable::HasErrors),
        ("ssv state 5", NotWritable::HasOrphans),
        ("ssv last_orphan 12", NotWritable::HasOrphans),
        ("ssv default_mount_opts 0x2c", NotWritable::JournalsData),
        ("ssv mount_opts nodelalloc,data=journal", NotWritable::JournalsData),
    ];
    for (line, expected) in cases {
        match refused(&[line]) {
            Error::NotWritable(why) => assert_eq!(why, expected, "{line}"),
            other => panic!("{line}: {other}"),
        }
    }
    for (line, name) in [
        ("feature read-only", "read-only"),
        ("feature shared_blocks", "shared_blocks"),
        ("feature FEATURE_R31", "FEATURE_R31"),
        ("feature orphan_present", "orphan_present"),
    ] {
        let told = refused(&[line]).to_string();
        assert!(told.ends_with(&format!("unsupported ro_compat features: {name}")), "{told}");
    }
    // The other modes of ordering data are allowed.
    for line in ["ssv default_mount_opts 0x4c", "ssv default_mount_opts 0x6c"] {
        fs::write(image.path(), &good).unwrap();
        debugfs(&image.path(), &[line]);
        common::open(&image.path()).writable().unwrap();
    }
    // Another host mounted the filesystem after it was opened.
    fs::write(image.path(), &good).unwrap();
    let fs_then = common::open(&image.path());
    debugfs(&image.path(), &["ssv mnt_count 7"]);
    let changed = fs_then.writable().unwrap_err();
    assert!(matches!(changed, Error::NotWritable(NotWritable::Changed)), "{changed}");
    fs::write(image.path(), &good).unwrap();
    let fs_then = common::open(&image.path());
    debugfs(&image.path(), &["feature needs_recovery"]);
    assert!(matches!(fs_then.writable().unwrap_err(), Error::NeedsRecovery));
    fs::write(image.path(), &good).unwrap();
    fs_then.writable().unwrap();
}

#[test]
fn files_that_are_not_written_to() {
    let image = with_gaps();
    let good = image.bytes();
    let cases = [
        ("0x80010", Protected::Immutable),
        ("0x80020", Protected::AppendOnly),
        ("0x84000", Protected::JournalsData),
        ("0x180000", Protected::Verity),
        ("0x280000", Protected::Attribute),
    ];
    for (flags, expected) in cases {
        fs::write(image.path(), &good).unwrap();
        debugfs(&image.path(), &[&format!("sif /gaps flags {flags}")]);
        let fs = common::open(&image.path()).writable().unwrap();
        let inode = fs.lookup(b"/gaps").unwrap();
        match fs.writable_file(&inode).unwrap_err() {
            Error::Protected { why, .. } => assert_eq!(why, expected),
            other => panic!("{flags}: {other}"),
        }
        // These files can be read.
        fs.file(&inode).unwrap();
    }
    fs::write(image.path(), &good).unwrap();
    debugfs(&image.path(), &["sif /gaps flags 0x80800"]);
    let fs = common::open(&image.path()).writable().unwrap();
    let told = fs.writable_file(&fs.lookup(b"/gaps").unwrap()).unwrap_err().to_string();
    assert!(told.contains("encrypt"), "{told}");
    fs::write(image.path(), &good).unwrap();
    let fs = common::open(&image.path()).writable().unwrap();
    for number in [7, 8] {
        let refused = fs.writable_file(&fs.inode(number).unwrap()).unwrap_err();
        assert!(matches!(refused, Error::Protected { why: Protected::System, .. }), "{refused}");
    }
    let directory = fs.writable_file(&fs.root().unwrap()).unwrap_err();
    assert!(matches!(directory, Error::IsADirectory { inode } if inode == 2));
}

#[test]
fn inline_data_is_read_but_not_written() {
    let image = Image::new("-t ext4 -I 1024 -O inline_data", |source| {
        for size in [1, 60, 100, 700] {
            fs::write(source.join(format!("size-{size}")), pattern(size as u64, size)).unwrap();
        }
    });
    let served = Served::new(&image.path(), 512);
    let (fs, mut queue) = (served.writable(), served.queue());
    for size in [1, 60, 100, 700] {
        let inode = fs.lookup(format!("/size-{size}").as_bytes()).unwrap();
        assert!(inode.has_inline_data(), "{size}");
        let refused = fs.writable_file(&inode).unwrap_err();
        let inline = matches!(refused, Error::Protected { why: Protected::InlineData, .. });
        assert!(inline, "{size}: {refused}");

        let (mut file, expected) = (fs.file(&inode).unwrap(), pattern(size as u64, size));
        let mut bytes = vec![0xa5; size + 10];
        assert_eq!(file.read_at(&mut queue, 0, &mut bytes).unwrap(), size);
        assert_eq!(bytes[..size], expected);
        let middle = size / 2;
        let read = file.read_at(&mut queue, middle as u64, &mut bytes).unwrap();
        assert_eq!(bytes[..read], expected[middle..]);
        let buf = served.device.controller.alloc(4096).unwrap();
        let (memory, read) = file.read_with(&mut queue, IoArgs::at(0), buf).unwrap();
        let buf = memory.into_dma().unwrap();
        assert_eq!((read, &buf[..size]), (size, &expected[..]));
        assert!(buf[size..size.next_multiple_of(512)].iter().all(|&byte| byte == 0));
        let buf = served.device.controller.alloc(512).unwrap();
        file.submit_read(&mut queue, 0, buf, 7).unwrap();
        let io = IoArgs::at(0).flags(IoFlags::NOWAIT).token(8);
        file.submit_read_with(&mut queue, io, served.device.controller.alloc(1024).unwrap())
            .unwrap();
        let mut done = Vec::new();
        while done.len() < 2 {
            queue.poll(8, |end| done.push((end.token, end.result.unwrap())));
        }
        done.sort_unstable();
        assert_eq!(done, [(7, size.min(512)), (8, size)]);
    }
    assert_clean(&image.path());
}

/// Returns the blocks of the filesystem's own metadata, from the output of dumpe2fs and debugfs.
fn metadata_blocks(image: &Path) -> Vec<(u64, &'static str)> {
    let name = image.to_str().unwrap();
    let text = String::from_utf8(run("dumpe2fs", &[name])).unwrap();
    let mut blocks = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split([' ', ',', '(', ')']).filter(|w| !w.is_empty()).collect();
        for (key, area) in [
            ("superblock", "superblocks"),
            ("descriptors", "superblocks"),
            ("GDT", "superblocks"),
            ("bitmap", "bitmap"),
            ("table", "inode table"),
        ] {
            for at in words.windows(3).filter(|w| w[0] == key && w[1] == "at").map(|w| w[2]) {
                let (first, last) = at.split_once('-').unwrap_or((at, at));
                let range = [first, last].map(|block| block.parse().unwrap());
                // 0 is a hole in a block map.
                blocks.extend(
                    range.into_iter().filter(|&block| block != 0).map(|block| (block, area)),
                );
            }
        }
    }
    let journal = String::from_utf8(run("debugfs", &["-R", "blocks <8>", name])).unwrap();
    let journal: Vec<u64> = journal.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let middle = journal.len() / 2;
    // The first block of data of the journal, and one in the middle.
    blocks.extend([journal[0], journal[middle]].map(|block| (block, "journal")));
    blocks
}

#[test]
fn a_file_on_top_of_metadata_is_not_written_to() {
    for options in
        ["-t ext3 -b 1024 -g 8192", "-t ext3 -b 4096", "-t ext3 -b 1024 -O meta_bg,^resize_inode"]
    {
        let image = Image::of_size("16M", options, |source| {
            fs::write(source.join("victim"), pattern(9, 8192)).unwrap();
        });
        let good = image.bytes();
        let blocks = metadata_blocks(&image.path());
        for area in ["superblocks", "bitmap", "inode table", "journal"] {
            assert!(blocks.iter().any(|&(_, found)| found == area), "{options}: {area}");
        }
        let mut refusals = 0;
        for (block, area) in blocks {
            fs::write(image.path(), &good).unwrap();
            debugfs(&image.path(), &[&format!("sif /victim block[1] {block}")]);
            let before = image.bytes();
            let served = Served::new(&image.path(), 512);
            let fs = served.writable();
            let mut queue = served.queue();
            let mut file = fs.writable_file(&fs.lookup(b"/victim").unwrap()).unwrap();
            match file.write_at(&mut queue, 0, &[0; 8192]).unwrap_err() {
                Error::Corrupt(corrupt) => {
                    let told = corrupt.to_string();
                    // Blocks of group 0 cannot be mapped by a file at all.
                    let known = told.contains(area) || told.contains("are not data blocks");
                    assert!(known, "{options}: block {block}, {area}: {told}");
                }
                other => panic!("{options}: block {block}, {area}: {other}"),
            }
            drop((queue, file, fs, served));
            assert!(image.bytes() == before, "{options}: block {block}, {area}");
            refusals += 1;
        }
        assert!(refusals > 8, "{options}: {refusals}");
    }
}
