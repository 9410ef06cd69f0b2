//! Random reads of a file of a thousand extents.

use std::fs::File as HostFile;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nvio_driver::{Address, Controller, DmaBuf};
use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_ext4::{Extent, File, FileQueue, Filesystem};
use nvio_iomap::{Disk, DiskQueue, Done, Handler, IoArgs, IoFlags, Memory};
use nvio_testkit::image::{debugfs, mkfs_of_folder};

use crate::allocations;
use crate::load::{BATCH, DEPTH, ROUNDS, random};

pub(crate) const BLOCK: u64 = 4096;
pub(crate) const EXTENTS: u64 = 1000;
/// Blocks per extent. A hole of one block follows each.
pub(crate) const EXTENT: u64 = 4;
const IMAGE: u64 = 64 << 20;

/// A position, and the buffer while it is not in flight.
struct Place {
    pos: u64,
    buf: Option<DmaBuf>,
}

type Places = [Place; BATCH];

/// Submits a batch of reads. The token of each is the index of its buffer.
#[inline(never)]
fn file_submit_simple(queue: &mut FileQueue, file: &mut File, places: &mut Places) {
    for (at, place) in places.iter_mut().enumerate() {
        let Some(taken) = place.buf.take() else { break };
        if let Err(rejected) = queue.submit_read(file, place.pos, taken, at as u64) {
            eprintln!("a read was rejected: {}", rejected.error);
        }
    }
    queue.ring();
}

/// Submits a batch of reads through the generic path.
#[inline(never)]
fn file_submit_generic(queue: &mut FileQueue, file: &mut File, places: &mut Places) {
    for (at, place) in places.iter_mut().enumerate() {
        let Some(taken) = place.buf.take() else { break };
        let io = IoArgs::at(place.pos).token(at as u64).flags(IoFlags::GENERIC);
        if let Err(rejected) = queue.submit_read_with(file, io, Memory::Dma(taken)) {
            eprintln!("a read was rejected: {}", rejected.error);
        }
    }
    queue.ring();
}

/// Polls a batch of results.
#[inline(never)]
fn file_complete(queue: &mut FileQueue, places: &mut Places, sum: &mut u64) -> usize {
    queue.poll_with(BATCH, &mut Return { places, sum })
}

/// A handler that returns buffers to their places.
struct Return<'p> {
    places: &'p mut Places,
    sum: &'p mut u64,
}

impl Handler<Done<nvio_ext4::Error>> for Return<'_> {
    #[inline(always)]
    fn completed(&mut self, done: Done<nvio_ext4::Error>) {
        if let (Ok(bytes), Some(Memory::Dma(buf))) = (done.result, done.memory) {
            *self.sum = self.sum.wrapping_add(bytes as u64);
            // The place is empty, so replacing its buffer drops none.
            match self.places.get_mut(usize::try_from(done.token).unwrap_or(BATCH)) {
                Some(place) => std::mem::forget(place.buf.replace(buf)),
                None => std::mem::forget(buf),
            }
        }
    }
}

/// The kind of reads to count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// One block, on the simple path.
    Simple,
    /// One block, on the generic path.
    Generic,
    /// Three blocks in three extents.
    Extents,
}

impl Reads {
    /// Returns the length of one read, bytes.
    fn bytes(self) -> usize {
        match self {
            Self::Simple | Self::Generic => 4096,
            Self::Extents => 3 * 4096,
        }
    }

    /// Returns the number of batches in flight, whose commands must fit into the queue.
    fn batches(self) -> usize {
        match self {
            Self::Simple | Self::Generic => usize::from(DEPTH) / BATCH,
            Self::Extents => usize::from(DEPTH) / (3 * BATCH),
        }
    }
}

/// A file on a namespace without storage. Its map is read from an image.
pub(crate) struct Rig {
    queue: FileQueue,
    file: File,
    reads: Reads,
    batches: Vec<Places>,
    /// Positions of the first of every three extents of one block.
    starts: Vec<u64>,
    seed: u64,
    _emulator: Emulator,
}

/// Creates a filesystem whose `/file` has extents of four blocks, with a hole after each.
pub(crate) fn image_of_holes(folder: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let (content, image) = (folder.join("content"), folder.join("disk.img"));
    std::fs::create_dir(&content)?;
    let host = HostFile::create(content.join("file"))?;
    let data = vec![1; usize::try_from(EXTENT * BLOCK)?];
    for extent in 0..EXTENTS {
        host.write_all_at(&data, extent * (EXTENT + 1) * BLOCK)?;
    }
    mkfs_of_folder(&image, IMAGE, &content, &["-b", "4096", "-m", "0"]);
    Ok(image)
}

