//! Bouncing: data goes through private memory.

use super::*;
use crate::memory::borrowed::{Cursor, Sink, Source};
use crate::tests::mock::{Command, Event};
use nvio_driver::BOUNCE_BYTES_MAX;

/// Memory that cannot be accessed from some byte on.
pub(super) struct Torn<T> {
    memory: T,
    until: usize,
    /// Whether what is there must not be faulted in.
    nofault: Option<bool>,
}

impl<'a> Torn<&'a [u8]> {
    pub(super) fn source(data: &'a [u8], until: usize) -> Self {
        Self { memory: data, until, nofault: None }
    }
}

impl<'a> Torn<&'a mut [u8]> {
    fn sink(out: &'a mut [u8], until: usize) -> Self {
        Self { memory: out, until, nofault: None }
    }
}

impl Source for Torn<&[u8]> {
    fn len(&self) -> usize {
        self.memory.len()
    }

    fn copy_out(&mut self, at: usize, out: &mut [u8], nofault: bool) -> usize {
        self.nofault = Some(nofault);
        let there = self.until.saturating_sub(at).min(out.len());
        self.memory.copy_out(at, &mut out[..there], nofault)
    }
}

impl Sink for Torn<&mut [u8]> {
    fn len(&self) -> usize {
        self.memory.len()
    }

    fn copy_in(&mut self, at: usize, data: &[u8], nofault: bool) -> usize {
        self.nofault = Some(nofault);
        let there = self.until.saturating_sub(at).min(data.len());
        self.memory.copy_in(at, &data[..there], nofault)
    }
}

#[test]
fn the_device_sees_private_memory_only() {
    let mut rig = Rig::plain(64);
    for bytes in [512, 8192] {
        for write in [false, true] {
            let buf = rig.filled(&pattern(bytes));
            let mine = buf.iova()..buf.iova() + bytes;
            let io = at(512, IoFlags::BOUNCE);
            rig.files.queue.iovas.clear();
            let (memory, n) = match write {
                true => rig.files.write_with(&mut rig.file, io, buf.into()).unwrap(),
                false => rig.files.read_with(&mut rig.file, io, buf.into()).unwrap(),
            };
            assert_eq!(n as u64, bytes);
            let buf = memory.into_dma().unwrap();
            assert_eq!(buf[..], rig.device()[512..512 + bytes as usize]);
            assert!(!rig.files.queue.iovas.is_empty());
            assert!(rig.files.queue.iovas.iter().all(|iova| !mine.contains(iova)), "{write}");
        }
    }
    let commands = rig.files.queue.log.len() as u64;
    assert_eq!(rig.files.counters().bounced, commands);
    // A device that requires it has each request bounced.
    let mut queue = MockQueue::new(64);
    queue.must_bounce = true;
    let mut rig = Rig::over(queue, [Mapping::mapped(0, 1 << 15, 0)]);
    let buf = rig.buf(512);
    let iova = buf.iova();
    rig.read_dma(IoArgs::at(0), buf).unwrap();
    assert!(!rig.files.queue.iovas.contains(&iova));
}

#[test]
fn bounced_reads_need_no_alignment() {
    for (pos, length) in [(0u64, 1usize), (1, 511), (511, 2), (513, 3000), (32_000, 768)] {
        let mut rig = Rig::plain(64);
        rig.file.size = 64 * BLOCK;
        let mut out = vec![0xaa; length];
        let n = rig.files.read_at(&mut rig.file, pos, &mut out).unwrap();
        let at = pos as usize;
        assert_eq!((n, &out[..]), (length, &rig.device()[at..at + length]), "{pos} + {length}");
        // Without waiting.
        let memory = Memory::Bytes(vec![0xaa; length]);
        rig.files.submit_read_with(&mut rig.file, IoArgs::at(pos), memory).unwrap();
        let done = rig.drain().pop().unwrap();
        assert_eq!(done.memory.unwrap().into_bytes().unwrap(), rig.device()[at..at + length]);
        rig.assert_idle();
    }
}

