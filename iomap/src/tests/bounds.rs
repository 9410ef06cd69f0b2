//! Everything is bounded: commands, requests, and results that nobody takes.

use super::*;
use crate::error::FileError;

/// Submits until it is refused, at most so many times; tells how many were taken.
fn fill(rig: &mut Rig, mut one: impl FnMut(&mut Rig) -> Result<(), Fail>) -> usize {
    for taken in 0..1000 {
        if let Err(error) = one(rig) {
            assert_eq!(name(&error), "Busy");
            return taken;
        }
    }
    panic!("no bound");
}

#[test]
fn a_request_may_need_more_commands_than_there_is_room_for() {
    for flags in [IoFlags::empty(), IoFlags::BOUNCE] {
        let mut rig = Rig::plain(128);
        for token in 1..=2 {
            let buf = rig.buf(512);
            rig.files.submit_read(&mut rig.file, token * 512, buf, token).unwrap();
        }
        // A request of 16 commands, of which one fits into the queue.
        let buf = rig.buf(64 * BLOCK);
        rig.files.submit_read_with(&mut rig.file, at(0, flags).token(3), buf.into()).unwrap();
        let done = rig.drain();
        assert_eq!(done.len(), 3);
        for done in done {
            let (from, bytes) = match done.token {
                3 => (0, 64 * 512),
                token => (token as usize * 512, 512),
            };
            let buf = done.memory.unwrap().into_dma().unwrap();
            assert_eq!(
                (done.result.unwrap(), &buf[..]),
                (bytes, &rig.device()[from..from + bytes])
            );
        }
        rig.assert_idle();
    }
}

#[test]
fn request_without_room_is_busy_and_returns_its_memory() {
    let mut rig = Rig::plain(64);
    for flags in [IoFlags::empty(), IoFlags::GENERIC, IoFlags::BOUNCE] {
        let taken = fill(&mut rig, |rig| {
            let memory = rig.buf(512).into();
            let result = rig.files.submit_read_with(&mut rig.file, at(0, flags), memory);
            result.map_err(|rejected| {
                assert_eq!(rejected.payload.len(), 512);
                rejected.error
            })
        });
        assert_eq!((taken, rig.file.inode.in_flight()), (3, 3));
        assert_eq!(rig.drain().len(), 3);
        rig.assert_idle();
    }
}

#[test]
fn results_that_nobody_takes_are_bounded() {
    // Requests without commands, waited for by their submission, that fail, and whose results are
    // kept by the waits of others.
    let hole = [Mapping::hole(0, 1 << 20)];
    let mut rig = Rig::new(64, hole);
    let taken = fill(&mut rig, |rig| {
        let memory = rig.buf(512).into();
        rig.files.submit_read_with(&mut rig.file, IoArgs::at(0), memory).map_err(|no| no.error)
    });
    assert_eq!((taken, rig.drain().len()), (3, 3));
    for write in [false, true] {
        let mut rig = Rig::plain(64);
        let taken = fill(&mut rig, |rig| {
            let memory = rig.buf(512).into();
            let io = at(0, IoFlags::FORCE_WAIT);
            let done = match write {
                true => rig.files.submit_write_with(&mut rig.file, io, memory),
                false => rig.files.submit_read_with(&mut rig.file, io, memory),
            };
            done.map_err(|no| no.error)
        });
        assert_eq!((taken, rig.drain().len()), (3, 3), "{write}");
    }
    for simple in [true, false] {
        let mut rig = Rig::plain(64);
        rig.files.queue.failing = (0..1000).step_by(3).collect();
        let mut count = 0;
        let taken = fill(&mut rig, |rig| {
            // A call that waits is served, and handles the completions of others.
            let memory = rig.buf(4096).into();
            let _ = rig.files.write_with(&mut rig.file, IoArgs::at(0), memory);
            count += 1;
            let buf = rig.buf(512);
            match simple {
                true => rig.files.submit_read(&mut rig.file, 0, buf, 7),
                false => {
                    rig.files.submit_read_with(&mut rig.file, at(0, IoFlags::GENERIC), buf.into())
                }
            }
            .map_err(|no| no.error)
        });
        assert!(taken < 12, "{taken}");
        assert_eq!(rig.drain().len(), taken);
        assert_eq!(count, taken + 1);
        // After the results were polled there is room again.
        let buf = rig.buf(512);
        rig.files.submit_read(&mut rig.file, 0, buf, 7).unwrap();
        rig.drain();
        rig.assert_idle();
    }
}

