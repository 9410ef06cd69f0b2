//! The simple path: when it is taken, and what it promises.

use super::*;
use crate::queue::counters::Reason;
use crate::tests::mock::{Command, Event};

/// Reads one block by each form of the path, and tells for which reason it was not simple.
fn reason_of(rig: &mut Rig, io: IoArgs, bytes: u64) -> Option<Reason> {
    use Reason::*;
    let all = [
        Off,
        Write,
        Memory,
        Length,
        Flags,
        Hooks,
        DoneBefore,
        EndOfFile,
        Encoded,
        NotMapped,
        PartlyMapped,
        Integrity,
        Split,
    ];
    let before = rig.files.counters();
    let _ = rig.read(io, bytes);
    let after = rig.files.counters();
    let reasons: Vec<_> =
        all.into_iter().filter(|&one| after.fell_back(one) > before.fell_back(one)).collect();
    match reasons[..] {
        [] => {
            assert_eq!((after.simple, after.generic), (before.simple + 1, before.generic));
            None
        }
        [one] => {
            assert_eq!(after.simple, before.simple);
            Some(one)
        }
        _ => panic!("{reasons:?}"),
    }
}

#[test]
fn a_block_or_less_is_simple() {
    let mut rig = Rig::plain(64);
    rig.file.block_size = 2048;
    for flags in [IoFlags::empty(), IoFlags::NOWAIT, IoFlags::NOFAULT, IoFlags::DONTCACHE] {
        for bytes in [512, 1024, 2048] {
            assert_eq!(reason_of(&mut rig, at(512, flags), bytes), None);
        }
    }
    assert_eq!(reason_of(&mut rig, at(2048, IoFlags::FSBLOCK_ALIGNED), 2048), None);
    rig.file.size = 1536;
    assert_eq!(reason_of(&mut rig, IoArgs::at(1024), 512), None, "up to the last byte");
    rig.assert_idle();
}

#[test]
fn unsuitable_reads_take_the_generic_path() {
    let plain = || Rig::plain(64);
    assert_eq!(reason_of(&mut plain(), IoArgs::at(0), 4608), Some(Reason::Length));
    assert_eq!(reason_of(&mut plain(), IoArgs::at(0), 0), Some(Reason::Length));
    assert_eq!(reason_of(&mut plain(), at(0, IoFlags::HOOKS), 512), Some(Reason::Hooks));
    assert_eq!(
        reason_of(&mut plain(), IoArgs::at(0).done_before(1), 512),
        Some(Reason::DoneBefore)
    );
    for flags in [IoFlags::FORCE_WAIT, IoFlags::PARTIAL, IoFlags::BOUNCE, IoFlags::GENERIC] {
        assert_eq!(reason_of(&mut plain(), at(0, flags), 512), Some(Reason::Flags), "{flags:?}");
    }
    for size in [0, 511, 1, 100] {
        let mut rig = plain();
        rig.file.size = size;
        assert_eq!(reason_of(&mut rig, IoArgs::at(0), 512), Some(Reason::EndOfFile));
    }
    let mut rig = plain();
    rig.file.plain = false;
    assert_eq!(reason_of(&mut rig, IoArgs::at(0), 512), Some(Reason::Encoded));
    let mut rig = plain();
    let n = rig.files.counters().fell_back(Reason::Write);
    rig.write(IoArgs::at(0), &pattern(512)).unwrap();
    assert_eq!(rig.files.counters().fell_back(Reason::Write), n + 1, "only reads");
    for (integrity, must_bounce) in [(true, false), (false, true)] {
        let mut queue = MockQueue::new(64);
        (queue.integrity, queue.must_bounce) = (integrity, must_bounce);
        let mut rig = Rig::over(queue, [Mapping::mapped(0, 1 << 15, 0)]);
        assert_eq!(reason_of(&mut rig, IoArgs::at(0), 512), Some(Reason::Integrity));
        let bounced = rig.files.counters().bounced;
        assert_eq!(bounced, u64::from(must_bounce));
    }
}