#[test]
fn a_short_copy_takes_back_all_that_was_not_written() {
    let data = pattern(8192);
    // Pieces of four blocks: the memory ends in the first, between two, and in a later one.
    for (until, whole) in [(0, 0), (1, 0), (2047, 0), (2048, 2048), (5000, 4096), (8191, 6144)] {
        for mapping in [Mapping::mapped(0, 1 << 15, 0), Mapping::unwritten(0, 1 << 15, 0)] {
            let mut rig = Rig::new(64, [mapping]);
            let before = rig.device().to_vec();
            let mut source = Cursor::new(Torn::source(&data, until));
            source.at = 0;
            let error =
                rig.files.write_from(&mut rig.file, IoArgs::at(0), &mut source).unwrap_err();
            let Error::Fault { at } = iomap(error) else { panic!() };
            assert_eq!(at, whole, "the first byte that was not taken");
            assert_eq!(source.at, 0, "as it was");
            // The device has the data, zeroes in fresh blocks, or its old contents; no garbage.
            let at = whole as usize;
            assert_eq!(rig.device()[..at], data[..at]);
            let fresh = mapping.kind == MappingKind::Unwritten;
            let block = if fresh { at.next_multiple_of(4096) } else { at };
            assert!(rig.device()[at..block].iter().all(|&byte| byte == 0), "{until} {mapping:?}");
            assert!(rig.device()[block..] == before[block..]);
            assert_eq!(
                rig.files.queue.log.iter().filter(|one| matches!(one, Command::Write(..))).count(),
                at / 2048 + if block > at { 1 } else { 0 },
                "nothing after it"
            );
            rig.assert_idle();
            if fresh {
                continue;
            }
            // The memory that was copied to is free again: it serves the next.
            let allocated = rig.journal.count(|event| matches!(event, Event::Alloc(_)));
            rig.files.write_at(&mut rig.file, 0, &data[..2048]).unwrap();
            let more = rig.journal.count(|event| matches!(event, Event::Alloc(_))) - allocated;
            assert_eq!(more, 0, "{until} {mapping:?}");
        }
    }
}

#[test]
fn a_cursor_goes_on_exactly_where_a_part_ended() {
    let data = pattern(8192);
    let mut rig = Rig::plain(64);
    let mut source = Cursor::new(Torn::source(&data, 5000));
    let partial = IoFlags::PARTIAL;
    assert_eq!(rig.files.write_from(&mut rig.file, at(0, partial), &mut source).unwrap(), 4096);
    assert_eq!(source.at, 4096);
    // The memory was faulted in.
    source.memory.until = 8192;
    let io = at(4096, partial).done_before(4096);
    assert_eq!(rig.files.write_from(&mut rig.file, io, &mut source).unwrap(), 8192);
    assert_eq!(source.at, 8192);
    assert_eq!(rig.device()[..8192], data);
    // Reads: to the byte.
    for until in [1, 2047, 2048, 5001] {
        let mut out = vec![0xaa; 8192];
        let mut sink = Cursor::new(Torn::sink(&mut out, until));
        let n = rig.files.read_into(&mut rig.file, at(0, partial), &mut sink).unwrap();
        assert_eq!((n, sink.at), (until, until));
        assert_eq!(sink.memory.nofault, Some(false));
        assert_eq!(out[..until], data[..until]);
        assert!(out[until..].iter().all(|&byte| byte == 0xaa));
        let mut sink = Cursor::new(Torn::sink(&mut out, until));
        let error = rig.files.read_into(&mut rig.file, IoArgs::at(0), &mut sink).unwrap_err();
        assert!(matches!(iomap(error), Error::Fault { at } if at == until as u64));
        assert_eq!(sink.at, 0);
    }
    // In holes and inline data, too.
    for layout in [Mapping::hole(0, 8192), inline(8192)] {
        let mut rig = Rig::new(8, [layout]);
        rig.file.inline = pattern(4096);
        let mut out = vec![0xaa; 4096];
        let mut sink = Cursor::new(Torn::sink(&mut out, 100));
        assert_eq!(rig.files.read_into(&mut rig.file, at(0, partial), &mut sink).unwrap(), 100);
        assert!(out[100..].iter().all(|&byte| byte == 0xaa));
    }
    rig.assert_idle();
}

