//! NOWAIT: never waits, neither for metadata nor for room nor for memory.

use super::*;

const NOWAIT: IoFlags = IoFlags::NOWAIT;

#[test]
fn the_filesystem_is_told_and_its_own_again_reaches_the_caller() {
    for flags in [NOWAIT, NOWAIT | IoFlags::GENERIC] {
        let mut rig = Rig::new(64, []);
        rig.file.again = true;
        let buf = rig.buf(512);
        let rejected =
            rig.files.submit_read_with(&mut rig.file, at(0, flags), buf.into()).unwrap_err();
        assert!(matches!(rejected.error, Fail::Again), "{flags:?}");
        assert_eq!(rejected.payload.len(), 512);
        assert!(rig.file.ops[0].contains(crate::Op::NOWAIT));
        assert_eq!(rig.file.asked.len(), 1, "not asked again in another way");
        assert!(rig.file.state().reports.is_empty(), "the same may succeed");
        assert!(matches!(rig.write(at(0, flags), &pattern(512)), Err(Fail::Again)));
        rig.assert_idle();
    }
}

#[test]
fn dirty_cached_data_is_not_waited_for() {
    for flags in [NOWAIT, NOWAIT | IoFlags::GENERIC] {
        let mut rig = Rig::plain(64);
        rig.file.state().dirty = true;
        assert!(matches!(rig.read(at(0, flags), 512), Err(Fail::Again)));
        assert!(rig.file.asked.is_empty() && rig.file.state().write_backs.is_empty());
        rig.assert_idle();
    }
    // Nor is it written back, or dropped, for a write.
    let mut rig = Rig::plain(64);
    rig.file.state().cached = true;
    let error = rig.write(at(0, NOWAIT), &pattern(512)).unwrap_err();
    assert_eq!(name(&error), "WouldBlock");
    assert!(rig.file.state().invalidations.is_empty() && rig.file.asked.is_empty());
    rig.assert_idle();
}

#[test]
fn a_full_queue_is_busy_and_nothing_is_waited_for() {
    for flags in [NOWAIT, NOWAIT | IoFlags::GENERIC] {
        let mut rig = Rig::plain(64);
        for token in 0..3 {
            let buf = rig.buf(512);
            rig.files.submit_read(&mut rig.file, 0, buf, token).unwrap();
        }
        let buf = rig.buf(512);
        let failed = rig.files.read_with(&mut rig.file, at(0, flags), buf.into()).unwrap_err();
        assert_eq!(name(&failed.error), "Busy");
        assert_eq!(failed.payload.unwrap().len(), 512);
        assert_eq!(name(&rig.write(at(0, NOWAIT), &pattern(512)).unwrap_err()), "Busy");
        assert_eq!(rig.files.queue.waits, 0);
        assert_eq!(rig.file.inode.in_flight(), 3);
        assert_eq!(rig.drain().len(), 3);
        rig.assert_idle();
    }
}

#[test]
fn room_that_ends_half_way_is_busy_when_the_rest_is_done() {
    for write in [false, true] {
        let mut rig = Rig::plain(64);
        let buf = rig.buf(8192);
        let io = at(0, NOWAIT).token(1);
        match write {
            false => rig.files.submit_read_with(&mut rig.file, io, buf.into()).unwrap(),
            true => rig.files.submit_write_with(&mut rig.file, io, buf.into()).unwrap(),
        }
        assert_eq!((rig.files.queue.log.len(), rig.files.queue.waits), (3, 0));
        let done = rig.drain().pop().unwrap();
        assert_eq!(name(&done.result.unwrap_err()), "Busy");
        assert_eq!(done.memory.unwrap().len(), 8192);
        assert!(rig.file.state().reports.is_empty());
        rig.assert_idle();
    }
}

#[test]
fn a_mapping_that_is_not_known_half_way_is_again() {
    let mut rig = Rig::new(64, [Mapping::mapped(0, 1024, 0)]);
    rig.file.again = true;
    let buf = rig.buf(2048);
    rig.files.submit_read_with(&mut rig.file, at(0, NOWAIT), buf.into()).unwrap();
    let done = rig.drain().pop().unwrap();
    assert!(matches!(done.result, Err(Fail::Again)));
    assert_eq!(done.memory.unwrap().len(), 2048);
    rig.assert_idle();
}

#[test]
fn zeroes_beside_the_data_are_not_waited_for() {
    for (layout, size) in [
        (Mapping::unwritten(0, 8192, 0), 8192),
        (with(Mapping::mapped(0, 8192, 0), MappingFlags::NEW), 8192),
        (Mapping::mapped(0, 8192, 0), 1024),
    ] {
        let mut rig = Rig::new(64, [layout]);
        rig.file.size = size;
        assert_eq!(name(&rig.write(at(512, NOWAIT), &pattern(512)).unwrap_err()), "WouldBlock");
        assert!(rig.files.queue.log.is_empty());
        rig.write(at(4096, NOWAIT), &pattern(4096)).unwrap();
        rig.assert_idle();
    }
}

#[test]
fn nowait_requests_that_need_no_wait_succeed() {
    for flags in [NOWAIT, NOWAIT | IoFlags::GENERIC] {
        let mut rig = Rig::plain(64);
        assert_eq!(rig.read(at(512, flags), 512).unwrap(), rig.device()[512..1024]);
        assert_eq!(rig.write(at(0, flags), &pattern(4096)).unwrap(), 4096);
        assert_eq!(rig.device()[..4096], pattern(4096));
    }
}

#[test]
fn requests_end_only_in_a_poll() {
    let mut rig = Rig::plain(64);
    for (token, bytes) in [(0, 512), (1, 2048), (2, 1024)] {
        let buf = rig.buf(bytes);
        rig.files.submit_read_with(&mut rig.file, at(0, NOWAIT).token(token), buf.into()).unwrap();
    }
    assert_eq!((rig.files.queue.waits, rig.file.inode.in_flight()), (0, 3));
    let mut done = Vec::new();
    assert_eq!(rig.files.poll(2, |one| done.push(one.token)), 2);
    assert_eq!(rig.files.poll(2, |one| done.push(one.token)), 1);
    assert_eq!((done, rig.files.poll(2, |_| unreachable!())), (vec![2, 1, 0], 0));
}
