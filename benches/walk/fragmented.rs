//! A sequential read of a fragmented file, compared with the raw namespace.

use std::time::{Duration, Instant};

use nvio_driver::{Address, Controller, DmaBuf, Namespace, Options, QueuePair};
use nvio_emulator::{Backing, Emulator, NamespaceConfig, Service};
use nvio_ext4::{File, FileQueue, Filesystem, QueueSource};
use nvio_iomap::{Disk, DiskQueue, DiskReader, IoArgs, Memory};

use nvio_tests::walk::Result;
use nvio_tests::walk::goal::{Goal, median};
use nvio_tests::walk::image::{BLOCK, EXTENTS, SIZE, Scattered, mark};

/// Length of a read, bytes.
const LENGTH: u64 = 1 << 20;
/// Number of reads in flight.
const DEPTH: usize = 8;
const LATENCY: Duration = Duration::from_micros(80);
/// The drive's bandwidth, as a share of the machine's.
const SHARE: f64 = 0.4;
const LEAST: f64 = 0.9;
const ROUNDS: usize = 3;

pub(crate) fn measure(scattered: &Scattered) -> Result<Vec<Goal>> {
    let mut fastest = Rig::new(scattered, Service::new())?;
    let bandwidth = SIZE as f64 / fastest.raw()?.as_secs_f64() * SHARE;
    drop(fastest);
    let service = Service::new().latency(LATENCY).bandwidth(bandwidth as u64);
    let mut rig = Rig::new(scattered, service)?;
    rig.check()?;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        times[0].push(rig.raw()?.as_secs_f64());
        times[1].push(rig.file()?.as_secs_f64());
    }
    let [raw, file] = times.map(|times| SIZE as f64 / median(times) / 1e9);
    println!("{EXTENTS} extents, {:.2} GB/s: raw {raw:.2} GB/s, file {file:.2}", bandwidth / 1e9);
    let name = "1 GiB of 10,000 extents in order, 1 MiB at a time, to raw";
    Ok(vec![Goal::least(name, file / raw, LEAST)])
}

struct Rig {
    pair: QueuePair<()>,
    queue: FileQueue,
    bufs: Vec<DmaBuf>,
    namespace: Namespace,
    disk: Disk,
    controller: Controller,
    _emulator: Emulator,
}

impl Rig {
    fn new(scattered: &Scattered, service: Service) -> Result<Self> {
        let backing = Backing::image(&scattered.image, true);
        let namespace = NamespaceConfig::new(backing).block_size(BLOCK as u32);
        let emulator = Emulator::builder().namespace(namespace).mdts(Some(8));
        let emulator = emulator.service(service).start()?;
        let address = Address::VfioUser(emulator.socket().to_owned());
        let controller = Controller::open_with(&address, Options::default())?;
        let namespace = controller.namespace(1)?;
        let disk = Disk::whole(&namespace);
        let queue = FileQueue::new(DiskQueue::new(&controller, &disk, 128)?);
        let pair = controller.queue_pair(128)?;
        let bufs = (0..DEPTH).map(|_| controller.alloc(LENGTH as usize));
        let bufs = bufs.collect::<std::result::Result<_, _>>()?;
        Ok(Self { pair, queue, bufs, namespace, disk, controller, _emulator: emulator })
    }

    /// Opens the file on a new filesystem with empty caches.
    fn open(&self) -> Result<File> {
        let reader = DiskReader::new(&self.controller, &self.disk, 32)?;
        let fs = Filesystem::open(QueueSource::new(reader))?;
        let inode = fs.lookup(b"/file")?;
        Ok(fs.file(&inode)?)
    }

    /// Measures reads of the same amount from the namespace.
    fn raw(&mut self) -> Result<Duration> {
        let Self { pair, bufs, namespace, .. } = self;
        let start = Instant::now();
        let (mut next, mut left) = (0, SIZE / LENGTH);
        while left > 0 {
            while next < SIZE {
                let Some(buf) = bufs.pop() else { break };
                pair.read(namespace, next / BLOCK, buf, ()).map_err(|rejected| rejected.error)?;
                next += LENGTH;
            }
            pair.ring();
            let mut failed = None;
            left -= pair.poll(DEPTH, |completion| {
                if !completion.status.is_success() {
                    failed = Some(completion.status);
                }
                bufs.push(completion.buf);
            }) as u64;
            if let Some(status) = failed {
                return Err(format!("raw: {status:?}").into());
            }
        }
        Ok(start.elapsed())
    }

    /// Measures the file, including the reads of its map.
    fn file(&mut self) -> Result<Duration> {
        let start = Instant::now();
        let mut file = self.open()?;
        self.read(&mut file, |_, _| true)?;
        Ok(start.elapsed())
    }

    /// Reads the whole file and checks it.
    fn check(&mut self) -> Result<()> {
        let mut expected = vec![0; LENGTH as usize];
        let mut file = self.open()?;
        self.read(&mut file, |pos, data| {
            mark(&mut expected, pos);
            *data == expected
        })
    }

    fn read(
        &mut self,
        file: &mut File,
        mut is_right: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<()> {
        let Self { queue, bufs, .. } = self;
        let (mut next, mut left) = (0, SIZE / LENGTH);
        while left > 0 {
            while next < SIZE {
                let Some(buf) = bufs.pop() else { break };
                file.submit_read_with(queue, IoArgs::at(next).token(next), buf)
                    .map_err(|rejected| rejected.error)?;
                next += LENGTH;
            }
            queue.ring();
            let mut failed = None;
            left -= queue.poll(DEPTH, |done| match (done.result, done.memory) {
                (Ok(bytes), Some(Memory::Dma(buf))) => {
                    if bytes as u64 != LENGTH || !is_right(done.token, &buf) {
                        failed = Some(format!("wrong data at {}", done.token));
                    }
                    bufs.push(buf);
                }
                (result, _) => failed = Some(format!("{result:?}")),
            }) as u64;
            if let Some(why) = failed {
                return Err(why.into());
            }
        }
        Ok(())
    }
}
