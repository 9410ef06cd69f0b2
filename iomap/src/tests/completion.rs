//! Completion of requests: in the poll when nothing is left to do, otherwise by deferred work.

use super::*;
use crate::error::BioError;

/// The results of one poll.
fn poll(rig: &mut Rig) -> Vec<Result<usize, String>> {
    let mut all = Vec::new();
    rig.files.poll(64, |done| all.push(done.result.map_err(|error| name(&error))));
    all
}

fn submit(rig: &mut Rig, write: bool, io: IoArgs, bytes: u64) {
    let memory = rig.buf(bytes).into();
    match write {
        true => rig.files.submit_write_with(&mut rig.file, io, memory).unwrap(),
        false => rig.files.submit_read_with(&mut rig.file, io, memory).unwrap(),
    }
}

#[test]
fn successful_request_ends_in_the_poll_that_finds_it() {
    let mut rig = Rig::plain(64);
    for (write, flags, bytes) in [
        (false, IoFlags::empty(), 512),
        (false, IoFlags::GENERIC, 4096),
        (false, IoFlags::BOUNCE, 4096),
        (true, IoFlags::empty(), 4096),
        (true, IoFlags::DSYNC, 512),
    ] {
        submit(&mut rig, write, at(0, flags), bytes);
        assert_eq!(poll(&mut rig), [Ok(bytes as usize)], "{write} {flags:?}");
        rig.assert_idle();
    }
    assert_eq!(rig.files.counters().deferred, 0);
}

#[test]
fn errors_are_told_by_the_next_poll_and_not_where_they_are_found() {
    for (write, flags, bytes) in [
        (false, IoFlags::empty(), 512),
        (false, IoFlags::GENERIC, 512),
        (false, IoFlags::BOUNCE, 4096),
        (true, IoFlags::empty(), 4096),
    ] {
        let mut rig = Rig::plain(64);
        rig.files.queue.failing = vec![0];
        submit(&mut rig, write, at(0, flags), bytes);
        assert_eq!(poll(&mut rig), [], "{write} {flags:?}");
        assert_eq!(rig.files.queue.in_flight(), 0, "it was found");
        assert!(rig.file.state().reports.is_empty(), "nobody was called");
        assert_eq!(poll(&mut rig), [Err("Bio".into())]);
        assert_eq!(rig.file.state().reports.len(), 1);
        assert_eq!(rig.files.counters().deferred, 1);
        rig.assert_idle();
    }
}

#[test]
fn remaining_work_is_deferred() {
    let unwritten = Mapping::unwritten(0, 1 << 14, 0);
    let dirty = with(Mapping::mapped(0, 1 << 14, 0), MappingFlags::DIRTY);
    let plain = Mapping::mapped(0, 1 << 14, 0);
    // Conversion, growth, flush, hooks, and the cache.
    for (layout, size, flags, cached, ends) in [
        (unwritten, 1 << 20, IoFlags::empty(), false, 1),
        (plain, 4000, IoFlags::empty(), false, 1),
        (dirty, 1 << 20, IoFlags::DSYNC, false, 0),
        (plain, 1 << 20, IoFlags::HOOKS, false, 1),
        (plain, 1 << 20, IoFlags::empty(), true, 0),
    ] {
        let mut rig = Rig::new(64, [layout]);
        rig.file.size = size;
        rig.file.state().cached = cached;
        submit(&mut rig, true, at(0, flags), 4096);
        assert_eq!(poll(&mut rig), [], "{layout:?} {flags:?}");
        assert!(rig.file.state().ends.is_empty());
        let mut rest = poll(&mut rig);
        rest.extend(poll(&mut rig));
        assert_eq!(rest, [Ok(4096)]);
        assert_eq!(rig.file.state().ends.len(), ends, "the filesystem is told");
        assert_eq!(rig.files.counters().deferred, 1);
        rig.assert_idle();
    }
}

