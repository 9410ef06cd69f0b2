//! DSYNC: Force Unit Access where that is enough, a flush where it is not.

use super::*;
use crate::tests::mock::Command;

const DSYNC: IoFlags = IoFlags::DSYNC;

fn log_of(rig: &mut Rig, io: IoArgs, bytes: u64) -> Vec<Command> {
    rig.files.queue.log.clear();
    assert_eq!(rig.write(io, &pattern(bytes)).unwrap() as u64, bytes);
    rig.assert_idle();
    rig.files.queue.log.clone()
}

#[test]
fn plain_overwrites_are_written_through_and_not_flushed() {
    let mut rig = Rig::plain(64);
    let log = log_of(&mut rig, at(512, DSYNC), 3072);
    assert_eq!(log, [Command::WriteThrough(512, 2048), Command::WriteThrough(2560, 1024)]);
    let log = log_of(&mut rig, IoArgs::at(512), 3072);
    assert_eq!(log, [Command::Write(512, 2048), Command::Write(2560, 1024)]);
    // Without a volatile cache, a write needs neither FUA nor a flush.
    rig.files.queue.volatile_cache = false;
    assert_eq!(log_of(&mut rig, at(512, DSYNC), 512), [Command::Write(512, 512)]);
}

#[test]
fn write_that_depends_on_metadata_is_flushed_once_at_the_end() {
    let plain = Mapping::mapped(0, 8192, 0);
    for (mapping, flushed) in [
        (with(plain, MappingFlags::DIRTY), true),
        (with(plain, MappingFlags::SHARED), true),
        (with(plain, MappingFlags::NEW), true),
        (Mapping::unwritten(0, 8192, 0), true),
        (with(plain, MappingFlags::MERGED), false),
    ] {
        let mut rig = Rig::new(64, [mapping]);
        let log = log_of(&mut rig, at(0, DSYNC), 8192);
        let flushes = log.iter().filter(|&&command| command == Command::Flush).count();
        assert_eq!((flushes, log.last() == Some(&Command::Flush)), (usize::from(flushed), flushed));
        let through = log.iter().filter(|command| matches!(command, Command::WriteThrough(..)));
        assert_eq!(through.count(), if flushed { 0 } else { 4 }, "{mapping:?}");
        assert!(!log_of(&mut rig, IoArgs::at(0), 8192).contains(&Command::Flush), "not asked for");
    }
}

#[test]
fn one_command_that_is_not_written_through_takes_a_flush() {
    let dirty = with(Mapping::mapped(2048, 8192, 16384), MappingFlags::DIRTY);
    let mut rig = Rig::new(64, [Mapping::mapped(0, 2048, 0), dirty]);
    let log = log_of(&mut rig, at(0, DSYNC), 4096);
    assert_eq!(log, [Command::WriteThrough(0, 2048), Command::Write(16384, 2048), Command::Flush]);
}

#[test]
fn the_flush_follows_all_data() {
    let mut rig = Rig::new(64, [Mapping::unwritten(0, 1 << 15, 0)]);
    log_of(&mut rig, at(512, DSYNC), 8192);
    let events = rig.journal.events();
    let flush = crate::tests::mock::Event::Submit(Command::Flush);
    let flushed = events.iter().position(|&event| event == flush).unwrap();
    let written = |event: &crate::tests::mock::Event| {
        matches!(event, crate::tests::mock::Event::Complete(Command::Write(..)))
    };
    assert_eq!(events[..flushed].iter().filter(|event| written(event)).count(), 7);
    assert!(!events[flushed..].iter().any(written));
}

#[test]
fn zeroes_behind_the_end_of_the_file_are_as_durable_as_the_data() {
    let mut rig = Rig::plain(64);
    rig.file.size = 512;
    let log = log_of(&mut rig, at(0, DSYNC), 512);
    let durable = log.contains(&Command::Flush)
        || log.iter().all(|command| matches!(command, Command::WriteThrough(..)));
    assert!(durable && log.len() > 1, "{log:?}");
}

