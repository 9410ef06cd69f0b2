//! Repetitions of commands, against a controller that can post any entry.

use nvio_spec::opcode::nvm;

use super::*;
use crate::queue::counters::Counters;

const POLICY: RetryPolicy = RetryPolicy { most: 2, delays_ms: [300, 0, 60_000], longest_ms: 9999 };

fn submit_read(device: &Device, core: &mut RawQueuePair<u32>, lba: u64, context: u32) {
    let buf = device.arena.alloc(4096).unwrap();
    core.submit_buf(Sqe::read(1, lba, 8), buf, context).unwrap();
    core.ring();
}

#[test]
fn a_failed_read_is_repeated_with_another_identifier_within_bounds() {
    let (mut device, mut core) = Device::with_retries(4, 3, POLICY);
    submit_read(&device, &mut core, 77, 5);
    let first = device.take()[0];
    device.post(first.cid.get(), status::UNRECOVERED_READ_ERROR);
    assert_eq!((poll(&mut core), core.in_flight()), (vec![], 1));
    let second = device.take()[0];
    assert_eq!((second.prp1, second.cdw10), (first.prp1, first.cdw10));
    assert_ne!(second.cid, first.cid);
    // A late completion of the first attempt ends nothing.
    device.post(first.cid.get(), Status::SUCCESS);
    assert_eq!(poll(&mut core), []);
    device.post(second.cid.get(), status::INTERNAL_ERROR);
    assert_eq!(poll(&mut core), []);
    assert!(device.take().is_empty(), "further attempts wait");
    core.repeat(Some(1000));
    core.repeat(Some(1099));
    assert!(device.take().is_empty());
    core.repeat(Some(1100));
    let third = device.take()[0];
    device.post(third.cid.get(), status::INTERNAL_ERROR);
    assert_eq!(poll(&mut core), [(5, status::INTERNAL_ERROR)]);
    assert_eq!(core.in_flight(), 0);
    let Counters { submitted, completed, errors, retries, stale, .. } = core.counters();
    assert_eq!((submitted, completed, errors, retries, stale), (1, 1, 1, 2, 1));
    // The slot's next command has all attempts again.
    submit_read(&device, &mut core, 78, 6);
    let cid = device.sq_cid();
    device.post(cid, status::INTERNAL_ERROR);
    assert_eq!(poll(&mut core), []);
    let cid = device.sq_cid();
    device.post(cid, Status::SUCCESS);
    assert_eq!(poll(&mut core), [(6, Status::SUCCESS)]);
}

#[test]
fn permanent_errors_and_other_commands_are_not_repeated() {
    let (mut device, mut core) = Device::with_retries(64, 63, POLICY);
    let transient = status::NAMESPACE_NOT_READY;
    let fused = Sqe { flags: 1, ..Sqe::read(1, 0, 8) };
    let cases = [
        (Sqe::read(1, 0, 8), transient.do_not_retry()),
        (Sqe::read(1, 0, 8), Status(transient.0 | 3 << 11)),
        (Sqe::flush(1), transient),
        (Sqe { opcode: nvm::COMPARE, ..Sqe::read(1, 0, 8) }, transient),
        (Sqe { opcode: nvm::COPY, ..Sqe::read(1, 0, 8) }, transient),
        (Sqe { opcode: nvm::DATASET_MANAGEMENT, ..Sqe::read(1, 0, 8) }, transient),
        (Sqe { opcode: nvm::WRITE_UNCORRECTABLE, ..Sqe::read(1, 0, 8) }, transient),
        // Zone Append, Reservation Acquire, a vendor's.
        (Sqe { opcode: 0x7d, ..Sqe::read(1, 0, 8) }, transient),
        (Sqe { opcode: 0x11, ..Sqe::read(1, 0, 8) }, transient),
        (Sqe { opcode: 0x92, ..Sqe::read(1, 0, 8) }, transient),
        (fused, transient),
    ];
    for (sqe, status) in cases {
        core.submit(sqe, 1).unwrap();
        core.ring();
        let cid = device.sq_cid();
        device.post(cid, status);
        assert_eq!(poll(&mut core), [(1, status)], "{sqe:?}");
    }
    for opcode in [nvm::READ, nvm::WRITE, nvm::WRITE_ZEROES, nvm::VERIFY] {
        core.submit(Sqe { opcode, ..Sqe::read(1, 0, 8) }, 2).unwrap();
        core.ring();
        let cid = device.sq_cid();
        device.post(cid, status::ABORT_REQUESTED.do_not_retry());
        assert_eq!(poll(&mut core), [], "{opcode}");
        let cid = device.sq_cid();
        device.post(cid, Status::SUCCESS);
        assert_eq!(poll(&mut core), [(2, Status::SUCCESS)]);
    }
}

#[test]
fn the_delay_of_the_controller_is_respected() {
    let (mut device, mut core) = Device::with_retries(4, 3, POLICY);
    submit_read(&device, &mut core, 1, 1);
    let cid = device.sq_cid();
    device.post(cid, Status(status::NAMESPACE_NOT_READY.0 | 1 << 11));
    assert_eq!(poll(&mut core), []);
    for now in [u32::MAX - 99, 0, 199] {
        core.repeat(Some(now));
        assert!(device.take().is_empty(), "{now}");
    }
    core.repeat(Some(200));
    let cid = device.sq_cid();
    device.post(cid, Status::SUCCESS);
    assert_eq!(poll(&mut core), [(1, Status::SUCCESS)]);
}

/// Submits and completes `count` reads.
fn overtake(device: &mut Device, core: &mut RawQueuePair<u32>, count: u32, page: bool) {
    for context in 10..10 + count {
        match page {
            true => submit_page(device, core, 2, context),
            false => submit_read(device, core, 2, context),
        }
        let cid = device.sq_cid();
        device.post(cid, Status::SUCCESS);
        assert_eq!(poll(core), [(context, Status::SUCCESS)]);
    }
}

