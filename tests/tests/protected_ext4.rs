//! ext4 on namespaces with end-to-end protection: what is read, metadata too, has its guards
//! checked at both ends, and what is overwritten has them made.

use std::fs;
use std::path::{Path, PathBuf};

use nvio_driver::spec::protection::ProtectionType;
use nvio_driver::{CommandOptions, QueuePair, ScatterList, WritableNamespace};
use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_ext4::{File, FileQueue, Filesystem, OpenInode, QueueSource};
use nvio_iomap::{
    Cursor, Disk, DiskQueue, DiskReader, FileRef, IoArgs, IoFlags, Mapper, Mapping, MappingKind,
    NamespaceProtection, Op, Reason, WritableDisk,
};
use nvio_testkit::controller::{Served, Watched};
use nvio_testkit::image;
use nvio_testkit::random::Rng;

/// Size of the filesystem, bytes.
const SIZE: usize = 16 << 20;
/// Length of a transfer to or from the namespace, bytes.
const PIECE: usize = 64 << 10;

/// An image, and the folder from which mke2fs filled it.
struct Content {
    folder: tempfile::TempDir,
    image: Vec<u8>,
    files: Vec<(String, Vec<u8>)>,
}

impl Content {
    fn new(block: u32) -> Self {
        let folder = tempfile::Builder::new().prefix("nvio-protected-").tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir_all(source.join("d")).unwrap();
        let mut rng = Rng::new(u64::from(block));
        let sizes = [0, 1, 511, 4096, 4097, 70_000, 1 << 20, (3 << 20) + 17];
        let files: Vec<_> =
            sizes.iter().map(|&size| (format!("d/{size}"), rng.bytes(size))).collect();
        for (name, bytes) in &files {
            fs::write(source.join(name), bytes).unwrap();
        }
        let path = folder.path().join("disk.img");
        let block = block.max(1024).to_string();
        image::mkfs_of_folder(&path, SIZE as u64, &source, &["-b", &block]);
        let image = fs::read(&path).unwrap();
        Self { folder, image, files }
    }
}

#[derive(Clone, Copy, Debug)]
struct Format {
    block: u32,
    metadata: u16,
    extended: bool,
    kind: u8,
}

const FORMATS: [Format; 4] = [
    Format { block: 512, metadata: 8, extended: false, kind: 1 },
    Format { block: 512, metadata: 64, extended: true, kind: 2 },
    Format { block: 4096, metadata: 8, extended: true, kind: 1 },
    Format { block: 4096, metadata: 16, extended: false, kind: 3 },
];

struct Rig {
    _emulator: Emulator,
    controller: Watched,
    namespace: WritableNamespace,
    pair: QueuePair<()>,
    protection: NamespaceProtection,
}

impl Rig {
    /// Starts a namespace with an image. Every block has its guard.
    fn new(format: Format, image: &[u8]) -> Self {
        let config = NamespaceConfig::new(Backing::memory(SIZE as u64)).block_size(format.block);
        let config = config.metadata(format.metadata, format.extended);
        let config = config.protection(ProtectionType::new(format.kind).unwrap(), false);
        let served = Served::writable(config);
        let namespace = served.writable_namespace();
        let Served { controller, emulator } = served;
        let protection = NamespaceProtection::of(&namespace).unwrap();
        let pair = controller.queue_pair(4).unwrap();
        let mut rig = Self { _emulator: emulator, controller, namespace, pair, protection };
        for (index, piece) in image.chunks(PIECE).enumerate() {
            let lba = ((index * PIECE) >> rig.namespace.block_shift()) as u64;
            rig.store(lba, piece, |_| ());
        }
        rig
    }

    /// Stores blocks with guards, after `change` has changed the data under the guards. Nothing is
    /// checked.
    fn store(&mut self, lba: u64, data: &[u8], change: impl FnOnce(&mut [u8])) {
        let blocks = (data.len() >> self.namespace.block_shift()) as u32;
        let mut buf = self.controller.alloc(self.protection.buf_len(data.len())).unwrap();
        self.protection.copy_in(&mut buf, data.len(), 0, data);
        self.protection.seal(&mut buf, data.len(), lba);
        change(&mut buf);
        let how = CommandOptions::default();
        let list = self.protection.scatter_list(buf, data.len());
        self.pair.write_with(&self.namespace, (lba, blocks), list, how, ()).unwrap();
        self.pair.wait(|done| assert!(done.status.is_success())).unwrap();
    }