#[test]
fn forms_that_wait_and_forms_that_do_not_are_alike() {
    let mut rig = Rig::plain(64);
    let want = rig.device()[512..1024].to_vec();
    assert_eq!(rig.read(IoArgs::at(512), 512).unwrap(), want);
    assert_eq!(rig.files.queue.waits, 1, "by polling");
    let buf = rig.buf(512);
    rig.files.submit_read(&mut rig.file, 512, buf, 1).unwrap();
    let buf = rig.buf(512);
    rig.files.submit_read_with(&mut rig.file, IoArgs::at(512).token(2), buf.into()).unwrap();
    // A call that waits while others are in flight returns its own result, and a poll the others.
    let buf = rig.buf(512);
    let (buf, n) = rig.read_dma(IoArgs::at(1024), buf).unwrap();
    assert_eq!((n, &buf[..]), (512, &rig.device()[1024..1536]));
    let mut tokens: Vec<_> = rig.drain().iter().map(|done| done.token).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [1, 2]);
    assert_eq!(rig.files.counters().simple, 4);
    assert_eq!(rig.files.counters().generic, 0);
    rig.assert_idle();
}

#[test]
fn waiting_for_room_succeeds() {
    let mut rig = Rig::plain(64);
    for token in 0..3 {
        let buf = rig.buf(512);
        rig.files.submit_read(&mut rig.file, 0, buf, token).unwrap();
    }
    rig.read(IoArgs::at(512), 512).unwrap();
    assert_eq!((rig.files.counters().simple, rig.drain().len()), (4, 3));
    rig.assert_idle();
}

#[test]
fn the_count_of_requests_is_raised_before_mapping_and_dropped_on_every_way_out() {
    struct Watched(Script, Vec<usize>);
    impl crate::Mapper for Watched {
        type OpenFile = MockInode;
        fn open_file(&self) -> &crate::FileRef<MockInode> {
            self.0.open_file()
        }
        fn size(&self) -> u64 {
            self.0.size
        }
        fn block_size(&self) -> u32 {
            4096
        }
        fn begin(&mut self, pos: u64, length: u64, op: crate::Op) -> Result<Mapping, Fail> {
            self.1.push(self.0.inode.in_flight());
            self.0.begin(pos, length, op)
        }
        fn end(
            &mut self,
            mapping: &Mapping,
            pos: u64,
            length: u64,
            processed: u64,
            op: crate::Op,
        ) -> Result<(), Fail> {
            self.1.push(self.0.inode.in_flight());
            self.0.end(mapping, pos, length, processed, op)
        }
    }
    // By the ways of a page, of a block, and of more.
    for (flags, bytes) in
        [(None, 4096), (Some(IoFlags::empty()), 512), (Some(IoFlags::GENERIC), 4096)]
    {
        let mut queue = MockQueue::new(64);
        (queue.pages, queue.max_transfer) = (true, 4096);
        let mut rig = Rig::over(queue, []);
        let mut file = Watched(Script::of([Mapping::mapped(0, 4096, 0)], &rig.journal), vec![]);
        let read = |rig: &mut Rig, file: &mut Watched| {
            let buf = rig.buf(bytes);
            match flags {
                None => rig.files.submit_read(file, 0, buf, 0),
                Some(flags) => rig.files.submit_read_with(file, at(0, flags), buf.into()),
            }
        };
        read(&mut rig, &mut file).unwrap();
        assert_eq!((&file.1[..], file.0.inode.in_flight()), (&[1, 1][..], 1), "{flags:?}");
        let inode = file.0.inode.clone();
        let polled = rig.files.poll(1, |done| {
            assert_eq!(inode.in_flight(), 0, "who is told finds it lowered");
            drop(done);
        });
        assert_eq!(polled, 1);
        // A mapping that is not there, one that is for the other path, one that breaks the
        // contract, a queue that is full, and a device that fails.
        for bad in [None, Some(Mapping::hole(0, 4096)), Some(Mapping::mapped(0, 0, 0))] {
            file.0.mappings = bad.into_iter().collect();
            file.0.layout = bad.into_iter().filter(|bad| bad.length > 0).collect();
            let _ = read(&mut rig, &mut file);
            rig.drain();
            assert_eq!(file.0.inode.in_flight(), 0);
            assert!(file.1.iter().all(|&count| count == 1), "held until the end: {:?}", file.1);
        }
        file.0.layout = vec![Mapping::mapped(0, 4096, 0)];
        for _ in 0..3 {
            read(&mut rig, &mut file).unwrap();
        }
        assert_eq!(name(&read(&mut rig, &mut file).unwrap_err().error), "Busy");
        assert_eq!(file.0.inode.in_flight(), 3);
        rig.files.queue.failing = (0..64).collect();
        rig.drain();
        assert_eq!(file.0.inode.in_flight(), 0);
        file.0.assert_balanced();
    }
}