/// Submits a read of one page as the shortest path does.
fn submit_page(device: &Device, core: &mut RawQueuePair<u32>, lba: u64, context: u32) {
    let buf = device.arena.alloc(4096).unwrap();
    let head = u64::from(nvm::READ) | 9 << 32;
    assert!(core.submit_page(head, lba, 7, buf, context).is_ok());
    core.ring();
}

/// Returns the command without its identifier.
fn anonymous(sqe: &Sqe) -> Vec<u8> {
    Sqe { cid: U16::new(0), ..*sqe }.as_bytes().to_vec()
}

#[test]
fn a_command_that_was_overwritten_in_the_ring_is_repeated_as_it_was() {
    for later in [0, 1, 3, 4, 5, 9, 200] {
        for (page, others) in [(false, false), (false, true), (true, false), (true, true)] {
            let (mut device, mut core) = Device::with_retries(4, 3, POLICY);
            let all_set = Sqe { cdw3: U32::new(3), cdw15: U32::new(5), ..Sqe::read(9, 1 << 40, 8) };
            match page {
                true => submit_page(&device, &mut core, 0x12_3456_789a, 1),
                false => {
                    let buf = device.arena.alloc(5 << 12).unwrap();
                    core.submit_buf(all_set, buf, 1).unwrap();
                    core.ring();
                }
            }
            let mut last = device.take()[0];
            // Both repetitions have the entry of a later command, too.
            for _ in 0..2 {
                overtake(&mut device, &mut core, later, others);
                device.post(last.cid.get(), status::INTERNAL_ERROR);
                assert_eq!(poll(&mut core), [], "{later} later commands, page: {page}");
                core.repeat(Some(0));
                core.repeat(Some(1000));
                let again = device.take()[0];
                assert_eq!(anonymous(&again), anonymous(&last));
                assert_ne!(again.cid, last.cid);
                last = again;
            }
            overtake(&mut device, &mut core, later, others);
            device.post(last.cid.get(), status::INTERNAL_ERROR);
            assert_eq!(poll(&mut core), [(1, status::INTERNAL_ERROR)]);
        }
    }
}

#[test]
fn a_command_that_is_old_or_aborted_is_repeated_with_all_its_blocks() {
    let (mut device, mut core) = Device::with_retries(4, 3, POLICY);
    submit_page(&device, &mut core, 77, 1);
    let first = device.take()[0];
    overtake(&mut device, &mut core, 5, true);
    // The mark of its age is beside the number of its blocks.
    assert!(core.pending.find_overdue(u32::MAX, (100, 100)).is_none());
    core.pending.mark_aborted(first.cid.get(), 5);
    device.post(first.cid.get(), status::ABORT_REQUESTED);
    assert_eq!(poll(&mut core), []);
    let second = device.take()[0];
    assert_eq!(anonymous(&second), anonymous(&first));
    assert_eq!(core.pending.find_overdue(u32::MAX, (100, 100)), None, "a new age");
    assert_eq!(core.pending.find_overdue(98, (100, 100)), None);
    assert!(core.pending.find_overdue(99, (100, 100)).is_some());
}

#[test]
fn an_invented_completion_of_a_command_that_waits_ends_it_once() {
    let (mut device, mut core) = Device::with_retries(4, 3, POLICY);
    submit_read(&device, &mut core, 1, 1);
    let first = device.sq_cid();
    device.post(first, Status(status::NAMESPACE_NOT_READY.0 | 1 << 11));
    assert_eq!(poll(&mut core), []);
    // The identifier that the repetition will have: slot 0, two bits of index.
    device.post(first + 4, Status::SUCCESS);
    assert_eq!((poll(&mut core), core.in_flight()), (vec![(1, Status::SUCCESS)], 0));
    submit_read(&device, &mut core, 2, 2);
    let second = device.sq_cid();
    core.repeat(Some(0));
    core.repeat(Some(5000));
    assert!(device.take().is_empty(), "nothing is submitted for the memory that was returned");
    assert_eq!(core.in_flight(), 1);
    assert_eq!(core.abandon(status::ABORTED_BY_HOST, false).unwrap().context, 2);
    device.post(second, Status::SUCCESS);
    assert_eq!((poll(&mut core), core.in_flight()), (vec![], 0));
}

#[test]
fn a_reset_repeats_reads_and_ends_the_others() {
    let (mut device, mut core) = Device::with_retries(8, 7, POLICY);
    submit_read(&device, &mut core, 1, 1);
    assert!(submit(&mut core, 2));
    core.ring();
    let old = device.take();
    core.retries.held = true;
    core.keep_for_repetition();
    assert_eq!(core.abandon(status::ABORTED_BY_HOST, false).unwrap().context, 2);
    assert!(core.abandon(status::ABORTED_BY_HOST, false).is_none());
    core.restart();
    (device.sq_head, device.cq_tail, device.phase) = (0, 0, true);
    core.retries.held = false;
    core.repeat(None);
    let again = device.take();
    assert_eq!((again.len(), again[0].prp1), (1, old[0].prp1));
    device.post(again[0].cid.get(), Status::SUCCESS);
    assert_eq!((poll(&mut core), core.in_flight()), (vec![(1, Status::SUCCESS)], 0));

    // Given up: the command ends, once.
    submit_read(&device, &mut core, 1, 3);
    device.take();
    core.keep_for_repetition();
    core.give_up();
    assert_eq!(core.end_given_up(status::ABORTED_BY_HOST).unwrap().context, 3);
    assert!(core.end_given_up(status::ABORTED_BY_HOST).is_none());
    assert_eq!(core.in_flight(), 0);
}