    /// Changes a byte of the block that contains byte `at` of the device, without its guard.
    fn damage(&mut self, at: u64) {
        let (lba, block) = (at >> self.namespace.block_shift(), self.namespace.block_size());
        let mut data = vec![0; block as usize];
        let buf = self.controller.alloc(self.protection.buf_len(data.len())).unwrap();
        let how = self.protection.transfer(lba);
        let list = self.protection.scatter_list(buf, data.len());
        self.pair.read_with(&self.namespace, (lba, 1), list, how, ()).unwrap();
        let protection = self.protection;
        self.pair
            .wait(|done| {
                assert!(done.status.is_success());
                let buf = ScatterList::from_completed(done.buf).unwrap().into_joined().unwrap();
                protection.copy_out(&buf, block as usize, 0, &mut data);
            })
            .unwrap();
        self.store(lba, &data, |buf| buf[17] ^= 0x40);
    }

    /// Reads the whole namespace. Guards and tags are checked by the controller and here.
    fn dump(&mut self) -> Vec<u8> {
        let mut image = vec![0; SIZE];
        let blocks = (PIECE >> self.namespace.block_shift()) as u32;
        for (index, piece) in image.chunks_mut(PIECE).enumerate() {
            let lba = index as u64 * u64::from(blocks);
            let buf = self.controller.alloc(self.protection.buf_len(PIECE)).unwrap();
            let mut how = self.protection.transfer(lba);
            how.protection.check_application = true;
            how.protection.application_mask = u16::MAX;
            let list = self.protection.scatter_list(buf, PIECE);
            self.pair.read_with(&self.namespace, (lba, blocks), list, how, ()).unwrap();
            let protection = self.protection;
            let wait = self.pair.wait(|done| {
                assert!(done.status.is_success(), "{}", done.status);
                let buf = ScatterList::from_completed(done.buf).unwrap().into_joined().unwrap();
                assert_eq!(protection.verify(&buf, PIECE, lba), Ok(()));
                protection.copy_out(&buf, PIECE, 0, piece);
            });
            wait.unwrap();
        }
        image
    }

    fn mount(&self) -> Result<Filesystem, nvio_ext4::Error> {
        let reader = DiskReader::new(&self.controller, &Disk::whole(&self.namespace), 8).unwrap();
        Filesystem::open(QueueSource::new(reader))
    }

    fn queue(&self) -> FileQueue<WritableDisk> {
        let disk = WritableDisk::whole(&self.namespace);
        FileQueue::new(DiskQueue::new(&self.controller, &disk, 16).unwrap())
    }
}

/// A file whose written blocks are overwritten, which changes no metadata.
struct Overwritten(File);

impl Mapper for Overwritten {
    type OpenFile = OpenInode;

    fn open_file(&self) -> &FileRef<OpenInode> {
        Mapper::open_file(&self.0)
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn block_size(&self) -> u32 {
        self.0.block_size()
    }

    fn begin(&mut self, pos: u64, length: u64, op: Op) -> Result<Mapping, nvio_ext4::Error> {
        let mapping = self.0.begin(pos, length, op.difference(Op::WRITE))?;
        assert_eq!(mapping.kind, MappingKind::Mapped);
        Ok(mapping)
    }
}

fn compare(fs: &Filesystem, queue: &mut FileQueue<WritableDisk>, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        let mut file = fs.file(&fs.lookup(name.as_bytes()).unwrap()).unwrap();
        let mut out = vec![0xee; bytes.len() + 5];
        assert_eq!(file.read_at(queue, 0, &mut out).unwrap(), bytes.len(), "{name}");
        assert!(out[..bytes.len()] == bytes[..], "{name}");
    }
}