#[test]
fn nofault_is_passed_on() {
    for (flags, nofault) in [(IoFlags::NOFAULT, true), (IoFlags::empty(), false)] {
        let mut rig = Rig::plain(64);
        let data = pattern(1024);
        let mut source = Cursor::new(Torn::source(&data, 1024));
        rig.files.write_from(&mut rig.file, at(0, flags), &mut source).unwrap();
        assert_eq!(source.memory.nofault, Some(nofault));
        for layout in [Mapping::mapped(0, 8192, 0), Mapping::hole(0, 8192), inline(8192)] {
            rig.file.layout = vec![layout];
            rig.file.inline = pattern(1024);
            let mut out = [0; 1024];
            let mut sink = Cursor::new(Torn::sink(&mut out, 1024));
            rig.files.read_into(&mut rig.file, at(0, flags), &mut sink).unwrap();
            assert_eq!(sink.memory.nofault, Some(nofault), "{layout:?}");
        }
        let mut source = Cursor::new(Torn::source(&data, 1024));
        rig.files.write_from(&mut rig.file, at(0, flags), &mut source).unwrap();
        assert_eq!(source.memory.nofault, Some(nofault), "inline");
    }
}

#[test]
fn nowait_is_refused_before_anything_is_allocated() {
    let both = IoFlags::NOWAIT | IoFlags::BOUNCE;
    let mut rig = Rig::plain(64);
    for bytes in [0, 512, 8192] {
        for flags in [both, both | IoFlags::PARTIAL, both | IoFlags::HOOKS] {
            let error = rig.read(at(0, flags), bytes).unwrap_err();
            assert_eq!(name(&error), "WouldBlock");
            assert_eq!(name(&rig.write(at(0, flags), &pattern(bytes)).unwrap_err()), "WouldBlock");
        }
        // Memory that can only be bounced.
        let memory = Memory::Bytes(vec![0; bytes as usize]);
        let io = at(0, IoFlags::NOWAIT);
        let rejected = rig.files.submit_read_with(&mut rig.file, io, memory).unwrap_err();
        assert_eq!(name(&rejected.error), "WouldBlock");
        assert_eq!(rejected.payload.len() as u64, bytes);
        let mut cursor = Cursor::new(&[1u8; 512][..]);
        let error = rig.files.write_from(&mut rig.file, io, &mut cursor).unwrap_err();
        assert_eq!((name(&error), cursor.at), ("WouldBlock".into(), 0));
    }
    assert_eq!(rig.journal.events(), [], "neither memory nor a mapping nor a command");
    rig.assert_idle();
}

#[test]
fn a_read_copies_what_arrived_and_nothing_of_an_error() {
    for in_order in [false, true] {
        let mut rig = Rig::plain(64);
        rig.files.queue.in_order = in_order;
        rig.files.queue.failing = vec![1];
        let mut out = vec![0xaa; 6144];
        let mut sink = Cursor::new(&mut out[..]);
        let error = rig.files.read_into(&mut rig.file, IoArgs::at(0), &mut sink).unwrap_err();
        assert_eq!((name(&error), sink.at), ("Bio".into(), 0));
        assert!(out[2048..4096].iter().all(|&byte| byte == 0xaa), "what failed");
        assert_eq!(out[..2048], rig.device()[..2048]);
        assert_eq!(out[4096..], rig.device()[4096..6144]);
    }
    // In the context of the caller: not before a poll.
    let mut rig = Rig::plain(64);
    let memory = Memory::Bytes(vec![0xaa; 512]);
    rig.files.submit_read_with(&mut rig.file, IoArgs::at(0), memory).unwrap();
    let done = rig.drain().pop().unwrap();
    assert_eq!(done.memory.unwrap().into_bytes().unwrap(), rig.device()[..512]);
    // Up to the end of the file.
    rig.file.size = 700;
    let mut out = [0xaa; 1000];
    assert_eq!(rig.files.read_at(&mut rig.file, 600, &mut out).unwrap(), 100);
    assert!(out[100..].iter().all(|&byte| byte == 0xaa));
}

