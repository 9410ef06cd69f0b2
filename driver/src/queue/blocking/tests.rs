//! Blocking calls on the embedded controller.

use std::time::Duration;

use nvio_emulator::{Backing, DeviceFault, Emulator, Fault, Faults, NamespaceConfig, Rule};
use nvio_spec::{opcode::nvm, status};

use super::*;
use crate::Options;
use crate::served::{Served, writable};

const SIZE: usize = 40 << 20;
const BLOCK: usize = 512;
/// Blocks of the largest command: 64 KiB.
const MOST: u64 = 128;

fn start(boundary: u16, faults: Faults) -> (Served, WritableNamespace) {
    let namespace = NamespaceConfig::new(Backing::memory(SIZE as u64)).noiob(boundary);
    let builder = Emulator::builder().namespace(namespace).mdts(Some(4)).faults(faults);
    let io_timeout = Duration::from_millis(300);
    let served = Served::start(builder, Options { io_timeout, ..writable() });
    let namespace = served.writable_namespace();
    assert_eq!(namespace.max_transfer() as u64, MOST * BLOCK as u64);
    (served, namespace)
}

fn pattern(bytes: usize, salt: usize) -> Vec<u8> {
    (0..bytes).map(|i| ((i + salt) % 251) as u8).collect()
}

/// Number of commands of a transfer, counted block by block.
fn commands(lba: u64, blocks: u64, boundary: u64) -> u64 {
    let (mut count, mut room) = (0, 0);
    for at in lba..lba + blocks {
        if room == 0 || (boundary != 0 && at % boundary == 0) {
            (count, room) = (count + 1, MOST);
        }
        room -= 1;
    }
    count
}

#[test]
fn a_buffer_of_any_size_is_split_at_the_limit_and_at_the_boundary() {
    for boundary in [0, 24, 100, 128, 300, 4096] {
        let (Served { controller, emulator: _emulator }, namespace) =
            start(boundary, Faults::new());
        // The queue has fewer entries than the transfer has commands.
        let mut queue = controller.queue_pair(7).unwrap();
        let mut expected = 0;
        for (lba, blocks) in [(0, 1), (5, 128), (23, 2), (130, 4000), (99, 0)] {
            let data = pattern(blocks as usize * BLOCK, lba as usize);
            let mut buf = controller.alloc(data.len()).unwrap();
            buf.copy_from_slice(&data);
            let mut blocking = queue.blocking(7, |_| panic!("there are no others"));
            let mut buf = blocking.write(&namespace, lba, buf).unwrap();
            buf.fill(0);
            let buf = blocking.read(&namespace, lba, buf).unwrap();
            assert!(*buf == *data, "{blocks} blocks at {lba}, boundary {boundary}");
            expected += 2 * commands(lba, blocks, boundary.into());
            assert_eq!(queue.counters().submitted, expected, "{blocks} at {lba}, {boundary}");
        }
    }
}