#[test]
fn waiting_call_finds_room_after_others_were_refused() {
    let mut rig = Rig::plain(64);
    let submit = |rig: &mut Rig| {
        let memory = rig.buf(512).into();
        rig.files
            .submit_read_with(&mut rig.file, at(0, IoFlags::HOOKS), memory)
            .map_err(|no| no.error)
    };
    // Two that have ended but for their hooks, and as many commands as fit in.
    assert_eq!(fill(&mut rig, submit), 3);
    assert_eq!(rig.files.poll(2, |_| unreachable!()), 0);
    assert_eq!(fill(&mut rig, submit), 2);
    assert_eq!(rig.file.inode.in_flight(), 5);
    assert_eq!(rig.write(IoArgs::at(0), &pattern(512)).unwrap(), 512);
    assert_eq!(rig.drain().len(), 5);
    rig.assert_idle();
}

#[test]
fn requests_of_several_files_mix() {
    let mut rig = Rig::plain(256);
    rig.files.queue.depth = 3;
    let mut files: Vec<_> =
        (0..4).map(|i| Script::of([Mapping::mapped(0, 1 << 15, i << 15)], &rig.journal)).collect();
    let mut wanted = 0;
    let mut done = Vec::new();
    for round in 0..50u64 {
        let which = (round * 7 % 4) as usize;
        let (bytes, flags) = match round % 5 {
            0 => (512, IoFlags::empty()),
            1 => (4096, IoFlags::GENERIC),
            2 => (8192, IoFlags::BOUNCE),
            3 => (1024, IoFlags::HOOKS),
            _ => (512, IoFlags::NOFAULT),
        };
        let pos = round * 13 % 32 * 512;
        let io = at(pos, flags).token((which as u64) << 32 | pos);
        let buf = rig.files.queue.buffer(bytes);
        match rig.files.submit_read_with(&mut files[which], io, buf.into()) {
            Ok(()) => wanted += 1,
            Err(rejected) => assert_eq!(name(&rejected.error), "Busy"),
        }
        rig.files.poll(2, |one| done.push(one));
    }
    done.extend(rig.drain());
    assert_eq!(done.len(), wanted);
    assert!(wanted > 20);
    for done in done {
        let from = ((done.token >> 32 << 15) + (done.token & 0xffff_ffff)) as usize;
        let buf = done.memory.unwrap().into_dma().unwrap();
        assert_eq!(done.result.unwrap(), buf.len());
        assert!(buf[..] == rig.device()[from..from + buf.len()]);
    }
    for file in &files {
        assert_eq!(file.inode.in_flight(), 0);
    }
}

#[test]
fn force_wait_gives_the_result_with_the_next_poll() {
    for bytes in [512, 8192] {
        for write in [false, true] {
            let mut rig = Rig::plain(64);
            let memory = rig.buf(bytes).into();
            let io = at(0, IoFlags::FORCE_WAIT).token(11);
            match write {
                true => rig.files.submit_write_with(&mut rig.file, io, memory).unwrap(),
                false => rig.files.submit_read_with(&mut rig.file, io, memory).unwrap(),
            }
            assert_eq!((rig.files.queue.in_flight(), rig.file.inode.in_flight()), (0, 0));
            let mut seen = Vec::new();
            rig.files.poll(8, |done| seen.push((done.token, done.result.unwrap())));
            assert_eq!(seen, [(11, bytes as usize)]);
        }
    }
    // Failure, too, is a result.
    let mut rig = Rig::new(64, []);
    let memory = rig.buf(512).into();
    let io = at(0, IoFlags::FORCE_WAIT);
    rig.files.submit_read_with(&mut rig.file, io, memory).unwrap();
    let done = rig.drain().pop().unwrap();
    assert!(matches!(done.result, Err(Fail::Begin)));
    assert_eq!(done.memory.unwrap().len(), 512);
}