fn large() -> Rig {
    let mut queue = MockQueue::new(8192);
    queue.max_transfer = 4 << 20;
    Rig::over(queue, [Mapping::mapped(0, 4 << 20, 0)])
}

fn lengths(rig: &Rig) -> Vec<usize> {
    let length = |command: &Command| match *command {
        Command::Read(_, n) | Command::Write(_, n) | Command::WriteThrough(_, n) => n,
        Command::Flush => 0,
    };
    rig.files.queue.log.iter().map(length).collect()
}

#[test]
fn a_piece_is_a_mebibyte_at_most_and_less_when_memory_is_short() {
    assert_eq!(BOUNCE_BYTES_MAX, 1 << 20);
    let data = pattern(5 << 19);
    for (largest, piece) in [(usize::MAX, 1 << 20), (300_000, 1 << 18), (4096, 4096)] {
        let mut rig = large();
        rig.files.queue.largest = largest;
        assert_eq!(rig.files.write_at(&mut rig.file, 512, &data).unwrap(), 5 << 19);
        let all = lengths(&rig);
        assert!(all.iter().all(|&n| n <= piece), "{all:?}");
        assert_eq!(all[0], piece);
        assert!(rig.device()[512..512 + data.len()] == data);
        let mut out = vec![0; data.len()];
        assert_eq!(rig.files.read_at(&mut rig.file, 512, &mut out).unwrap(), data.len());
        assert!(out == data);
        rig.assert_idle();
    }
}

#[test]
fn no_memory_at_all_is_an_error() {
    let mut rig = large();
    rig.files.queue.allocations = 0;
    let mut out = [0xaa; 1000];
    let error = rig.files.read_at(&mut rig.file, 0, &mut out).unwrap_err();
    assert_eq!(name(&error), "NoMemory");
    let error = rig.files.write_at(&mut rig.file, 0, &pattern(512)).unwrap_err();
    assert_eq!(name(&error), "NoMemory");
    let memory = Memory::Bytes(pattern(512));
    let rejected = rig.files.submit_write_with(&mut rig.file, IoArgs::at(0), memory).unwrap_err();
    assert_eq!(name(&rejected.error), "NoMemory");
    assert_eq!(rejected.payload.into_bytes().unwrap(), pattern(512));
    assert!(rig.files.queue.log.is_empty() && out == [0xaa; 1000]);
    rig.assert_idle();
}

#[test]
fn no_memory_is_an_error_also_when_results_are_waiting_to_be_taken() {
    let mut rig = Rig::new(64, [Mapping::hole(0, 512), Mapping::mapped(512, 1 << 15, 512)]);
    rig.files.queue.allocations = 0;
    let buf = rig.buf(512);
    rig.files.submit_read_with(&mut rig.file, IoArgs::at(0).token(1), buf.into()).unwrap();
    let error = rig.files.read_at(&mut rig.file, 512, &mut [0; 512]).unwrap_err();
    assert_eq!(name(&error), "NoMemory");
    assert_eq!(rig.drain()[0].token, 1);
}

#[test]
fn memory_that_is_in_flight_is_waited_for() {
    let mut rig = Rig::plain(64);
    rig.files.queue.allocations = 1;
    let mut out = vec![0; 8192];
    assert_eq!(rig.files.read_at(&mut rig.file, 0, &mut out).unwrap(), 8192);
    assert_eq!(out, rig.device()[..8192]);
    assert_eq!(rig.journal.count(|event| matches!(event, Event::Submit(_))), 4);
    rig.files.write_at(&mut rig.file, 0, &pattern(8192)).unwrap();
    assert_eq!(rig.device()[..8192], pattern(8192));
}