#[test]
fn inline_data_is_flushed() {
    let mut rig = Rig::new(8, [inline(4096)]);
    rig.file.inline = vec![0; 512];
    assert_eq!(log_of(&mut rig, at(0, DSYNC), 512), [Command::Flush]);
}

#[test]
fn a_flush_that_fails_is_the_result() {
    let mut rig = Rig::new(64, [Mapping::unwritten(0, 8192, 0)]);
    // The flush fails on the device.
    rig.files.queue.failing = vec![2];
    assert_eq!(name(&rig.write(at(0, DSYNC), &pattern(4096)).unwrap_err()), "Flush");
    rig.assert_idle();
    assert_eq!(rig.file.state().reports.len(), 1);
    // The queue rejects the flush.
    let mut rig = Rig::new(64, [Mapping::unwritten(0, 8192, 0)]);
    for number in 0.. {
        rig.journal = crate::tests::mock::Journal::default();
        rig.files.queue.journal = rig.journal.clone();
        rig.journal.fail_at(number);
        let result = rig.write(at(0, DSYNC), &pattern(4096));
        assert_eq!(result.is_err(), rig.journal.has_failed(), "{number}");
        if result.is_ok() {
            assert_eq!(number, 6, "three commands, taken and done");
            break;
        }
        rig.assert_idle();
    }
}

#[test]
fn failed_write_is_not_flushed() {
    let mut rig = Rig::new(64, [Mapping::unwritten(0, 8192, 0)]);
    rig.files.queue.failing = vec![0];
    assert_eq!(name(&rig.write(at(0, DSYNC), &pattern(4096)).unwrap_err()), "Bio");
    assert!(!rig.files.queue.log.contains(&Command::Flush));
}

#[test]
fn a_part_that_was_written_is_durable() {
    let data = pattern(4096);
    let mut rig = Rig::new(64, [with(Mapping::mapped(0, 8192, 0), MappingFlags::DIRTY)]);
    let mut source = crate::Cursor::new(super::bounce::Torn::source(&data, 3000));
    let io = at(0, DSYNC | IoFlags::PARTIAL);
    assert_eq!(rig.files.write_from(&mut rig.file, io, &mut source).unwrap(), 2048);
    assert_eq!(rig.files.queue.log, [Command::Write(0, 2048), Command::Flush]);
}

#[test]
fn reads_are_neither_durable_nor_atomic() {
    for flags in [DSYNC, IoFlags::ATOMIC] {
        let mut rig = Rig::plain(8);
        assert_eq!(name(&rig.read(at(0, flags), 512).unwrap_err()), "Flags");
        assert!(rig.file.asked.is_empty());
    }
}

#[test]
fn a_flush_finds_its_way_into_a_queue_that_is_kept_full() {
    let written = Mapping::mapped(0, 1 << 14, 0);
    let mut rig = Rig::new(64, [written, Mapping::unwritten(1 << 14, 4096, 1 << 14)]);
    rig.files.queue.in_order = true;
    let data = rig.filled(&pattern(4096));
    let io = at(1 << 14, DSYNC).token(1);
    rig.files.submit_write_with(&mut rig.file, io, data.into()).unwrap();
    let (mut done, mut reads) = (Vec::new(), 0);
    for _ in 0..100 {
        // As many reads as there is room for, always.
        loop {
            let buf = rig.buf(512);
            match rig.files.submit_read(&mut rig.file, 0, buf, 2) {
                Ok(()) => reads += 1,
                Err(rejected) => break assert_eq!(name(&rejected.error), "Busy"),
            }
        }
        rig.files.poll(1, |one| done.push(one.token));
        if done.contains(&1) {
            break;
        }
    }
    assert!(done.contains(&1), "the write ends metadata_buf {reads} reads: {done:?}");
}
