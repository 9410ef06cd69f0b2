//! Commands of a request by each path to a file. `tests/budget` counts the instructions, and
//! benches/paths prints the ratios of throughput.

use std::fs;

use nvio_driver::Options;
use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_ext4::{File, FileQueue, Filesystem, QueueSource};
use nvio_iomap::{Disk, DiskQueue, DiskReader, IoArgs, IoFlags};
use nvio_testkit::controller::Served;
use nvio_testkit::{image, random};

/// Size of the file in bytes; it is one extent.
const SIZE: usize = 4 << 20;
/// Log2 of the largest transfer in pages: 1 MiB is one command.
const MDTS: u8 = 8;

struct Rig {
    queue: FileQueue,
    file: File,
    data: Vec<u8>,
    served: Served,
    _folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let folder = image::work_folder("nvio-paths-");
        let (source, path) = (folder.path().join("source"), folder.path().join("disk.img"));
        fs::create_dir(&source).unwrap();
        let data = random::pattern(1, SIZE);
        fs::write(source.join("file"), &data).unwrap();
        image::mkfs_of_folder(&path, 16 << 20, &source, &["-b", "4096"]);
        let namespace = NamespaceConfig::new(Backing::image(&path, true)).block_size(4096);
        let builder = Emulator::builder().namespace(namespace).mdts(Some(MDTS));
        let served = Served::start(builder, Options::default());
        let disk = Disk::whole(&served.controller.namespace(1).unwrap());
        let reader = DiskReader::new(&served.controller, &disk, 8).unwrap();
        let fs = Filesystem::open(QueueSource::new(reader)).unwrap();
        let mut queue = FileQueue::new(DiskQueue::new(&served.controller, &disk, 64).unwrap());
        let mut file = fs.file(&fs.lookup(b"/file").unwrap()).unwrap();
        // The map is cached from here on.
        file.read_at(&mut queue, 0, &mut [0; 4096]).unwrap();
        Self { queue, file, data, served, _folder: folder }
    }

    /// Read commands that the controller has executed.
    fn commands(&self) -> u128 {
        self.served.controller.health(None).unwrap().host_reads.get()
    }

    /// Reads each piece of `bytes` bytes with `flags` into DMA memory, and returns the commands.
    fn read(&mut self, bytes: usize, flags: IoFlags) -> u128 {
        let before = self.commands();
        for pos in (0..SIZE).step_by(bytes) {
            let buf = self.served.controller.alloc(bytes).unwrap();
            let io = IoArgs::at(pos as u64).flags(flags);
            let (memory, read) = self.file.read_with(&mut self.queue, io, buf).unwrap();
            let buf = memory.into_dma().unwrap();
            assert!(read == bytes && buf[..] == self.data[pos..pos + bytes], "{bytes} at {pos}");
        }
        self.commands() - before
    }
}

#[test]
fn each_path_reads_with_one_command_a_request() {
    let mut rig = Rig::new();
    for bytes in [4096, 64 << 10, 1 << 20] {
        let requests = (SIZE / bytes) as u128;
        let counters = rig.queue.counters();
        assert_eq!(rig.read(bytes, IoFlags::empty()), requests, "{bytes} bytes");
        rig.queue.set_simple(false);
        assert_eq!(rig.read(bytes, IoFlags::empty()), requests, "{bytes} bytes, generic path");
        rig.queue.set_simple(true);
        let generic = rig.queue.counters().generic - counters.generic;
        assert!(u128::from(generic) >= requests, "{generic} of {requests}");
        // The data is copied through private memory, in pieces of a whole transfer.
        assert_eq!(rig.read(bytes, IoFlags::BOUNCE), requests, "{bytes} bytes, bounced");
        let bounced = rig.queue.counters().bounced - counters.bounced;
        assert_eq!(u128::from(bounced), requests, "{bytes} bytes");
    }
    assert!(rig.queue.counters().simple > 0);
}