#[test]
fn a_page_is_read_as_any_other_block() {
    let rig = |layout: &[Mapping]| {
        let mut queue = MockQueue::new(64);
        (queue.pages, queue.max_transfer) = (true, 4096);
        Rig::over(queue, layout)
    };
    let mapped = Mapping::mapped(0, 1 << 15, 0);
    let read = |rig: &mut Rig, pos| {
        let buf = rig.buf(4096);
        let result = rig.files.submit_read(&mut rig.file, pos, buf, 7);
        result.map_err(|rejected| {
            assert_eq!(rejected.payload.len(), 4096, "it comes back");
            name(&rejected.error)
        })
    };
    let mut plain = rig(&[mapped]);
    plain.file.size = 10_000;
    read(&mut plain, 512).unwrap();
    let submit = Event::Submit(Command::Read(512, 4096));
    let want = [Event::Begin, Event::End(4096), submit];
    assert_eq!(plain.journal.events(), want);
    let done = plain.drain().pop().unwrap();
    assert_eq!((done.token, done.result.unwrap()), (7, 4096));
    assert_eq!(done.memory.unwrap().into_dma().unwrap()[..], plain.device()[512..4608]);
    // Dirty data is written first, on the other path.
    plain.file.state().dirty = true;
    let before = plain.journal.events().len();
    read(&mut plain, 512).unwrap();
    assert_eq!(plain.journal.events()[before..before + 2], [Event::WriteBack, Event::Begin]);
    plain.drain();
    assert_eq!(plain.files.counters().simple, 1);
    // The end of the file, unaligned ranges and encrypted files do not take the simple path.
    read(&mut plain, 8192).unwrap();
    assert_eq!(plain.files.counters().fell_back(Reason::EndOfFile), 1);
    assert_eq!(plain.drain()[0].result.as_ref().unwrap(), &1808);
    assert_eq!(read(&mut plain, 100), Err("Misaligned".into()));
    plain.file.plain = false;
    read(&mut plain, 0).unwrap();
    assert_eq!(plain.files.counters().fell_back(Reason::Encoded), 2);
    plain.drain();
    // Mappings that one command cannot read.
    let flagged =
        [MappingFlags::INTEGRITY, MappingFlags::ANON_WRITE].map(|flag| with(mapped, flag));
    let hole = Mapping::hole(0, 1 << 15);
    for mapping in [hole, flagged[0], flagged[1]] {
        let mut rig = rig(&[mapping]);
        read(&mut rig, 0).unwrap();
        assert_eq!((rig.files.counters().simple, rig.file.ends()), (0, &[4096][..]), "{mapping:?}");
        let done = rig.drain().pop().unwrap().memory.unwrap().into_dma().unwrap();
        assert_eq!(done.iter().all(|&byte| byte == 0), mapping == hole);
        rig.assert_idle();
    }
    // Errors: the filesystem's own again, a contract that is broken, a device that fails.
    let mut bad = rig(&[]);
    bad.file.again = true;
    assert_eq!(read(&mut bad, 0), Err("Again".into()));
    assert_eq!(bad.file.asked.len(), 1);
    bad.file.mappings = [with(mapped, MappingFlags::STALE)].into();
    assert_eq!(read(&mut bad, 0), Err("BadMapping".into()));
    let mut bad = rig(&[mapped]);
    bad.files.queue.failing = vec![0];
    read(&mut bad, 0).unwrap();
    assert_eq!(bad.files.poll(1, |_| unreachable!()), 0, "deferred");
    assert_eq!(bad.drain()[0].result.as_ref().map_err(name), Err("Bio".into()));
    assert_eq!(bad.file.state().reports.len(), 1);
    bad.assert_idle();
}