/// Creates a filesystem whose `/file` has extents of one block: it fills the gaps that every second
/// of many small files has left.
fn image_of_blocks(folder: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let (content, image) = (folder.join("content"), folder.join("disk.img"));
    std::fs::create_dir(&content)?;
    for file in 0..2 * EXTENTS {
        std::fs::write(content.join(format!("{file:05}")), [1; 4096])?;
    }
    mkfs_of_folder(&image, IMAGE, &content, &["-b", "4096", "-m", "0"]);
    let whole = folder.join("whole");
    std::fs::write(&whole, vec![1; usize::try_from(EXTENTS * BLOCK)?])?;
    let removed = (0..EXTENTS).map(|file| format!("rm {:05}", 2 * file));
    let write = format!("write {} file", whole.display());
    let lines: Vec<String> = removed.chain([write]).collect();
    debugfs(&image, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    Ok(image)
}

/// Returns the positions of the first of every three extents of one block.
fn starts(extents: &[Extent]) -> Vec<u64> {
    let three = extents.windows(3).filter(|three| three.iter().all(|it| it.length == BLOCK));
    three.filter_map(|three| three.first()).map(|extent| extent.logical).collect()
}

impl Rig {
    pub(crate) fn new(reads: Reads) -> Result<Self, Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let image = match reads {
            Reads::Simple | Reads::Generic => image_of_holes(folder.path())?,
            Reads::Extents => image_of_blocks(folder.path())?,
        };
        let filesystem = Filesystem::open(HostFile::open(&image)?)?;
        let mut file = filesystem.file(&filesystem.lookup(b"/file")?)?;
        let extents: Vec<Extent> = file.extents().collect::<Result<_, _>>()?;
        let starts = starts(&extents);
        let enough = match reads {
            Reads::Simple | Reads::Generic => extents.len() as u64 >= EXTENTS,
            Reads::Extents => starts.len() as u64 >= EXTENTS * 9 / 10,
        };
        if !enough {
            return Err("the file has too few extents".into());
        }

        let disk = NamespaceConfig::new(Backing::null(IMAGE)).block_size(4096);
        let emulator = Emulator::builder().namespace(disk).start()?;
        let controller = Controller::open(&Address::VfioUser(emulator.socket().to_owned()))?;
        let disk = Disk::whole(&controller.namespace(1)?);
        let mut queue = FileQueue::new(DiskQueue::new(&controller, &disk, DEPTH)?);
        let batch = |_| {
            let mut places = [const { Place { pos: 0, buf: None } }; BATCH];
            for place in &mut places {
                place.buf = Some(controller.alloc(reads.bytes())?);
            }
            Ok(places)
        };
        let batches = (0..reads.batches()).map(batch);
        let batches = batches.collect::<Result<_, nvio_driver::Error>>()?;
        // Read the map into the cache before the measurement.
        for extent in &extents {
            file.read_at(&mut queue, extent.logical, &mut [0; 1])?;
        }
        Ok(Self { queue, file, reads, batches, starts, seed: 1, _emulator: emulator })
    }

    fn pos(&mut self) -> u64 {
        if self.reads == Reads::Extents {
            let at = random(&mut self.seed) % self.starts.len() as u64;
            return self.starts.get(usize::try_from(at).unwrap_or(0)).copied().unwrap_or(0);
        }
        let extent = random(&mut self.seed) % EXTENTS;
        let block = random(&mut self.seed) % EXTENT;
        (extent * (EXTENT + 1) + block) * BLOCK
    }

    /// Submits and completes batches at full depth. Between them the controller has enough time to
    /// complete all commands.
    pub(crate) fn batches(&mut self) -> Result<usize, Box<dyn std::error::Error>> {
        let (mut done, mut sum) = (0, 0);
        for _ in 0..ROUNDS {
            for i in 0..self.batches.len() {
                for at in 0..BATCH {
                    self.batches[i][at].pos = black_box(self.pos());
                }
                let Self { queue, file, batches, reads, .. } = self;
                let submit = match reads {
                    Reads::Simple | Reads::Extents => file_submit_simple,
                    Reads::Generic => file_submit_generic,
                };
                allocations::watch(|| submit(queue, file, &mut batches[i]));
            }
            sleep(Duration::from_millis(5));
            for i in 0..self.batches.len() {
                let mut left = BATCH;
                while left > 0 {
                    let Self { queue, batches, .. } = self;
                    let pair = queue.device().pair();
                    while !pair.is_ready() && pair.in_flight() > 0 {
                        sleep(Duration::from_millis(1));
                    }
                    let places = &mut batches[i];
                    let taken = allocations::watch(|| file_complete(queue, places, &mut sum));
                    if taken == 0 {
                        return Err("reads were lost".into());
                    }
                    left -= taken.min(left);
                    done += taken;
                }
            }
        }
        let counters = self.queue.counters();
        let right = match self.reads {
            Reads::Simple => counters.simple >= done as u64,
            Reads::Generic => counters.generic >= done as u64,
            Reads::Extents => counters.commands >= 3 * done as u64,
        };
        if !right || sum != (done * self.reads.bytes()) as u64 {
            return Err(format!("not all on the path: {counters:?}").into());
        }
        Ok(done)
    }
}
