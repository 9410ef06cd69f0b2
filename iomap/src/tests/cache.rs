//! Direct I/O beside cached data.

use super::*;
use crate::tests::mock::Event;

#[test]
fn a_read_writes_back_what_is_dirty_first() {
    for flags in [IoFlags::empty(), IoFlags::GENERIC, IoFlags::BOUNCE] {
        let mut rig = Rig::plain(64);
        rig.file.size = 5000;
        rig.file.state().dirty = true;
        rig.read(at(512, flags), 1024).unwrap();
        assert_eq!(rig.file.state().write_backs, [(512, 1024)]);
        let events = rig.journal.events();
        assert_eq!(events[..2], [Event::WriteBack, Event::Begin], "{flags:?}");
        // Only the range that is read is written back, not bytes after the end.
        rig.file.state().dirty = true;
        rig.read(at(4608, flags), 2048).unwrap();
        assert_eq!(rig.file.state().write_backs[1], (4608, 392));
        assert!(rig.file.state().invalidations.is_empty());
    }
}

#[test]
fn a_read_fails_with_what_writing_back_fails_with() {
    for flags in [IoFlags::empty(), IoFlags::GENERIC] {
        let mut rig = Rig::plain(64);
        rig.file.state().dirty = true;
        rig.journal.fail_at(0);
        assert!(matches!(rig.read(at(0, flags), 512), Err(Fail::Hook)));
        assert!(rig.file.asked.is_empty() && rig.files.queue.log.is_empty());
        assert_eq!(rig.file.state().reports, ["hook"]);
        rig.assert_idle();
    }
}

#[test]
fn a_write_drops_cached_data_before_and_after() {
    let mut rig = Rig::plain(64);
    rig.file.state().cached = true;
    rig.write(IoArgs::at(512), &pattern(4096)).unwrap();
    assert_eq!(rig.file.state().invalidations, [(512, 4096); 2]);
    let events = rig.journal.events();
    assert_eq!(events[0], Event::Invalidate);
    let last = events.iter().rposition(|&event| event == Event::Invalidate).unwrap();
    let done = |event: &Event| matches!(event, Event::Complete(_));
    assert!(last > events.iter().rposition(done).unwrap(), "{events:?}");
}

#[test]
fn data_that_cannot_be_dropped_sends_the_write_to_the_cache() {
    let mut rig = Rig::plain(64);
    rig.file.state().pinned = true;
    let memory = rig.buf(512).into();
    let rejected = rig.files.submit_write_with(&mut rig.file, IoArgs::at(512), memory).unwrap_err();
    assert_eq!(name(&rejected.error), "FallBack");
    assert_eq!(rejected.payload.len(), 512);
    assert!(rig.file.asked.is_empty() && rig.files.queue.log.is_empty());
    assert!(rig.file.state().reports.is_empty(), "the same may succeed in another way");
    rig.assert_idle();
}

#[test]
fn failed_invalidation_is_not_an_error_of_the_write() {
    let mut rig = Rig::plain(64);
    rig.file.state().cached = true;
    // The second invalidation, behind: invalidate, begin, submit, end, complete.
    rig.journal.fail_at(5);
    assert_eq!(rig.write(IoArgs::at(0), &pattern(512)).unwrap(), 512);
    assert!(rig.journal.has_failed());
}

#[test]
fn a_write_that_failed_drops_nothing_afterwards() {
    let mut rig = Rig::plain(64);
    rig.file.state().cached = true;
    rig.files.queue.failing = vec![0];
    rig.write(IoArgs::at(0), &pattern(512)).unwrap_err();
    assert_eq!(rig.file.state().invalidations.len(), 1);
}

#[test]
fn a_part_that_was_written_is_dropped_from_the_cache() {
    let mut rig = Rig::plain(64);
    rig.file.state().cached = true;
    let data = pattern(4096);
    let mut source = crate::Cursor::new(super::bounce::Torn::source(&data, 3000));
    let io = at(512, IoFlags::PARTIAL);
    assert_eq!(rig.files.write_from(&mut rig.file, io, &mut source).unwrap(), 2048);
    assert_eq!(rig.file.state().invalidations, [(512, 4096), (512, 2048)]);
}
