//! Balance after a failure of each single call: `begin` is followed by one `end`, nothing stays in
//! flight, all memory comes back, and the queue can be used.

use super::*;
use crate::memory::borrowed::Cursor;
use crate::tests::mock::{Event, Journal};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Async,
    /// The shortest way.
    Page,
    Execute,
    BorrowedMemory,
}

/// The arguments of a request.
#[derive(Clone, Copy, Debug)]
struct Case {
    write: bool,
    form: Form,
    flags: IoFlags,
    pos: u64,
    bytes: u64,
}

fn layout() -> Vec<Mapping> {
    vec![
        Mapping::mapped(0, 4096, 8192),
        with(Mapping::mapped(4096, 4096, 16384), MappingFlags::DIRTY),
        Mapping::unwritten(8192, 8192, 20480),
        inline(4096),
    ]
}

/// Plays a case with the call of number `failing` failing; tells whether it was reached.
fn play(case: Case, failing: usize) -> bool {
    let mut queue = MockQueue::new(96);
    if case.form == Form::Page {
        (queue.pages, queue.max_transfer) = (true, 4096);
    }
    let mut rig = Rig::over(queue, layout());
    if case.pos >= 1 << 20 {
        // The file has inline data.
        rig.file.layout = vec![inline(4096)];
        rig.file.inline = vec![7; 4096];
    }
    let case = Case { pos: case.pos & 0xffff, ..case };
    rig.file.state().cached = case.write;
    rig.journal.fail_at(failing);
    let io = at(case.pos, case.flags).token(77);
    let data = pattern(case.bytes);
    let memory = Memory::Dma(rig.filled(&data));
    let (result, memory) = match (case.form, case.write) {
        (Form::Async | Form::Page, write) => {
            let submitted = match write {
                false if case.form == Form::Page => {
                    let buf = memory.into_dma().unwrap();
                    rig.files.submit_read(&mut rig.file, case.pos, buf, 77)
                }
                true => rig.files.submit_write_with(&mut rig.file, io, memory),
                false => rig.files.submit_read_with(&mut rig.file, io, memory),
            };
            match submitted {
                Err(rejected) => (Err(rejected.error), Some(rejected.payload)),
                Ok(()) => {
                    let mut done = rig.drain();
                    let done = done.pop().expect("a result");
                    assert_eq!(done.token, 77);
                    (done.result, done.memory)
                }
            }
        }
        (Form::Execute, write) => {
            let done = match write {
                true => rig.files.write_with(&mut rig.file, io, memory),
                false => rig.files.read_with(&mut rig.file, io, memory),
            };
            match done {
                Ok((memory, n)) => (Ok(n), Some(memory)),
                Err(failed) => (Err(failed.error), failed.payload),
            }
        }
        (Form::BorrowedMemory, true) => {
            let mut cursor = Cursor::new(&data[..]);
            let result = rig.files.write_from(&mut rig.file, io, &mut cursor);
            assert_eq!(cursor.at, *result.as_ref().unwrap_or(&0), "{case:?} {failing}");
            (result, Some(memory))
        }
        (Form::BorrowedMemory, false) => {
            let mut out = data.clone();
            let mut cursor = Cursor::new(&mut out[..]);
            let result = rig.files.read_into(&mut rig.file, io, &mut cursor);
            assert_eq!(cursor.at, *result.as_ref().unwrap_or(&0), "{case:?} {failing}");
            (result, Some(memory))
        }
    };
    let context = format!("{case:?} {failing} {:?}", rig.journal.events());
    rig.assert_idle();
    assert_eq!(memory.expect("memory").len() as u64, case.bytes, "{context}");
    let reached = rig.journal.has_failed();
    match &result {
        Ok(n) => {
            assert_eq!(*n as u64, case.bytes, "{context}");
            // These may fail without harm: `end` after progress, the cache after the write, an
            // allocation that a smaller one replaced.
            let events = rig.journal.events();
            let number = |event: &&Event| !matches!(event, Event::Report);
            if reached {
                let event = events.iter().filter(number).nth(failing).unwrap();
                let harmless = match event {
                    Event::End(n) => *n > 0,
                    Event::Invalidate => failing > 0,
                    Event::Alloc(_) => true,
                    // The page's own way is tried first.
                    Event::Submit(_) => case.form == Form::Page,
                    _ => false,
                };
                assert!(harmless, "{event:?}: {context}");
            }
        }
        Err(_) => assert!(reached, "{context}"),
    }
    // The filesystem heard of it once, unless the same may succeed in another way.
    let reports = rig.file.state().reports.len();
    let heard = match &result {
        Ok(_) => 0,
        Err(error) => usize::from(!crate::FileError::is_fall_back(error)),
    };
    assert_eq!(reports, heard, "{context}");
    if case.flags.contains(IoFlags::HOOKS) && result.is_ok() {
        assert_eq!(rig.file.state().ends.len(), 1);
    }
    // All can be used again.
    let fresh = Journal::default();
    rig.files.queue.journal = fresh.clone();
    rig.file = Script::of([Mapping::mapped(0, 1 << 15, 0)], &fresh);
    rig.journal = fresh;
    assert_eq!(rig.write(IoArgs::at(0), &pattern(8192)).unwrap(), 8192, "{context}");
    assert_eq!(rig.read(IoArgs::at(512), 512).unwrap(), pattern(8192)[512..1024]);
    assert_eq!(rig.read(IoArgs::at(0), 8192).unwrap(), pattern(8192));
    rig.assert_idle();
    reached
}

