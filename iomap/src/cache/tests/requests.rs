//! Requests with tokens, and futures.

use std::sync::atomic::Ordering::SeqCst;

use nvio_driver::future::Reactor;

use super::in_flight::mapped_rig;
use super::*;
use crate::{CachedQueue, Done};

fn bytes(done: Done<Error>) -> Vec<u8> {
    let length = done.result.unwrap();
    let mut bytes = done.memory.unwrap().into_bytes().unwrap();
    bytes.truncate(length);
    bytes
}

#[test]
fn submissions_do_not_wait_for_the_device() {
    let (device, gate, _, mut file) = mapped_rig();
    device.disk(|disk| (0..64).for_each(|at| disk.bytes[at * 1024..][..1024].fill(at as u8)));
    gate.closed.store(true, SeqCst);
    let mut queue = CachedQueue::new(8);
    for token in 0..8 {
        let io = IoArgs::at(token * 8 * BLOCK).token(token);
        queue.submit_read(&mut file, io, vec![0; 1024]).unwrap();
    }
    let refused = queue.submit_read(&mut file, IoArgs::at(0), vec![5; 10]).unwrap_err();
    assert!(refused.error.is_busy() && refused.payload.into_bytes() == Some(vec![5; 10]));
    assert!(queue.submit_sync_data(&mut file, 9).unwrap_err().error.is_busy());
    assert_eq!((queue.poll(usize::MAX, |_| panic!("nothing ended")), queue.in_flight()), (0, 8));
    gate.closed.store(false, SeqCst);
    let mut seen = [false; 8];
    while queue.in_flight() > 0 {
        queue.wait(|done| {
            let token = done.token;
            assert_eq!(bytes(done), vec![token as u8 * 8; 1024]);
            assert!(!std::mem::replace(&mut seen[token as usize], true));
        });
    }
    assert_eq!(seen, [true; 8]);
    assert_eq!(queue.wait(|_| panic!("nothing is in flight")), 0);
}

#[test]
fn cached_data_is_read_without_a_wait() {
    let (_, gate, _, mut file) = mapped_rig();
    file.write_at(8 * BLOCK, &[3; 8192][..]).unwrap();
    gate.closed.store(true, SeqCst);
    let mut queue = CachedQueue::new(8);
    queue.submit_read(&mut file, IoArgs::at(8 * BLOCK + 10).token(1), vec![0; 4096]).unwrap();
    let two: Vec<_> = (0..2).map(|_| file.cache.pool.scratch(4096).unwrap()).collect();
    queue.submit_read(&mut file, IoArgs::at(8 * BLOCK).token(2), two).unwrap();
    queue.submit_write(&mut file, IoArgs::at(9 * BLOCK).token(3), vec![4; 1024]).unwrap();
    let mut tokens = Vec::new();
    assert_eq!(queue.poll(2, |done| tokens.push(done.token)), 2);
    queue.poll(2, |done| {
        tokens.push(done.token);
        assert_eq!(done.result.unwrap(), 1024);
    });
    assert_eq!((tokens, queue.in_flight()), (vec![1, 2, 3], 0));
    gate.closed.store(false, SeqCst);
}

#[test]
fn flags_that_a_request_cannot_have_are_refused() {
    let (_, _, _, mut file) = mapped_rig();
    let mut queue = CachedQueue::new(8);
    let nowait = IoArgs::at(0).flags(IoFlags::NOWAIT);
    let refused = queue.submit_write(&mut file, nowait, vec![0; 10]).unwrap_err().error;
    assert!(matches!(refused, Error::Flags(IoFlags::NOWAIT)));
    let durable = IoArgs::at(0).flags(IoFlags::DSYNC);
    assert!(matches!(
        queue.submit_read(&mut file, durable, vec![0; 10]).unwrap_err().error,
        Error::Flags(IoFlags::DSYNC)
    ));
    queue.submit_write(&mut file, durable.flags(BUFFERED_FLAGS), vec![0; 10]).unwrap();
}

const BUFFERED_FLAGS: IoFlags = IoFlags::DSYNC.union(IoFlags::WRITETHROUGH);

#[test]
fn request_that_nobody_polls_stops_no_other_thread() {
    let (device, gate, double, mut file) = mapped_rig();
    gate.closed.store(true, SeqCst);
    let mut queue = CachedQueue::new(8);
    // The first block of the write has to be read.
    queue.submit_write(&mut file, IoArgs::at(10), vec![1; 4000]).unwrap();
    queue.submit_write(&mut file, IoArgs::at(0).flags(BUFFERED_FLAGS), vec![1; 4096]).unwrap();
    gate.closed.store(false, SeqCst);
    let mut second = file.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            second.write_at(2 * BLOCK, &[2; 1024][..]).unwrap();
            second.sync_data().unwrap();
        });
    });
    drop(queue);
    file.sync_data().unwrap();
    let found = device.disk(|disk| double.on_device(&disk.bytes));
    assert_eq!(found[2048], 2);
    double.assert_balanced();
}