#[test]
fn any_bytes_are_read_and_whole_blocks_written() {
    let (Served { controller, emulator: _emulator }, namespace) = start(100, Faults::new());
    let mut queue = controller.queue_pair(16).unwrap();
    let mut blocking = queue.blocking((), drop);
    let model = pattern(5 << 20, 3);
    blocking.write_bytes(&namespace, 0, &model).unwrap();
    let sizes = [
        0,
        1,
        511,
        512,
        513,
        4095,
        BOUNCE_BYTES_MAX - 1,
        BOUNCE_BYTES_MAX,
        BOUNCE_BYTES_MAX + 1,
        3 * BOUNCE_BYTES_MAX + 77,
    ];
    for (i, size) in sizes.into_iter().enumerate() {
        for offset in [0, 1, 512, 700, 4096 * 100 + 3 * i, model.len() - size] {
            let mut out = vec![0xee; size];
            blocking.read_bytes(&namespace, offset as u64, &mut out).unwrap();
            assert!(out == model[offset..offset + size], "{size} bytes at {offset}");
        }
    }
    let end = SIZE as u64;
    blocking.read_bytes(&namespace, end - 1, &mut [0]).unwrap();
    blocking.read_bytes(&namespace, end, &mut []).unwrap();
    for (offset, bytes) in [(end - 1, 2), (end, 1), (end + 1, 0), (u64::MAX, 2)] {
        let refused = blocking.read_bytes(&namespace, offset, &mut vec![0; bytes]);
        assert!(matches!(refused, Err(Error::OutOfRange { .. })), "{bytes} at {offset}");
    }
    for (offset, bytes) in [(1, 512), (0, 511)] {
        let refused = blocking.write_bytes(&namespace, offset, &vec![0; bytes]);
        assert!(matches!(refused, Err(Error::Misaligned { .. })));
    }
    let refused = blocking.write_bytes(&namespace, end - 512, &[0; 1024]);
    assert!(matches!(refused, Err(Error::OutOfRange { .. })));
    let refused = blocking.read(&namespace, 0, controller.alloc(513).unwrap()).unwrap_err();
    assert!(matches!(refused.error, Error::Misaligned { .. }));
    assert_eq!(refused.payload.map(|buf| buf.len()), Some(513));
}

#[test]
fn an_error_names_the_command_of_the_lowest_block_and_the_buffer_comes_back() {
    let bad = |at: u64| Rule::new(Fault::Status(status::UNRECOVERED_READ_ERROR)).lbas(at..at + 1);
    let faults = Faults::new().rule(bad(500)).rule(bad(310));
    let (Served { controller, emulator: _emulator }, namespace) = start(100, faults);
    let mut queue = controller.queue_pair(32).unwrap();
    let mut blocking = queue.blocking(0, drop);
    let buf = controller.alloc(1000 * BLOCK).unwrap();
    let failed = blocking.read(&namespace, 0, buf).unwrap_err();
    let Error::Io { command: "Read", nsid: 1, lba: 300, blocks: 100, status } = failed.error else {
        panic!("{failed}");
    };
    assert_eq!(status.bare(), status::UNRECOVERED_READ_ERROR);
    let buf = failed.payload.unwrap();
    assert_eq!((buf.len(), blocking.queue.in_flight()), (1000 * BLOCK, 0));
    // A transfer that does not touch the bad blocks succeeds, with the buffer of the first.
    blocking.read(&namespace, 1000, buf).unwrap();
    let mut out = vec![0; 2048];
    blocking.read_bytes(&namespace, 300 * 512 - 2048, &mut out).unwrap();
    let refused = blocking.read_bytes(&namespace, 300 * 512 - 1, &mut [0; 6000]);
    assert!(matches!(refused, Err(Error::Io { lba: 300, blocks: 12, .. })), "{refused:?}");
    blocking.read_bytes(&namespace, 0, &mut out).unwrap();
}

#[test]
fn no_command_is_queued_after_an_error() {
    let bad = Rule::new(Fault::Status(status::UNRECOVERED_READ_ERROR)).lbas(0..1);
    let (Served { controller, emulator: _emulator }, namespace) = start(0, Faults::new().rule(bad));
    let mut queue = controller.queue_pair(1).unwrap();
    let buf = controller.alloc(640 << 10).unwrap();
    let failed = queue.blocking(0, drop).read(&namespace, 0, buf).unwrap_err();
    assert!(matches!(failed.error, Error::Io { lba: 0, blocks: MOST, .. }));
    assert_eq!((queue.counters().submitted, failed.payload.is_some()), (1, true));
}

#[test]
fn commands_of_others_come_back_to_them() {
    let (Served { controller, emulator: _emulator }, namespace) = start(0, Faults::new());
    // At first, other commands occupy the whole queue.
    let mut queue = controller.queue_pair(3).unwrap();
    for context in 1..=3 {
        queue.read(&namespace, 8, controller.alloc(512).unwrap(), context).unwrap();
    }
    let mut theirs = Vec::new();
    let mut blocking = queue.blocking(0, |done: Completion<u64>| {
        assert!(done.status.is_success() && done.buf.len() == 512);
        theirs.push(done.context);
    });
    blocking.flush(&namespace).unwrap();
    let buf = controller.alloc(1 << 20).unwrap();
    assert_eq!(blocking.read(&namespace, 0, buf).unwrap().len(), 1 << 20);
    theirs.sort_unstable();
    assert_eq!((theirs, queue.in_flight()), (vec![1, 2, 3], 0));
}