fn every_call(write: bool, form: Form, flags: IoFlags, ranges: &[(u64, u64)]) {
    for &(pos, bytes) in ranges {
        let case = Case { write, form, flags, pos, bytes };
        let mut calls = 0;
        while play(case, calls) {
            calls += 1;
            assert!(calls < 500, "{case:?}");
        }
        // A read of one command asks the filesystem once, and the device.
        let least = if write { 3 } else { 2 };
        assert!(calls >= least, "{case:?}: {calls} calls");
    }
}

/// One block, a run of all kinds of blocks, and inline data.
const READS: [(u64, u64); 4] = [(512, 512), (2048, 8192), (512, 12288), (1 << 20, 1024)];
const WRITES: [(u64, u64); 5] =
    [(512, 512), (2048, 4096), (512, 10240), (8704, 512), (1 << 20, 1024)];

#[test]
fn whatever_call_fails_in_a_read() {
    for form in [Form::Async, Form::Execute, Form::BorrowedMemory] {
        for flags in [IoFlags::empty(), IoFlags::GENERIC, IoFlags::HOOKS, IoFlags::FORCE_WAIT] {
            if form == Form::Async || !flags.contains(IoFlags::FORCE_WAIT) {
                every_call(false, form, flags, &READS);
            }
        }
        every_call(false, form, IoFlags::PARTIAL, &READS);
    }
    let pages = [(0, 4096), (2048, 4096), (8192, 4096), (1024, 4096)];
    every_call(false, Form::Page, IoFlags::empty(), &pages);
}

#[test]
fn whatever_call_fails_in_a_write() {
    for form in [Form::Async, Form::Execute, Form::BorrowedMemory] {
        let more = IoFlags::DSYNC | IoFlags::HOOKS;
        for flags in [IoFlags::empty(), IoFlags::HOOKS, IoFlags::DSYNC, more, IoFlags::PARTIAL] {
            every_call(true, form, flags, &WRITES);
        }
    }
}

#[test]
fn whatever_call_fails_when_it_is_bounced() {
    for form in [Form::Async, Form::Execute] {
        for flags in [IoFlags::BOUNCE, IoFlags::BOUNCE | IoFlags::HOOKS] {
            every_call(false, form, flags, &READS);
            every_call(true, form, flags | IoFlags::DSYNC, &WRITES);
        }
    }
}

#[test]
fn refused_request_leaves_none_in_flight() {
    let mut rig = Rig::plain(8);
    for (pos, bytes, flags) in [
        (1, 512, IoFlags::empty()),
        (0, 512, IoFlags::ATOMIC),
        (0, 512, IoFlags::NOWAIT | IoFlags::BOUNCE),
        (1 << 45, 8192, IoFlags::empty()),
        (0, 8192, IoFlags::FSBLOCK_ALIGNED),
    ] {
        let _ = rig.read(at(pos, flags), bytes);
        let _ = rig.write(at(pos, flags), &pattern(bytes));
        rig.assert_idle();
    }
}