#[test]
fn the_filesystem_hears_of_what_it_must_do() {
    // The end hook converts unwritten blocks and raises the size. It is called without HOOKS, too.
    let mut rig = Rig::new(64, [Mapping::unwritten(0, 1 << 14, 0)]);
    rig.file.size = 1 << 14;
    rig.write(IoArgs::at(0), &pattern(4096)).unwrap();
    let end = rig.file.state().ends[0];
    assert_eq!((end.pos, end.bytes, end.write), (0, 4096, true));
    assert_eq!((end.unwritten, end.failed), (true, false));
    let mut rig = Rig::plain(64);
    rig.file.size = 4095;
    rig.write(IoArgs::at(0), &pattern(4096)).unwrap();
    assert!(!rig.file.state().ends[0].unwritten);
    // If the end hook fails, the write has failed.
    rig.file.state().fail_end_io = true;
    assert!(matches!(rig.write(IoArgs::at(0), &pattern(4096)), Err(Fail::Hook)));
    // The end hook is not called for a plain overwrite.
    rig.file.size = 4096;
    rig.write(IoArgs::at(0), &pattern(4096)).unwrap();
    assert_eq!(rig.file.state().ends.len(), 2);
}

#[test]
fn the_first_error_wins_and_stops_submission() {
    for write in [false, true] {
        for in_order in [false, true] {
            let mut rig = Rig::plain(64);
            rig.files.queue.in_order = in_order;
            rig.files.queue.failing = vec![0, 2];
            let data = pattern(64 * BLOCK);
            let error = match write {
                true => rig.write(IoArgs::at(0), &data).unwrap_err(),
                false => rig.read(IoArgs::at(0), 64 * BLOCK).unwrap_err(),
            };
            let Error::Bio { pos, length, error, .. } = iomap(error) else { panic!() };
            let first = if in_order { 0 } else { 4096 };
            assert_eq!((pos, length), (first, 2048), "{write} {in_order}");
            assert!(matches!(error, BioError::Status(_)));
            // The error is seen when the fourth command waits for room.
            assert_eq!(rig.files.queue.log.len(), 3);
            assert_eq!(rig.file.state().reports.len(), 1, "once");
            rig.assert_idle();
        }
    }
}

#[test]
fn an_error_of_the_mapper_waits_for_what_is_in_flight() {
    let mut rig = Rig::new(64, [Mapping::mapped(0, 4 * BLOCK, 0)]);
    let buf = rig.buf(8 * BLOCK);
    rig.files.submit_read_with(&mut rig.file, IoArgs::at(0), buf.into()).unwrap();
    assert_eq!(rig.files.queue.log.len(), 1);
    assert_eq!(rig.file.inode.in_flight(), 1);
    let done = rig.drain().pop().unwrap();
    assert!(matches!(done.result, Err(Fail::Begin)));
    assert_eq!(done.memory.unwrap().len() as u64, 8 * BLOCK);
    rig.assert_idle();
}

#[test]
fn an_error_after_that_of_the_mapper_does_not_replace_it() {
    let mut rig = Rig::new(64, [Mapping::mapped(0, 4 * BLOCK, 0)]);
    rig.files.queue.failing = vec![0];
    assert!(matches!(rig.read(IoArgs::at(0), 8 * BLOCK), Err(Fail::Begin)));
    rig.assert_idle();
}

#[test]
fn buffers_stay_with_a_dead_device() {
    for (bytes, flags) in
        [(512, IoFlags::empty()), (512, IoFlags::GENERIC), (8192, IoFlags::empty())]
    {
        let mut rig = Rig::plain(64);
        rig.files.queue.dead = true;
        let buf = rig.buf(bytes);
        let failed = rig.read_dma(at(0, flags), buf).unwrap_err();
        assert_eq!(name(&failed.error), "Driver");
        assert!(failed.payload.is_none(), "the device may still write to it");
        rig.file.assert_balanced();
        drop(rig.files);
        assert_eq!(rig.file.inode.in_flight(), 0);
        let mut rig = Rig::plain(64);
        rig.files.queue.dead = true;
        let buf = rig.buf(bytes);
        let failed = rig.write_dma(at(0, flags), buf).unwrap_err();
        assert!(failed.payload.is_none());
        rig.file.assert_balanced();
        drop(rig.files);
        assert_eq!(rig.file.inode.in_flight(), 0);
    }
}