#[test]
fn a_command_that_is_lost_ends_in_its_bound() {
    let lost = Rule::new(Fault::Lost).opcode(nvm::READ).nth(2);
    let (Served { controller, emulator: _emulator }, namespace) =
        start(0, Faults::new().rule(lost));
    let mut queue = controller.queue_pair(8).unwrap();
    let mut blocking = queue.blocking(0, drop);
    let buf = controller.alloc(256 << 10).unwrap();
    let failed = blocking.read(&namespace, 0, buf).unwrap_err();
    assert!(matches!(failed.error, Error::Io { lba: 128, blocks: 128, .. }), "{failed}");
    blocking.read(&namespace, 0, failed.payload.unwrap()).unwrap();
}

#[test]
fn a_reset_while_nobody_polls_is_no_error() {
    let (Served { controller, emulator: _emulator }, namespace) = start(0, Faults::new());
    let mut queue = controller.queue_pair(8).unwrap();
    for _ in 0..3 {
        controller.reset().unwrap();
        queue.blocking(0, drop).read_bytes(&namespace, 0, &mut [0; 100]).unwrap();
        controller.reset().unwrap();
        queue.blocking(0, drop).flush(&namespace).unwrap();
    }
    assert_eq!(queue.counters().resets, 6);
}

#[test]
fn a_controller_that_is_gone_ends_every_form_with_an_error() {
    let gone = Rule::new(Fault::Device(DeviceFault::Removed)).opcode(nvm::READ).nth(2);
    let (Served { controller, emulator }, namespace) = start(0, Faults::new().rule(gone));
    let mut queue = controller.queue_pair(8).unwrap();
    let mut blocking = queue.blocking(0, drop);
    let buf = controller.alloc(1 << 20).unwrap();
    let failed = blocking.read(&namespace, 0, buf).unwrap_err();
    let Error::Io { status, .. } = failed.error else { panic!("{failed}") };
    assert_eq!(status, status::HOST_PATHING_ERROR);
    let failed = blocking.read(&namespace, 0, failed.payload.unwrap()).unwrap_err();
    assert!(matches!((failed.error, failed.payload), (Error::Gone, Some(_))));
    assert!(matches!(blocking.flush(&namespace), Err(Error::Gone)));
    assert!(matches!(blocking.read_bytes(&namespace, 0, &mut [0; 9]), Err(Error::Gone)));
    assert!(matches!(blocking.write_zeroes(&namespace, 0, 9, false), Err(Error::Gone)));
    drop(emulator);
}

#[test]
fn zeroes_of_any_number_of_blocks() {
    let (Served { controller, emulator: _emulator }, namespace) = start(0, Faults::new());
    let mut queue = controller.queue_pair(8).unwrap();
    let mut blocking = queue.blocking(0, drop);
    let ends = [9 * 512, 70_010 * 512];
    for at in ends {
        blocking.write_bytes(&namespace, at, &[7; 1024]).unwrap();
    }
    let before = blocking.queue.counters().submitted;
    blocking.write_zeroes(&namespace, 10, 70_001, false).unwrap();
    assert_eq!(blocking.queue.counters().submitted, before + 2);
    for (at, expected) in ends.into_iter().zip([[7, 0], [0, 7]]) {
        let mut out = [1; 1024];
        blocking.read_bytes(&namespace, at, &mut out).unwrap();
        assert_eq!([out[0], out[512]], expected);
        assert!(out[..512].iter().all(|&byte| byte == expected[0]));
    }
    let refused = blocking.write_zeroes(&namespace, u64::MAX, 2, false);
    assert!(matches!(refused, Err(Error::OutOfRange { .. })));
}