#[test]
fn a_mapping_that_one_command_cannot_read_is_served_by_the_other_path() {
    let mapped = Mapping::mapped(0, 1 << 15, 0);
    let split = || {
        let mut queue = MockQueue::new(64);
        queue.max_transfer = 512;
        queue
    };
    for (mapping, queue, reason) in [
        (Mapping::hole(0, 1 << 15), MockQueue::new(64), Reason::NotMapped),
        (Mapping::unwritten(0, 1 << 15, 0), MockQueue::new(64), Reason::NotMapped),
        (Mapping::mapped(0, 512, 0), MockQueue::new(64), Reason::PartlyMapped),
        (with(mapped, MappingFlags::INTEGRITY), MockQueue::new(64), Reason::Integrity),
        (with(mapped, MappingFlags::ANON_WRITE), MockQueue::new(64), Reason::Integrity),
        (mapped, split(), Reason::Split),
    ] {
        let mut rig = Rig::over(queue, [mapping, Mapping::mapped(512, 4096, 512)]);
        assert_eq!(reason_of(&mut rig, IoArgs::at(0), 1024), Some(reason), "{mapping:?}");
        // The generic path continues from the mapping: `begin` is called once for it.
        assert_eq!(rig.file.asked[0], (0, 1024));
        assert!(rig.file.asked[1..].iter().all(|&(pos, _)| pos == 512), "{:?}", rig.file.asked);
        assert!(rig.file.ends()[0] > 0);
        assert!(rig.file.state().reports.is_empty(), "the change of paths is not reported");
        rig.assert_idle();
    }
}

#[test]
fn the_path_that_was_not_taken_is_never_seen_by_the_caller() {
    // Forms that wait, and forms that do not; the result is that of the generic path.
    let mut rig = Rig::new(64, [Mapping::hole(0, 1 << 15)]);
    assert_eq!(rig.read(IoArgs::at(0), 512).unwrap(), [0; 512]);
    let buf = rig.buf(512);
    rig.files.submit_read(&mut rig.file, 0, buf, 1).unwrap();
    let buf = rig.buf(512);
    rig.files.submit_read_with(&mut rig.file, IoArgs::at(0).token(2), buf.into()).unwrap();
    for done in rig.drain() {
        assert_eq!(done.result.unwrap(), 512);
        assert_eq!(done.memory.unwrap().into_dma().unwrap()[..], [0; 512]);
    }
    assert_eq!(rig.files.counters().fell_back(Reason::NotMapped), 3);
}

#[test]
fn an_again_of_the_filesystem_is_neither_hidden_nor_tried_in_another_way() {
    for nowait in [IoFlags::NOWAIT, IoFlags::empty()] {
        let mut rig = Rig::new(64, []);
        rig.file.again = true;
        assert!(matches!(rig.read(at(0, nowait), 512), Err(Fail::Again)));
        let buf = rig.buf(512);
        let rejected = rig.files.submit_read(&mut rig.file, 0, buf, 1).unwrap_err();
        assert!(matches!(rejected.error, Fail::Again));
        let buf = rig.buf(512);
        let rejected =
            rig.files.submit_read_with(&mut rig.file, at(0, nowait), buf.into()).unwrap_err();
        assert!(matches!(rejected.error, Fail::Again));
        assert_eq!((rig.file.asked.len(), rig.files.counters().generic), (3, 0));
        rig.assert_idle();
    }
}

#[test]
fn misaligned_reads_are_errors_and_do_not_fall_back() {
    for (pos, bytes, flags) in [
        (100, 512, IoFlags::empty()),
        (512, 500, IoFlags::empty()),
        (512, 512, IoFlags::FSBLOCK_ALIGNED),
    ] {
        let mut rig = Rig::plain(64);
        assert_eq!(name(&rig.read(at(pos, flags), bytes).unwrap_err()), "Misaligned");
        let counters = rig.files.counters();
        assert_eq!((counters.simple, counters.generic), (0, 0));
        assert!(rig.journal.count(|event| *event != Event::Report) == 0, "nobody was asked");
    }
}

