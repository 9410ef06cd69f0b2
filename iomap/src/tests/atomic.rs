//! ATOMIC: one mapping and one command, or nothing.

use super::*;
use crate::tests::mock::Command;

const ATOMIC: IoFlags = IoFlags::ATOMIC;

fn rig(layout: impl Into<Vec<Mapping>>) -> Rig {
    let mut queue = MockQueue::new(64);
    (queue.max_atomic, queue.max_transfer) = (4096, 8192);
    Rig::over(queue, layout)
}

#[track_caller]
fn assert_refused(rig: &mut Rig, io: IoArgs, memory: Memory) {
    let error = rig.files.write_with(&mut rig.file, io, memory).unwrap_err().error;
    assert_eq!(name(&error), "NotAtomic");
    assert!(rig.files.queue.log.is_empty(), "nothing is written");
    rig.assert_idle();
}

#[test]
fn one_command_writes_all() {
    let mut rig = rig([Mapping::mapped(0, 1 << 15, 0)]);
    for flags in [ATOMIC, ATOMIC | IoFlags::BOUNCE, ATOMIC | IoFlags::DSYNC] {
        rig.files.queue.log.clear();
        rig.write(at(4096, flags), &pattern(4096)).unwrap();
        assert_eq!(rig.files.queue.log.len(), 1, "{flags:?}");
    }
    assert_eq!(rig.files.queue.log, [Command::WriteThrough(4096, 4096)]);
    assert_eq!(rig.device()[4096..8192], pattern(4096));
}

#[test]
fn more_than_the_device_writes_at_once_is_refused() {
    let mapped = Mapping::mapped(0, 1 << 15, 0);
    let mut whole = rig([mapped]);
    let memory = whole.buf(8192);
    assert_refused(&mut whole, at(0, ATOMIC), memory.into());
    // A device that promises nothing.
    whole.files.queue.max_atomic = 0;
    let memory = whole.buf(512);
    assert_refused(&mut whole, at(0, ATOMIC), memory.into());
    // A boundary in between.
    let mut rig = rig([mapped]);
    rig.files.queue.boundary = 1024;
    let memory = rig.buf(1024);
    assert_refused(&mut rig, at(512, ATOMIC), memory.into());
}

#[test]
fn several_mappings_are_refused() {
    let mut rig = rig([Mapping::mapped(0, 1024, 0), Mapping::mapped(1024, 8192, 1024)]);
    let memory = rig.buf(2048);
    assert_refused(&mut rig, at(0, ATOMIC), memory.into());
    rig.write(at(0, ATOMIC), &pattern(1024)).unwrap();
}

#[test]
fn several_buffers_are_refused_unless_they_are_bounced() {
    let mut rig = rig([Mapping::mapped(0, 1 << 15, 0)]);
    let memory = vec![rig.buf(512), rig.buf(512)];
    assert_refused(&mut rig, at(0, ATOMIC), memory.into());
    let memory = vec![rig.filled(&pattern(512)), rig.filled(&pattern(512))];
    let io = at(0, ATOMIC | IoFlags::BOUNCE);
    rig.files.write_with(&mut rig.file, io, memory.into()).unwrap();
    assert_eq!(rig.files.queue.log, [Command::Write(0, 1024)]);
    assert_eq!(rig.device()[..1024], [pattern(512), pattern(512)].concat());
}

#[test]
fn blocks_that_must_be_zeroed_beside_it_are_refused() {
    let mut fresh = rig([Mapping::unwritten(0, 1 << 15, 0)]);
    let memory = fresh.buf(512);
    assert_refused(&mut fresh, at(0, ATOMIC), memory.into());
    fresh.write(at(0, ATOMIC), &pattern(4096)).unwrap();
    let mut last = rig([Mapping::mapped(0, 1 << 15, 0)]);
    last.file.size = 700;
    let memory = last.buf(512);
    assert_refused(&mut last, at(512, ATOMIC), memory.into());
}

#[test]
fn bounced_writes_are_not_cut_where_memory_is_short() {
    let mut rig = rig([Mapping::mapped(0, 8 << 20, 0)]);
    rig.files.queue.largest = 4096;
    rig.files.queue.max_atomic = 8192;
    let data = pattern(8192);
    let io = at(0, ATOMIC | IoFlags::BOUNCE);
    let error = rig.write(io, &data).unwrap_err();
    assert_eq!(name(&error), "NoMemory");
    assert!(rig.files.queue.log.is_empty());
    // Nor where a piece ends.
    let mut queue = MockQueue::new(8192);
    (queue.max_atomic, queue.max_transfer) = (4 << 20, 4 << 20);
    let mut rig = Rig::over(queue, [Mapping::mapped(0, 4 << 20, 0)]);
    let memory = Memory::Bytes(pattern(2 << 20));
    assert_refused(&mut rig, at(0, ATOMIC), memory);
}

#[test]
fn inline_data_and_holes_are_as_without() {
    let mut hole = rig([Mapping::hole(0, 8192)]);
    assert_eq!(name(&hole.write(at(0, ATOMIC), &pattern(512)).unwrap_err()), "NoBlocks");
}
