//! Commands for a file of many extents that is read from start to end.

use nvio_emulator::{Backing, Emulator, NamespaceConfig};
use nvio_ext4::{FileQueue, Filesystem, QueueSource};
use nvio_iomap::{Disk, DiskQueue, DiskReader};
use nvio_testkit::controller::Served;
use nvio_tests::walk::Result;
use nvio_tests::walk::goal::Goal;
use nvio_tests::walk::image::{BLOCK, EXTENTS, SIZE, Scattered, mark};

/// Bytes of a read.
const LENGTH: u64 = 1 << 20;
/// Commands for the filesystem's metadata, at most: 10,000 extents fill 30 blocks of the tree.
const METADATA: u64 = 48;

pub(crate) fn measure(scattered: &Scattered) -> Result<Goal> {
    let backing = Backing::image(&scattered.image, true);
    let namespace = NamespaceConfig::new(backing).block_size(BLOCK as u32);
    let builder = Emulator::builder().namespace(namespace).mdts(Some(8));
    let served = Served::start(builder, nvio_driver::Options::default());
    let controller = &served.controller;
    let disk = Disk::whole(&controller.namespace(1)?);
    let before = controller.health(None)?.host_reads.get();
    let fs = Filesystem::open(QueueSource::new(DiskReader::new(controller, &disk, 32)?))?;
    let mut queue = FileQueue::new(DiskQueue::new(controller, &disk, 128)?);
    let mut file = fs.file(&fs.lookup(b"/file")?)?;
    let (mut data, mut expected) = (vec![0; LENGTH as usize], vec![0; LENGTH as usize]);
    for pos in (0..SIZE).step_by(LENGTH as usize) {
        let read = file.read_at(&mut queue, pos, &mut data)?;
        mark(&mut expected, pos);
        if read as u64 != LENGTH || data != expected {
            return Err(format!("wrong data at {pos}").into());
        }
    }
    let commands = controller.health(None)?.host_reads.get() - before;
    // Each extent once, and once more where a read ends inside of it.
    let pieces = u128::from(EXTENTS + SIZE / LENGTH);
    println!("{EXTENTS} extents, {} reads: {commands} commands", SIZE / LENGTH);
    let beyond = commands.saturating_sub(pieces) as f64;
    let name = "commands for 1 GiB of 10,000 extents, besides those for data";
    Ok(Goal::most(name, beyond, METADATA as f64))
}