#[test]
fn the_state_of_a_request_goes_with_its_command() {
    // A line of the table of commands: this beside the buffer, and 24 bytes of the driver.
    assert!(size_of::<Tag<MockInode>>() + size_of::<DmaBuf>() <= 40);
    let mut rig = Rig::plain(64);
    let allocated = rig.journal.count(|event| matches!(event, Event::Alloc(_)));
    let buf = rig.buf(512);
    let iova = buf.iova();
    rig.files.submit_read(&mut rig.file, 0, buf, 1).unwrap();
    assert_eq!(rig.files.queue.iovas, [iova], "the caller's buffer itself");
    assert_eq!(rig.journal.count(|event| matches!(event, Event::Alloc(_))), allocated);
    let first = rig.files.state.requests.take_idle().map(|request| request.index);
    assert_eq!(first, Some(0), "no entry of the table of requests");
    assert_eq!(rig.files.poll(1, |done| assert_eq!(done.token, 1)), 1);
}

#[test]
fn a_mapping_is_ended_before_its_command_is_submitted() {
    let mut rig = Rig::plain(64);
    let buf = rig.buf(512);
    rig.files.submit_read(&mut rig.file, 0, buf, 1).unwrap();
    let submit = Event::Submit(Command::Read(0, 512));
    assert_eq!(rig.journal.events(), [Event::Begin, Event::End(512), submit]);
    // With nothing, if it was not used.
    let mut rig = Rig::new(64, []);
    rig.file.mappings = [Mapping::mapped(0, 0, 0)].into();
    rig.read(IoArgs::at(0), 512).unwrap_err();
    assert_eq!(rig.file.ends(), [0]);
}

#[test]
fn a_command_is_gone_from_the_queue_when_its_end_is_told() {
    let mut rig = Rig::plain(64);
    for round in 0..10 {
        for token in 0..3 {
            let buf = rig.buf(512);
            rig.files.submit_read(&mut rig.file, 0, buf, token).unwrap();
        }
        // Each completion makes room for one more request.
        let mut done = 0;
        assert_eq!(rig.files.poll(1, |_| done += 1), 1);
        assert_eq!(rig.file.inode.in_flight(), 2);
        let buf = rig.buf(512);
        rig.files.submit_read(&mut rig.file, 0, buf, 4).unwrap();
        while rig.files.poll(1, |_| done += 1) > 0 {}
        assert_eq!(done, 4, "{round}");
    }
    assert_eq!(rig.files.counters().simple, 40);
}

#[test]
fn errors_reach_the_filesystem_once_but_for_those_that_may_be_tried_again() {
    for flags in [IoFlags::empty(), IoFlags::GENERIC] {
        let mut rig = Rig::plain(64);
        rig.files.queue.failing = vec![0];
        rig.read(at(512, flags), 512).unwrap_err();
        assert_eq!(rig.file.state().reports.len(), 1, "of the device");
        rig.file.layout = vec![];
        rig.read(at(512, flags), 512).unwrap_err();
        assert_eq!(rig.file.state().reports[1], "begin");
        rig.read(at(100, flags), 512).unwrap_err();
        assert_eq!(rig.file.state().reports.len(), 3, "of the caller");
        rig.file.again = true;
        rig.read(at(512, flags), 512).unwrap_err();
        rig.file.state().dirty = true;
        rig.read(at(512, flags | IoFlags::NOWAIT), 512).unwrap_err();
        assert_eq!(rig.file.state().reports.len(), 3, "{:?}", rig.file.state().reports);
    }
    let mut rig = Rig::plain(64);
    for token in 0..4 {
        let buf = rig.buf(512);
        let _ = rig.files.submit_read(&mut rig.file, 0, buf, token);
    }
    assert!(rig.file.state().reports.is_empty(), "a full queue");
}

#[test]
fn the_path_can_be_switched_off_and_on_while_it_runs() {
    let mut rig = Rig::plain(64);
    let want = rig.device()[..512].to_vec();
    for (on, reason) in [(true, None), (false, Some(Reason::Off)), (true, None)] {
        rig.files.set_simple(on);
        assert_eq!(reason_of(&mut rig, IoArgs::at(0), 512), reason);
        let before = rig.files.counters();
        let buf = rig.buf(512);
        rig.files.submit_read(&mut rig.file, 0, buf, 1).unwrap();
        let done = rig.drain().pop().unwrap();
        assert_eq!(done.memory.unwrap().into_dma().unwrap()[..], want);
        let after = rig.files.counters();
        assert_eq!(after.simple - before.simple, u64::from(on));
        assert_eq!(after.generic - before.generic, u64::from(!on));
    }
}