#[test]
fn a_dead_device_is_not_taken_for_a_full_queue() {
    let mut rig = Rig::plain(64);
    for token in 0..3 {
        let buf = rig.buf(512);
        rig.files.submit_read(&mut rig.file, 0, buf, token).unwrap();
    }
    rig.files.queue.dead = true;
    for flags in [IoFlags::empty(), IoFlags::GENERIC] {
        let buf = rig.buf(512);
        let failed = rig.read_dma(at(0, flags), buf).unwrap_err();
        assert_eq!(name(&failed.error), "Driver", "{flags:?}");
        assert_eq!(failed.payload.unwrap().len(), 512, "nobody has it");
    }
}

#[test]
fn memory_that_was_given_up_does_not_come_back() {
    for (bytes, flags) in
        [(512, IoFlags::empty()), (512, IoFlags::GENERIC), (4096, IoFlags::GENERIC)]
    {
        let mut rig = Rig::plain(64);
        rig.files.queue.given_up = vec![0];
        submit(&mut rig, false, at(0, flags), bytes);
        let done = rig.drain().pop().unwrap();
        assert_eq!(name(&done.result.unwrap_err()), "Bio", "{flags:?}");
        assert!(done.memory.is_none());
        rig.assert_idle();
    }
    // Private memory is not the caller's.
    let mut rig = Rig::plain(64);
    rig.files.queue.given_up = vec![0];
    submit(&mut rig, true, at(0, IoFlags::BOUNCE), 512);
    assert_eq!(rig.drain()[0].memory.as_ref().unwrap().len(), 512);
}

#[test]
fn late_data_does_not_reach_memory_of_another_request() {
    let mut rig = Rig::plain(64);
    rig.files.queue.dead = true;
    let (mut first, mut second) = ([0xaa; 512], [0xaa; 512]);
    rig.files.read_at(&mut rig.file, 0, &mut first).unwrap_err();
    rig.files.queue.dead = false;
    // The device answers after all, while another waits: in the order of submission.
    rig.files.queue.in_order = true;
    rig.files.queue.failing = vec![1];
    rig.files.read_at(&mut rig.file, 1024, &mut second).unwrap_err();
    assert_eq!((first, second), ([0xaa; 512], [0xaa; 512]));
    assert!(rig.drain().is_empty());
    rig.assert_idle();
    // Nor does its result.
    rig.files.queue.dead = true;
    rig.files.read_at(&mut rig.file, 0, &mut first).unwrap_err();
    rig.files.queue.dead = false;
    rig.files.queue.failing = vec![2];
    assert_eq!(rig.files.read_at(&mut rig.file, 1024, &mut second).unwrap(), 512);
    assert_eq!(second, rig.device()[1024..1536]);
    assert!(rig.drain().is_empty());
    rig.assert_idle();
}

#[test]
fn a_result_that_nobody_waits_for_any_more_is_dropped() {
    for flags in [IoFlags::empty(), IoFlags::GENERIC] {
        let mut rig = Rig::plain(64);
        rig.files.queue.dead = true;
        let buf = rig.buf(512);
        rig.read_dma(at(0, flags), buf).unwrap_err();
        submit(&mut rig, false, IoArgs::at(0).token(3), 512);
        rig.files.queue.dead = false;
        let mut tokens = Vec::new();
        while rig.files.poll(1, |done| tokens.push(done.token)) > 0 {}
        assert_eq!(tokens, [3], "{flags:?}");
        assert!(rig.drain().is_empty());
        assert_eq!(rig.read(IoArgs::at(512), 512).unwrap(), rig.device()[512..1024]);
        rig.assert_idle();
    }
}