#[test]
fn error_of_a_write_is_the_result_of_one_sync() {
    let (device, _, _, mut file) = mapped_rig();
    let mut queue = CachedQueue::new(8);
    queue.submit_write(&mut file, IoArgs::at(0), vec![1; 4096]).unwrap();
    device.disk(|disk| disk.fail_writes = true);
    let mut sync = |file: &mut CachedFile<Double>| {
        let mut result = None;
        queue.submit_sync_data(file, 0).unwrap();
        while queue.in_flight() > 0 {
            queue.wait(|done| result = Some(done.result));
        }
        result.unwrap()
    };
    let mut other = file.clone();
    assert!(sync(&mut file).is_err());
    device.disk(|disk| disk.fail_writes = false);
    sync(&mut file).unwrap();
    assert!(other.sync_data().is_err() && other.sync_data().is_ok());
}

#[test]
fn reactor_makes_futures_of_requests() {
    let (device, _, _, file) = mapped_rig();
    let file = std::cell::RefCell::new(file);
    let reactor = Reactor::new(CachedQueue::new(2));
    let write = |pos: u64| {
        let (file, flags) = (&file, BUFFERED_FLAGS);
        reactor.submit(vec![pos as u8; 1024], false, move |queue, token, data| {
            let io = IoArgs::at(pos * BLOCK).token(token).flags(flags);
            let rejected = queue.submit_write(&mut file.borrow_mut(), io, data);
            rejected.map_err(|rejected| nvio_driver::Rejected {
                error: rejected.error,
                payload: rejected.payload.into_bytes().unwrap(),
            })
        })
    };
    reactor.block_on(async {
        // More than fit.
        let all: Vec<_> = (0..10).map(&write).collect();
        for request in all {
            assert_eq!(request.await.unwrap().result.unwrap(), 1024);
        }
    });
    device.disk(|disk| {
        assert!((0..10).all(|at| disk.bytes[at * 1024..][..1024] == [at as u8; 1024]));
    });
}

/// Plays random requests, several at a time, on blocks that no two of them share.
fn play(seed: u64, limit: usize) {
    let mut rng = Rng::new(seed);
    let (blocks, lanes) = (512, 8);
    let (device, double) = mapped(&mut rng, blocks, blocks * BLOCK);
    let mut model = device.disk(|disk| double.on_device(&disk.bytes));
    let mut file = CachedFile::new(&device.cache(limit), double.clone());
    let mut queue = CachedQueue::new(lanes as usize);
    for step in 0..40 {
        let mut reads = Vec::new();
        for lane in 0..lanes {
            let share = blocks * BLOCK / lanes;
            let start = rng.range(0, share);
            let most = (share - start).min(1 << rng.range(1, 16));
            let length = rng.range(1, most + 1) as usize;
            let pos = lane * share + start;
            let range = pos as usize..pos as usize + length;
            let io = IoArgs::at(pos).token(lane);
            if rng.range(0, 2) == 0 {
                reads.push((lane, model[range].to_vec()));
                queue.submit_read(&mut file, io, vec![0; length]).unwrap();
                continue;
            }
            let data = rng.bytes(length as u64);
            model[range].copy_from_slice(&data);
            let flags = [IoFlags::empty(), IoFlags::WRITETHROUGH, BUFFERED_FLAGS];
            let io = io.flags(flags[rng.range(0, 3) as usize]);
            queue.submit_write(&mut file, io, data).unwrap();
        }
        while queue.in_flight() > 0 {
            queue.wait(|done| {
                let read = reads.iter().find(|(lane, _)| *lane == done.token);
                match read {
                    Some((lane, wanted)) => {
                        assert_eq!(&bytes(done), wanted, "seed {seed}, step {step}, {lane}");
                    }
                    None => assert!(done.result.is_ok(), "seed {seed}, step {step}"),
                }
            });
        }
    }
    file.sync_data().unwrap();
    let found = device.disk(|disk| double.on_device(&disk.bytes));
    assert!(found == model, "seed {seed}: the device differs");
    double.assert_balanced();
}

#[test]
fn requests_in_flight_together_are_those_of_a_vector_of_bytes() {
    for seed in 0..30 {
        play(seed, [96 << 10, 256 << 10, 4 << 20][seed as usize % 3]);
    }
}