#[test]
fn files_are_read_and_overwritten_with_their_guards() {
    for format in FORMATS {
        println!("{format:?}");
        let mut content = Content::new(format.block);
        let mut rig = Rig::new(format, &content.image);
        let fs = rig.mount().unwrap();
        let mut queue = rig.queue();
        compare(&fs, &mut queue, &content.files);
        // Whole blocks in the middle of the largest file, with and without a copy.
        let (name, bytes) = content.files.last_mut().unwrap();
        let file = fs.file(&fs.lookup(name.as_bytes()).unwrap()).unwrap();
        let mut file = Overwritten(file);
        let new = Rng::new(99).bytes(300 << 10);
        let (first, second) = new.split_at(100 << 10);
        let written = queue
            .write_from(&mut file, IoArgs::at(8192).flags(IoFlags::DSYNC), &mut Cursor::new(first))
            .unwrap();
        assert_eq!(written, first.len());
        let mut buf = rig.controller.alloc(second.len()).unwrap();
        buf.copy_from_slice(second);
        let io = IoArgs::at(8192 + first.len() as u64);
        assert_eq!(queue.write_with(&mut file, io, buf.into()).unwrap().1, second.len());
        bytes[8192..8192 + new.len()].copy_from_slice(&new);
        compare(&fs, &mut queue, &content.files);
        assert_eq!(queue.counters().simple, 0);
        assert!(queue.counters().fell_back(Reason::Memory) > 0);
        drop((queue, file, fs));
        // The controller accepts every guard, and e2fsprogs the filesystem and the file.
        let image = rig.dump();
        let path = content.folder.path().join("after.img");
        fs::write(&path, image).unwrap();
        check_by_others(&path, &content.files);
    }
}

fn check_by_others(path: &Path, files: &[(String, Vec<u8>)]) {
    image::tool("e2fsck", &["-f", "-n", image::text(path)]);
    let out: PathBuf = path.with_extension("out");
    for (name, bytes) in files {
        let dump = format!("dump /{name} {}", image::text(&out));
        image::tool("debugfs", &["-R", &dump, image::text(path)]);
        assert!(fs::read(&out).unwrap() == *bytes, "{name}");
    }
}

#[test]
fn damage_is_an_error_and_never_data() {
    for format in FORMATS {
        println!("{format:?}");
        let content = Content::new(format.block);
        let mut rig = Rig::new(format, &content.image);
        let fs = rig.mount().unwrap();
        let mut queue = rig.queue();
        let (name, bytes) = content.files.last().unwrap();
        let inode = fs.lookup(name.as_bytes()).unwrap();
        let mut file = fs.file(&inode).unwrap();
        let pos = 1 << 20;
        let block = format.block as usize;
        rig.damage(place_of(&fs, &inode, pos as u64));
        let mut out = vec![0; 100];
        let error = file.read_at(&mut queue, pos as u64 + 10, &mut out).unwrap_err();
        assert!(says_guard(&error), "{error}");
        assert_eq!(out, [0; 100], "no byte of it is returned");
        // The adjacent blocks can be read, and an overwrite repairs the block.
        let mut before = vec![0; block];
        file.read_at(&mut queue, (pos - block) as u64, &mut before).unwrap();
        assert!(before == bytes[pos - block..pos]);
        let again = &bytes[pos..pos + block];
        queue.write_at(&mut Overwritten(file), pos as u64, again).unwrap();
        compare(&fs, &mut queue, &content.files);
        // A block of a directory, read by a filesystem with empty caches.
        rig.damage(place_of(&fs, &fs.lookup(b"d").unwrap(), 0));
        let fresh = rig.mount().unwrap();
        let error = fresh.lookup(name.as_bytes()).unwrap_err();
        assert!(says_guard(&error), "{error}");
    }
}

/// Returns the byte offset on the device of byte `pos` of a file or directory.
fn place_of(fs: &Filesystem, inode: &nvio_ext4::Inode, pos: u64) -> u64 {
    let mut extents = fs.extents(inode).unwrap().map(Result::unwrap);
    let extent =
        extents.find(|extent| extent.logical <= pos && pos < extent.logical + extent.length);
    let extent = extent.unwrap();
    extent.physical + (pos - extent.logical)
}

/// Returns true if an error or one of its sources is a guard error.
fn says_guard(error: &nvio_ext4::Error) -> bool {
    let mut all = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        all += &format!(": {error}");
        source = error.source();
    }
    all.to_lowercase().contains("guard")
}
