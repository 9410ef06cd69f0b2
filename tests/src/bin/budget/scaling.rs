//! Raw reads on several queue pairs, of one controller or of one controller each.

use std::hint::black_box;
use std::time::Duration;

use nvio_driver::{Namespace, Options};
use nvio_emulator::{Backing, Config, NamespaceConfig};
use nvio_tests::simulator::device::Device;

use crate::load::{BATCH, DEPTH, ROUNDS, random};
use crate::raw::{BLOCKS, Bufs, Queue, complete_batch, submit_batch};

/// A queue pair with its buffers, and the number of its controller.
struct Lane {
    queue: Queue,
    namespace: Namespace,
    batches: Vec<Bufs>,
    device: usize,
}

/// Reads with `count` queue pairs, and returns the number of reads. The controllers run in this
/// thread, between the calls that are counted.
pub(crate) fn run(devices: usize, count: usize) -> Result<usize, Box<dyn std::error::Error>> {
    let mut controllers = Vec::new();
    for _ in 0..devices {
        controllers.push(controller(u16::try_from(count)?)?);
    }
    let mut lanes = Vec::new();
    for at in 0..count {
        lanes.push(lane(&controllers[at % devices], at % devices)?);
    }
    let (mut done, mut sum, mut seed) = (0, 0, 1);
    for _ in 0..(ROUNDS / count).max(8) {
        for lane in &mut lanes {
            for bufs in &mut lane.batches {
                let lbas: [u64; BATCH] = std::array::from_fn(|_| random(&mut seed) % BLOCKS);
                submit_batch(&mut lane.queue, &lane.namespace, bufs, black_box(&lbas));
            }
        }
        for lane in &mut lanes {
            for bufs in &mut lane.batches {
                while !lane.queue.is_ready() {
                    controllers[lane.device].with(|it| it.pass(Duration::ZERO, usize::MAX));
                }
                done += complete_batch(&mut lane.queue, bufs, &mut sum);
            }
        }
    }
    let reads: usize = lanes.iter().map(|lane| lane.batches.len() * BATCH).sum();
    let complete = done % reads == 0 && sum == 0;
    drop(lanes);
    complete.then_some(done).ok_or("reads were lost".into())
}

fn controller(queues: u16) -> Result<Device, Box<dyn std::error::Error>> {
    let disk = NamespaceConfig::new(Backing::null(BLOCKS * 4096)).block_size(4096);
    let config = Config::new().max_queues(queues).namespace(disk);
    let mut device = Device::new(&config, 1, 1 << 32, false).map_err(|it| it.0)?;
    let options = Options { arena_bytes: 64 << 20, queues, writable: true, ..Options::default() };
    device.open(options).map_err(|it| it.0)?;
    Ok(device)
}

fn lane(of: &Device, device: usize) -> Result<Lane, Box<dyn std::error::Error>> {
    let controller = of.controller().map_err(|it| it.0)?;
    let (queue, namespace) = (controller.queue_pair(DEPTH)?, controller.namespace(1)?);
    let mut batches = Vec::new();
    for _ in 0..usize::from(DEPTH) / BATCH {
        let mut bufs = [const { None }; BATCH];
        for buf in &mut bufs {
            *buf = Some(controller.alloc(4096)?);
        }
        batches.push(bufs);
    }
    Ok(Lane { queue, namespace, batches, device })
}