/// A rig whose file is cut into extents of four blocks.
fn deep(depth: usize) -> Rig {
    let mut queue = MockQueue::new(4096);
    (queue.depth, queue.max_transfer) = (depth, 2048);
    let extent = |at: u64| Mapping::mapped(at * 2048, 2048, (511 - at) * 4096);
    Rig::over(queue, (0..512).map(extent).collect::<Vec<_>>())
}

#[test]
fn as_many_requests_fit_as_are_promised() {
    let mut rig = deep(32);
    assert_eq!(rig.files.in_flight_max(), 32);
    let mut want = Vec::new();
    for token in 0..32u64 {
        // Unaligned, bounced, and of several commands; every fourth is a block.
        let io = IoArgs::at(token * 5000 + 100).token(token);
        match token % 4 {
            3 => {
                let buf = rig.buf(512);
                rig.files.submit_read(&mut rig.file, token * 512, buf, token).unwrap();
                want.push((token, 512));
            }
            _ => {
                let memory = Memory::Bytes(vec![0; 4000]);
                rig.files.submit_read_with(&mut rig.file, io, memory).unwrap();
                want.push((token, 4000));
            }
        }
        assert_eq!(rig.files.in_flight(), token as usize + 1);
    }
    assert_eq!(rig.files.queue.waits, 0, "a submission does not wait");
    assert_eq!(rig.files.queue.in_flight(), 32);
    let buf = rig.buf(512);
    let rejected = rig.files.submit_read(&mut rig.file, 0, buf, 99).unwrap_err();
    assert!(FileError::is_busy(&rejected.error), "one more than fit");
    let done = rig.drain();
    let mut came: Vec<_> = done.iter().map(|it| (it.token, *it.result.as_ref().unwrap())).collect();
    came.sort_unstable();
    assert_eq!((came, rig.files.in_flight()), (want, 0));
    for it in done {
        let Some(Memory::Bytes(bytes)) = it.memory else { continue };
        let mut expected = vec![0; 4000];
        rig.files.read_at(&mut rig.file, it.token * 5000 + 100, &mut expected).unwrap();
        assert_eq!(bytes, expected, "{}", it.token);
    }
    rig.assert_idle();
}

#[test]
fn nowait_does_not_use_the_backlog() {
    let mut rig = deep(32);
    for token in 0..16 {
        let memory = Memory::Bytes(vec![0; 4096]);
        rig.files.submit_read_with(&mut rig.file, IoArgs::at(0).token(token), memory).unwrap();
    }
    for (flags, bytes) in [(IoFlags::NOWAIT, 512), (IoFlags::NOWAIT | IoFlags::GENERIC, 2048)] {
        let memory = rig.buf(bytes).into();
        let rejected = rig.files.submit_read_with(&mut rig.file, at(0, flags), memory).unwrap_err();
        assert!(FileError::is_busy(&rejected.error), "{flags:?}");
    }
    assert_eq!(rig.drain().len(), 16);
    rig.assert_idle();
}

#[test]
fn commands_of_the_backlog_that_fail_end_their_requests() {
    let mut rig = deep(2);
    for (token, bytes) in [(0, 4096), (1, 4096)] {
        let memory = Memory::Bytes(vec![0; bytes]);
        rig.files.submit_read_with(&mut rig.file, IoArgs::at(0).token(token), memory).unwrap();
    }
    rig.files.queue.gone = true;
    let mut results: Vec<_> = rig
        .drain()
        .iter()
        .map(|it| (it.token, it.result.as_ref().map(|n| *n).map_err(name)))
        .collect();
    results.sort_by_key(|it| it.0);
    assert_eq!(results, [(0, Ok(4096)), (1, Err("Driver".into()))]);
    assert_eq!(rig.file.state().reports.len(), 1);
    rig.assert_idle();
}