#[test]
fn pieces_are_whole_blocks_and_the_rest_goes_back() {
    // Halving 5 * 512 by turns gives no whole blocks by itself.
    let mut rig = large();
    rig.files.queue.max_transfer = 21 * 512;
    rig.files.queue.largest = 8192;
    let data = pattern(21 * 512);
    assert_eq!(rig.files.write_at(&mut rig.file, 512, &data).unwrap(), 21 * 512);
    let all = lengths(&rig);
    assert!(all.len() > 1 && all.iter().all(|n| n.is_multiple_of(512)), "{all:?}");
    assert_eq!(all.iter().sum::<usize>(), 21 * 512, "each byte once");
    assert!(rig.device()[512..512 + 21 * 512] == data);
    let mut out = vec![0; 10_001];
    assert_eq!(rig.files.read_at(&mut rig.file, 700, &mut out).unwrap(), 10_001);
    assert_eq!(out, data[188..10_189]);
    rig.assert_idle();
}

#[test]
fn a_retry_that_brings_nothing_falls_back() {
    let data = pattern(8192);
    let mut rig = Rig::plain(64);
    let mut source = Cursor::new(Torn::source(&data, 2048));
    let partial = IoFlags::PARTIAL;
    assert_eq!(rig.files.write_from(&mut rig.file, at(0, partial), &mut source).unwrap(), 2048);
    let io = at(2048, partial).done_before(2048);
    let error = rig.files.write_from(&mut rig.file, io, &mut source).unwrap_err();
    assert!(matches!(iomap(error), Error::FallBack { pos: 2048 }));
    assert_eq!(source.at, 2048);
    let mut out = [0; 512];
    let mut sink = Cursor::new(Torn::sink(&mut out, 0));
    let error = rig.files.read_into(&mut rig.file, io, &mut sink).unwrap_err();
    assert_eq!(name(&error), "FallBack");
    assert!(rig.file.state().reports.is_empty());
    // The first try has brought nothing yet.
    let mut source = Cursor::new(Torn::source(&data, 0));
    let error = rig.files.write_from(&mut rig.file, at(0, partial), &mut source).unwrap_err();
    assert_eq!(name(&error), "Fault");
    rig.assert_idle();
}

/// A writer that changes its memory after each look at it.
struct Restless {
    data: Vec<u8>,
    looks: Vec<(usize, usize)>,
}

impl Source for Restless {
    fn len(&self) -> usize {
        self.data.len()
    }

    fn copy_out(&mut self, at: usize, out: &mut [u8], _: bool) -> usize {
        out.copy_from_slice(&self.data[at..at + out.len()]);
        self.looks.push((at, out.len()));
        self.data.iter_mut().for_each(|byte| *byte ^= 0xff);
        out.len()
    }
}

#[test]
fn a_writer_that_changes_its_memory_is_written_as_it_was_copied() {
    let mut rig = Rig::plain(64);
    let mut source = Cursor::new(Restless { data: pattern(8192), looks: vec![] });
    rig.files.write_from(&mut rig.file, IoArgs::at(0), &mut source).unwrap();
    // Each byte is looked at once: what a checksum is made of is what is written.
    assert_eq!(source.memory.looks, [(0, 2048), (2048, 2048), (4096, 2048), (6144, 2048)]);
    let copied = pattern(8192);
    for (i, piece) in rig.device()[..8192].chunks(2048).enumerate() {
        let mask = if i % 2 == 0 { 0 } else { 0xff };
        let want: Vec<_> = copied[i * 2048..][..2048].iter().map(|byte| byte ^ mask).collect();
        assert_eq!(piece, want, "{i}");
    }
}
