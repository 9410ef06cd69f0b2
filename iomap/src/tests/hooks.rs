//! The filesystem's hooks.

use super::*;
use crate::contract::open_file::EndIo;
use crate::tests::mock::Event;

const HOOKS: IoFlags = IoFlags::HOOKS;

#[test]
fn each_command_is_shown_before_it_goes_and_the_end_after_the_last() {
    let mut rig = Rig::new(64, [Mapping::mapped(0, 1024, 4096), Mapping::mapped(1024, 8192, 8192)]);
    rig.read(at(512, HOOKS), 4096).unwrap();
    let state = rig.file.state();
    assert_eq!(state.submits, [(512, 4608, 512), (1024, 8192, 2048), (3072, 10240, 1536)]);
    let end = EndIo {
        pos: 512,
        bytes: 4096,
        write: false,
        unwritten: false,
        failed: false,
        durable: false,
        private: 0,
    };
    assert_eq!(state.ends, [end]);
    drop(state);
    let events = rig.journal.events();
    let hook = events.iter().position(|&event| event == Event::EndIo).unwrap();
    assert!(!events[hook..].iter().any(|event| matches!(event, Event::Complete(_))));
    for (i, event) in events.iter().enumerate() {
        if let Event::Submit(_) = event {
            assert_eq!(events[i - 1], Event::SubmitIo);
        }
    }
}

#[test]
fn the_hooks_of_a_write_hear_of_zeroes_and_of_unwritten_blocks() {
    let mut rig = Rig::new(64, [Mapping::unwritten(0, 8192, 0)]);
    rig.write(at(512, HOOKS), &pattern(512)).unwrap();
    let state = rig.file.state();
    assert_eq!(state.submits[..2], [(0, 0, 512), (512, 512, 512)]);
    assert_eq!(state.submits[2..].iter().map(|submit| submit.2).sum::<usize>(), 3072);
    let end = EndIo {
        pos: 512,
        bytes: 512,
        write: true,
        unwritten: true,
        failed: false,
        durable: false,
        private: 0,
    };
    assert_eq!(state.ends, [end]);
}

#[test]
fn an_error_of_submit_ends_the_request() {
    for (flags, bytes) in [(HOOKS, 4096), (HOOKS | IoFlags::BOUNCE, 4096)] {
        let mut rig = Rig::plain(64);
        rig.file.state().fail_submit_io = true;
        let memory = rig.buf(bytes).into();
        let rejected = rig.files.submit_read_with(&mut rig.file, at(0, flags), memory).unwrap_err();
        assert!(matches!(rejected.error, Fail::Hook));
        assert_eq!(rejected.payload.len() as u64, bytes);
        assert!(rig.files.queue.log.is_empty());
        rig.assert_idle();
        // In the middle: write back, begin, submit hook, submit, and again the hook.
        let mut rig = Rig::plain(64);
        rig.journal.fail_at(if flags == HOOKS { 4 } else { 6 });
        let error = rig.read(at(0, flags), bytes).unwrap_err();
        assert!(matches!(error, Fail::Hook), "{error} {:?}", rig.journal.events());
        let end = rig.file.state().ends[0];
        assert!(end.failed);
        assert_eq!(rig.files.queue.log.len(), 1, "nothing follows");
        rig.assert_idle();
    }
}

#[test]
fn an_error_of_the_end_is_the_result_unless_there_is_one() {
    let mut rig = Rig::plain(64);
    rig.file.state().fail_end_io = true;
    assert!(matches!(rig.read(at(0, HOOKS), 512), Err(Fail::Hook)));
    rig.files.queue.failing = vec![1];
    assert_eq!(name(&rig.read(at(0, HOOKS), 512).unwrap_err()), "Bio");
    let state = rig.file.state();
    assert_eq!(state.ends.iter().map(|end| end.failed).collect::<Vec<_>>(), [false, true]);
    assert_eq!(state.reports.len(), 2);
}

#[test]
fn the_end_is_told_what_of_a_part_was_written() {
    let data = pattern(4096);
    let mut rig = Rig::new(64, [Mapping::unwritten(0, 8192, 0)]);
    let mut source = crate::Cursor::new(super::bounce::Torn::source(&data, 3000));
    let io = at(0, HOOKS | IoFlags::PARTIAL);
    assert_eq!(rig.files.write_from(&mut rig.file, io, &mut source).unwrap(), 2048);
    let end = EndIo {
        pos: 0,
        bytes: 2048,
        write: true,
        unwritten: true,
        failed: false,
        durable: false,
        private: 0,
    };
    assert_eq!(rig.file.state().ends, [end]);
}

#[test]
fn without_the_flag_nobody_is_called() {
    let mut rig = Rig::plain(64);
    rig.read(IoArgs::at(0), 4096).unwrap();
    rig.write(IoArgs::at(0), &pattern(4096)).unwrap();
    assert!(rig.file.state().submits.is_empty() && rig.file.state().ends.is_empty());
}
